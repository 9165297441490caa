//! Filter `my-filter`: takes a word out of streams.

use weir_sdk::lifecycle::config_error;
use weir_sdk::{ConfigError, Event, EventNeed, Filter, Manifest, OnEvents, Verdict};

/// The table `config` of the filter.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The word.
    word: String,
}

/// The filter, one per instance.
pub struct MyFilter {
    word: String,
}

impl Filter for MyFilter {
    type Config = Config;
    const NAME: &'static str = "my-filter";

    fn manifest() -> Manifest {
        Manifest::new(env!("CARGO_PKG_VERSION"), "Takes a word out of streams.")
            .events(EventNeed::Every)
    }

    fn validate(config: &Config) -> Vec<ConfigError> {
        if config.word.chars().all(char::is_alphanumeric) && !config.word.is_empty() {
            return Vec::new();
        }
        vec![config_error(
            "/word",
            "must be one word of letters and digits",
        )]
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self { word: config.word })
    }
}

impl OnEvents for MyFilter {
    fn on_events(&self, events: Vec<Event>) -> Vec<Verdict> {
        // Nothing to do for most: no verdicts at all lets all events pass.
        if !events.iter().any(|event| event.delta.contains(&self.word)) {
            return Vec::new();
        }
        events
            .into_iter()
            .map(|event| self.verdict(&event))
            .collect()
    }
}

impl MyFilter {
    /// A word that two events share is not found: each is looked at by itself.
    fn verdict(&self, event: &Event) -> Verdict {
        match std::str::from_utf8(&event.data) {
            Ok(data) if event.delta.contains(&self.word) => {
                Verdict::Replace(data.replace(&self.word, "***").into_bytes())
            }
            _ => Verdict::Pass,
        }
    }
}

weir_sdk::export!(MyFilter: OnEvents);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::testing::{Exchange, filter};

    fn event(delta: &str) -> Event {
        Event {
            seq: 0,
            name: String::new(),
            data: format!("{{\"text\":\"{delta}\"}}").into_bytes(),
            delta: delta.to_owned(),
            finish: false,
            usage: None,
        }
    }

    #[test]
    fn the_word_is_taken_out() {
        let filter: MyFilter = filter(r#"{"word": "secret"}"#).unwrap();
        let verdicts =
            Exchange::new().run(|| filter.on_events(vec![event("plain"), event("a secret")]));
        assert!(matches!(verdicts[0], Verdict::Pass));
        let Verdict::Replace(data) = &verdicts[1] else {
            panic!("{verdicts:?}")
        };
        assert_eq!(data, br#"{"text":"a ***"}"#);
        assert!(
            Exchange::new()
                .run(|| filter.on_events(vec![event("plain")]))
                .is_empty()
        );
    }
}
