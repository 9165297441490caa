//! A cursor over JSON text: finds where values begin and end without decoding them.
//!
//! It trusts the text to be valid JSON, which its users have checked with `serde_json` or check
//! afterwards. On other bytes it still ends and never panics; only its answers mean nothing.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

/// Deepest nesting let through, the same as `serde_json`'s: deeper bodies are bombs.
pub(crate) const DEPTH_MAX: u32 = 128;

#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn slice(&self, range: &Range<usize>) -> &'a [u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// The next byte that is not white space, without taking it.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    /// Takes the next member's name and colon; the cursor then stands before its value.
    /// `None` takes the closing brace. The range includes the quotes.
    pub(crate) fn next_key(&mut self) -> Option<Range<usize>> {
        self.eat(b',');
        if self.peek()? == b'"' {
            let key = self.string();
            self.eat(b':');
            self.peek();
            return Some(key);
        }
        self.eat(b'}');
        None
    }

    /// True when the cursor stands before another element; false takes the closing bracket.
    pub(crate) fn next_item(&mut self) -> bool {
        self.eat(b',');
        match self.peek() {
            None => false,
            Some(b']') => {
                self.at += 1;
                false
            }
            Some(_) => true,
        }
    }

    /// Takes the string the cursor stands on; the range includes the quotes.
    pub(crate) fn string(&mut self) -> Range<usize> {
        let start = self.at;
        self.at += 1;
        while let Some(rest) = self.text.get(self.at..) {
            match memchr2(b'"', b'\\', rest) {
                None => break,
                Some(found) if rest.get(found) == Some(&b'"') => {
                    self.at += found + 1;
                    return start..self.at;
                }
                Some(found) => self.at += found + 2,
            }
        }
        self.at = self.text.len();
        start..self.at
    }

    /// Takes a number, `true`, `false` or `null`; always at least one byte, so loops end.
    pub(crate) fn scalar(&mut self) -> Range<usize> {
        let start = self.at;
        self.at = (self.at + 1).min(self.text.len());
        while let Some(byte) = self.text.get(self.at) {
            if matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r') {
                break;
            }
            self.at += 1;
        }
        start..self.at
    }

    /// Shows `take` the names, quotes included, of the members of the object the cursor stands
    /// before, each time with the cursor before the value. What `take` leaves there is skipped.
    /// False, and nothing taken, when it is no object.
    pub(crate) fn members(&mut self, mut take: impl FnMut(&'a [u8], &mut Self)) -> bool {
        let is_object = self.eat(b'{');
        while is_object && let Some(name) = self.next_key() {
            let before = self.at;
            take(self.slice(&name), self);
            if self.at == before {
                self.value();
            }
        }
        is_object
    }

    /// The same for the elements of an array.
    pub(crate) fn items(&mut self, mut take: impl FnMut(&mut Self)) -> bool {
        let is_array = self.eat(b'[');
        while is_array && self.next_item() {
            let before = self.at;
            take(self);
            if self.at == before {
                self.value();
            }
        }
        is_array
    }

    /// Takes any value: its text.
    pub(crate) fn raw(&mut self) -> &'a [u8] {
        let value = self.value();
        self.slice(&value)
    }

    /// Takes any value: where it stands, if it is a string.
    pub(crate) fn string_span(&mut self) -> Option<Range<usize>> {
        let value = self.value();
        self.slice(&value).starts_with(b"\"").then_some(value)
    }

    /// Takes any value without recursion.
    pub(crate) fn value(&mut self) -> Range<usize> {
        let first = self.peek();
        let start = self.at;
        match first {
            None => return start..start,
            Some(b'"') => return self.string(),
            Some(b'{' | b'[') => {}
            Some(_) => return self.scalar(),
        }
        let mut open = 0_usize;
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    self.string();
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open = open.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                break;
            }
        }
        start..self.at
    }
}

/// Depth of nesting at most [`DEPTH_MAX`]. One pass, no recursion.
pub(crate) fn depth_is_bounded(text: &[u8]) -> bool {
    let mut cursor = Cursor::new(text, 0);
    let mut open = 0_u32;
    while let Some(byte) = text.get(cursor.at) {
        match byte {
            b'"' => {
                cursor.string();
                continue;
            }
            b'{' | b'[' => open += 1,
            b'}' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > DEPTH_MAX {
            return false;
        }
        cursor.at += 1;
    }
    true
}

/// The text of a JSON string given with its quotes; `None` when it is not one (a lone surrogate
/// has no text either).
pub(crate) fn unquoted(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(raw).ok().map(Cow::Owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_json_says() {
        let table = [
            (r#"  "a\"]}" ,"#, r#""a\"]}""#),
            (r#"{"a":[1,"}"]} x"#, r#"{"a":[1,"}"]}"#),
            ("[[],[]],", "[[],[]]"),
            ("-1.5e3}", "-1.5e3"),
            ("true]", "true"),
            (r#""\\""#, r#""\\""#),
        ];
        for (text, expected) in table {
            let range = Cursor::new(text.as_bytes(), 0).value();
            assert_eq!(&text[range], expected, "{text}");
        }
    }

    #[test]
    fn broken_text_never_panics_and_ends() {
        for text in [
            "",
            "\"",
            "\"\\",
            "{",
            "[[",
            "{\"a",
            "{\"a\":",
            "}",
            "]",
            ",",
            "{]",
            "[}",
            "\"a\\",
            "{\"a\":[}",
            "{\"a\":[{]",
            "{\"a\":[{\"b\"}",
            "{\"a\"]",
            "{\"a\":}",
        ] {
            let mut cursor = Cursor::new(text.as_bytes(), 0);
            cursor.value();
            let mut cursor = Cursor::new(text.as_bytes(), 0);
            cursor.eat(b'{');
            while cursor.next_key().is_some() {
                cursor.value();
            }
            assert!(cursor.at() <= text.len() + 1, "{text}");
            let mut cursor = Cursor::new(text.as_bytes(), 0);
            cursor.eat(b'[');
            while cursor.next_item() {
                cursor.value();
            }
            assert!(cursor.at() <= text.len() + 1, "{text}");
            let mut cursor = Cursor::new(text.as_bytes(), 0);
            cursor.members(|_, cursor| {
                cursor.items(|cursor| _ = cursor.members(|_, _| {}));
            });
            assert!(cursor.at() <= text.len() + 1, "{text}");
        }
    }

    #[test]
    fn depth_limit_is_exact() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(depth_is_bounded(nested(128).as_bytes()));
        assert!(!depth_is_bounded(nested(129).as_bytes()));
        assert!(depth_is_bounded(
            format!("\"{}\"", "[".repeat(500)).as_bytes()
        ));
    }
}
