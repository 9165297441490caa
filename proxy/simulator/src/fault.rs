//! A refusal in the words of the API that was called.

use http::StatusCode;

use crate::ask::Api;

/// Why a request gets no answer: its status, the API's word for it, and a sentence.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) param: Option<&'static str>,
}

impl Fault {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn missing(param: &'static str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self {
            status: StatusCode::BAD_REQUEST,
            message,
            param: Some(param),
        }
    }

    /// The body of the refusal as a client of `api` expects it.
    pub(crate) fn body(&self, api: Api) -> String {
        let value = match api {
            Api::Messages => serde_json::json!({
                "type": "error",
                "error": { "type": self.anthropic_type(), "message": self.message },
            }),
            Api::ChatCompletions | Api::Responses | Api::Embeddings => serde_json::json!({
                "error": {
                    "message": self.message,
                    "type": self.openai_type(),
                    "param": self.param,
                    "code": self.openai_code(),
                },
            }),
        };
        value.to_string()
    }

    fn openai_type(&self) -> &'static str {
        match self.status.as_u16() {
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            503 => "service_unavailable_error",
            _ => "server_error",
        }
    }

    fn openai_code(&self) -> Option<&'static str> {
        match self.status.as_u16() {
            401 => Some("invalid_api_key"),
            404 => Some("not_found"),
            429 => Some("rate_limit_exceeded"),
            _ if self.param.is_some() => Some("missing_required_parameter"),
            _ => None,
        }
    }

    fn anthropic_type(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            503 | 529 => "overloaded_error",
            _ => "api_error",
        }
    }
}
