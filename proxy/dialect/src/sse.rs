//! Server-sent events: cuts a byte stream into events without copying, and writes them.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr2};
use thiserror::Error;

/// Cuts a stream into events. Line ends may be `\n`, `\r\n` or `\r`, and chunks may break
/// anywhere. The raw bytes of all events in a row are the stream, byte for byte.
///
/// An event that lies in one chunk shares that chunk's memory.
#[derive(Debug)]
pub struct SseSplitter {
    max_event_bytes: usize,
    /// Start of an event whose end has not come yet.
    partial: BytesMut,
    /// What has not been looked at.
    chunk: Bytes,
    line_is_empty: bool,
    /// The last byte was `\r`: a `\n` now belongs to it.
    after_cr: bool,
    at_stream_start: bool,
    failed: bool,
}

/// Why a stream cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SseError {
    /// One event is larger than the limit.
    #[error("server-sent event is larger than {max_event_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_event_bytes: usize,
    },
}

/// One event, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent {
    /// All its bytes, the closing blank line included: relay these and nothing changes.
    pub raw: Bytes,
    name: Range<usize>,
    data: Data,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Data {
    None,
    /// One `data` line: where its value stands in the raw bytes.
    One(Range<usize>),
    /// Several, joined by `\n`.
    Joined(Bytes),
}

impl SseSplitter {
    /// A splitter that holds back at most `max_event_bytes` of an unfinished event.
    #[must_use]
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            partial: BytesMut::new(),
            chunk: Bytes::new(),
            line_is_empty: true,
            after_cr: false,
            at_stream_start: true,
            failed: false,
        }
    }

    /// Adds bytes. Take all events by [`Self::next`] before the next call: what is left over has
    /// to be copied otherwise.
    pub fn push(&mut self, chunk: &Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk.clone();
        } else {
            let mut joined = BytesMut::with_capacity(self.chunk.len() + chunk.len());
            joined.extend_from_slice(&self.chunk);
            joined.extend_from_slice(chunk);
            self.chunk = joined.freeze();
        }
    }

    /// The next whole event; `None` when more bytes are needed.
    ///
    /// # Errors
    /// When an event is too large; every later call says so again, [`Self::finish`] has the bytes.
    #[allow(
        clippy::should_implement_trait,
        reason = "not an iterator: `None` is not the end"
    )]
    pub fn next(&mut self) -> Result<Option<SseEvent>, SseError> {
        let too_large = SseError::TooLarge {
            max_event_bytes: self.max_event_bytes,
        };
        if self.failed {
            return Err(too_large);
        }
        let mut at = 0;
        while let Some(rest) = self.chunk.get(at..).filter(|rest| !rest.is_empty()) {
            if std::mem::take(&mut self.after_cr) && rest.first() == Some(&b'\n') {
                at += 1;
                continue;
            }
            let Some(line) = memchr2(b'\n', b'\r', rest) else {
                self.line_is_empty = false;
                break;
            };
            at += line + 1;
            if rest.get(line) == Some(&b'\r') {
                match rest.get(line + 1) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    // Not waiting for the `\n` that may follow: the event is complete now.
                    None => self.after_cr = true,
                }
            }
            let blank = line == 0 && self.line_is_empty;
            self.line_is_empty = true;
            if blank {
                if self.partial.len() + at > self.max_event_bytes {
                    self.failed = true;
                    return Err(too_large);
                }
                return Ok(Some(self.take(at)));
            }
        }
        self.partial.extend_from_slice(&self.chunk);
        self.chunk = Bytes::new();
        if self.partial.len() > self.max_event_bytes {
            self.failed = true;
            return Err(too_large);
        }
        Ok(None)
    }

    /// What is left at the end of the stream: an event without its closing blank line, or bytes
    /// no event was made of. Some upstreams leave the blank line out after `[DONE]`.
    #[must_use]
    pub fn finish(&mut self) -> Option<SseEvent> {
        let left = self.chunk.len();
        if self.partial.is_empty() && left == 0 {
            return None;
        }
        Some(self.take(left))
    }

    fn take(&mut self, bytes: usize) -> SseEvent {
        let head = self.chunk.split_to(bytes.min(self.chunk.len()));
        let raw = if self.partial.is_empty() {
            head
        } else {
            self.partial.extend_from_slice(&head);
            self.partial.split().freeze()
        };
        let bom = std::mem::take(&mut self.at_stream_start) && raw.starts_with(BOM);
        SseEvent::parse(raw, if bom { BOM.len() } else { 0 })
    }
}

