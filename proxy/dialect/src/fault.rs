//! Errors in the words of the caller's api, as an answer and as the end of a stream.

use bytes::Bytes;
use serde::Serialize;

use crate::Api;
use crate::sse::encode_event;

/// What went wrong, as the caller may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault<'a> {
    /// HTTP status of the answer, or the one it would have had before the stream began.
    pub status: u16,
    /// `type` of an OpenAI error, see [`openai_type`]; messages derives its own from the status.
    pub error_type: &'a str,
    /// Stable machine code.
    pub code: &'a str,
    /// For a person to read.
    pub message: &'a str,
    /// The member of the request at fault.
    pub param: Option<&'a str>,
}

/// The body of an error answer.
#[must_use]
pub fn render_fault(api: Api, fault: &Fault<'_>, request_id: &str) -> Bytes {
    match api {
        Api::Messages => json(&MessagesFault::new(fault, request_id)),
        _ => json(&OpenAiFault::new(fault)),
    }
}

/// The event that ends a stream that has failed after its head was sent. No `[DONE]` follows in a
/// chat completion: it would say that the answer is whole, and clients that raise on `error` (all
/// of OpenAI's) have stopped reading by then.
#[must_use]
pub fn render_fault_event(api: Api, fault: &Fault<'_>, request_id: &str) -> Bytes {
    match api {
        Api::Messages => encode_event("error", &json(&MessagesFault::new(fault, request_id))),
        Api::Responses => encode_event("error", &json(&ResponsesFault::new(fault))),
        _ => encode_event("", &json(&OpenAiFault::new(fault))),
    }
}

/// The usual `type` of an OpenAI error for a status.
#[must_use]
pub const fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        500..=599 => "server_error",
        _ => "invalid_request_error",
    }
}

const fn messages_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        500..=599 => "api_error",
        _ => "invalid_request_error",
    }
}

#[derive(Serialize)]
struct OpenAiFault<'a> {
    error: OpenAiError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: &'a str,
}

impl<'a> OpenAiFault<'a> {
    const fn new(fault: &Fault<'a>) -> Self {
        let Fault {
            error_type,
            code,
            message,
            param,
            ..
        } = *fault;
        Self {
            error: OpenAiError {
                message,
                r#type: error_type,
                param,
                code,
            },
        }
    }
}

/// Told twice: flat as the API is documented, and under `error` as it really answers. Clients only
/// raise the second and hand the first on as one event of many.
///
/// The sequence number is 0 because what the upstream has counted is not known here, and typed
/// clients do not read the event without one.
#[derive(Serialize)]
struct ResponsesFault<'a> {
    r#type: &'static str,
    code: &'a str,
    message: &'a str,
    param: Option<&'a str>,
    sequence_number: u32,
    error: OpenAiError<'a>,
}

impl<'a> ResponsesFault<'a> {
    const fn new(fault: &Fault<'a>) -> Self {
        Self {
            r#type: "error",
            code: fault.code,
            message: fault.message,
            param: fault.param,
            sequence_number: 0,
            error: OpenAiFault::new(fault).error,
        }
    }
}

#[derive(Serialize)]
struct MessagesFault<'a> {
    r#type: &'static str,
    error: MessagesError<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct MessagesError<'a> {
    r#type: &'static str,
    message: &'a str,
}

impl<'a> MessagesFault<'a> {
    const fn new(fault: &Fault<'a>, request_id: &'a str) -> Self {
        let error = MessagesError {
            r#type: messages_type(fault.status),
            message: fault.message,
        };
        Self {
            r#type: "error",
            error,
            request_id,
        }
    }
}

/// These types always have a JSON form; the empty body is never reached.
fn json(fault: &impl Serialize) -> Bytes {
    serde_json::to_vec(fault)
        .map(Bytes::from)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: Fault<'_> = Fault {
        status: 404,
        error_type: "not_found_error",
        code: "model_not_found",
        message: "no model \"x\"\nhere",
        param: Some("model"),
    };

    #[test]
    fn answers() {
        let openai = r#"{"error":{"message":"no model \"x\"\nhere","type":"not_found_error","param":"model","code":"model_not_found"}}"#;
        let messages = r#"{"type":"error","error":{"type":"not_found_error","message":"no model \"x\"\nhere"},"request_id":"r1"}"#;
        for api in [
            Api::ChatCompletions,
            Api::Responses,
            Api::Embeddings,
            Api::Models,
            Api::Other,
        ] {
            assert_eq!(render_fault(api, &FAULT, "r1"), openai, "{api:?}");
        }
        assert_eq!(render_fault(Api::Messages, &FAULT, "r1"), messages);
        let bare = render_fault(
            Api::Models,
            &Fault {
                param: None,
                ..FAULT
            },
            "",
        );
        assert!(bare.windows(12).any(|part| part == b"\"param\":null"));
    }

    #[test]
    fn stream_ends() {
        let table = [
            (
                Api::ChatCompletions,
                "data: {\"error\":{\"message\":\"no model \\\"x\\\"\\nhere\",\"type\":\"not_found_error\",\"param\":\"model\",\"code\":\"model_not_found\"}}\n\n",
            ),
            (
                Api::Responses,
                "event: error\ndata: {\"type\":\"error\",\"code\":\"model_not_found\",\"message\":\"no model \\\"x\\\"\\nhere\",\"param\":\"model\",\"sequence_number\":0,\"error\":{\"message\":\"no model \\\"x\\\"\\nhere\",\"type\":\"not_found_error\",\"param\":\"model\",\"code\":\"model_not_found\"}}\n\n",
            ),
            (
                Api::Messages,
                "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"not_found_error\",\"message\":\"no model \\\"x\\\"\\nhere\"},\"request_id\":\"r1\"}\n\n",
            ),
        ];
        for (api, expected) in table {
            assert_eq!(render_fault_event(api, &FAULT, "r1"), expected, "{api:?}");
        }
    }

    #[test]
    fn types_follow_the_status() {
        let table = [
            (400, "invalid_request_error", "invalid_request_error"),
            (401, "authentication_error", "authentication_error"),
            (403, "permission_error", "permission_error"),
            (404, "not_found_error", "not_found_error"),
            (413, "invalid_request_error", "request_too_large"),
            (422, "invalid_request_error", "invalid_request_error"),
            (429, "rate_limit_error", "rate_limit_error"),
            (500, "server_error", "api_error"),
            (504, "server_error", "api_error"),
            (529, "server_error", "overloaded_error"),
        ];
        for (status, openai, messages) in table {
            assert_eq!(
                (openai_type(status), messages_type(status)),
                (openai, messages),
                "{status}"
            );
        }
    }
}
