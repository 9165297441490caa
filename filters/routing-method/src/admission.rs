//! Requests that are refused before anything is chosen for them.

use weir_sdk::candidates::{self, Figure};
use weir_sdk::{LocalResponse, RequestView, Routing};

use crate::config::Config;

/// Why a request is not routed at all, if so.
pub(crate) fn refusal(
    settings: &Config,
    request: &RequestView,
    routing: &Routing,
) -> Option<LocalResponse> {
    if settings.require_cache_affinity_key && routing.affinity_hash == 0 {
        return Some(LocalResponse::error(
            400,
            "invalid_request_error",
            "cache_affinity_key_required",
            "this model needs a session: send `prompt_cache_key` or a session header",
        ));
    }
    if settings.require_input_tokens && request.est_input_tokens == 0 {
        return Some(LocalResponse::error(
            400,
            "invalid_request_error",
            "input_tokens_required",
            "this model needs requests whose input can be estimated",
        ));
    }
    let limit = settings.max_input_work_seconds;
    (limit > 0.0 && input_work_seconds(request) > limit).then(|| {
        LocalResponse::error(
            503,
            "overloaded_error",
            "input_work_limit_exceeded",
            "more input is waiting than can be worked through in time, try again later",
        )
    })
}

/// What is queued everywhere and what the request brings, over the rates of all; 0 when no rate
/// is known.
fn input_work_seconds(request: &RequestView) -> f64 {
    let rate = candidates::total(Figure::InputTps).sum;
    if rate <= 0.0 {
        return 0.0;
    }
    let queued = candidates::total(Figure::QueuedInputTokens).sum;
    (queued + f64::from(request.est_input_tokens)) / rate
}

/// Nobody may take it, for as long as it may wait.
pub(crate) fn overloaded() -> LocalResponse {
    LocalResponse::error(
        503,
        "overloaded_error",
        "overloaded_error",
        "inference capacity is temporarily unavailable, try again later",
    )
}
