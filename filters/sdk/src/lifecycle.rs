//! What every filter has: a name, a manifest, a typed configuration and a constructor.

use std::fmt::Write as _;

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use crate::bindings::lifecycle::exports::weir::filter::lifecycle as contract;
pub use crate::bindings::lifecycle::exports::weir::filter::lifecycle::{ConfigError, EventNeed};

/// A filter: the type whose one value per instance answers the phases.
///
/// Phase methods take `&self`; an instance is single-threaded, so `Cell` and `RefCell` are
/// enough for caches.
pub trait Filter: Sized + 'static {
    /// The filter's TOML table `[filters.NAME.config]`. Derive `serde::Deserialize` with
    /// `deny_unknown_fields`, so that a misspelt key is an error of the configuration.
    type Config: DeserializeOwned;

    /// Name in listings and logs, `kind-name` in lower case.
    const NAME: &'static str;

    /// What the filter needs. Called once when a module is loaded; the host compares it with
    /// the grants and refuses a configuration that grants less.
    fn manifest() -> Manifest;

    /// Errors that types cannot express, all at once. Called by `weir check` and before every
    /// reload; of the host only the log answers here.
    fn validate(config: &Self::Config) -> Vec<ConfigError> {
        let _ = config;
        Vec::new()
    }

    /// Builds the value. Called once per instance, before any phase: the place for
    /// [`exchange::Header`](crate::exchange::Header) and [`metrics`](crate::metrics)
    /// definitions. May take 50 ms.
    ///
    /// # Errors
    /// A text that says what is wrong; the host then refuses the configuration.
    fn new(config: Self::Config) -> Result<Self, String>;
}

/// What a filter declares about itself; built by [`Manifest::new`] and what it needs on top.
#[derive(Clone, Debug)]
pub struct Manifest(contract::Manifest);

impl Manifest {
    /// A filter that needs no grant. `version` is usually `env!("CARGO_PKG_VERSION")`, `about`
    /// one sentence for people.
    #[must_use]
    pub fn new(version: &str, about: &str) -> Self {
        Self(contract::Manifest {
            name: String::new(),
            version: version.to_owned(),
            about: about.to_owned(),
            reads_headers: Vec::new(),
            writes_headers: Vec::new(),
            reads_body: false,
            writes_json: Vec::new(),
            events: EventNeed::None,
            tick_ms: 0,
            affinity_by_session_key: false,
            response_headers_after_scratch: false,
        })
    }

    /// Headers it reads, in lower case; `"*"` = all.
    #[must_use]
    pub fn reads_headers(mut self, names: &[&str]) -> Self {
        self.0.reads_headers = owned(names);
        self
    }

    /// Headers it sets, appends to or removes, in lower case.
    #[must_use]
    pub fn writes_headers(mut self, names: &[&str]) -> Self {
        self.0.writes_headers = owned(names);
        self
    }

    /// It reads the request body or parts of it.
    #[must_use]
    pub fn reads_body(mut self) -> Self {
        self.0.reads_body = true;
        self
    }

    /// JSON pointers it may set or remove.
    #[must_use]
    pub fn writes_json(mut self, pointers: &[&str]) -> Self {
        self.0.writes_json = owned(pointers);
        self
    }

    /// Which events of a stream it wants; each batch costs a phase call.
    #[must_use]
    pub fn events(mut self, need: EventNeed) -> Self {
        self.0.events = need;
        self
    }

    /// Milliseconds between two ticks, 0 = never.
    #[must_use]
    pub fn tick_ms(mut self, interval: u32) -> Self {
        self.0.tick_ms = interval;
        self
    }

    /// What `affinity` says follows from the session keys alone: the host does not call it for
    /// requests without one, and may remember what it said. Saves a call, 0.5 µs or more.
    #[must_use]
    pub fn affinity_by_session_key(mut self) -> Self {
        self.0.affinity_by_session_key = true;
        self
    }

