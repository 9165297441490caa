//! The answers to callers that are not let in.

use weir_sdk::LocalResponse;

/// No key at all.
pub(crate) fn missing(header: &str) -> LocalResponse {
    let message = if header == "authorization" {
        "bearer authorization is required".to_owned()
    } else {
        ["`", header, ": Bearer YOUR_KEY` is required"].concat()
    };
    unauthenticated("missing_api_key", message, "Bearer")
}

/// A key that nobody here knows. Says nothing of the key: answers end up in logs.
pub(crate) fn invalid() -> LocalResponse {
    unauthenticated(
        "invalid_api_key",
        "The API key is not valid here.".to_owned(),
        "Bearer error=\"invalid_token\"",
    )
}

/// A token that does not count; `why` follows "the token".
pub(crate) fn invalid_token(why: &str) -> LocalResponse {
    token("invalid_token", why)
}

/// A token that was good once.
pub(crate) fn expired_token() -> LocalResponse {
    token("expired_token", "has expired")
}

fn token(code: &str, why: &str) -> LocalResponse {
    let challenge = [
        "Bearer error=\"invalid_token\", error_description=\"the token ",
        why,
        "\"",
    ];
    let message = ["The token ", why, "."].concat();
    unauthenticated(code, message, &challenge.concat())
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

/// The model does not answer on this path.
pub(crate) fn endpoint_not_supported(model: &str, path: &str) -> LocalResponse {
    let message = ["model \"", model, "\" does not support ", path].concat();
    LocalResponse::error(
        400,
        "invalid_request_error",
        "endpoint_not_supported",
        message,
    )
    .grpc_status(INVALID_ARGUMENT)
}

/// What says who callers are could not be asked.
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

const INVALID_ARGUMENT: u16 = 3;
const PERMISSION_DENIED: u16 = 7;
const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;
