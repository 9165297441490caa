//! One LLM exchange, top to bottom. The steps are siblings; none imports another's insides.
//!
//! In reading order: [`serve`] (the whole), [`exchange`] (its state), [`classify`] (with
//! [`sessions`]), [`admit`], [`answer`], [`forward`] (connect, send, retry; [`route`] for where to; [`patience`]
//! while it waits), [`upstream_request`], [`relay`] for one answer, [`stream`] for many events
//! ([`opening`] until the first that counts, [`events`] for each, [`aggregate`] for callers that
//! want one answer of them), [`settle`], [`refuse`], [`headers`],
//! [`hints`], [`limit_headers`], [`trace`], [`hexadecimal`].

pub(crate) mod admit;
pub(crate) mod aggregate;
pub(crate) mod answer;
pub(crate) mod classify;
pub(crate) mod events;
pub(crate) mod exchange;
pub(crate) mod forward;
pub(crate) mod headers;
pub(crate) mod hexadecimal;
pub(crate) mod hints;
pub(crate) mod limit_headers;
pub(crate) mod opening;
pub(crate) mod patience;
pub(crate) mod refuse;
pub(crate) mod relay;
pub(crate) mod route;
pub(crate) mod serve;
pub(crate) mod sessions;
pub(crate) mod settle;
pub(crate) mod stream;
pub(crate) mod trace;
pub(crate) mod upstream_request;
