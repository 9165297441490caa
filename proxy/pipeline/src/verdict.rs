//! What a phase call returns, and how one fails.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use weir_dialect::Usage;

use crate::intern::NameId;
use crate::principal::Principal;
use crate::view::RequestView;

/// An answer that a filter gives itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalResponse {
    /// Status for the caller.
    pub status: StatusCode,
    /// Headers beside the gateway's own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body as it is; empty = rendered from the three texts below in the caller's dialect.
    pub body: Bytes,
    /// OpenAI's `error.type`; empty = by status.
    pub error_type: String,
    /// Stable machine code.
    pub error_code: String,
    /// For people.
    pub message: String,
    /// gRPC status for gRPC callers.
    pub grpc_status: Option<u16>,
}

/// What `request_headers`, `request` and `response_headers` return. Edits have been applied to
/// the facts already, all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Go on.
    Pass,
    /// Stop and answer.
    Respond(LocalResponse),
}

/// What `authorize` returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No opinion.
    Abstain,
    /// Let in.
    Allow(Arc<Principal>),
    /// Refused.
    Deny(LocalResponse),
}

/// What `affinity` returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// The key, at most 256 bytes.
    pub key: String,
    /// 53-bit hash of the key, never 0.
    pub hash: u64,
    /// How long the conversation is remembered.
    pub ttl_ms: u32,
    /// `true`: rather refuse than go to another backend.
    pub strict: bool,
    /// For the answer: what tells the caller which session to send back.
    pub answer_headers: Vec<(HeaderName, HeaderValue)>,
}

/// What `route` returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// No opinion.
    Abstain,
    /// This position.
    Pick(u32),
    /// These, best first.
    Ranked(Vec<u32>),
    /// Ask again in this many ms.
    WaitMs(u32),
    /// Refused.
    Reject(LocalResponse),
}

/// One event of a stream as filters see it.
#[derive(Clone, Debug)]
pub struct StreamEvent {
    /// Number in the stream, from 0.
    pub seq: u32,
    /// SSE event name.
    pub name: String,
    /// The `data:` bytes.
    pub data: Bytes,
    /// Text in it.
    pub delta: String,
    /// Whether it ends the answer.
    pub finish: bool,
    /// Usage it reports.
    pub usage: Option<Usage>,
}

/// What `events` returns for one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventVerdict {
    /// Relay as it is.
    Pass,
    /// Leave it out.
    Drop,
    /// Other data under the same name.
    Replace(Bytes),
    /// The last event: this data, then the end.
    Stop(Bytes),
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Answered in full.
    #[default]
    Ok,
    /// The caller left.
    ClientGone,
    /// The upstream failed.
    UpstreamError,
    /// A time-out.
    Timeout,
    /// Refused by a filter or for its form.
    Denied,
    /// Over a limit.
    Limited,
    /// A filter failed.
    FilterFailed,
}

impl End {
    /// The word in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientGone => "client_gone",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::Denied => "denied",
            Self::Limited => "limited",
            Self::FilterFailed => "filter_failed",
        }
    }
}

/// An exchange in retrospect, for `complete`.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The request.
    pub view: RequestView,
    /// How it ended.
    pub end: End,
    /// Status the caller saw, 0 = none.
    pub status: u16,
    /// Tokens.
    pub usage: Usage,
    /// Backend that answered, interned.
    pub backend: NameId,
    /// µs before the upstream was asked.
    pub queue_us: u32,
    /// µs to the first byte of the body.
    pub ttft_us: u32,
    /// µs from head read to last byte written.
    pub total_us: u32,
    /// µs per output token after the first.
    pub tpot_us: u32,
    /// Bytes of the request body.
    pub request_bytes: u64,
    /// Bytes of the response body.
    pub response_bytes: u64,
    /// The filter's scratch.
    pub scratch: Vec<u8>,
}

/// Why a phase call failed. What the caller reads is fixed elsewhere; this is for logs and metrics.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("filter `{filter}` failed in {phase}: {kind}: {detail}")]
pub struct FilterFailure {
    /// Name of the filter.
    pub filter: Arc<str>,
    /// Phase it was called in.
    pub phase: &'static str,
    /// What went wrong.
    pub kind: FailureKind,
    /// Particulars for the log.
    pub detail: String,
}

/// Classes of failure, the label in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// Ran past its CPU deadline.
    Deadline,
    /// Asked for more memory than its cap.
    Memory,
    /// Trapped or panicked.
    Trap,
    /// Returned an edit it has no grant for, or one that cannot be applied.
    ForbiddenEdit,
    /// Returned something malformed.
    BadVerdict,
    /// Not called: it is quarantined.
    Quarantined,
    /// Not called: no free instance in time.
    PoolExhausted,
    /// The gateway's own fault.
    Host,
}

impl FailureKind {
    /// The word in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Trap => "trap",
            Self::ForbiddenEdit => "forbidden_edit",
            Self::BadVerdict => "bad_verdict",
            Self::Quarantined => "quarantined",
            Self::PoolExhausted => "pool_exhausted",
            Self::Host => "host",
        }
    }
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
