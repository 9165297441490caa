//! Walks one member of a request once: how much text, how many images, how deep.

use crate::scan::{Cursor, DEPTH_MAX};

/// What a member holds, added up over everything below it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measure {
    /// Bytes of string values that a model reads (as written, escapes counted).
    pub(crate) text: usize,
    /// Bytes of inline base64 in image, audio and file parts.
    pub(crate) binary: usize,
    pub(crate) images: u32,
    pub(crate) audio: bool,
    /// Elements, when the member is an array.
    pub(crate) elements: u32,
    /// Those of the elements that are objects.
    pub(crate) objects: u32,
}

/// Nesting beyond [`DEPTH_MAX`].
#[derive(Debug)]
pub(crate) struct TooDeep;

/// Measures the value at the cursor, which then stands behind it. `depth` counts what is open.
pub(crate) fn measure(cursor: &mut Cursor<'_>, depth: u32) -> Result<Measure, TooDeep> {
    let mut walk = Walk {
        cursor,
        total: Measure::default(),
    };
    let rest = walk.value(Key::Other, depth, true)?;
    let mut total = walk.total;
    total.text += rest.pending;
    Ok(total)
}

struct Walk<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    total: Measure,
}

/// What a value tells the object around it: base64 seen below that no part has claimed yet, and
/// the kind of part it names when it is the value of `type`.
#[derive(Default)]
struct Found {
    pending: usize,
    kind: Kind,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[default]
    None,
    Text,
    Image,
    Audio,
    File,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Type,
    Data,
    Url,
    Label,
    Other,
}

impl Walk<'_, '_> {
    fn value(&mut self, key: Key, depth: u32, top: bool) -> Result<Found, TooDeep> {
        match self.cursor.peek() {
            Some(b'"') => Ok(self.string(key)),
            Some(b'{' | b'[') if depth >= DEPTH_MAX => Err(TooDeep),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(key, depth + 1, top),
            Some(_) => {
                self.cursor.scalar();
                Ok(Found::default())
            }
            None => Ok(Found::default()),
        }
    }

    fn object(&mut self, depth: u32) -> Result<Found, TooDeep> {
        self.cursor.eat(b'{');
        let mut kind = Kind::None;
        let mut pending = 0;
        while let Some(name) = self.cursor.next_key() {
            let key = Key::of(self.cursor.slice(&name));
            let found = self.value(key, depth, false)?;
            pending += found.pending;
            if found.kind != Kind::None {
                kind = found.kind;
            }
        }
        match kind {
            Kind::None => {
                return Ok(Found {
                    pending,
                    kind: Kind::None,
                });
            }
            Kind::Text => self.total.text += pending,
            Kind::Image => {
                self.total.images = self.total.images.saturating_add(1);
                self.total.binary += pending;
            }
            Kind::Audio => {
                self.total.audio = true;
                self.total.binary += pending;
            }
            Kind::File => self.total.binary += pending,
        }
        Ok(Found::default())
    }

    fn array(&mut self, key: Key, depth: u32, top: bool) -> Result<Found, TooDeep> {
        self.cursor.eat(b'[');
        let mut pending = 0;
        while self.cursor.next_item() {
            if top {
                let is_object = self.cursor.peek() == Some(b'{');
                self.total.objects = self.total.objects.saturating_add(u32::from(is_object));
                self.total.elements = self.total.elements.saturating_add(1);
            }
            // The kind is dropped: only a string directly under `type` names a part.
            pending += self.value(key, depth, false)?.pending;
        }
        Ok(Found {
            pending,
            kind: Kind::None,
        })
    }

    fn string(&mut self, key: Key) -> Found {
        let range = self.cursor.string();
        let raw = self.cursor.slice(&range);
        let bytes = raw.len().saturating_sub(2);
        match key {
            Key::Type => {
                return Found {
                    pending: 0,
                    kind: Kind::of(raw),
                };
            }
            Key::Data => {
                return Found {
                    pending: bytes,
                    kind: Kind::None,
                };
            }
            Key::Url if raw.starts_with(b"\"data:") => {
                return Found {
                    pending: bytes,
                    kind: Kind::None,
                };
            }
            Key::Label => {}
            Key::Url | Key::Other => self.total.text += bytes,
        }
        Found::default()
    }
}

