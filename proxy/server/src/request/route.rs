//! Step 4a: which backend. The chain ranks, the first that can be reserved is it; when nobody is
//! good now the exchange waits, woken by whatever changes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::http::ServerSession;
use tokio::time::{Instant, sleep};
use weir_pipeline::verdict::{Affinity, Choice, End};
use weir_routing::{Backend, CandidateSet, LastDomains, Reservation, Session, Waiting};

use crate::members::Members;
use crate::request::exchange::Exchange;
use crate::request::patience::{CallerGone, while_waiting};
use crate::request::refuse::Refusal;
use crate::snapshot::Upstream;

/// Longest time a routing filter may make an exchange wait in all, unless its caller says another.
const ROUTE_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often one that waits for a slot looks for itself: whoever has the turn may be kept from looking
/// by a caller that is slow to read.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Keys made of all that was said change with every turn: no conversation comes back under one.
const PAYLOAD_KEY: &str = "mt:v1:payload:";

/// Where an exchange may go, and where it has been.
pub(crate) struct Selection {
    upstream: Arc<Upstream>,
    members: Arc<Members>,
    tried: Vec<Arc<Backend>>,
    /// For how long the exchange has waited for somebody, over all tries.
    waited: Duration,
    /// The conversation, if it may come back.
    conversation: Option<u128>,
}

/// A reserved backend.
pub(crate) struct Chosen {
    /// Whom it was chosen from.
    pub(crate) members: Arc<Members>,
    /// Which it is of them.
    pub(crate) index: u32,
    domain: Arc<str>,
    /// The claim on it.
    pub(crate) reservation: Reservation,
}

impl Selection {
    /// Nobody was tried yet.
    pub(crate) fn begin(exchange: &Exchange, upstream: &Arc<Upstream>) -> Self {
        let members = upstream.members(&exchange.runtime);
        let conversation = if members.targets.len() > 1 {
            conversation(exchange)
        } else {
            None
        };
        Self {
            upstream: Arc::clone(upstream),
            members,
            tried: Vec::new(),
            waited: Duration::ZERO,
            conversation,
        }
    }

    /// This backend has failed the exchange.
    pub(crate) fn exclude(&mut self, backend: &Arc<Backend>) {
        self.tried.push(Arc::clone(backend));
    }

    /// This backend has answered; if well, the conversation is remembered to be there.
    pub(crate) fn remember(&self, exchange: &Exchange, chosen: &Chosen) {
        let Some(key) = self.conversation else { return };
        let status = exchange.progress.upstream_status.unwrap_or_default();
        if !(200..300).contains(&status) {
            return;
        }
        let runtime = &exchange.runtime;
        runtime
            .last_domains
            .remember(key, &chosen.domain, runtime.now_ms());
    }

    /// This backend is asked: until somebody has answered, the conversation is expected to be there.
    fn expect(&self, exchange: &Exchange, chosen: &Chosen) {
        if let Some(key) = self.conversation {
            let runtime = &exchange.runtime;
            let (last, now_ms) = (&runtime.last_domains, runtime.now_ms());
            last.expect(key, &chosen.domain, now_ms);
        }
    }

    /// Asks the chain for a ranking and takes the first candidate that can be reserved. Without a
    /// `downstream` to listen to, as long as its body is not read, the caller's leaving is not
    /// noticed.
    pub(crate) async fn next(
        &mut self,
        exchange: &mut Exchange,
        mut downstream: Option<&mut ServerSession>,
    ) -> Result<Chosen, Refusal> {
        let (begun, before) = (Instant::now(), self.waited);
        let priority = exchange
            .facts
            .as_ref()
            .and_then(|facts| facts.view.priority);
        let priority = priority.unwrap_or(u32::MAX);
        let mut waiting: Option<Waiting> = None;
        let asked = exchange.hints.max_wait;
        let max_wait = asked.unwrap_or(self.upstream.max_wait);
        let filter_wait_max = asked.unwrap_or(ROUTE_WAIT_MAX);
        let mut may_take = max_wait.is_zero() || !self.members.cluster.is_taken_before(priority);
        loop {
            let excluded = self.excluded();
            let now_ms = exchange.runtime.now_ms();
            let candidates = self.members.cluster.candidates(now_ms, &excluded);
            if candidates.is_empty() {
                return Err(self.nobody(exchange));
            }
            let choice = self.rank(exchange, &candidates).await?;
            if waiting.is_some() {
                self.waited = before + begun.elapsed();
            }
            let (pause, limit) = match self.reserve(&candidates, &choice, may_take) {
                Ok(chosen) => {
                    self.expect(exchange, &chosen);
                    return Ok(chosen);
                }
                Err(Busy::Until(pause)) => (pause, filter_wait_max),
                Err(Busy::Full) => (LOOK_INTERVAL, max_wait),
            };
            let left = limit.saturating_sub(self.waited);
            if left.is_zero() {
                return Err(Refusal::overloaded(&self.upstream.name));
            }
            let Some(waiting) = &mut waiting else {
                // What happens between the first question and this one is not missed.
                let place = waiting.insert(self.members.cluster.wait(priority));
                may_take = !place.is_behind();
                continue;
            };
            if may_take
                && excluded.is_empty()
                && !matches!(choice, Choice::Ranked(_) | Choice::WaitMs(_))
            {
                waiting.nothing_for_anybody();
            }
            let woken = async {
                tokio::select! {
                    () = waiting.turn() => {}
                    () = sleep(pause.min(left)) => {}
                }
            };
            match &mut downstream {
                Some(downstream) => while_waiting(exchange, downstream, pin!(woken))
                    .await
                    .map_err(|CallerGone| Refusal::caller_gone())?,
                None => woken.await,
            }
            may_take = true;
            // Workers may have come or gone.
            self.members = self.upstream.members(&exchange.runtime);
        }
    }

