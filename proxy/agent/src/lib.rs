//! The worker's end of a tunnel: the agent beside a model server.
//!
//! It dials every gateway, says which models there are and how loaded they are, and joins the
//! streams that gateways open to connections of the model server. What it does not do: look into
//! requests, choose, retry.

mod main_program;

mod flags;

mod settings;

mod error;

mod upstream;

mod local;

mod shutdown;

mod run;

mod worker;

mod health;

mod discovery;

mod calibration;

mod load;

mod rate;

mod exposition;

mod engine_metrics;

mod stats_stream;

mod poll;

mod roster;

mod backoff;

mod fleet;

mod tunnel;

mod carry;

mod counters;

mod admin;

pub use error::{ConfigError, Error};
pub use flags::{Flags, Given, read};
pub use main_program::main;
pub use run::run;
pub use settings::{Health, Settings, StartRate, StatsStream, Token};
pub use shutdown::{Shutdown, ShutdownHandle};
pub use upstream::Upstream;
