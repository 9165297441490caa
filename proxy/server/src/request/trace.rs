//! W3C trace context: the caller's trace is joined, or one is begun, and passed on upstream.

use http::{HeaderName, HeaderValue};
use weir_dialect::Outcome;

use crate::request::exchange::Exchange;
use crate::request::hexadecimal;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// An exchange's place in a trace, where its span is recorded.
pub(crate) struct Hop {
    /// Of the whole.
    pub(crate) trace_id: u128,
    /// Of the exchange; the upstream's span is its child.
    pub(crate) span_id: u64,
    /// The caller's span, unless the trace begins here.
    pub(crate) parent: Option<u64>,
    /// W3C's trace flags.
    pub(crate) flags: u8,
    /// Written by `relay` and `events`: what the answer says of itself.
    pub(crate) outcome: Outcome,
}

/// Puts this hop into `traceparent`: the same trace and flags under a span of our own. A missing
/// or malformed header begins a new trace, of which a share is sampled where spans are exported;
/// `tracestate` goes on untouched. What the caller samples is recorded, what it does not is not.
pub(crate) fn join(exchange: &mut Exchange) {
    let Some(facts) = &mut exchange.facts else {
        return;
    };
    let spans = exchange.runtime.spans.as_ref();
    let span_id = nonzero();
    let given = facts
        .headers
        .get(&TRACEPARENT)
        .and_then(|value| value.to_str().ok());
    let (value, hop) = match given.and_then(parse) {
        Some(caller) => {
            let Caller { trace, flags, .. } = caller;
            let hop = spans.and_then(|_| caller.sampled(span_id));
            let write_trace = |text: &mut String| text.push_str(trace);
            (traceparent(write_trace, span_id, flags), hop)
        }
        None => {
            let trace_id = u128::from(nonzero()) << 64 | u128::from(fastrand::u64(..));
            let sampled = spans.is_some_and(|spans| spans.samples(trace_id));
            let flags = u8::from(sampled);
            let hop = sampled.then_some(Hop {
                trace_id,
                span_id,
                parent: None,
                flags,
                outcome: Outcome::default(),
            });
            let write_trace = |text: &mut String| hexadecimal::push(text, &trace_id.to_be_bytes());
            let flags = if sampled { "01" } else { "00" };
            (traceparent(write_trace, span_id, flags), hop)
        }
    };
    exchange.hop = hop.map(Box::new);
    if let Ok(value) = HeaderValue::try_from(value) {
        facts.headers.insert(TRACEPARENT, value);
    }
}

/// The header for the next hop.
fn traceparent(write_trace: impl FnOnce(&mut String), span_id: u64, flags: &str) -> String {
    let mut text = String::with_capacity(55);
    text.push_str("00-");
    write_trace(&mut text);
    text.push('-');
    hexadecimal::push(&mut text, &span_id.to_be_bytes());
    text.push('-');
    text.push_str(flags);
    text
}

/// A valid header's fields, in hexadecimal.
#[derive(Debug, PartialEq, Eq)]
struct Caller<'a> {
    trace: &'a str,
    span: &'a str,
    flags: &'a str,
}

impl Caller<'_> {
    /// The hop below it, if it is sampled.
    fn sampled(&self, span_id: u64) -> Option<Hop> {
        let flags = u8::from_str_radix(self.flags, 16).ok()?;
        let hop = Hop {
            trace_id: u128::from_str_radix(self.trace, 16).ok()?,
            span_id,
            parent: Some(u64::from_str_radix(self.span, 16).ok()?),
            flags,
            outcome: Outcome::default(),
        };
        (flags & SAMPLED != 0).then_some(hop)
    }
}

const SAMPLED: u8 = 1;

/// The fields of a valid header (W3C Trace Context 1, 3.2).
fn parse(value: &str) -> Option<Caller<'_>> {
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
    valid.then_some(Caller { trace, span, flags })
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
        let caller = parse(good).unwrap();
        assert_eq!(caller.trace, "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((caller.span, caller.flags), ("b7ad6b7169203331", "01"));
        let hop = caller.sampled(7).unwrap();
        assert_eq!(hop.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!((hop.span_id, hop.flags), (7, 1));
        assert_eq!(hop.parent, Some(0xb7ad_6b71_6920_3331));
        let unsampled = good.replace("-01", "-02");
        assert!(parse(&unsampled).unwrap().sampled(7).is_none());
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
