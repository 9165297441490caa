//! The engine's own stream of figures: one JSON object a line, counters that only grow.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Deserialize;

/// One line. What is not known of is ignored.
#[derive(Deserialize)]
struct Line {
    v: u32,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    tokens_processed: u64,
    #[serde(default)]
    tokens_generated: u64,
    #[serde(default)]
    finished: bool,
}

/// What a line says that was not known before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) model: String,
    /// Tokens generated since the line before of the same request.
    pub(crate) generated: u64,
    /// The prompt's tokens and how long they took, when the first output shows.
    pub(crate) prefilled: Option<(u64, Duration)>,
}

/// The requests of the stream that have not finished.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    requests: HashMap<String, Seen>,
    /// Tokens generated of those that the stream spoke of before it broke.
    before: HashMap<String, u64>,
    /// When each model was last heard of.
    models: BTreeMap<String, Duration>,
}

#[derive(Debug)]
struct Seen {
    model: String,
    generated: u64,
    /// When it was first heard of, if that was before its first output.
    began: Option<Duration>,
    last: Duration,
}

/// Requests of one model by what the engine does with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Phases {
    pub(crate) processing: u64,
    pub(crate) generating: u64,
}

impl Requests {
    /// Takes in one line at `now`, counted from any fixed moment. `None` for one that says nothing
    /// new, a `ping` for instance.
    pub(crate) fn take(&mut self, line: &[u8], now: Duration) -> Result<Option<Progress>, String> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if line.v != 1 {
            return Err(format!("version {} of the stream is not known", line.v));
        }
        if line.kind != "stats" {
            return Ok(None);
        }
        if line.request_id.is_empty() || line.model.is_empty() {
            return Err("a line without request_id or model".to_owned());
        }
        if self.models.len() >= MODELS_MAX && !self.models.contains_key(&line.model) {
            return Err("too many models".to_owned());
        }
        self.models.insert(line.model.clone(), now);
        if self.requests.len() >= REQUESTS_MAX && !self.requests.contains_key(&line.request_id) {
            self.expire(now);
            if self.requests.len() >= REQUESTS_MAX {
                return Err("too many requests at once".to_owned());
            }
        }
        Ok(Some(self.advance(line, now)))
    }

    fn advance(&mut self, line: Line, now: Duration) -> Progress {
        let generating = line.tokens_generated > 0;
        let seen = self
            .requests
            .entry(line.request_id.clone())
            .or_insert(Seen {
                model: line.model.clone(),
                generated: self.before.remove(&line.request_id).unwrap_or_default(),
                began: (!generating).then_some(now),
                last: now,
            });
        // Counters only grow: less is the same request seen again after a break.
        let generated = line.tokens_generated.saturating_sub(seen.generated);
        let first = generating && seen.generated == 0;
        let prefilled = seen
            .began
            .filter(|_| first && line.tokens_processed > 0)
            .map(|began| (line.tokens_processed, now.saturating_sub(began)));
        seen.generated = seen.generated.max(line.tokens_generated);
        seen.last = now;
        if line.finished {
            self.requests.remove(&line.request_id);
        }
        Progress {
            model: line.model,
            generated,
            prefilled,
        }
    }

    /// Forgets requests that nothing was heard of for long.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.requests
            .retain(|_, seen| seen.last + REQUEST_TTL > now);
        self.models.retain(|_, last| *last + MODEL_TTL > now);
    }

    /// Forgets who is in progress: the stream broke, and what finished meanwhile is not known.
    pub(crate) fn clear(&mut self) {
        let mut before = std::mem::take(&mut self.before);
        let generated = |(id, seen): (String, Seen)| (id, seen.generated);
        before.extend(self.requests.drain().map(generated));
        if before.len() > REQUESTS_MAX {
            before.clear();
        }
        *self = Self {
            before,
            ..Self::default()
        };
    }

    /// What the engine does for `model`; `None` when the stream does not speak of it.
    pub(crate) fn phases(&self, model: &str, now: Duration) -> Option<Phases> {
        self.models
            .get(model)
            .filter(|last| **last + MODEL_TTL > now)?;
        let mut phases = Phases::default();
        for seen in self.requests.values().filter(|seen| seen.model == model) {
            if seen.generated > 0 {
                phases.generating += 1;
            } else {
                phases.processing += 1;
            }
        }
        Some(phases)
    }
}

