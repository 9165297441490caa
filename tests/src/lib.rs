//! weir-tests: what the suite and the benches are made of.

pub mod load;
mod load_answer;

pub mod process;

pub mod agent;
pub mod config_text;
pub mod gateway;

pub mod caller;
pub mod events;

pub mod control_plane;
pub mod issuer;
pub mod simulated;
pub mod upstream;

pub mod collector;

pub mod hosts;
pub mod network;
pub mod relay;

pub mod guests;
