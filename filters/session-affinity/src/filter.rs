//! Derives the key and tells the caller.

use weir_sdk::{Affinity, AffinityKey, ConfigError, Filter, Manifest, RequestView, exchange};

use crate::config::{Config, Source};
use crate::key::Key;

/// Derives the affinity key and tells the caller what to send back.
pub struct SessionAffinity {
    config: Config,
}

impl Filter for SessionAffinity {
    type Config = Config;
    const NAME: &'static str = "session-affinity";

    fn manifest() -> Manifest {
        Manifest::new(
            env!("CARGO_PKG_VERSION"),
            "Derives the key that keeps a conversation on one backend.",
        )
        .reads_headers(&["x-multi-turn-session-id"])
        .writes_headers(&["x-multi-turn-session-id"])
        .affinity_by_session_key()
    }

    fn validate(config: &Config) -> Vec<ConfigError> {
        config.errors()
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self { config })
    }
}

impl Affinity for SessionAffinity {
    fn affinity(&self, request: RequestView) -> Option<AffinityKey> {
        // Saves the crossing on hosts that call all the same.
        if request.session_hash == 0 {
            return None;
        }
        let key = exchange::session_keys().into_iter().find_map(|found| {
            let source = Source::of(found.source);
            if !self.config.sources.contains(&source) {
                return None;
            }
            let key = Key::of(source, &found.value);
            if key.is_none() {
                weir_sdk::debug!(
                    "ignoring a session id that is empty, too long or has control bytes"
                );
            }
            key
        })?;
        let told = &self.config.response_header;
        let answer_headers = if told.is_empty() {
            Vec::new()
        } else {
            vec![(told.clone(), key.session.into_bytes())]
        };
        Some(AffinityKey {
            key: key.key,
            ttl_ms: self.config.ttl_ms,
            strict: self.config.strict,
            answer_headers,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use weir_sdk::SessionSource;
    use weir_sdk::testing::{self, Exchange};

    use super::*;

    const KEY: &str =
        "mt:v1:payload:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn affinity(config: &str) -> SessionAffinity {
        testing::filter(config).unwrap_or_else(|errors| panic!("{config}: {errors:?}"))
    }

    /// The header that the answer gets.
    fn told(filter: &SessionAffinity, exchange: &mut Exchange) -> Option<String> {
        let view = exchange.view();
        let headers = exchange.run(|| filter.affinity(view))?.answer_headers;
        match headers.as_slice() {
            [] => None,
            [(name, value)] => Some(format!("{name}: {}", String::from_utf8_lossy(value))),
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn the_caller_is_told_its_session() {
        let hash = "{\"sources\":[\"input_hash\"]}";
        let generated = format!("x-multi-turn-session-id: {KEY}");
        let table: [(&str, &[(SessionSource, &str)], Option<&str>); 7] = [
            ("{}", &[], None),
            (
                "{}",
                &[(SessionSource::SessionHeader, "s1")],
                Some("x-multi-turn-session-id: s1"),
            ),
            (
                "{}",
                &[
                    (SessionSource::PromptCacheKey, "p"),
                    (SessionSource::SessionHeader, "s1"),
                ],
                Some("x-multi-turn-session-id: p"),
            ),
            (
                "{}",
                &[
                    (SessionSource::SessionHeader, "a\tb"),
                    (SessionSource::InputHash, "abc"),
                ],
                Some(&generated),
            ),
            (
                hash,
                &[
                    (SessionSource::SessionHeader, "s1"),
                    (SessionSource::InputHash, "abc"),
                ],
                Some(&generated),
            ),
            ("{}", &[(SessionSource::ClientHash, "abc")], None),
            (
                r#"{"response_header":""}"#,
                &[(SessionSource::SessionHeader, "s1")],
                None,
            ),
        ];
        for (config, keys, expected) in table {
            let filter = affinity(config);
            let mut exchange = keys
                .iter()
                .fold(Exchange::new(), |exchange, (source, value)| {
                    exchange.session_key(*source, value)
                });
            assert_eq!(
                told(&filter, &mut exchange).as_deref(),
                expected,
                "{config} {keys:?}"
            );
        }
    }

    #[test]
    fn the_same_conversation_has_the_same_key() {
        let filter = affinity(r#"{"ttl_ms":5,"strict":true}"#);
        let key = |value: &str| {
            let mut exchange = Exchange::new().session_key(SessionSource::SessionHeader, value);
            let view = exchange.view();
            exchange.run(|| filter.affinity(view)).unwrap()
        };
        assert_eq!(key("s1"), key(" s1 "));
        assert_ne!(key("s1").key, key("s2").key);
        assert_eq!((key("s1").ttl_ms, key("s1").strict), (5, true));
        assert_eq!(key(KEY).key, KEY, "a key sent back is taken as it is");
    }

    #[test]
    fn configuration_errors() {
        let table = [
            (r#"{"ttl_ms":0}"#, "/ttl_ms"),
            (r#"{"sources":[]}"#, "/sources"),
            (r#"{"sources":["cookie"]}"#, "/sources/0"),
            (r#"{"response_header":"a b"}"#, "/response_header"),
        ];
        for (config, pointer) in table {
            let errors = testing::filter::<SessionAffinity>(config).err().unwrap();
            assert_eq!(errors[0].pointer, pointer, "{config}");
        }
    }
}
