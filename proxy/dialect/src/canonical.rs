//! Hashes JSON so that what says the same hashes the same, however it is written.

use memchr::memchr;
use sha2::{Digest, Sha256};

use crate::scan::{Cursor, unquoted};

/// Takes in the content of one message: the same for a string and for one text part of that
/// string, in whatever order members stand, with or without `cache_control`. Of long content only
/// the beginning is hashed, of each text its length too.
pub(crate) struct Canonical {
    hasher: Sha256,
    /// Bytes that are still to be hashed.
    room: usize,
}

impl Canonical {
    pub(crate) fn new() -> Self {
        Self {
            hasher: Sha256::new(),
            room: ROOM,
        }
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.hasher.finalize().into()
    }

    /// A text, or an array of parts. Null is no part.
    pub(crate) fn content(&mut self, raw: &[u8]) {
        let mut cursor = Cursor::new(raw, 0);
        match cursor.peek() {
            Some(b'[') => {
                cursor.eat(b'[');
                while self.room > 0 && cursor.next_item() {
                    let part = cursor.value();
                    self.part(cursor.slice(&part));
                }
            }
            Some(b'n') => {}
            _ => self.part(raw),
        }
    }

    /// Any value.
    pub(crate) fn value(&mut self, raw: &[u8], depth: u32) {
        self.room = self.room.saturating_sub(VALUE_ROOM);
        match raw.first() {
            Some(b'"') => self.string(b's', raw, STRING_ROOM),
            Some(b'{') if depth < DEPTH_SORTED => self.object(raw, depth),
            Some(b'[') if depth < DEPTH_SORTED => {
                self.hasher.update(b"[");
                let mut cursor = Cursor::new(raw, 0);
                cursor.eat(b'[');
                while self.room > 0 && cursor.next_item() {
                    let item = cursor.value();
                    self.value(cursor.slice(&item), depth + 1);
                }
                self.hasher.update(b"]");
            }
            _ => {
                self.hasher.update(b",");
                self.as_written(raw);
            }
        }
    }

    fn part(&mut self, raw: &[u8]) {
        match text_of(raw) {
            Some(text) => self.string(b't', text, ROOM),
            None => self.value(raw, 0),
        }
    }

    /// Members sorted by name, because their order says nothing.
    fn object(&mut self, raw: &[u8], depth: u32) {
        let mut cursor = Cursor::new(raw, 0);
        cursor.eat(b'{');
        let mut members = Vec::new();
        while let Some(name) = cursor.next_key() {
            if members.len() == MEMBERS_SORTED_MAX {
                return self.as_written(raw);
            }
            let value = cursor.value();
            let member = (cursor.slice(&name), cursor.slice(&value));
            if member.0 != b"\"cache_control\"" {
                members.push(member);
            }
        }
        members.sort_unstable();
        self.hasher.update(b"{");
        for (name, value) in members {
            self.as_written(name);
            self.value(value, depth + 1);
        }
        self.hasher.update(b"}");
    }

    /// The text of a string given with its quotes, and its length.
    fn string(&mut self, tag: u8, raw: &[u8], room: usize) {
        let Self { hasher, room: left } = self;
        let mut room = room.min(*left);
        let mut bytes = 0_u64;
        hasher.update([tag]);
        unescaped_pieces(raw, |piece| {
            bytes = bytes.saturating_add(piece.len() as u64);
            let hashed = piece.get(..room).unwrap_or(piece);
            hasher.update(hashed);
            room -= hashed.len();
            *left -= hashed.len();
        });
        hasher.update(bytes.to_le_bytes());
    }

    fn as_written(&mut self, raw: &[u8]) {
        let Self { hasher, room } = self;
        compact_pieces(raw, |piece| {
            let hashed = piece.get(..*room).unwrap_or(piece);
            hasher.update(hashed);
            *room -= hashed.len();
        });
    }
}

