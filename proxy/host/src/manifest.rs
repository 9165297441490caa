//! What a filter says of itself, and whether its grants cover it.

use http::HeaderName;
use serde::Serialize;
use weir_config::Grants;

use crate::bindings::exports::weir::filter::lifecycle;
use crate::guest_state::FilterIdentity;

/// What `describe` returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// The filter's own name; the one in the config may differ.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One sentence.
    pub about: String,
    /// Headers it reads; `*` = all.
    pub reads_headers: Vec<String>,
    /// Headers it writes.
    pub writes_headers: Vec<String>,
    /// Whether it reads the body.
    pub reads_body: bool,
    /// JSON pointers it writes.
    pub writes_json: Vec<String>,
    /// Events it wants.
    pub events: EventNeed,
    /// Milliseconds between two ticks, 0 = never.
    pub tick_ms: u32,
    /// What `on-affinity` says follows from the session keys alone.
    pub affinity_by_session_key: bool,
    /// `on-response-headers` is called only where the filter has set its scratch.
    pub response_headers_after_scratch: bool,
}

/// Which events of a stream a filter wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventNeed {
    /// None.
    None,
    /// The first.
    First,
    /// All.
    Every,
}

/// Something a filter needs that its config does not grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingGrant {
    /// Key below `[filters.NAME.grants]`.
    pub key: &'static str,
    /// What to add to it; for a flag: `true`.
    pub value: String,
}

impl std::fmt::Display for MissingGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, value } = self;
        if value == "true" {
            write!(f, "{key} = true")
        } else {
            write!(f, "{key} must have \"{value}\"")
        }
    }
}

impl Manifest {
    /// What is needed and not granted.
    pub(crate) fn missing(&self, filter: &FilterIdentity) -> Vec<MissingGrant> {
        let grants: &Grants = &filter.grants;
        let mut missing = Vec::new();
        let mut need = |key, value: &str, granted: bool| {
            if !granted {
                missing.push(MissingGrant {
                    key,
                    value: value.to_owned(),
                });
            }
        };
        for name in &self.reads_headers {
            let granted = match HeaderName::from_bytes(name.as_bytes()) {
                Ok(header) if name != "*" => filter.reads(&header),
                _ => grants.read_headers.iter().any(|granted| granted == name),
            };
            need("read_headers", name, granted);
        }
        for name in &self.writes_headers {
            let covers = |granted: &String| granted == "*" || granted.eq_ignore_ascii_case(name);
            need(
                "write_headers",
                name,
                grants.write_headers.iter().any(covers),
            );
        }
        need("read_body", "true", grants.read_body || !self.reads_body);
        for pointer in &self.writes_json {
            let covers = |granted: &String| {
                granted == "*"
                    || pointer
                        .strip_prefix(granted.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            need("write_json", pointer, grants.write_json.iter().any(covers));
        }
        missing
    }
}

impl From<lifecycle::Manifest> for Manifest {
    fn from(from: lifecycle::Manifest) -> Self {
        Self {
            name: from.name,
            version: from.version,
            about: from.about,
            reads_headers: from.reads_headers,
            writes_headers: from.writes_headers,
            reads_body: from.reads_body,
            writes_json: from.writes_json,
            events: match from.events {
                lifecycle::EventNeed::None => EventNeed::None,
                lifecycle::EventNeed::First => EventNeed::First,
                lifecycle::EventNeed::Every => EventNeed::Every,
            },
            tick_ms: from.tick_ms,
            affinity_by_session_key: from.affinity_by_session_key,
            response_headers_after_scratch: from.response_headers_after_scratch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_config::FilterLimits;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn missing_grants_name_the_key() {
        let manifest = Manifest {
            name: "m".into(),
            version: "1".into(),
            about: String::new(),
            reads_headers: words(&["x-a", "authorization"]),
            writes_headers: words(&["X-B"]),
            reads_body: true,
            writes_json: words(&["/a/b", "/ab"]),
            events: EventNeed::None,
            tick_ms: 0,
            affinity_by_session_key: false,
            response_headers_after_scratch: false,
        };
        let grants = Grants {
            read_headers: words(&["*"]),
            write_headers: words(&["x-b"]),
            write_json: words(&["/a"]),
            ..Grants::default()
        };
        let filter = FilterIdentity::new("f", grants, FilterLimits::default());
        let missing: Vec<String> = manifest
            .missing(&filter)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            missing,
            [
                "read_headers must have \"authorization\"",
                "read_body = true",
                "write_json must have \"/ab\""
            ]
        );
    }
}
