//! The answers to requests over a limit.

use weir_sdk::LocalResponse;
use weir_sdk::state::{Granted, Limited};

use crate::config::Counted;
use crate::duration;
use crate::limit::{Limit, Span};

/// The budget is used up for now.
pub(crate) fn limited(
    what: Counted,
    limit: &Limit,
    wanted: u64,
    limited: &Limited,
    left: Option<&Granted>,
) -> LocalResponse {
    let seconds = limited.retry_after_ms.div_ceil(1_000);
    let message = format!(
        "Rate limit reached: {} {} per {}. This request needs about {wanted}. Try again in {}.",
        limited.limit,
        what.noun(),
        limit.span(limited.window).map_or("window", Span::name),
        duration::text(limited.retry_after_ms),
    );
    // Several windows: what `peek` says is of the tightest, which need not be this one.
    let left = left.filter(|left| left.limit == limited.limit);
    let remaining = left.map_or(0, |left| left.remaining);
    let reset_ms = left.map_or(limited.retry_after_ms, |left| left.reset_ms);
    let response = figures(refusal(message), what, limited.limit, remaining, reset_ms)
        .header("retry-after", seconds.to_string());
    if seconds > WORTH_WAITING_SECONDS {
        response.header("x-should-retry", "false")
    } else {
        response
    }
}

/// The request alone is more than a whole budget: waiting does not help.
pub(crate) fn too_large(what: Counted, wanted: u64, budget: u64, span: Span) -> LocalResponse {
    let message = format!(
        "Request too large: it needs about {wanted} {}, the limit is {budget} per {}. Send less input or allow less output.",
        what.noun(),
        span.name(),
    );
    figures(refusal(message), what, budget, budget, 0).header("x-should-retry", "false")
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

fn figures(
    response: LocalResponse,
    what: Counted,
    limit: u64,
    remaining: u64,
    reset_ms: u32,
) -> LocalResponse {
    let part = what.header_part();
    response
        .header(&format!("x-ratelimit-limit-{part}"), limit.to_string())
        .header(
            &format!("x-ratelimit-remaining-{part}"),
            remaining.to_string(),
        )
        .header(
            &format!("x-ratelimit-reset-{part}"),
            duration::text(reset_ms),
        )
}

const RESOURCE_EXHAUSTED: u16 = 8;
const UNAVAILABLE: u16 = 14;
const WORTH_WAITING_SECONDS: u32 = 60;
