//! Per-request controls of tests: `x-sim-*` headers, or `sim_*` members of the body's `metadata`.

use std::str::FromStr;

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use crate::fault::Fault;

/// What this request asks the simulation to do; a control not given leaves the settings in force.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Controls {
    pub(crate) ttft_ms: Option<u64>,
    pub(crate) tokens: Option<u32>,
    pub(crate) tps: Option<f64>,
    /// Status to refuse with.
    pub(crate) error: Option<StatusCode>,
    /// Events (stream) or bytes (unary) after which the connection is cut.
    pub(crate) disconnect_after: Option<u64>,
    /// Events (stream) or bytes (unary) after which nothing more is sent, ever.
    pub(crate) stall_after: Option<u64>,
    /// Tokens after which a stream ends in an error event.
    pub(crate) error_event: Option<u32>,
    pub(crate) no_usage: bool,
}

impl Controls {
    /// Reads both places; where both name the same control, the header counts.
    pub(crate) fn read(headers: &HeaderMap, metadata: &Map<String, Value>) -> Result<Self, Fault> {
        let mut controls = Self::default();
        for (name, value) in metadata {
            let Some(control) = name.strip_prefix("sim_") else {
                continue;
            };
            match value {
                Value::String(text) => controls.set(&control.replace('_', "-"), text)?,
                other => controls.set(&control.replace('_', "-"), &other.to_string())?,
            }
        }
        for (name, value) in headers {
            let Some(control) = name.as_str().strip_prefix("x-sim-") else {
                continue;
            };
            controls.set(control, value.to_str().unwrap_or_default())?;
        }
        Ok(controls)
    }

    fn set(&mut self, control: &str, value: &str) -> Result<(), Fault> {
        match control {
            "ttft-ms" => self.ttft_ms = Some(parse(control, value)?),
            "tokens" => self.tokens = Some(parse(control, value)?),
            "tps" => self.tps = Some(parse(control, value)?),
            "error" => self.error = Some(parse(control, value)?),
            "disconnect-after" => self.disconnect_after = Some(parse(control, value)?),
            "stall-after" => self.stall_after = Some(parse(control, value)?),
            "error-event" => self.error_event = Some(parse(control, value)?),
            "no-usage" => self.no_usage = value.trim() != "0",
            _ => {
                return Err(Fault::invalid(format!(
                    "Unknown simulator control '{control}'."
                )));
            }
        }
        Ok(())
    }
}

fn parse<T: FromStr>(control: &str, value: &str) -> Result<T, Fault> {
    let bad = |_| {
        Fault::invalid(format!(
            "Simulator control '{control}' cannot be '{value}'."
        ))
    };
    value.trim().parse().map_err(bad)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use http::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn headers_and_metadata_say_the_same() {
        let by_header = headers(&[
            ("x-sim-ttft-ms", "5"),
            ("x-sim-tps", "2.5"),
            ("x-sim-error", "503"),
            ("x-sim-no-usage", "1"),
            ("x-other", "1"),
        ]);
        let by_metadata = json!({"sim_ttft_ms": "5", "sim_tps": 2.5, "sim_error": "503", "sim_no_usage": "1", "user_id": "u"});
        let one = Controls::read(&by_header, &Map::new()).unwrap();
        let other = Controls::read(&HeaderMap::new(), by_metadata.as_object().unwrap()).unwrap();
        assert_eq!(one, other);
        assert_eq!(one.error, Some(StatusCode::SERVICE_UNAVAILABLE));
        let both = Controls::read(
            &headers(&[("x-sim-tps", "9")]),
            by_metadata.as_object().unwrap(),
        )
        .unwrap();
        assert_eq!(both.tps, Some(9.0));
    }

    #[test]
    fn nonsense_is_refused() {
        for pair in [
            ("x-sim-tokens", "-1"),
            ("x-sim-error", "7"),
            ("x-sim-tps", "fast"),
            ("x-sim-speed", "1"),
        ] {
            assert!(
                Controls::read(&headers(&[pair]), &Map::new()).is_err(),
                "{pair:?}"
            );
        }
    }
}
