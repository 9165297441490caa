//! What is known of a request whose connection failed: whether the backend can have begun on it.

use std::error::Error as StdError;
use std::io;
use std::iter::successors;
use std::os::fd::AsRawFd;

use pingora::protocols::l4::ext::get_tcp_info;
use pingora::{ErrorType, RetryType};
use tokio::net::TcpStream;

/// The backend never had the whole request, so it has done nothing about it: it may be sent again.
#[derive(Debug, thiserror::Error)]
#[error("the connection ended before the backend had received the request")]
pub(crate) struct Undelivered;

impl From<Undelivered> for io::Error {
    fn from(error: Undelivered) -> Self {
        Self::new(io::ErrorKind::ConnectionReset, error)
    }
}

/// Whether `error` says that the request was not delivered (by us, or by a tunnel that met no model
/// server), or that it was not processed: a stream refused, or beyond those of an HTTP/2 connection
/// going away (RFC 9113, 8.7).
pub(crate) fn is_undelivered(error: &pingora::Error) -> bool {
    // What breaks the rules of HTTP/2 says nothing of what was done before.
    if matches!(error.retry, RetryType::Decided(true)) && *error.etype() != ErrorType::InvalidH2 {
        return true;
    }
    let Some(cause) = error.cause.as_deref() else {
        return false;
    };
    let cause = cause as &(dyn StdError + 'static);
    let mut causes = successors(Some(cause), |error| below(*error));
    weir_tunnel::undelivered(cause).is_some() || causes.any(|error| error.is::<Undelivered>())
}

/// What caused an error.
fn below<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    // An `io::Error` does not count what it was made from among its sources.
    let inner = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    match inner {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Whether the other end has ended a connection in order without having received all of the `sent`
/// bytes that were ever handed to the kernel.
///
/// A process that closes its socket no longer acknowledges what arrives, and the packet that tells of
/// the close acknowledges all that came before. So bytes it did not acknowledge were never read: that
/// is the usual end of an idle connection which the backend closes at the moment it is used again. A
/// reset says no such thing, since an acknowledgement may be held back for what was read already.
/// The kernel's count is of RFC 4898's `tcpEStatsAppHCThruOctetsAcked` and has one more for the
/// handshake on the side that dialled, so a request of which a single byte is missing counts as
/// delivered.
pub(super) fn ended_before_receiving(tcp: &TcpStream, sent: u64) -> bool {
    get_tcp_info(tcp.as_raw_fd()).is_ok_and(|info| info.tcpi_bytes_acked < sent)
}
