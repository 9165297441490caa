//! The answers to callers that are not let in.

use weir_sdk::LocalResponse;

/// No key at all.
pub(crate) fn missing(header: &str) -> LocalResponse {
    let message = if header == "authorization" {
        "No API key was given. Send it as `Authorization: Bearer YOUR_KEY`.".to_owned()
    } else {
        [
            "No API key was given. Send it as `",
            header,
            ": Bearer YOUR_KEY`.",
        ]
        .concat()
    };
    unauthenticated("missing_api_key", message, "Bearer")
}

/// A key that the table does not have. Says nothing of the key: answers end up in logs.
pub(crate) fn invalid() -> LocalResponse {
    unauthenticated(
        "invalid_api_key",
        "The API key is not valid here.".to_owned(),
        "Bearer error=\"invalid_token\"",
    )
}

/// A known caller that may not call this model.
pub(crate) fn model_not_allowed(model: &str) -> LocalResponse {
    let message = if model.is_empty() {
        "This API key may call only certain models, and the request names none.".to_owned()
    } else {
        ["This API key may not call the model `", model, "`."].concat()
    };
    LocalResponse::error(403, "permission_error", "model_not_allowed", message)
        .grpc_status(PERMISSION_DENIED)
}

/// The key table could not be asked.
pub(crate) fn unavailable() -> LocalResponse {
    LocalResponse::error(
        503,
        "api_error",
        "authentication_unavailable",
        "API keys cannot be checked at the moment.",
    )
    .grpc_status(UNAVAILABLE)
}

fn unauthenticated(code: &str, message: String, challenge: &str) -> LocalResponse {
    LocalResponse::error(401, "authentication_error", code, message)
        .header("www-authenticate", challenge)
        .grpc_status(UNAUTHENTICATED)
}

const PERMISSION_DENIED: u16 = 7;
const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;
