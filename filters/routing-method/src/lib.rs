//! Filter `routing-method`: chooses the backend by the model's routing method.

mod config;
mod config_errors;
mod expression;
mod filter;
mod method;
mod plan;

mod admission;

mod groq_multiregion;
mod power_of_two;
mod pulsar;
mod pulsar_multiregion;
mod random;
mod round_robin;

mod buckets;
mod escape;
mod sticky;
mod weights;
mod whole_fleet;
mod widening;

#[cfg(test)]
mod fleet_tests;
#[cfg(test)]
mod method_tests;

pub use config::{
    Compared, Config, Expressions, PowerOfTwo, Pulsar, PulsarWaitAndWiden, WaitAndWiden, Weight,
};
pub use filter::RoutingMethod;

weir_sdk::export!(RoutingMethod: Route);
