//! Edits of JSON bodies that leave every other byte as it was.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::scan::{Cursor, depth_is_bounded, unquoted};

/// One change to a JSON body, named by an RFC 6901 pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonEdit {
    /// Puts a value in place. A missing last member of an existing object is added; `-` as the
    /// last step appends to an array.
    Set {
        /// Where.
        pointer: String,
        /// The new value, as JSON text.
        value: String,
    },
    /// Takes a member or element away; nothing happens when it is not there.
    Remove {
        /// Where.
        pointer: String,
    },
}

/// Why a list of edits was refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EditError {
    /// A pointer that is neither empty nor starts with `/`, or removes the whole body.
    #[error("json pointer `{pointer}` cannot be edited, write it as /member/0/...")]
    Pointer {
        /// The pointer as given.
        pointer: String,
    },
    /// What is to hold the value is not there or is no object or array that can.
    #[error("json pointer `{pointer}` leads nowhere, its parent must exist")]
    NoParent {
        /// The pointer as given.
        pointer: String,
    },
    /// The value is not one JSON value.
    #[error("value for json pointer `{pointer}` is not valid JSON")]
    Value {
        /// The pointer as given.
        pointer: String,
    },
    /// The body is not JSON, or nested deeper than 128 levels afterwards.
    #[error("edited body is not valid JSON of at most 128 levels")]
    Body,
}

/// Replaces ranges of `body`. The list is sorted in place; an edit that overlaps an earlier one
/// or leaves the body is left out, so ranges must come from one reading of the same body.
#[must_use]
pub fn splice<T: AsRef<[u8]>>(body: &[u8], edits: &mut [(Range<usize>, T)]) -> Bytes {
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    // To the byte: what is left over would cost another allocation to be shared.
    let added: usize = edits.iter().map(|(_, text)| text.as_ref().len()).sum();
    let removed: usize = edits.iter().map(|(range, _)| range.len()).sum();
    let mut out = Vec::with_capacity((body.len() + added).saturating_sub(removed));
    let mut done = 0;
    for (range, text) in edits.iter() {
        if range.start > range.end || range.end > body.len() {
            continue;
        }
        let Some(kept) = body.get(done..range.start) else {
            continue;
        };
        out.extend_from_slice(kept);
        out.extend_from_slice(text.as_ref());
        done = range.end;
    }
    out.extend_from_slice(body.get(done..).unwrap_or_default());
    Bytes::from(out)
}

/// The span of the value an RFC 6901 pointer names. Of doubled members the last one counts, as
/// it does for nearly every reader. `body` must be valid JSON: on other bytes the answer means
/// nothing.
#[must_use]
pub fn locate(body: &[u8], pointer: &str) -> Option<Range<usize>> {
    let mut cursor = Cursor::new(body, 0);
    let mut found = cursor.value();
    if found.is_empty() {
        return None;
    }
    for step in steps(pointer)? {
        found = child(body, &found, &step)?;
    }
    Some(found)
}

/// Applies edits in order, each to what the one before left; all or none.
///
/// # Errors
/// When a pointer, a value or the resulting body is not acceptable; the body is then unchanged.
pub fn apply_json_edits(body: &[u8], edits: &[JsonEdit]) -> Result<Bytes, EditError> {
    let mut now = Cow::Borrowed(body);
    for edit in edits {
        match edit {
            JsonEdit::Set { pointer, value } => {
                if serde_json::from_str::<&RawValue>(value).is_err() {
                    return Err(EditError::Value {
                        pointer: pointer.clone(),
                    });
                }
                let change = set(&now, pointer, value.as_bytes())?;
                now = Cow::Owned(splice(&now, &mut [change]).into());
            }
            JsonEdit::Remove { pointer } => {
                let mut cuts: Vec<_> = removal(&now, pointer)?
                    .into_iter()
                    .map(|cut| (cut, Vec::new()))
                    .collect();
                if !cuts.is_empty() {
                    now = Cow::Owned(splice(&now, &mut cuts).into());
                }
            }
        }
    }
    if serde_json::from_slice::<&RawValue>(&now).is_err() || !depth_is_bounded(&now) {
        return Err(EditError::Body);
    }
    Ok(Bytes::from(now.into_owned()))
}

/// A string as JSON text, quotes included.
#[must_use]
pub fn quote(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).unwrap_or_default()
}

/// The change that sets a member of the object `text` holds; `None` when it is no object.
pub(crate) fn set_member(text: &[u8], name: &str, value: &[u8]) -> Option<(Range<usize>, Vec<u8>)> {
    let object = Cursor::new(text, 0).value();
    if text.get(object.start) != Some(&b'{') {
        return None;
    }
    if let Some(found) = child(text, &object, name) {
        return Some((found, value.to_vec()));
    }
    append_member(text, &object, name, value)
}

/// The change that adds a member to the object that stands at `object`.
pub(crate) fn append_member(
    text: &[u8],
    object: &Range<usize>,
    name: &str,
    value: &[u8],
) -> Option<(Range<usize>, Vec<u8>)> {
    let mut added = quote(name);
    added.push(b':');
    added.extend_from_slice(value);
    appended(text, object, added)
}

/// The cuts that take members away from the object that stands at `object`, separators included.
/// Every copy of a doubled member goes, or an earlier one would come back to life.
pub(crate) fn member_cuts(
    body: &[u8],
    object: &Range<usize>,
    is_named: impl Fn(&str) -> bool,
) -> Vec<Range<usize>> {
    let mut cursor = Cursor::new(body, object.start);
    cursor.eat(b'{');
    let mut cuts = Vec::new();
    let mut kept = false;
    let mut end = None;
    let mut next = cursor.next_key();
    while let Some(key) = next {
        let value = cursor.value();
        next = cursor.next_key();
        let named = unquoted(cursor.slice(&key)).is_some_and(|name| is_named(&name));
        if named {
            let next = next.as_ref().map(|key| key.start);
            cuts.push(cut(&key, &value, end.filter(|_| kept), next));
        }
        kept |= !named;
        end = Some(value.end);
    }
    cuts
}

