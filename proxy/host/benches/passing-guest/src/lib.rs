//! A filter that takes every event and does nothing: what remains is the crossing.

use std::collections::BTreeMap;

use weir_sdk::lifecycle::EventNeed;
use weir_sdk::{Event, Filter, Manifest, OnEvents, Verdict};

/// Takes every event, passes every event.
pub struct Passing;

impl Filter for Passing {
    type Config = BTreeMap<String, String>;
    const NAME: &'static str = "passing";

    fn manifest() -> Manifest {
        Manifest::new(env!("CARGO_PKG_VERSION"), "Passes every event.").events(EventNeed::Every)
    }

    fn new(_: Self::Config) -> Result<Self, String> {
        Ok(Self)
    }
}

impl OnEvents for Passing {
    fn on_events(&self, _events: Vec<Event>) -> Vec<Verdict> {
        Vec::new()
    }
}

weir_sdk::export!(Passing: OnEvents);
