//! The phase calls: each file lowers the arguments of one phase and lifts what it returns.

pub(crate) use affinity::Affine;
pub(crate) use authorize::Authorize;
pub(crate) use complete::Complete;
pub(crate) use events::Events;
pub(crate) use exports::Exports;
pub(crate) use kind::{PHASES, PhaseKind};
pub(crate) use lift::Lifting;
pub(crate) use request::Request;
pub(crate) use request_headers::RequestHeaders;
pub(crate) use response_headers::ResponseHeaders;
pub(crate) use route::Route;
pub(crate) use tick::Tick;
pub(crate) use traits::Phase;

mod affinity;
mod authorize;
mod complete;
mod events;
mod exports;
mod kind;
mod lift;
mod lower;
mod request;
mod request_headers;
mod response_headers;
mod route;
mod tick;
mod traits;
