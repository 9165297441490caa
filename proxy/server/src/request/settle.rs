//! The last step, exactly once however the exchange ended: claims settled, counters, access log,
//! and word to the filters that want it.

use std::time::Duration;

use tokio::time::Instant;
use weir_dialect::Usage;
use weir_pipeline::ledger::Settlement;
use weir_pipeline::verdict::{End, Summary};

use crate::request::exchange::{Exchange, Progress};

/// Settles and reports.
pub(crate) fn settle(mut exchange: Exchange) {
    let usage = match claims(&mut exchange) {
        Settlement::Used(usage) => usage,
        Settlement::Refund => Usage::default(),
    };
    learn(&exchange, &usage);
    let times = Times::of(&exchange, &usage);
    exchange.runtime.metrics.ended(&exchange, &usage, &times);
    if let Some(mut observation) = exchange.progress.observation.take()
        && exchange.progress.end == End::Ok
    {
        observation.whole(usage.output_tokens, times.generating_us());
    }
    if exchange.snapshot.config.log.access {
        access_log(&exchange, &usage, &times);
    }
    report(&mut exchange, usage, &times);
    if let Some(hop) = exchange.hop.take()
        && let Some(spans) = &exchange.runtime.spans
    {
        spans.leave(*hop, &exchange, usage, &times);
    }
}

/// Settles what the exchange has claimed, by what was used. The first time counts: what becomes of
/// the answer after that changes nothing.
pub(crate) fn claims(exchange: &mut Exchange) -> Settlement {
    if let Some(settled) = exchange.settled {
        return settled;
    }
    let settlement = if has_worked(&exchange.progress) {
        Settlement::Used(exchange.usage())
    } else {
        Settlement::Refund
    };
    exchange.ledger.settle(&settlement);
    exchange.settled = Some(settlement);
    settlement
}

/// Whether the upstream has done something for this exchange that is charged: `docs/limits.md` has
/// the rules.
fn has_worked(progress: &Progress) -> bool {
    let asked = progress.sent_at.is_some();
    let left_waiting = matches!(progress.end, End::ClientGone | End::Timeout);
    match progress.upstream_status {
        // An error before any content, whatever the status promised, is an error.
        Some(200..300) => progress.end != End::UpstreamError || progress.output_bytes > 0,
        Some(_) => false,
        None => asked && left_waiting,
    }
}

/// Estimates learn from what is known for sure.
fn learn(exchange: &Exchange, usage: &Usage) {
    let Some(call) = exchange.call.as_ref() else {
        return;
    };
    if usage.reported && exchange.progress.end == End::Ok {
        let corrections = &call.target.corrections;
        if let Some(correction) = corrections.of(exchange.api, call.peek.has_tools) {
            correction.learn(call.estimate, usage.input_tokens);
        }
    }
}

/// How long the parts of an exchange took.
pub(crate) struct Times {
    /// Before the upstream was asked.
    pub(crate) queue: Duration,
    /// From head read to the first output, or to an answer that came as a whole.
    pub(crate) ttft: Option<Duration>,
    /// From head read to last byte written.
    pub(crate) total: Duration,
    /// Per output token after the first one.
    pub(crate) per_token: Duration,
}

impl Times {
    /// From the first byte to the last, in microseconds.
    fn generating_us(&self) -> u64 {
        let generating = self.ttft.map_or(Duration::ZERO, |ttft| self.total - ttft);
        u64::try_from(generating.as_micros()).unwrap_or(u64::MAX)
    }

