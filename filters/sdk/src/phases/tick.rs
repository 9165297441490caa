//! Phase `tick`: now and then, without an exchange.

use crate::bindings::tick::exports::weir::filter::on_tick as contract;
use crate::{Filter, Instance};

/// Work in the background: refresh a cache, report a figure.
pub trait OnTick: Filter {
    /// Called every [`Manifest::tick_ms`](crate::Manifest::tick_ms) on one instance per
    /// process: other instances see its work only through [`state`](crate::state). There is no
    /// exchange. May suspend, and has 50 ms of its own time.
    fn on_tick(&self);
}

impl<F: OnTick + Instance> contract::Guest for F {
    fn tick() {
        F::with(|filter| filter.on_tick());
    }
}
