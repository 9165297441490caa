//! One trait per phase, in the order in which an exchange meets them.

mod affinity;
mod authorize;
mod complete;
mod events;
mod request;
mod request_headers;
mod response_headers;
mod route;
mod tick;

pub use affinity::{Affinity, AffinityKey};
pub use authorize::{Authorize, Decision};
pub use complete::{End, OnComplete, Summary};
pub use events::{Event, OnEvents, Verdict};
pub use request::OnRequest;
pub use request_headers::OnRequestHeaders;
pub use response_headers::OnResponseHeaders;
pub use route::{Choice, Route, Routing};
pub use tick::OnTick;
