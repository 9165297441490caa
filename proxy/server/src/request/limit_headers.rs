//! Where the caller stands with its budgets, in the headers of its answer: as OpenAI and NVCF write
//! them, as Anthropic does for callers of that API, and as the IETF's draft `RateLimit` fields.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use weir_dialect::Api;
use weir_pipeline::ledger::Ledger;
use weir_pipeline::notice::{Dimension, INTEGER_MAX, Notice, Notices};

use crate::request::exchange::Exchange;

/// Puts them onto the answer of an upstream, in the place of the upstream's own.
pub(crate) fn onto_answer(exchange: &Exchange, headers: &mut HeaderMap) {
    exchange.ledger.tell(|notices| {
        let theirs: Vec<_> = headers
            .keys()
            .filter(|name| is_limit(name))
            .cloned()
            .collect();
        for name in theirs {
            headers.remove(name);
        }
        tell(exchange.api, notices, SystemTime::now, |name, value| {
            headers.insert(name, value);
        });
    });
}

/// Puts them onto an answer of the gateway's own.
pub(crate) fn onto_refusal(
    api: Api,
    ledger: &Ledger,
    headers: &mut Vec<(HeaderName, HeaderValue)>,
) {
    ledger.tell(|notices| {
        headers.retain(|(name, _)| !is_limit(name));
        tell(api, notices, SystemTime::now, |name, value| {
            headers.push((name, value));
        });
    });
}

fn is_limit(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("x-ratelimit-")
        || text.starts_with("anthropic-ratelimit-")
        || *name == RATELIMIT
        || *name == RATELIMIT_POLICY
}

fn tell(
    api: Api,
    notices: &Notices,
    now: impl Fn() -> SystemTime,
    mut put: impl FnMut(HeaderName, HeaderValue),
) {
    let refused = notices.refused();
    let mut standing = String::with_capacity(STANDING_BYTES);
    let mut values = Values::new();
    let mut policies: Option<HeaderValue> = None;
    for notice in notices.iter() {
        // A refused exchange keeps nothing of what other budgets had granted it.
        let given_back = (refused && notice.taken > 0).then(|| notice.given_back());
        let notice = given_back.as_ref().unwrap_or(notice);
        if notice.of.x_ratelimit {
            figures(api, notice, &now, &mut values, &mut put);
        }
        // Of a refused exchange only what refused it: `Retry-After` must not be before `t`.
        if notice.of.ratelimit {
            if !refused || notice.refused_ms.is_some() {
                stand(notice, &mut standing);
            }
            policies = Some(match policies {
                None => notice.of.policy.clone(),
                Some(earlier) => joined(&earlier, &notice.of.policy),
            });
        }
    }
    if let Some(policies) = policies {
        let standing = values.text(&standing);
        put(RATELIMIT_POLICY, policies);
        put(RATELIMIT, standing);
    }
}

/// Limit, rest and reset, each under a name of its own.
fn figures(
    api: Api,
    notice: &Notice,
    now: impl Fn() -> SystemTime,
    values: &mut Values,
    put: &mut impl FnMut(HeaderName, HeaderValue),
) {
    let anthropic = api == Api::Messages;
    let names = if anthropic { &ANTHROPIC } else { &OPENAI };
    let Some([limit, remaining, reset]) = names.get(notice.of.dimension as usize) else {
        return;
    };
    put(limit.clone(), values.number(notice.limit));
    put(remaining.clone(), values.number(notice.remaining));
    let reset_at = if anthropic {
        values.text(&timestamp(now() + Duration::from_millis(notice.reset_ms)))
    } else {
        values.duration(notice.reset_ms)
    };
    put(reset.clone(), reset_at);
}

/// Writes the values of headers one after the other into one buffer, which they share.
struct Values(BytesMut);

impl Values {
    fn new() -> Self {
        Self(BytesMut::with_capacity(VALUES_BYTES))
    }

    fn text(&mut self, text: &str) -> HeaderValue {
        self.0.put_slice(text.as_bytes());
        self.take()
    }

    fn number(&mut self, number: u64) -> HeaderValue {
        self.text(itoa::Buffer::new().format(number))
    }

    fn duration(&mut self, ms: u64) -> HeaderValue {
        // Writing to a buffer that grows cannot fail.
        _ = duration(ms, &mut self.0);
        self.take()
    }

