//! The answers to requests over a limit.

use weir_sdk::LocalResponse;
use weir_sdk::state::Limited;

use crate::limit::Span;
use crate::limiters::Opened;

/// A budget is used up for now, or too small for this request for ever.
pub(crate) fn limited(budget: &Opened, wanted: u64, limited: &Limited) -> LocalResponse {
    let noun = budget.dimension.noun();
    let span = budget
        .limit
        .span(limited.window)
        .map_or("window", Span::name);
    let limit = limited.limit;
    if wanted > limit {
        return refusal(format!(
            "rate limit exceeded: this request needs about {wanted} {noun}, the whole limit is {limit} per {span}; send less input or allow less output",
        ))
        .header("x-should-retry", "false");
    }
    let retry_ms = limited.retry_after_ms;
    let seconds = retry_ms.div_ceil(1_000);
    let response = refusal(format!(
        "rate limit exceeded: {limit} {noun} per {span}, and this request needs about {wanted} of them; try again in {seconds} s",
    ))
    .header("retry-after", seconds.to_string())
    .header("retry-after-ms", retry_ms.to_string());
    if seconds > WORTH_WAITING_SECONDS {
        response.header("x-should-retry", "false")
    } else {
        response
    }
}

/// The store of the budgets cannot be asked.
pub(crate) fn unavailable() -> LocalResponse {
    LocalResponse::error(
        503,
        "api_error",
        "rate_limit_unavailable",
        "Rate limits cannot be checked at the moment.",
    )
    .grpc_status(UNAVAILABLE)
}

fn refusal(message: String) -> LocalResponse {
    LocalResponse::error(429, "rate_limit_error", "rate_limit_exceeded", message)
        .grpc_status(RESOURCE_EXHAUSTED)
}

const RESOURCE_EXHAUSTED: u16 = 8;
const UNAVAILABLE: u16 = 14;
const WORTH_WAITING_SECONDS: u32 = 60;