    /// `on_response_headers` has nothing to do for exchanges in which this filter has not
    /// [set its scratch](crate::exchange::set_scratch), or to nothing: the host then saves the
    /// call, 0.5 µs or more.
    #[must_use]
    pub fn response_headers_after_scratch(mut self) -> Self {
        self.0.response_headers_after_scratch = true;
        self
    }
}

/// Makes a [`ConfigError`]; `pointer` is an RFC 6901 pointer into the filter's table.
#[must_use]
pub fn config_error(pointer: impl Into<String>, message: impl Into<String>) -> ConfigError {
    ConfigError {
        pointer: pointer.into(),
        message: message.into(),
    }
}

/// Text of a filter's table to its type, and its own checks after that.
pub(crate) fn parse<F: Filter>(config: &str) -> Result<F::Config, Vec<ConfigError>> {
    let text = if config.trim().is_empty() {
        "{}"
    } else {
        config
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed: F::Config = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        // The line and column are of the JSON that the author of the TOML never saw.
        let message = error.inner().to_string();
        let message = message
            .rsplit_once(" at line ")
            .map_or(&*message, |(text, _)| text);
        vec![config_error(pointer(error.path()), message)]
    })?;
    let errors = F::validate(&parsed);
    if errors.is_empty() {
        Ok(parsed)
    } else {
        Err(errors)
    }
}

/// Configuration text to a ready filter.
pub(crate) fn build<F: Filter>(config: &str) -> Result<F, String> {
    match parse::<F>(config) {
        Ok(config) => F::new(config),
        Err(errors) => Err(one_line(&errors)),
    }
}

fn one_line(errors: &[ConfigError]) -> String {
    let mut line = String::new();
    for error in errors {
        let separator = if line.is_empty() { "" } else { "; " };
        let _ = write!(line, "{separator}{}: {}", error.pointer, error.message);
    }
    line
}

fn pointer(path: &Path) -> String {
    let mut text = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => {
                let _ = write!(text, "/{index}");
            }
            Segment::Map { key } => {
                text.push('/');
                text.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl<F: crate::Instance> contract::Guest for F {
    fn describe() -> contract::Manifest {
        crate::host::install_panic_hook();
        let mut manifest = F::manifest().0;
        F::NAME.clone_into(&mut manifest.name);
        manifest
    }

    fn validate(config: String) -> Result<(), Vec<ConfigError>> {
        crate::host::install_panic_hook();
        parse::<F>(&config).map(|_| ())
    }

    fn init(config: String) -> Result<(), String> {
        crate::host::install_panic_hook();
        build::<F>(&config)?.install()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    struct Sample;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct SampleConfig {
        budget: u32,
        #[serde(default)]
        #[allow(dead_code, reason = "only its path matters")]
        rules: Vec<Rule>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        #[serde(rename = "a/b")]
        #[allow(dead_code, reason = "only its path matters")]
        name: u32,
    }

    impl Filter for Sample {
        type Config = SampleConfig;
        const NAME: &'static str = "sample";

        fn manifest() -> Manifest {
            Manifest::new("1.0.0", "A sample.")
        }

        fn validate(config: &SampleConfig) -> Vec<ConfigError> {
            if config.budget == 0 {
                vec![config_error("/budget", "must be positive")]
            } else {
                Vec::new()
            }
        }

        fn new(_: SampleConfig) -> Result<Self, String> {
            Ok(Self)
        }
    }

    #[test]
    fn config_errors_point_at_the_place() {
        let table = [
            (r#"{"budget":1}"#, None),
            (r#"{"budget":1,"rules":[{"a/b":1}]}"#, None),
            (r#"{"budget":0}"#, Some("/budget")),
            (r#"{"budget":"x"}"#, Some("/budget")),
            (r#"{"budget":1,"bugdet":2}"#, Some("/bugdet")),
            (
                r#"{"budget":1,"rules":[{"a/b":1},{"a/b":"x"}]}"#,
                Some("/rules/1/a~1b"),
            ),
            ("", Some("")),
        ];
        for (config, expected) in table {
            let found = parse::<Sample>(config)
                .err()
                .map(|errors| errors[0].pointer.clone());
            assert_eq!(found.as_deref(), expected, "{config}");
        }
    }
}