impl SseEvent {
    /// The `event` field; empty when there is none or it is not UTF-8.
    #[must_use]
    pub fn name(&self) -> &str {
        let bytes = self.raw.get(self.name.clone()).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The `data` lines joined by `\n`; empty when there are none.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        match &self.data {
            Data::None => &[],
            Data::One(range) => self.raw.get(range.clone()).unwrap_or_default(),
            Data::Joined(bytes) => bytes,
        }
    }

    /// The data is `[DONE]`, the end mark of chat completions.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.data().trim_ascii() == b"[DONE]"
    }

    /// Nothing a reader would act on: comments or blank lines that keep the connection open.
    #[must_use]
    pub fn is_comment(&self) -> bool {
        self.data == Data::None && self.name.is_empty()
    }

    /// Appends the event's bytes with `span` of its data replaced, for instance the model's name.
    /// Data of several lines is written anew, with the event's name and no other field.
    pub fn write_with_data_span(
        &self,
        span: &Range<usize>,
        replacement: &[u8],
        out: &mut BytesMut,
    ) {
        let Data::One(data) = &self.data else {
            let mut anew = BytesMut::new();
            write_replaced(self.data(), span, replacement, &mut anew);
            out.extend_from_slice(&encode_event(self.name(), &anew));
            return;
        };
        let in_raw = (data.start + span.start).min(data.end)..(data.start + span.end).min(data.end);
        write_replaced(&self.raw, &in_raw, replacement, out);
    }

    fn parse(raw: Bytes, skip: usize) -> Self {
        let mut name = 0..0;
        let mut data = Data::None;
        let mut joined = Vec::new();
        let mut at = skip;
        while let Some(rest) = raw.get(at..).filter(|rest| !rest.is_empty()) {
            let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let line = rest.get(..end).unwrap_or_default();
            let colon = memchr(b':', line);
            let value = match colon {
                Some(colon) if line.get(colon + 1) == Some(&b' ') => at + colon + 2..at + end,
                Some(colon) => at + colon + 1..at + end,
                None => at + end..at + end,
            };
            match line.get(..colon.unwrap_or(end)) {
                Some(b"event") => name = value,
                Some(b"data") => match &data {
                    Data::None => data = Data::One(value),
                    Data::One(first) => {
                        joined.extend_from_slice(raw.get(first.clone()).unwrap_or_default());
                        join(&mut joined, raw.get(value));
                        data = Data::Joined(Bytes::new());
                    }
                    Data::Joined(_) => join(&mut joined, raw.get(value)),
                },
                _ => {}
            }
            at += end + 1;
        }
        if let Data::Joined(bytes) = &mut data {
            *bytes = Bytes::from(joined);
        }
        Self { raw, name, data }
    }
}

/// Writes one event, with an `event` line when `name` is not empty.
#[must_use]
pub fn encode_event(name: &str, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(name.len() + data.len() + FIELD_BYTES);
    if !name.is_empty() {
        out.extend_from_slice(b"event: ");
        // A line end would start another field.
        out.extend(name.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')));
        out.push(b'\n');
    }
    let mut left = Some(data);
    while let Some(text) = left {
        let end = memchr2(b'\n', b'\r', text);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(text.get(..end.unwrap_or(text.len())).unwrap_or_default());
        out.push(b'\n');
        left = end.and_then(|end| {
            let rest = text.get(end + 1..)?;
            let crlf = text.get(end) == Some(&b'\r') && rest.first() == Some(&b'\n');
            rest.get(usize::from(crlf)..)
        });
    }
    out.push(b'\n');
    Bytes::from(out)
}

fn join(joined: &mut Vec<u8>, value: Option<&[u8]>) {
    joined.push(b'\n');
    joined.extend_from_slice(value.unwrap_or_default());
}

fn write_replaced(bytes: &[u8], span: &Range<usize>, replacement: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(bytes.get(..span.start).unwrap_or_default());
    out.extend_from_slice(replacement);
    out.extend_from_slice(bytes.get(span.end..).unwrap_or_default());
}

const BOM: &[u8] = b"\xef\xbb\xbf";
/// `event: `, `data: ` and their line ends.
const FIELD_BYTES: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#[path = "sse_tests.rs"]
mod tests;
