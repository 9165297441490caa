//! The filter: every phase but `authorize`, which would forbid it the policy `allow`.

use weir_hostile_deeds::{Config, Deed, Hostile, Phase};
use weir_sdk::{
    Affinity, AffinityKey, Choice, Edits, Event, EventNeed, Filter, Manifest, OnEvents, OnRequest,
    OnRequestHeaders, OnResponseHeaders, Outcome, RequestView, Route, Routing, Verdict,
};

/// The filter.
pub struct Guest(Hostile);

impl Filter for Guest {
    type Config = Config;
    const NAME: &'static str = "hostile";

    fn manifest() -> Manifest {
        Manifest::new(
            env!("CARGO_PKG_VERSION"),
            "Misbehaves where it is asked to.",
        )
        .events(EventNeed::Every)
    }

    fn new(config: Config) -> Result<Self, String> {
        Hostile::new(config).map(Self)
    }
}

impl OnRequestHeaders for Guest {
    fn on_request_headers(&self) -> Outcome {
        self.0.deed(Phase::RequestHeaders).outcome()
    }
}

impl OnRequest for Guest {
    fn on_request(&self, _: RequestView) -> Outcome {
        self.0.deed(Phase::Request).outcome()
    }
}

impl Affinity for Guest {
    fn affinity(&self, _: RequestView) -> Option<AffinityKey> {
        self.0.deed(Phase::Affinity);
        None
    }
}

impl Route for Guest {
    fn route(&self, _: RequestView, routing: Routing) -> Choice {
        match self.0.deed(Phase::Route) {
            Deed::BadPick => Choice::Pick(routing.candidates + 7),
            _ => Choice::Abstain,
        }
    }
}

impl OnResponseHeaders for Guest {
    fn on_response_headers(&self, _: u16) -> Outcome {
        match self.0.deed(Phase::ResponseHeaders) {
            Deed::Ok if self.0.signs() => Edits::new().set_header("x-guest", Self::NAME).into(),
            deed => deed.outcome(),
        }
    }
}

impl OnEvents for Guest {
    fn on_events(&self, events: Vec<Event>) -> Vec<Verdict> {
        match self.0.deed(Phase::Events) {
            Deed::ManyVerdicts => (0..events.len() + 3).map(|_| Verdict::Pass).collect(),
            _ => Vec::new(),
        }
    }
}

weir_sdk::export!(
    Guest: OnRequestHeaders, OnRequest, Affinity, Route, OnResponseHeaders, OnEvents
);