    /// What was written since the last time.
    fn take(&mut self) -> HeaderValue {
        let written = self.0.split().freeze();
        HeaderValue::from_maybe_shared(written).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// One item of `RateLimit`: what is left, and in how many seconds there is as much again as there
/// can be, or as was asked for.
fn stand(notice: &Notice, standing: &mut String) {
    let name = notice.of.window_name(notice.window_seconds);
    let remaining = notice.remaining.min(INTEGER_MAX);
    let wait_ms = notice.refused_ms.unwrap_or(u64::MAX).min(notice.reset_ms);
    let seconds = wait_ms.div_ceil(1_000);
    let separator = if standing.is_empty() { "" } else { ", " };
    let mut number = itoa::Buffer::new();
    standing.push_str(separator);
    standing.push('"');
    standing.push_str(name);
    standing.push_str("\";r=");
    standing.push_str(number.format(remaining));
    standing.push_str(";t=");
    standing.push_str(number.format(seconds));
}

fn joined(one: &HeaderValue, other: &HeaderValue) -> HeaderValue {
    let both = [one.as_bytes(), other.as_bytes()].join(&b", "[..]);
    HeaderValue::from_bytes(&both).unwrap_or_else(|_| one.clone())
}

/// A duration as Go writes it: `0s`, `350ms`, `1.5s`, `6m0s`, `1h2m3.5s`.
fn duration(ms: u64, to: &mut impl fmt::Write) -> fmt::Result {
    let mut digits = itoa::Buffer::new();
    let mut part = |number, unit| {
        to.write_str(digits.format(number))?;
        to.write_str(unit)
    };
    if ms == 0 {
        return part(0, "s");
    }
    if ms < 1_000 {
        return part(ms, "ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let (seconds, thousandths) = (ms / 1_000 % 60, ms % 1_000);
    if hours > 0 {
        part(hours, "h")?;
    }
    if hours > 0 || minutes > 0 {
        part(minutes, "m")?;
    }
    if thousandths == 0 {
        return part(seconds, "s");
    }
    part(seconds, ".")?;
    let fraction = format!("{thousandths:03}");
    to.write_str(fraction.trim_end_matches('0'))?;
    to.write_str("s")
}

/// A time as RFC 3339 writes it in UTC, rounded up to whole seconds: `2026-11-21T09:12:13Z`.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix = since.as_millis().div_ceil(1_000);
    let (days, second) = (unix / 86_400, unix % 86_400);
    // Days of the Gregorian calendar, counted from 0000-03-01 so that leap days end a year; 400
    // years have 146 097 of them.
    let from_march = days + 719_468;
    let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u128::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// By [`Dimension`]: limit, rest, reset.
type Names = [[HeaderName; 3]; Dimension::ALL.len()];

static OPENAI: Names = [
    [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-input-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-input-tokens"),
        HeaderName::from_static("x-ratelimit-reset-input-tokens"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-output-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-output-tokens"),
        HeaderName::from_static("x-ratelimit-reset-output-tokens"),
    ],
];

static ANTHROPIC: Names = [
    [
        HeaderName::from_static("anthropic-ratelimit-requests-limit"),
        HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
        HeaderName::from_static("anthropic-ratelimit-requests-reset"),
    ],
    [
        HeaderName::from_static("anthropic-ratelimit-tokens-limit"),
        HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
        HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
    ],
    [
        HeaderName::from_static("anthropic-ratelimit-input-tokens-limit"),
        HeaderName::from_static("anthropic-ratelimit-input-tokens-remaining"),
        HeaderName::from_static("anthropic-ratelimit-input-tokens-reset"),
    ],
    [
        HeaderName::from_static("anthropic-ratelimit-output-tokens-limit"),
        HeaderName::from_static("anthropic-ratelimit-output-tokens-remaining"),
        HeaderName::from_static("anthropic-ratelimit-output-tokens-reset"),
    ],
];

/// Room for one item of `RateLimit`, and most pairs of them.
const STANDING_BYTES: usize = 64;
/// Room for the values of two budgets.
const VALUES_BYTES: usize = 192;
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fmt::Write as _;
    use std::sync::Arc;

    use weir_pipeline::notice::Announcement;

    use super::*;

    struct Budget {
        dimension: Dimension,
        windows: &'static [(u64, u32)],
        remaining: u64,
        taken: u64,
        refused_ms: Option<u64>,
    }

    const TOKENS: Budget = Budget {
        dimension: Dimension::Tokens,
        windows: &[(600, 60), (9_000, 3_600)],
        remaining: 150,
        taken: 50,
        refused_ms: None,
    };
    const REQUESTS: Budget = Budget {
        dimension: Dimension::Requests,
        windows: &[(5, 1)],
        remaining: 4,
        taken: 1,
        refused_ms: None,
    };

    /// The headers of budgets, each tightest in its first window, one line each.
    fn told(api: Api, forms: (bool, bool), budgets: &[Budget]) -> String {
        let mut notices = Notices::default();
        for budget in budgets {
            let windows = budget.windows.iter().copied();
            let of = Announcement::new(budget.dimension, forms.0, forms.1, windows);
            let (limit, window_seconds) = *budget.windows.first().unwrap();
            let spent = limit - budget.remaining;
            notices.add(Notice {
                of: Arc::new(of),
                window_seconds,
                limit,
                remaining: budget.remaining,
                reset_ms: spent * u64::from(window_seconds) * 1_000 / limit,
                taken: budget.taken,
                refused_ms: budget.refused_ms,
            });
        }
        let mut lines = String::new();
        let now = UNIX_EPOCH + Duration::from_millis(951_782_399_000);
        tell(
            api,
            &notices,
            || now,
            |name, value| {
                _ = writeln!(lines, "{name}: {}", value.to_str().unwrap());
            },
        );
        lines
    }

    #[test]
    fn openai_and_the_ietf() {
        let expected = r#"x-ratelimit-limit-requests: 5
x-ratelimit-remaining-requests: 4
x-ratelimit-reset-requests: 200ms
x-ratelimit-limit-tokens: 600
x-ratelimit-remaining-tokens: 150
x-ratelimit-reset-tokens: 45s
ratelimit-policy: "requests-second";q=5;w=1, "tokens-minute";q=600;w=60;qu="tokens", "tokens-hour";q=9000;w=3600;qu="tokens"
ratelimit: "requests-second";r=4;t=1, "tokens-minute";r=150;t=45
"#;
        let both = [TOKENS, REQUESTS];
        assert_eq!(told(Api::ChatCompletions, (true, true), &both), expected);
    }

    #[test]
    fn anthropic_has_names_and_times_of_its_own() {
        let expected = "anthropic-ratelimit-tokens-limit: 600
anthropic-ratelimit-tokens-remaining: 150
anthropic-ratelimit-tokens-reset: 2000-02-29T00:00:44Z
";
        assert_eq!(told(Api::Messages, (true, false), &[TOKENS]), expected);
    }

    #[test]
    fn a_refused_exchange_keeps_nothing() {
        let output = Budget {
            dimension: Dimension::OutputTokens,
            windows: &[(100, 60)],
            remaining: 40,
            taken: 0,
            refused_ms: Some(6_001),
        };
        let expected = r#"x-ratelimit-limit-tokens: 600
x-ratelimit-remaining-tokens: 200
x-ratelimit-reset-tokens: 40s
x-ratelimit-limit-output-tokens: 100
x-ratelimit-remaining-output-tokens: 40
x-ratelimit-reset-output-tokens: 36s
ratelimit-policy: "tokens-minute";q=600;w=60;qu="tokens", "tokens-hour";q=9000;w=3600;qu="tokens", "output-tokens-minute";q=100;w=60;qu="output-tokens"
ratelimit: "output-tokens-minute";r=40;t=7
"#;
        let both = [TOKENS, output];
        assert_eq!(told(Api::Responses, (true, true), &both), expected);
    }

    #[test]
    fn nothing_announced_is_nothing_said() {
        assert_eq!(told(Api::ChatCompletions, (true, true), &[]), "");
        assert_eq!(told(Api::ChatCompletions, (false, false), &[TOKENS]), "");
    }

    #[test]
    fn durations_are_written_as_go_does() {
        let table = [
            (0, "0s"),
            (1, "1ms"),
            (120, "120ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (1_050, "1.05s"),
            (60_000, "1m0s"),
            (61_002, "1m1.002s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (3_723_500, "1h2m3.5s"),
            (604_800_000, "168h0m0s"),
        ];
        for (ms, expected) in table {
            let mut text = String::new();
            duration(ms, &mut text).unwrap();
            assert_eq!(text, expected, "{ms} ms");
        }
    }

    #[test]
    fn times_are_written_as_rfc_3339_says() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:01Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_800_000, "2000-03-01T00:00:00Z"),
            (1_709_251_199_001, "2024-03-01T00:00:00Z"),
            (1_795_000_000_000, "2026-11-18T11:06:40Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ];
        for (ms, expected) in table {
            let at = UNIX_EPOCH + Duration::from_millis(ms);
            assert_eq!(timestamp(at), expected, "{ms} ms");
        }
    }
}
