//! What the statuses of a call mean to the caller.

use weir_sdk::{Failure, LocalResponse};

/// Why a call gave no admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The service says so: by its status in gRPC.
    Status(u16),
    /// It does not answer.
    Unavailable,
    /// It does not answer in time.
    TimedOut,
    /// It answers something else than was asked.
    Nonsense,
}

impl Refused {
    /// What a failed request means.
    pub(super) fn by(failure: Failure) -> Self {
        match failure {
            Failure::Timeout => Self::TimedOut,
            Failure::TooLarge | Failure::Invalid | Failure::Internal => Self::Nonsense,
            _ => Self::Unavailable,
        }
    }

    /// What an answer's status means; none for an admission. What is not gRPC comes of a proxy on
    /// the way (gRPC's mapping of HTTP statuses).
    pub(super) fn of(http: u16, grpc: Option<u16>) -> Option<Self> {
        match (grpc, http) {
            (Some(0), 200) => None,
            (Some(DEADLINE_EXCEEDED), _) => Some(Self::TimedOut),
            (Some(UNAVAILABLE), _) | (None, 429 | 502..=504) => Some(Self::Unavailable),
            (Some(code), _) => Some(Self::Status(code)),
            (None, _) => Some(Self::Nonsense),
        }
    }

    /// Whether an older admission still counts: the service has not said anything.
    pub(super) fn says_nothing(self) -> bool {
        matches!(self, Self::Unavailable | Self::TimedOut)
    }

    /// The answer to the caller.
    pub(super) fn response(self) -> LocalResponse {
        let (status, kind, code, message, grpc) = match self {
            Self::Status(INVALID_ARGUMENT) => (
                400,
                "invalid_request_error",
                "invalid_request",
                "invalid request",
                INVALID_ARGUMENT,
            ),
            Self::Status(UNAUTHENTICATED) => (
                401,
                "authentication_error",
                "invalid_api_key",
                "authentication failed",
                UNAUTHENTICATED,
            ),
            Self::Status(PERMISSION_DENIED) => (
                403,
                "permission_error",
                "permission_denied",
                "permission denied",
                PERMISSION_DENIED,
            ),
            Self::Status(NOT_FOUND) => (
                404,
                "invalid_request_error",
                "function_not_found",
                "not found",
                NOT_FOUND,
            ),
            Self::TimedOut => (
                504,
                "api_error",
                "authentication_timeout",
                "authentication timed out",
                DEADLINE_EXCEEDED,
            ),
            Self::Unavailable => (
                503,
                "api_error",
                "authentication_unavailable",
                "authentication service unavailable",
                UNAVAILABLE,
            ),
            Self::Status(_) | Self::Nonsense => (
                502,
                "api_error",
                "authentication_failed",
                "authentication failed",
                UNAVAILABLE,
            ),
        };
        let response = LocalResponse::error(status, kind, code, message).grpc_status(grpc);
        if status == 401 {
            response.header("www-authenticate", "Bearer error=\"invalid_token\"")
        } else {
            response
        }
    }
}

const INVALID_ARGUMENT: u16 = 3;
const DEADLINE_EXCEEDED: u16 = 4;
const NOT_FOUND: u16 = 5;
const PERMISSION_DENIED: u16 = 7;
const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        let table = [
            (200, Some(0), None),
            (200, Some(3), Some((400, "invalid request"))),
            (200, Some(16), Some((401, "authentication failed"))),
            (200, Some(7), Some((403, "permission denied"))),
            (200, Some(5), Some((404, "not found"))),
            (200, Some(4), Some((504, "authentication timed out"))),
            (
                200,
                Some(14),
                Some((503, "authentication service unavailable")),
            ),
            (200, Some(2), Some((502, "authentication failed"))),
            (200, Some(13), Some((502, "authentication failed"))),
            (200, Some(99), Some((502, "authentication failed"))),
            (200, None, Some((502, "authentication failed"))),
            (404, None, Some((502, "authentication failed"))),
            (500, Some(0), Some((502, "authentication failed"))),
            (502, None, Some((503, "authentication service unavailable"))),
            (503, None, Some((503, "authentication service unavailable"))),
            (504, None, Some((503, "authentication service unavailable"))),
        ];
        for (http, grpc, expected) in table {
            let said = Refused::of(http, grpc).map(Refused::response);
            let said = said.map(|said| (said.status, said.message));
            let expected = expected.map(|(status, text)| (status, text.to_owned()));
            assert_eq!(said, expected, "{http} {grpc:?}");
        }
    }
}