    fn of(exchange: &Exchange, usage: &Usage) -> Self {
        let progress = &exchange.progress;
        let now = Instant::now();
        let since = |from: Option<Instant>, to: Option<Instant>| Some(to? - from?);
        let ttft = since(Some(exchange.started), progress.first_byte_at);
        let generating = since(progress.first_byte_at, Some(now)).unwrap_or_default();
        let tokens = u32::try_from(usage.output_tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        Self {
            queue: since(Some(exchange.started), progress.sent_at).unwrap_or_default(),
            ttft,
            total: now - exchange.started,
            per_token: generating.checked_div(tokens).unwrap_or_default(),
        }
    }
}

fn access_log(exchange: &Exchange, usage: &Usage, times: &Times) {
    let progress = &exchange.progress;
    let facts = exchange.facts.as_deref();
    let principal = facts.and_then(|facts| facts.principal.as_deref());
    tracing::info!(
        target: "weir::access",
        request_id = %exchange.request_id,
        api = exchange.api.as_str(),
        model = exchange.call.as_ref().map_or("", |call| &call.target.full_name),
        principal = principal.map_or("", |who| &who.subject),
        tenant = principal.map_or("", |who| &who.tenant),
        status = progress.status,
        end = progress.end.as_str(),
        code = progress.code.as_deref().unwrap_or(""),
        stream = facts.is_some_and(|facts| facts.view.traits.streaming),
        backend = progress.backend.as_deref().unwrap_or(""),
        tries = progress.tries,
        input_tokens = usage.input_tokens,
        output_tokens = usage.output_tokens,
        usage_reported = usage.reported,
        ttft_ms = times.ttft.map_or(-1.0, |ttft| ttft.as_secs_f64() * 1e3),
        total_ms = times.total.as_secs_f64() * 1e3,
        filter_us = facts.map_or(0, |facts| facts.filter_ns / 1000),
        config = exchange.snapshot.number,
        "exchange"
    );
}

fn report(exchange: &mut Exchange, usage: Usage, times: &Times) {
    let Some(chain) = exchange
        .chain()
        .filter(|chain| !chain.completing().is_empty())
    else {
        return;
    };
    let Some(facts) = exchange.facts.as_deref_mut() else {
        return;
    };
    let progress = &exchange.progress;
    let host = &exchange.runtime.host;
    let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    for filter in chain.completing() {
        let summary = Summary {
            view: facts.view,
            end: progress.end,
            status: progress.status,
            usage,
            backend: host
                .services()
                .interner
                .intern(progress.backend.as_deref().unwrap_or("")),
            queue_us: micros(times.queue),
            ttft_us: micros(times.ttft.unwrap_or_default()),
            total_us: micros(times.total),
            tpot_us: micros(times.per_token),
            request_bytes: u64::from(facts.view.body_bytes),
            response_bytes: progress.response_bytes,
            scratch: facts.scratch_of(filter.name()).to_vec(),
        };
        if exchange
            .runtime
            .completions
            .try_send((filter.clone(), summary))
            .is_err()
        {
            exchange.runtime.metrics.completion_dropped();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_charged() {
        const NOW: fn() -> Option<Instant> = || Some(Instant::now());
        const NEVER: fn() -> Option<Instant> = || None;
        // (when it was sent, upstream's status, bytes of output, end, charged)
        let table = [
            (NOW, Some(200), 10, End::Ok, true),
            (NOW, Some(200), 0, End::Ok, true),
            (NOW, Some(200), 10, End::ClientGone, true),
            (NOW, Some(200), 10, End::Timeout, true),
            (NOW, Some(200), 10, End::UpstreamError, true),
            (NOW, Some(200), 0, End::ClientGone, true),
            (NOW, Some(200), 0, End::Timeout, true),
            (NOW, Some(200), 0, End::UpstreamError, false),
            (NOW, Some(200), 0, End::Denied, true),
            (NOW, Some(400), 0, End::Ok, false),
            (NOW, Some(429), 0, End::Ok, false),
            (NOW, Some(500), 0, End::UpstreamError, false),
            (NOW, Some(503), 0, End::ClientGone, false),
            (NOW, None, 0, End::ClientGone, true),
            (NOW, None, 0, End::Timeout, true),
            (NOW, None, 0, End::UpstreamError, false),
            (NEVER, None, 0, End::ClientGone, false),
            (NEVER, None, 0, End::Timeout, false),
            (NEVER, None, 0, End::Limited, false),
            (NEVER, None, 0, End::Denied, false),
        ];
        for (sent, upstream_status, output_bytes, end, charged) in table {
            let progress = Progress {
                sent_at: sent(),
                upstream_status,
                output_bytes,
                end,
                ..Progress::default()
            };
            assert_eq!(
                has_worked(&progress),
                charged,
                "{upstream_status:?} {output_bytes} {end:?}"
            );
        }
    }
}
