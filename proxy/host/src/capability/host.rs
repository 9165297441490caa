//! The interface `host`: log, names, clocks, random numbers, hashes.

use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderName;
use tracing::level_filters::LevelFilter;
use weir_pipeline::intern::NameId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::bindings::weir::filter::host::{Host, Level};
use crate::guest_state::{FilterIdentity, GuestState, LogPermit, clock};

impl Host for GuestState {
    fn log(&mut self, level: Level, message: String) {
        let text = cut(&message, self.log_left);
        // Empty lines spend nothing but the rate.
        if text.is_empty() && !message.is_empty() {
            return;
        }
        self.log_left = self
            .log_left
            .saturating_sub(u32::try_from(text.len()).unwrap_or(u32::MAX));
        log_line(&self.filter, level, text);
    }

    fn log_level(&mut self) -> Level {
        match LevelFilter::current() {
            LevelFilter::TRACE => Level::Trace,
            LevelFilter::DEBUG => Level::Debug,
            LevelFilter::INFO => Level::Info,
            LevelFilter::WARN => Level::Warn,
            _ => Level::Error,
        }
    }

    fn intern(&mut self, value: String) -> u32 {
        if self.pure || value.len() > NAME_BYTES_MAX {
            return NameId::NONE.0;
        }
        self.services.interner.intern_foreign(&value).0
    }

    fn name_of(&mut self, id: u32) -> String {
        let name = self.services.interner.name(NameId(id));
        name.map_or_else(String::new, |name| name.to_string())
    }

    fn header_id(&mut self, name: String) -> u32 {
        if self.pure || name.len() > NAME_BYTES_MAX {
            return NameId::NONE.0;
        }
        // Parsing also lowers the case.
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => self.services.interner.intern(name.as_str()).0,
            Err(_) => NameId::NONE.0,
        }
    }

    fn now_unix_ms(&mut self) -> u64 {
        if self.pure {
            return 0;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic_ns(&mut self) -> u64 {
        if self.pure { 0 } else { clock::now_ns() }
    }

    fn random_u64(&mut self) -> u64 {
        if self.pure {
            0
        } else {
            fastrand::u64(..) >> 11
        }
    }

    fn hash64(&mut self, data: Vec<u8>, seed: u64) -> u64 {
        xxh3_64_with_seed(&data, seed) >> 11
    }
}

/// Writes one line for a filter if its rate allows it.
pub(crate) fn log_line(filter: &FilterIdentity, level: Level, text: &str) {
    let heard = match level {
        Level::Trace => LevelFilter::TRACE,
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    };
    if heard > LevelFilter::current() {
        return;
    }
    let LogPermit::Write { suppressed } = filter.log_permit() else {
        return;
    };
    let name = &*filter.name;
    if suppressed > 0 {
        tracing::warn!(target: "weir::filter", filter = name, lines = suppressed, "log lines left out");
    }
    let text = escaped(text);
    match level {
        Level::Trace => tracing::trace!(target: "weir::filter", filter = name, "{text}"),
        Level::Debug => tracing::debug!(target: "weir::filter", filter = name, "{text}"),
        Level::Info => tracing::info!(target: "weir::filter", filter = name, "{text}"),
        Level::Warn => tracing::warn!(target: "weir::filter", filter = name, "{text}"),
        Level::Error => tracing::error!(target: "weir::filter", filter = name, "{text}"),
    }
}

/// A filter must not be able to forge lines or to steer a terminal.
fn escaped(text: &str) -> std::borrow::Cow<'_, str> {
    let unsafe_in_log =
        |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
    if !text.contains(unsafe_in_log) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if unsafe_in_log(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.into()
}

/// The beginning of a text, at most `bytes_max` long, no character halved.
pub(super) fn cut(text: &str, bytes_max: u32) -> &str {
    text.get(..text.floor_char_boundary(bytes_max as usize))
        .unwrap_or_default()
}

/// Longest name that is interned.
const NAME_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cannot_be_forged() {
        assert_eq!(escaped("a\nb\u{1b}[1m\u{7f}"), "a\\nb\\u{1b}[1m\\u{7f}");
        assert_eq!(escaped("grüße"), "grüße");
    }

    #[test]
    fn cut_keeps_characters_whole() {
        assert_eq!(cut("aü", 2), "a");
        assert_eq!(cut("aü", 3), "aü");
        assert_eq!(cut("a", 0), "");
    }
}