    /// Positions of those that were tried.
    fn excluded(&self) -> Vec<u32> {
        let tried = |backend: &Arc<Backend>| self.tried.iter().any(|one| Arc::ptr_eq(one, backend));
        if self.tried.is_empty() {
            return Vec::new();
        }
        let members = self.members.cluster.backends().iter();
        let excluded = members.filter(|member| tried(&member.backend));
        excluded.map(|member| member.index).collect()
    }

    async fn rank(
        &self,
        exchange: &mut Exchange,
        candidates: &CandidateSet,
    ) -> Result<Choice, Refusal> {
        let Some(chain) = exchange.chain() else {
            let turn = candidates.next_cursor() % (candidates.len() as u64).max(1);
            return Ok(Choice::Pick(u32::try_from(turn).unwrap_or(0)));
        };
        let mut facts = exchange.take_facts()?;
        facts.candidates = Some(candidates.clone());
        facts.affinity.clone_from(&exchange.affinity);
        facts.session = self.conversation.map_or(Session::Unknown, |key| {
            let runtime = &exchange.runtime;
            runtime.last_domains.session(key, runtime.now_ms())
        });
        facts.view.attempt = exchange.progress.tries;
        facts.view.traits.retry_attempt = exchange.progress.tries > 0;
        let hash = exchange
            .affinity
            .as_ref()
            .map_or(0, |affinity| affinity.hash);
        let (mut facts, result) = chain.route(facts, hash).await;
        facts.candidates = None;
        exchange.facts = Some(facts);
        result.map_err(|stop| Refusal::stopped(stop, End::Denied))
    }

    /// The first of the choice with room; after a pick whoever else has room.
    fn reserve(
        &self,
        candidates: &CandidateSet,
        choice: &Choice,
        may_take: bool,
    ) -> Result<Chosen, Busy> {
        let picked = match choice {
            Choice::Pick(position) => std::slice::from_ref(position),
            Choice::Ranked(ranking) => ranking.as_slice(),
            Choice::WaitMs(ms) => {
                return Err(Busy::Until(Duration::from_millis(u64::from((*ms).max(1)))));
            }
            Choice::Abstain | Choice::Reject(_) => &[],
        };
        if !may_take {
            return Err(Busy::Full);
        }
        let others = !matches!(choice, Choice::Ranked(_));
        let rest = (0..u32::try_from(candidates.len()).unwrap_or(u32::MAX)).filter(|_| others);
        let (domain, (index, reservation)) = picked
            .iter()
            .copied()
            .chain(rest)
            .filter_map(|position| candidates.at(position))
            .find_map(|candidate| Some((candidate.id(), candidate.reserve()?)))
            .ok_or(Busy::Full)?;
        Ok(Chosen {
            members: Arc::clone(&self.members),
            index,
            domain: Arc::clone(domain),
            reservation,
        })
    }

    fn nobody(&self, exchange: &Exchange) -> Refusal {
        let Some(serving) = self.upstream.membership.unheard_of() else {
            return Refusal::no_backend(&self.upstream.name);
        };
        // In the caller's words, if it has named it.
        let named = exchange.call.as_ref().map(|call| &*call.peek.model);
        Refusal::never_served(named.unwrap_or(serving))
    }
}

/// Why nobody is reserved now.
enum Busy {
    /// The filter wants to be asked again then.
    Until(Duration),
    /// All that may be asked hold as many exchanges as they may.
    Full,
}

fn conversation(exchange: &Exchange) -> Option<u128> {
    let affinity: &Affinity = exchange.affinity.as_ref()?;
    let facts = exchange.facts.as_ref()?;
    if affinity.key.starts_with(PAYLOAD_KEY) {
        return None;
    }
    let (function, model) = (&facts.routing_key, &facts.model);
    Some(LastDomains::key(function, model, &affinity.key))
}
