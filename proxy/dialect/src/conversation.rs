//! Keys for conversations whose caller gives them no name, made from what is said in them. They
//! cost a walk over the content: ask only when nothing stronger was found.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::Api;
use crate::canonical::{Canonical, compact_pieces};
use crate::peek::Peek;
use crate::scan::{Cursor, unquoted};

/// SHA-256 over the JSON text of `messages`, or `input` of responses, without the white space
/// between its tokens. It changes with every turn. `None` where there is neither, and for
/// embeddings, which belong to no conversation. `peek` is what [`crate::peek`] said of `body`.
#[must_use]
pub fn payload_digest(body: &[u8], peek: &Peek) -> Option<[u8; 32]> {
    let content = body.get(peek.spans.content.clone()?)?;
    let mut hasher = Sha256::new();
    compact_pieces(content, |piece| hasher.update(piece));
    Some(hasher.finalize().into())
}

/// The same for every turn of a conversation whose caller sends all of it each time: a chain of
/// hashes that begins with the system prompt or instructions and goes message by message up to
/// the first one of the user, or over the first message alone when the user says nothing.
///
/// White space, the order of members, `cache_control` and whether a text stands alone or as the
/// only part make no difference. Of each message 64 KiB count, and the length of its texts.
///
/// `None` where there is no content, where the body holds only the end of the conversation
/// (`previous_response_id`, `conversation`), and for embeddings. `peek` is what [`crate::peek`]
/// said of `body` for `api`.
#[must_use]
pub fn conversation_digest(api: Api, body: &[u8], peek: &Peek) -> Option<[u8; 32]> {
    let is_conversation = matches!(api, Api::ChatCompletions | Api::Responses | Api::Messages);
    if !is_conversation || peek.spans.is_tail {
        return None;
    }
    let content = body.get(peek.spans.content.clone()?)?;
    let start = match &peek.spans.system {
        Some(span) => {
            let mut system = Canonical::new();
            system.content(body.get(span.clone())?);
            system.finish()
        }
        None => NOTHING,
    };
    let mut cursor = Cursor::new(content, 0);
    if !cursor.eat(b'[') {
        let mut only = Canonical::new();
        only.content(content);
        return Some(link(start, USER, only.finish()));
    }
    let (mut chain, mut first) = (start, None);
    for _ in 0..MESSAGES_MAX {
        if !cursor.next_item() {
            break;
        }
        let (role, said) = message(&mut cursor);
        chain = link(chain, &role, said);
        if role == USER {
            return Some(chain);
        }
        first.get_or_insert(chain);
    }
    first
}

/// The role of the message at the cursor and the digest of its content, or of all of it when it
/// has none, as calls of tools and their results do in responses.
fn message<'a>(cursor: &mut Cursor<'a>) -> (Cow<'a, str>, [u8; 32]) {
    let whole = cursor.value();
    let whole = cursor.slice(&whole);
    let mut members = Cursor::new(whole, 0);
    let (mut role, mut content) = (None, None);
    if members.eat(b'{') {
        while let Some(name) = members.next_key() {
            let value = members.value();
            let value = members.slice(&value);
            match members.slice(&name) {
                b"\"role\"" => role = unquoted(value),
                b"\"content\"" => content = Some(value),
                _ => {}
            }
        }
    }
    let mut said = Canonical::new();
    match content {
        Some(content) => said.content(content),
        None => said.value(whole, 0),
    }
    (role.unwrap_or_default(), said.finish())
}

fn link(before: [u8; 32], role: &str, said: [u8; 32]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(before);
    hasher.update((role.len() as u64).to_le_bytes());
    hasher.update(role);
    hasher.update(said);
    hasher.finalize().into()
}

const USER: &str = "user";
/// SHA-256 of no bytes.
const NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];
/// How far the user's first message is looked for.
const MESSAGES_MAX: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#[path = "conversation_tests.rs"]
mod tests;