impl Key {
    fn of(raw: &[u8]) -> Self {
        match raw {
            b"\"type\"" => Self::Type,
            b"\"data\"" => Self::Data,
            b"\"url\"" | b"\"image_url\"" | b"\"file_data\"" => Self::Url,
            b"\"role\"" | b"\"id\"" | b"\"tool_use_id\"" | b"\"tool_call_id\""
            | b"\"media_type\"" | b"\"signature\"" => Self::Label,
            _ => Self::Other,
        }
    }
}

impl Kind {
    fn of(raw: &[u8]) -> Self {
        match raw {
            b"\"text\"" => Self::Text,
            b"\"image_url\"" | b"\"input_image\"" | b"\"image\"" => Self::Image,
            b"\"input_audio\"" => Self::Audio,
            b"\"file\"" | b"\"input_file\"" | b"\"document\"" => Self::File,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn of(text: &str) -> Measure {
        assert!(
            serde_json::from_str::<serde_json::Value>(text).is_ok(),
            "{text}"
        );
        let mut cursor = Cursor::new(text.as_bytes(), 0);
        let total = measure(&mut cursor, 1).unwrap();
        assert_eq!(cursor.at(), text.len(), "{text}");
        total
    }

    #[test]
    fn parts_are_told_apart() {
        // (json, text, binary, images, audio, elements)
        let table = [
            (r#"[{"role":"user","content":"hello"}]"#, 5, 0, 0, false, 1),
            (
                r#"[{"content":[{"type":"text","text":"abc"},{"text":"de","type":"text"}]}]"#,
                5,
                0,
                0,
                false,
                1,
            ),
            (
                r#"[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]"#,
                0,
                26,
                1,
                false,
                1,
            ),
            (
                r#"[{"content":[{"image_url":{"url":"https://x/y"},"type":"image_url"}]}]"#,
                11,
                0,
                1,
                false,
                1,
            ),
            (
                r#"[{"type":"input_image","image_url":"data:x"},{}]"#,
                0,
                6,
                1,
                false,
                2,
            ),
            (
                r#"[{"content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"QUJD"}}]}]"#,
                0,
                4,
                1,
                false,
                1,
            ),
            (
                r#"[{"content":[{"type":"document","source":{"type":"text","data":"plain"}}]}]"#,
                5,
                0,
                0,
                false,
                1,
            ),
            (
                r#"[{"content":[{"type":"input_audio","input_audio":{"data":"QUJD","format":"wav"}}]}]"#,
                3,
                4,
                0,
                true,
                1,
            ),
            (
                r#"[{"content":[{"data":"not a part"}]}]"#,
                10,
                0,
                0,
                false,
                1,
            ),
            (r#"[{"type":["image","image"]}]"#, 0, 0, 0, false, 1),
            (r#""just text""#, 9, 0, 0, false, 0),
            ("[1,2,3]", 0, 0, 0, false, 3),
            ("[]", 0, 0, 0, false, 0),
        ];
        for (text, chars, binary, images, audio, elements) in table {
            let found = of(text);
            let got = (
                found.text,
                found.binary,
                found.images,
                found.audio,
                found.elements,
            );
            assert_eq!(got, (chars, binary, images, audio, elements), "{text}");
        }
    }

    #[test]
    fn depth_counts_what_is_open_outside() {
        let nested = format!("{}{}", "[".repeat(128), "]".repeat(128));
        assert!(measure(&mut Cursor::new(nested.as_bytes(), 0), 0).is_ok());
        assert!(measure(&mut Cursor::new(nested.as_bytes(), 0), 1).is_err());
    }
}
