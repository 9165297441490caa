//! One LLM exchange, top to bottom. The steps are siblings; none imports another's insides.
//!
//! In reading order: [`serve`] (the whole), [`exchange`] (its state), [`classify`], [`admit`],
//! [`answer`], [`forward`] (route, connect, send, retry), [`upstream_request`], [`relay`] (with
//! [`stream`] for events and [`hear`] for the caller's leaving), [`settle`], [`refuse`],
//! [`headers`], [`limit_headers`], [`trace`].

pub(crate) mod admit;
pub(crate) mod answer;
pub(crate) mod classify;
pub(crate) mod exchange;
pub(crate) mod forward;
pub(crate) mod headers;
pub(crate) mod limit_headers;
pub(crate) mod refuse;
pub(crate) mod relay;
pub(crate) mod serve;
pub(crate) mod settle;
pub(crate) mod stream;
pub(crate) mod trace;
pub(crate) mod upstream_request;
