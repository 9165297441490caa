//! The trait a filter implements towards the chain.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::facts::Facts;
use crate::verdict::{
    Affinity, Choice, Decision, EventVerdict, FilterFailure, Outcome, StreamEvent, Summary,
};

/// The phases a filter takes part in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Before the body is read.
    pub request_headers: bool,
    /// Who calls.
    pub authorize: bool,
    /// Body parsed.
    pub request: bool,
    /// Conversation key.
    pub affinity: bool,
    /// Choice of backend.
    pub route: bool,
    /// Upstream's head.
    pub response_headers: bool,
    /// Every event of a stream.
    pub events: bool,
    /// Only the first event of a stream.
    pub first_event: bool,
    /// After the end.
    pub complete: bool,
    /// Now and then; ms between two calls, 0 = never.
    pub tick_ms: u32,
    /// What [`Filter::affinity`] says follows from the session keys alone: it is not called for
    /// exchanges without one, and what it said is remembered.
    pub affinity_by_session_key: bool,
    /// [`Filter::response_headers`] is called only for exchanges in which the filter has left
    /// private bytes.
    pub response_headers_after_scratch: bool,
}

/// What happens to an exchange whose filter fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The exchange is refused with 503 `filter_unavailable`.
    Deny,
    /// The filter is skipped. Never for authorization.
    Allow,
}

/// What a phase call gives back: the facts, and the verdict or why there is none.
pub type Answer<T> = (Box<Facts>, Result<T, FilterFailure>);

/// A phase call: most are done when they return; one that talks to the network is not.
pub enum PhaseCall<'a, T> {
    /// Done.
    Done(Answer<T>),
    /// To be awaited. Dropping it cancels the call; claims made so far stay in the ledger.
    Suspended(Pin<Box<dyn Future<Output = Answer<T>> + Send + 'a>>),
}

impl<T> PhaseCall<'_, T> {
    /// Waits for the answer; costs nothing when the call is done already.
    pub async fn answer(self) -> Answer<T> {
        match self {
            Self::Done(answer) => answer,
            Self::Suspended(future) => future.await,
        }
    }
}

/// One configured filter. Each method is called only if [`Filter::phases`] says so, once per
/// exchange unless said otherwise, and must return the facts it was given. Edits are applied to
/// the facts before it returns, all or nothing. Calls come from many threads at once.
pub trait Filter: Send + Sync {
    /// Name in the config.
    fn name(&self) -> &Arc<str>;
    /// The phases it takes part in; constant.
    fn phases(&self) -> Phases;
    /// What its failure means; constant.
    fn on_error(&self) -> OnError;
    /// Before the body is read.
    fn request_headers(&self, facts: Box<Facts>) -> PhaseCall<'_, Outcome>;
    /// Who calls: an allowed principal is placed into the facts by the chain.
    fn authorize(&self, facts: Box<Facts>) -> PhaseCall<'_, Decision>;
    /// Body parsed.
    fn request(&self, facts: Box<Facts>) -> PhaseCall<'_, Outcome>;
    /// Conversation key; the first filter that has one decides.
    fn affinity(&self, facts: Box<Facts>) -> PhaseCall<'_, Option<Affinity>>;
    /// Choice of backend; called again for every further try, and after a wait.
    fn route(&self, facts: Box<Facts>, affinity_hash: u64) -> PhaseCall<'_, Choice>;
    /// Upstream's head, `facts.response` present.
    fn response_headers(&self, facts: Box<Facts>) -> PhaseCall<'_, Outcome>;
    /// Events of a stream; never suspends. One verdict per event, or none at all = all pass.
    fn events(&self, facts: Box<Facts>, events: &[StreamEvent]) -> Answer<Vec<EventVerdict>>;
    /// Exchanges that have ended; off the callers' path.
    fn complete(&self, done: &[Summary]);
    /// Now and then, on one instance.
    fn tick(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}
