//! Keys of limiters, composed from the exchange so that no string crosses.

use std::fmt::Write;

use sha2::{Digest, Sha256};
use weir_pipeline::facts::Facts;

use crate::bindings::weir::filter::state::Subject;

/// Writes the key of a subject into `key`, which is cleared first; `None` when a subject is asked
/// for and there is no exchange.
///
/// Each part is led by a letter and its length, so that no value can be read as a separator:
/// tenants `a` with model `b:c` and `a:b` with `c` are two. A caller that nobody let in is `-`,
/// which no length can be.
pub(super) fn compose(
    key: &mut String,
    who: Subject,
    extra: &str,
    facts: Option<&Facts>,
) -> Option<()> {
    key.clear();
    if who != Subject::default() {
        let facts = facts?;
        let principal = facts.principal.as_deref();
        if who.contains(Subject::TENANT) {
            part(key, 't', principal.map(|principal| &*principal.tenant));
        }
        if who.contains(Subject::PRINCIPAL) {
            part(key, 'p', principal.map(|principal| &*principal.subject));
        }
        if who.contains(Subject::FUNCTION) {
            part(key, 'f', Some(&facts.routing_key));
        }
        if who.contains(Subject::MODEL) {
            part(key, 'm', Some(&facts.model));
        }
    }
    if !extra.is_empty() {
        part(key, 'x', Some(extra));
    }
    if key.len() > PLAIN_BYTES_MAX {
        let hash = Sha256::digest(key.as_bytes());
        key.clear();
        key.push('#');
        for byte in hash {
            // Writing into a string does not fail.
            let _ = write!(key, "{byte:02x}");
        }
    }
    Some(())
}

fn part(key: &mut String, letter: char, value: Option<&str>) {
    key.push(letter);
    match value {
        Some(value) => {
            let _ = write!(key, "{}:", value.len());
            key.push_str(value);
        }
        None => key.push('-'),
    }
}

/// Longer keys (model names come from callers) are replaced by their hash.
const PLAIN_BYTES_MAX: usize = 256;
