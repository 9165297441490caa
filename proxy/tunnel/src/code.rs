//! Numbers with a meaning on the wire: why a connection was closed, why a stream was reset.

use quinn::VarInt;

use crate::error::Undelivered;

/// Why one side closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// No reason given: the handle was dropped, or the program ended in order.
    Done,
    /// The gateway refused the worker; the reason stood in its message.
    Refused,
    /// A newer connection of the same worker took over.
    Superseded,
    /// The side that closed has drained, or its time to do so is over.
    Drained,
    /// What came on the control stream was not the protocol.
    Protocol,
    /// The other side did not take what was sent on the control stream.
    Stalled,
    /// The handshake took too long.
    Slow,
    /// The worker's token was revoked or has expired.
    Revoked,
    /// The gateway did not hear a heartbeat for too long.
    Silent,
    /// A code of a newer version.
    Other(u64),
}

impl CloseCode {
    /// The code as logs and metrics name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Superseded => "superseded",
            Self::Drained => "drained",
            Self::Protocol => "protocol",
            Self::Stalled => "stalled",
            Self::Slow => "slow",
            Self::Revoked => "revoked",
            Self::Silent => "silent",
            Self::Other(_) => "other",
        }
    }

    pub(crate) fn number(self) -> VarInt {
        let number = match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Superseded => 2,
            Self::Drained => 3,
            Self::Protocol => 4,
            Self::Stalled => 5,
            Self::Slow => 6,
            Self::Revoked => 7,
            Self::Silent => 8,
            Self::Other(number) => number,
        };
        VarInt::from_u64(number).unwrap_or(VarInt::MAX)
    }

    pub(crate) fn from_number(number: VarInt) -> Self {
        match number.into_inner() {
            0 => Self::Done,
            1 => Self::Refused,
            2 => Self::Superseded,
            3 => Self::Drained,
            4 => Self::Protocol,
            5 => Self::Stalled,
            6 => Self::Slow,
            7 => Self::Revoked,
            8 => Self::Silent,
            other => Self::Other(other),
        }
    }
}

/// Why a stream of data was reset or not read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamCode {
    /// Whoever had the stream dropped it before its end.
    Aborted,
    /// The connection to the model server broke; bytes may have been delivered.
    Broken,
    /// Nothing was delivered.
    Undelivered(Undelivered),
    /// A code of a newer version: bytes may have been delivered.
    Other,
}

impl StreamCode {
    pub(crate) fn number(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Aborted => 0x10,
            Self::Broken => 0x11,
            Self::Undelivered(Undelivered::ConnectFailed) => 0x20,
            Self::Undelivered(Undelivered::Draining) => 0x21,
            Self::Undelivered(Undelivered::Busy) => 0x22,
            Self::Undelivered(Undelivered::Unsupported) => 0x23,
            // The first never travels: it is found out before anything is sent.
            Self::Undelivered(Undelivered::NoStream | Undelivered::Closed) => 0x24,
            Self::Other => 0x1f,
        })
    }

    pub(crate) fn from_number(number: VarInt) -> Self {
        match number.into_inner() {
            0x10 => Self::Aborted,
            0x11 => Self::Broken,
            0x20 => Self::Undelivered(Undelivered::ConnectFailed),
            0x21 => Self::Undelivered(Undelivered::Draining),
            0x22 => Self::Undelivered(Undelivered::Busy),
            0x23 => Self::Undelivered(Undelivered::Unsupported),
            0x24 => Self::Undelivered(Undelivered::Closed),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_wire() {
        for code in [
            CloseCode::Done,
            CloseCode::Refused,
            CloseCode::Superseded,
            CloseCode::Drained,
            CloseCode::Protocol,
            CloseCode::Stalled,
            CloseCode::Slow,
            CloseCode::Revoked,
            CloseCode::Silent,
            CloseCode::Other(77),
        ] {
            assert_eq!(CloseCode::from_number(code.number()), code);
        }
        for code in [
            StreamCode::Aborted,
            StreamCode::Broken,
            StreamCode::Undelivered(Undelivered::ConnectFailed),
            StreamCode::Undelivered(Undelivered::Draining),
            StreamCode::Undelivered(Undelivered::Busy),
            StreamCode::Undelivered(Undelivered::Unsupported),
        ] {
            assert_eq!(StreamCode::from_number(code.number()), code);
        }
    }

    #[test]
    fn a_newer_code_is_never_taken_for_undelivered() {
        for number in [0u32, 1, 0x12, 0x1f, 0x25, 0x30, 4096] {
            let code = StreamCode::from_number(VarInt::from_u32(number));
            assert_eq!(code, StreamCode::Other, "{number:#x}");
        }
    }
}