/// Cuts the white space between the tokens of JSON out.
pub(crate) fn compact_pieces(text: &[u8], mut take: impl FnMut(&[u8])) {
    let mut start = 0;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = Cursor::new(text, at).string().end,
            b' ' | b'\t' | b'\n' | b'\r' => {
                take(text.get(start..at).unwrap_or_default());
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    take(text.get(start..).unwrap_or_default());
}

/// The string that a value stands for as a part: itself, or what is in a text part.
fn text_of(raw: &[u8]) -> Option<&[u8]> {
    if raw.starts_with(b"\"") {
        return Some(raw);
    }
    let mut cursor = Cursor::new(raw, 0);
    if !cursor.eat(b'{') {
        return None;
    }
    let (mut is_text, mut text) = (false, None);
    while let Some(name) = cursor.next_key() {
        let value = cursor.value();
        let value = cursor.slice(&value);
        match cursor.slice(&name) {
            b"\"type\"" => {
                let kind = unquoted(value).unwrap_or_default();
                is_text = matches!(&*kind, "text" | "input_text" | "output_text");
            }
            b"\"text\"" => text = Some(value),
            _ => {}
        }
    }
    text.filter(|text| is_text && text.starts_with(b"\""))
}

/// The text of a JSON string given with its quotes. What has no text (half a surrogate pair)
/// stands for itself.
fn unescaped_pieces(raw: &[u8], mut take: impl FnMut(&[u8])) {
    let inner = raw.strip_prefix(b"\"").unwrap_or(raw);
    let mut rest = inner.strip_suffix(b"\"").unwrap_or(inner);
    while let Some(at) = memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at(at);
        take(plain);
        let (decoded, bytes) = unescaped(escape);
        match decoded {
            Some(letter) => take(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            None => take(escape.get(..bytes).unwrap_or(escape)),
        }
        rest = escape.get(bytes..).unwrap_or_default();
    }
    take(rest);
}

/// The character an escape stands for, and the bytes it takes.
fn unescaped(escape: &[u8]) -> (Option<char>, usize) {
    let simple = match escape.get(1) {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'u') => return unescaped_unicode(escape),
        Some(byte) => char::from(*byte),
        None => return (None, 1),
    };
    (Some(simple), 2)
}

fn unescaped_unicode(escape: &[u8]) -> (Option<char>, usize) {
    let unit = |escape: &[u8]| {
        let digits = escape.strip_prefix(b"\\u")?.get(..4)?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let high = unit(escape).unwrap_or(0xd800);
    if let Some(letter) = char::from_u32(high) {
        return (Some(letter), 6);
    }
    let low = escape.get(6..).and_then(unit).unwrap_or_default();
    if (0xd800..0xdc00).contains(&high) && (0xdc00..0xe000).contains(&low) {
        let pair = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        return (char::from_u32(pair), 12);
    }
    (None, 6)
}

/// Enough to tell conversations apart, and little beside what reading a body costs anyway.
const ROOM: usize = 64 << 10;
/// Of one string in an image, a file or a tool's result.
const STRING_ROOM: usize = 4 << 10;
/// What each value counts at least, so that many small ones cost no more than a large one.
const VALUE_ROOM: usize = 16;
/// Each level read in order costs one more walk over all below it.
const DEPTH_SORTED: u32 = 4;
const MEMBERS_SORTED_MAX: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_as_serde_reads_them() {
        let table = [
            r#""""#,
            r#""plain""#,
            r#""a\n\t\r\b\f\"\\\/z""#,
            r#""\u0041\u00e9\u20AC\ud83d\ude00\u0000""#,
            r#""Grüße \\u0041""#,
        ];
        for raw in table {
            let mut got = Vec::new();
            unescaped_pieces(raw.as_bytes(), |piece| got.extend_from_slice(piece));
            let expected: String = serde_json::from_str(raw).unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), expected, "{raw}");
        }
        for raw in [
            r#""\ud800""#,
            r#""\ud800\u0041""#,
            r#""\udc00x""#,
            "\"\\",
            "\"\\u12",
        ] {
            let mut got = 0;
            unescaped_pieces(raw.as_bytes(), |piece| got += piece.len());
            assert!(got > 0, "{raw}");
        }
    }

    #[test]
    fn white_space_between_tokens_goes() {
        let text = " { \"a b\" :\t[ 1 ,\r\n\" \\\" \" , true ] } ";
        let mut got = Vec::new();
        compact_pieces(text.as_bytes(), |piece| got.extend_from_slice(piece));
        assert_eq!(got, br#"{"a b":[1," \" ",true]}"#);
    }
}
