//! W3C trace context: the caller's trace is joined, or one is begun, and passed on upstream.

use http::{HeaderName, HeaderValue};

use crate::request::exchange::Exchange;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Puts this hop into `traceparent`: the same trace and flags under a span of our own. A missing
/// or malformed header begins a new, unsampled trace; `tracestate` goes on untouched.
pub(crate) fn join(exchange: &mut Exchange) {
    let Some(facts) = &mut exchange.facts else {
        return;
    };
    let given = facts
        .headers
        .get(&TRACEPARENT)
        .and_then(|value| value.to_str().ok());
    let value = match given.and_then(parse) {
        Some((trace, flags)) => format!("00-{trace}-{:016x}-{flags}", nonzero()),
        None => format!(
            "00-{:016x}{:016x}-{:016x}-00",
            nonzero(),
            fastrand::u64(..),
            nonzero()
        ),
    };
    if let Ok(value) = HeaderValue::try_from(value) {
        facts.headers.insert(TRACEPARENT, value);
    }
}

/// Trace id and flags of a valid header (W3C Trace Context 1, 3.2).
fn parse(value: &str) -> Option<(&str, &str)> {
    let mut parts = value.trim().split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        text.len() == length
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    let valid = hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && hex(trace, 32)
        && !zero(trace)
        && hex(span, 16)
        && !zero(span)
        && hex(flags, 2);
    valid.then_some((trace, flags))
}

fn nonzero() -> u64 {
    fastrand::u64(1..)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_headers_are_joined() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(
            parse(good).unwrap(),
            ("0af7651916cd43dd8448eb211c80319c", "01")
        );
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
