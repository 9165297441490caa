//! What is known of a request whose connection failed: whether the backend can have begun on it.

use std::error::Error as StdError;
use std::io;
use std::os::fd::AsRawFd;

use pingora::RetryType;
use pingora::protocols::l4::ext::get_tcp_info;
use tokio::net::TcpStream;

/// The backend never had the whole request, so it has done nothing about it: it may be sent again.
#[derive(Debug, thiserror::Error)]
#[error("the connection ended before the backend had received the request")]
pub(crate) struct Undelivered;

/// Whether `error` was caused by a tunnel's stream that met no model server, by a connection that ended before the request was delivered, or says
/// that it was not processed: a stream refused, or beyond those of an HTTP/2 connection going away
/// (RFC 9113, 8.7).
pub(crate) fn is_undelivered(error: &pingora::Error) -> bool {
    if matches!(error.retry, RetryType::Decided(true)) {
        return true;
    }
    let cause = error.cause.as_deref();
    let mut cause = cause.map(|cause| cause as &(dyn StdError + 'static));
    if cause.is_some_and(|cause| weir_tunnel::undelivered(cause).is_some()) {
        return true;
    }
    while let Some(error) = cause {
        if error.is::<Undelivered>() {
            return true;
        }
        // An `io::Error` does not count what it was made from among its sources.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if inner.is_some_and(|inner| inner.is::<Undelivered>()) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The error for a connection that has failed after `sent` bytes in all were handed to the kernel,
/// if the other end has not received all of them.
///
/// A process that closes its socket no longer acknowledges what arrives: its kernel answers with a
/// reset. So bytes that were never acknowledged were never read, however the connection ended; that
/// is the usual end of an idle connection which the backend closes at the moment it is used again.
/// The kernel's count is of RFC 4898's `tcpEStatsAppHCThruOctetsAcked` and has one more for the
/// handshake on the side that dialled, so a request of which a single byte is missing counts as
/// delivered.
pub(super) fn undelivered(tcp: &TcpStream, sent: u64) -> Option<io::Error> {
    let acknowledged = get_tcp_info(tcp.as_raw_fd()).ok()?.tcpi_bytes_acked;
    (acknowledged < sent).then(|| io::Error::new(io::ErrorKind::ConnectionReset, Undelivered))
}
