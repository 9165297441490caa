//! What a filter may change: checked against its grants, then applied as one unit or not at all.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use weir_dialect::JsonEdit;

use crate::attributes::ATTRIBUTE_BYTES_MAX;
use crate::facts::Facts;
use crate::intern::Interner;
use crate::settings::ModelSettings;

/// One change of the headers at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Replaces all values.
    Set(HeaderName, HeaderValue),
    /// Adds a value.
    Append(HeaderName, HeaderValue),
    /// Removes all values.
    Remove(HeaderName),
}

/// Everything one phase call wants changed.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    /// Of the request headers, or in response phases of the response's.
    pub headers: Vec<HeaderEdit>,
    /// Of the request body.
    pub json: Vec<JsonEdit>,
    /// Notes for later filters, or settings of the model for this exchange.
    pub attributes: Vec<(String, String)>,
}

/// What the config lets one filter change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EditGrants {
    /// Header names; `*` = all but those never writable.
    pub write_headers: Vec<String>,
    /// JSON pointers, each with everything below it; `*` = all but `/model` and `/stream`.
    pub write_json: Vec<String>,
    /// Whether it may leave attributes.
    pub attributes: bool,
    /// Most edits in one verdict.
    pub edits_max: usize,
}

impl EditGrants {
    /// Whether the header of this name, in lower case, may be written.
    #[must_use]
    pub fn allows_header(&self, name: &str) -> bool {
        !NEVER_WRITABLE.contains(&name)
            && self
                .write_headers
                .iter()
                .any(|granted| granted == "*" || granted.eq_ignore_ascii_case(name))
    }
}

/// Which headers edits are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The request on its way upstream.
    Request,
    /// The answer on its way to the caller.
    Response,
}

/// Why edits were refused; nothing was applied.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EditError {
    /// Too many.
    #[error("{count} edits, at most {max} are allowed")]
    TooMany {
        /// As returned.
        count: usize,
        /// As configured.
        max: usize,
    },
    /// No grant.
    #[error("no grant to write {what} `{name}`")]
    NoGrant {
        /// Kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Cannot be done.
    #[error("cannot apply: {0}")]
    Impossible(String),
}

/// Never writable by a filter: they belong to the connection, to framing, or to the gateway.
const NEVER_WRITABLE: &[&str] = &[
    "connection",
    "content-length",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-cache-affinity-key",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Changing these would separate what was authorized and admitted from what is sent.
const NEVER_WRITABLE_JSON: &[&str] = &["/model", "/stream"];

/// Checks edits against grants and applies them to the facts.
///
/// # Errors
/// The first edit that is not granted or cannot be applied; the facts are then unchanged.
pub fn apply(
    edits: Edits,
    grants: &EditGrants,
    side: Side,
    filter: &str,
    interner: &Interner,
    facts: &mut Facts,
) -> Result<(), EditError> {
    let count = edits.headers.len() + edits.json.len() + edits.attributes.len();
    if count > grants.edits_max {
        return Err(EditError::TooMany {
            count,
            max: grants.edits_max,
        });
    }
    check(&edits, grants, side)?;
    let body = if edits.json.is_empty() {
        None
    } else {
        let edited = weir_dialect::apply_json_edits(&facts.body, &edits.json);
        Some(edited.map_err(|e| EditError::Impossible(e.to_string()))?)
    };
    let mut attributes = facts.attributes.clone();
    let mut settings = None;
    for (name, value) in &edits.attributes {
        if name.starts_with("weir.") {
            let current = settings.as_ref().or(facts.settings.as_deref());
            settings = Some(setting(current, name, value)?);
        } else if !attributes.set(&format!("{filter}.{name}"), value) {
            return Err(EditError::Impossible(format!(
                "attribute `{name}`: too many or too long"
            )));
        }
    }
    // From here on nothing can fail.
    facts.attributes = attributes;
    if let Some(settings) = settings {
        facts.view.settings = settings.changed_id(interner);
        facts.settings = Some(Arc::new(settings));
    }
    if let Some(body) = body {
        facts.view.body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        facts.body = body;
        facts.body_edited = true;
    }
    match (side, facts.response.as_mut()) {
        (Side::Response, Some(response)) => apply_headers(edits.headers, &mut response.headers),
        _ => {
            let set = edits.headers.iter().filter_map(|edit| match edit {
                HeaderEdit::Set(name, _) | HeaderEdit::Append(name, _) => Some(name.clone()),
                HeaderEdit::Remove(_) => None,
            });
            facts.edited_headers.extend(set);
            apply_headers(edits.headers, &mut facts.headers);
        }
    }
    Ok(())
}

/// Settings with one of them replaced.
fn setting(
    current: Option<&ModelSettings>,
    name: &str,
    value: &str,
) -> Result<ModelSettings, EditError> {
    let impossible = |why: &str| EditError::Impossible(format!("attribute `{name}`: {why}"));
    if value.len() > ATTRIBUTE_BYTES_MAX {
        return Err(impossible("too long"));
    }
    let none = ModelSettings::default();
    current
        .unwrap_or(&none)
        .with(name, value)
        .ok_or_else(|| impossible("no setting of a model"))
}

fn check(edits: &Edits, grants: &EditGrants, side: Side) -> Result<(), EditError> {
    for edit in &edits.headers {
        let (HeaderEdit::Set(name, _) | HeaderEdit::Append(name, _) | HeaderEdit::Remove(name)) =
            edit;
        if !grants.allows_header(name.as_str()) {
            return Err(EditError::NoGrant {
                what: "header",
                name: name.to_string(),
            });
        }
    }
    for edit in &edits.json {
        let (JsonEdit::Set { pointer, .. } | JsonEdit::Remove { pointer }) = edit;
        if side == Side::Response || !json_granted(pointer, grants) {
            return Err(EditError::NoGrant {
                what: "JSON",
                name: pointer.clone(),
            });
        }
    }
    match edits.attributes.first() {
        Some((name, _)) if !grants.attributes => Err(EditError::NoGrant {
            what: "attribute",
            name: name.clone(),
        }),
        _ => Ok(()),
    }
}

fn json_granted(pointer: &str, grants: &EditGrants) -> bool {
    let below = |root: &str| {
        pointer
            .strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // The empty pointer is the whole body, the protected members included.
    !pointer.is_empty()
        && !NEVER_WRITABLE_JSON.iter().any(|root| below(root))
        && grants
            .write_json
            .iter()
            .any(|granted| granted == "*" || below(granted))
}

fn apply_headers(edits: Vec<HeaderEdit>, headers: &mut HeaderMap) {
    for edit in edits {
        match edit {
            HeaderEdit::Set(name, value) => drop(headers.insert(name, value)),
            HeaderEdit::Append(name, value) => drop(headers.append(name, value)),
            HeaderEdit::Remove(name) => drop(headers.remove(name)),
        }
    }
}
