//! Connections to backends: plaintext HTTP/1.1 by our own short path, TLS and HTTP/2 by pingora's
//! connector.

mod connect;
mod idle;
mod joined;
mod undelivered;

pub(crate) use connect::{Link, Wanted, connect, release};
pub(crate) use idle::{IdleByAddress, IdleLinks};
pub(crate) use undelivered::is_undelivered;
