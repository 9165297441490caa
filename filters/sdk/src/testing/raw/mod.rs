//! The fake host's side of every imported interface, with the signatures of the generated ones.

pub(crate) mod candidates;
pub(crate) mod exchange;
pub(crate) mod host;
pub(crate) mod http_client;
pub(crate) mod metrics;
pub(crate) mod secrets;
pub(crate) mod state;