/// The longest line in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 64 * 1024;

const REQUESTS_MAX: usize = 16_384;
const MODELS_MAX: usize = 1024;
const REQUEST_TTL: Duration = Duration::from_secs(300);
const MODEL_TTL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, processed: u64, generated: u64, finished: bool) -> String {
        format!(
            r#"{{"v":1,"type":"stats","request_id":"{id}","model":"m","tokens_processed":{processed},"tokens_generated":{generated},"finished":{finished}}}"#
        )
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn deltas_are_taken_of_growing_counters() {
        let mut requests = Requests::default();
        let mut take = |text: &str, ms| requests.take(text.as_bytes(), at(ms)).unwrap();
        let progress = |generated, prefilled| {
            Some(Progress {
                model: "m".to_owned(),
                generated,
                prefilled,
            })
        };
        assert_eq!(take(r#"{"v":1,"type":"ping"}"#, 0), None);
        assert_eq!(take("  ", 0), None);
        assert_eq!(take(&line("a", 512, 0, false), 0), progress(0, None));
        assert_eq!(
            take(&line("a", 2000, 1, false), 250),
            progress(1, Some((2000, at(250))))
        );
        assert_eq!(take(&line("a", 2000, 9, false), 300), progress(8, None));
        assert_eq!(
            take(&line("a", 2000, 7, false), 310),
            progress(0, None),
            "smaller than before"
        );
        assert_eq!(take(&line("a", 2000, 12, true), 320), progress(3, None));
        // Joined in the middle: no telling how long its prompt took.
        assert_eq!(take(&line("b", 90, 4, false), 330), progress(4, None));
        requests.clear();
        let mut take = |text: &str, ms| requests.take(text.as_bytes(), at(ms)).unwrap();
        assert_eq!(
            take(&line("b", 90, 6, false), 340),
            progress(2, None),
            "the stream was opened anew"
        );
        assert_eq!(take(&line("c", 90, 6, false), 350), progress(6, None));
        requests.clear();
        requests.clear();
        let mut take = |text: &str, ms| requests.take(text.as_bytes(), at(ms)).unwrap();
        assert_eq!(take(&line("b", 90, 7, false), 360), progress(1, None));
    }

    #[test]
    fn phases_are_counted_until_they_are_stale() {
        let mut requests = Requests::default();
        for (id, generated) in [("a", 0), ("b", 0), ("c", 3)] {
            requests
                .take(line(id, 10, generated, false).as_bytes(), at(0))
                .unwrap();
        }
        let phases = Phases {
            processing: 2,
            generating: 1,
        };
        assert_eq!(requests.phases("m", at(1)), Some(phases));
        assert_eq!(requests.phases("other", at(1)), None);
        assert_eq!(requests.phases("m", at(30_000)), None);
        requests
            .take(line("d", 1, 0, false).as_bytes(), at(299_000))
            .unwrap();
        requests.expire(at(300_000));
        assert_eq!(
            requests.phases("m", at(300_000)),
            Some(Phases {
                processing: 1,
                generating: 0
            })
        );
    }

    #[test]
    fn wrong_lines_are_told() {
        let mut requests = Requests::default();
        for text in [
            "nonsense",
            r#"{"v":2,"type":"stats"}"#,
            r#"{"v":1,"type":"stats","request_id":"a"}"#,
            r#"{"v":1,"type":"stats","request_id":"a","model":"m","tokens_processed":-1}"#,
        ] {
            assert!(requests.take(text.as_bytes(), at(0)).is_err(), "{text}");
        }
        assert_eq!(
            requests.take(br#"{"v":1,"type":"of tomorrow"}"#, at(0)),
            Ok(None)
        );
    }
}