fn set(body: &[u8], pointer: &str, value: &[u8]) -> Result<(Range<usize>, Vec<u8>), EditError> {
    let bad = || EditError::Pointer {
        pointer: pointer.to_owned(),
    };
    let orphan = || EditError::NoParent {
        pointer: pointer.to_owned(),
    };
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        let whole = locate(body, pointer).ok_or_else(bad)?;
        return Ok((whole, value.to_vec()));
    };
    if !parent.is_empty() && !parent.starts_with('/') {
        return Err(bad());
    }
    let parent = locate(body, parent).ok_or_else(orphan)?;
    let last = unescaped(last);
    if body.get(parent.start) == Some(&b'{') {
        let text = body.get(parent.clone()).unwrap_or_default();
        let (range, text) = set_member(text, &last, value).ok_or_else(orphan)?;
        return Ok((range.start + parent.start..range.end + parent.start, text));
    }
    if last == "-" && body.get(parent.start) == Some(&b'[') {
        return appended(body, &parent, value.to_vec()).ok_or_else(orphan);
    }
    let found = child(body, &parent, &last).ok_or_else(orphan)?;
    Ok((found, value.to_vec()))
}

/// The cuts that take a value away, separators included.
fn removal(body: &[u8], pointer: &str) -> Result<Vec<Range<usize>>, EditError> {
    let split = pointer
        .rsplit_once('/')
        .filter(|(parent, _)| parent.is_empty() || parent.starts_with('/'));
    let Some((parent, last)) = split else {
        return Err(EditError::Pointer {
            pointer: pointer.to_owned(),
        });
    };
    let Some(parent) = locate(body, parent) else {
        return Ok(Vec::new());
    };
    let last = unescaped(last);
    let mut cursor = Cursor::new(body, parent.start);
    if cursor.peek() == Some(b'{') {
        return Ok(member_cuts(body, &parent, |name| name == last));
    }
    let mut cuts = Vec::new();
    if cursor.eat(b'[')
        && let Some((value, previous)) = index(&last).and_then(|index| element(&mut cursor, index))
    {
        let next = cursor.next_item().then(|| cursor.at());
        cuts.push(cut(&value, &value, previous, next));
    }
    Ok(cuts)
}

/// With the comma before when something stays before it, else with the comma after.
const fn cut(
    first: &Range<usize>,
    value: &Range<usize>,
    previous: Option<usize>,
    next: Option<usize>,
) -> Range<usize> {
    match (previous, next) {
        (Some(previous), _) => previous..value.end,
        (None, Some(next)) => first.start..next,
        (None, None) => first.start..value.end,
    }
}

/// The last member of that name, or the element of that index.
fn child(body: &[u8], parent: &Range<usize>, step: &str) -> Option<Range<usize>> {
    let mut cursor = Cursor::new(body, parent.start);
    if cursor.eat(b'{') {
        let mut found = None;
        while let Some(key) = cursor.next_key() {
            let value = cursor.value();
            if unquoted(cursor.slice(&key)).as_deref() == Some(step) {
                found = Some(value);
            }
        }
        return found;
    }
    if cursor.eat(b'[') {
        return Some(element(&mut cursor, index(step)?)?.0);
    }
    None
}

/// The element of that index and the end of the one before.
fn element(cursor: &mut Cursor<'_>, index: usize) -> Option<(Range<usize>, Option<usize>)> {
    let mut previous = None;
    for _ in 0..index {
        if !cursor.next_item() {
            return None;
        }
        previous = Some(cursor.value().end);
    }
    cursor.next_item().then(|| (cursor.value(), previous))
}

/// The change that adds `text` behind the last child of an object or array.
fn appended(body: &[u8], parent: &Range<usize>, text: Vec<u8>) -> Option<(Range<usize>, Vec<u8>)> {
    let inner = body.get(parent.start + 1..parent.end.checked_sub(1)?)?;
    let last = inner.iter().rposition(|byte| !byte.is_ascii_whitespace());
    let Some(last) = last else {
        let at = parent.start + 1;
        return Some((at..at, text));
    };
    let at = parent.start + 1 + last + 1;
    let mut added = Vec::with_capacity(text.len() + 1);
    added.push(b',');
    added.extend_from_slice(&text);
    Some((at..at, added))
}

fn steps(pointer: &str) -> Option<impl Iterator<Item = Cow<'_, str>>> {
    let rest = match pointer.strip_prefix('/') {
        Some(rest) => Some(rest),
        None if pointer.is_empty() => None,
        None => return None,
    };
    Some(
        rest.into_iter()
            .flat_map(|rest| rest.split('/').map(unescaped)),
    )
}

fn unescaped(step: &str) -> Cow<'_, str> {
    if step.contains('~') {
        Cow::Owned(step.replace("~1", "/").replace("~0", "~"))
    } else {
        Cow::Borrowed(step)
    }
}

/// RFC 6901: digits without leading zeros.
fn index(step: &str) -> Option<usize> {
    let plain =
        step.bytes().all(|byte| byte.is_ascii_digit()) && (step == "0" || !step.starts_with('0'));
    if plain { step.parse().ok() } else { None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#[path = "edit_tests.rs"]
mod tests;
