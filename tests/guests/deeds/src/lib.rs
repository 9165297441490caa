//! What hostile filters do: the config says in which phase, the header `x-evil` says what.

mod config;
mod deed;

pub use config::{Config, Hostile, Phase};
pub use deed::Deed;
