//! Filter `routing-method`: chooses the backend by the model's routing method.

mod config;
mod filter;
mod method;

mod power_of_two;
mod random;
mod round_robin;

mod sticky;
mod weights;

pub use config::{Config, PowerOfTwo};
pub use filter::RoutingMethod;

weir_sdk::export!(RoutingMethod: Route);
