//! What can go wrong with a tunnel, and whether a request that met it may be sent again.

use std::error::Error as StdError;
use std::io;

use quinn::ConnectionError;

use crate::code::{CloseCode, StreamCode};
use crate::wire::Refused;

/// What went wrong with a tunnel as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The UDP socket cannot be made.
    #[error("cannot bind the UDP socket")]
    Bind(#[source] io::Error),
    /// Certificate, key or roots cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The address or the name of the gateway cannot be dialled.
    #[error("cannot dial: {0}")]
    Dial(#[source] quinn::ConnectError),
    /// The connection ended.
    #[error("the tunnel ended: {0}")]
    Lost(Loss),
    /// The gateway refused the worker.
    #[error("refused by the gateway ({}): {}", .0.code().name(), .0.message)]
    Refused(Refused),
    /// The other side answers in a version this program does not speak.
    #[error("the gateway chose version {0} of the wire, which this agent does not speak")]
    Version(u32),
    /// The handshake took longer than it may.
    #[error("no answer within {0:?}")]
    Slow(std::time::Duration),
    /// A message is larger than any may be.
    #[error("a control message of {bytes} bytes, at most {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// A message cannot be decoded.
    #[error("a control message that is none")]
    Malformed(#[source] prost::DecodeError),
    /// A message that may not come at this point.
    #[error("expected {0} on the control stream")]
    Unexpected(&'static str),
    /// The other side does not take what is sent on the control stream.
    #[error("the other side does not read the control stream")]
    Stalled,
    /// The request was certainly not delivered.
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// The other side closed it.
    #[error("closed by the other side ({}): {reason}", .code.name())]
    Closed {
        /// The code it gave.
        code: CloseCode,
        /// Its reason, for people; at most a packet long.
        reason: String,
    },
    /// This side closed it.
    #[error("closed by this side")]
    Local,
    /// Nothing was heard for the idle time-out: process, host or link are gone.
    #[error("nothing heard for the idle time-out")]
    Silent,
    /// QUIC or TLS failed.
    #[error("{0}")]
    Transport(String),
}

impl Loss {
    /// The kind of loss as logs and metrics name it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Closed { code, .. } => code.name(),
            Self::Local => "local",
            Self::Silent => "idle_timeout",
            Self::Transport(_) => "transport",
        }
    }
}

impl From<ConnectionError> for Loss {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(closed) => Self::Closed {
                code: CloseCode::from_number(closed.error_code),
                reason: String::from_utf8_lossy(&closed.reason).into_owned(),
            },
            ConnectionError::LocallyClosed => Self::Local,
            ConnectionError::TimedOut => Self::Silent,
            other => Self::Transport(other.to_string()),
        }
    }
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        Self::Lost(error.into())
    }
}

/// The model server got nothing of the request, so that it may be sent to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Undelivered {
    /// The agent cannot connect to the model server.
    #[error("the agent cannot connect to its model server")]
    ConnectFailed,
    /// The agent is draining.
    #[error("the agent is draining")]
    Draining,
    /// The agent carries as many streams as it may.
    #[error("the agent carries as many streams as it may")]
    Busy,
    /// The agent does not know the preamble.
    #[error("the agent does not know this kind of stream")]
    Unsupported,
    /// The tunnel has as many streams as it may.
    #[error("the tunnel has as many streams as it may")]
    NoStream,
    /// The tunnel, or a connection kept for more requests, ended before this one was sent.
    #[error("the connection ended before the request was sent")]
    Closed,
}

impl Undelivered {
    /// The reason as logs and metrics name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ConnectFailed => "connect_failed",
            Self::Draining => "draining",
            Self::Busy => "busy",
            Self::Unsupported => "unsupported",
            Self::NoStream => "no_stream",
            Self::Closed => "closed",
        }
    }

    pub(crate) fn into_io(self) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionRefused, self)
    }
}

/// The stream or the tunnel broke; bytes may have been delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the agent lost its connection to the model server")]
    Upstream,
    #[error("the stream was aborted by the other side")]
    Aborted,
    #[error("the tunnel ended: {0}")]
    Tunnel(Loss),
    #[error("the stream is already closed")]
    Used,
}

impl Broken {
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match self {
            Self::Used => io::ErrorKind::NotConnected,
            Self::Tunnel(_) => io::ErrorKind::ConnectionAborted,
            Self::Upstream | Self::Aborted => io::ErrorKind::ConnectionReset,
        };
        io::Error::new(kind, self)
    }
}

/// The error of a stream that the other side ended with a code.
pub(crate) fn ended(code: quinn::VarInt) -> io::Error {
    match StreamCode::from_number(code) {
        StreamCode::Undelivered(reason) => reason.into_io(),
        StreamCode::Broken => Broken::Upstream.into_io(),
        StreamCode::Aborted | StreamCode::Other => Broken::Aborted.into_io(),
    }
}

/// Whether `error`, of a [`crate::TunnelStream`], says that the model server got nothing.
#[must_use]
pub fn is_undelivered(error: &io::Error) -> bool {
    undelivered(error).is_some()
}

/// Looks for an [`Undelivered`] in `error` and its sources, also below wrappers such as those of
/// an HTTP client.
#[must_use]
pub fn undelivered(error: &(dyn StdError + 'static)) -> Option<Undelivered> {
    let mut next = Some(error);
    for _ in 0..SOURCES_MAX {
        let error = next?;
        if let Some(found) = error.downcast_ref::<Undelivered>() {
            return Some(*found);
        }
        if let Some(Error::Undelivered(found)) = error.downcast_ref::<Error>() {
            return Some(*found);
        }
        // An io::Error names as its source that of what it wraps, not what it wraps.
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

/// Sources looked at below an error: chains are short, and one in a circle must end.
const SOURCES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undelivered_is_found_below_wrappers() {
        let bare = Undelivered::Draining.into_io();
        assert!(is_undelivered(&bare));
        let twice = io::Error::other(Undelivered::Busy.into_io());
        assert_eq!(undelivered(&twice), Some(Undelivered::Busy));
        let ours = io::Error::other(Error::from(Undelivered::NoStream));
        assert_eq!(undelivered(&ours), Some(Undelivered::NoStream));
        for broken in [
            Broken::Upstream,
            Broken::Aborted,
            Broken::Used,
            Broken::Tunnel(Loss::Silent),
        ] {
            assert!(!is_undelivered(&broken.into_io()));
        }
        assert!(!is_undelivered(&io::ErrorKind::ConnectionRefused.into()));
    }
}
