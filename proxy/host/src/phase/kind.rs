//! The names of the phases.

/// A phase, as an index into per-phase figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PhaseKind {
    RequestHeaders,
    Authorize,
    Request,
    Affinity,
    Route,
    ResponseHeaders,
    Events,
    Complete,
    Tick,
}

/// All of them, in the order of an exchange and of their numbers.
pub(crate) const PHASES: [PhaseKind; 9] = [
    PhaseKind::RequestHeaders,
    PhaseKind::Authorize,
    PhaseKind::Request,
    PhaseKind::Affinity,
    PhaseKind::Route,
    PhaseKind::ResponseHeaders,
    PhaseKind::Events,
    PhaseKind::Complete,
    PhaseKind::Tick,
];

impl PhaseKind {
    /// The word in logs and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RequestHeaders => "request_headers",
            Self::Authorize => "authorize",
            Self::Request => "request",
            Self::Affinity => "affinity",
            Self::Route => "route",
            Self::ResponseHeaders => "response_headers",
            Self::Events => "events",
            Self::Complete => "complete",
            Self::Tick => "tick",
        }
    }
}
