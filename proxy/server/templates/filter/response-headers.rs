//! Filter `my-filter`: says in a header of the answer who served it.

use weir_sdk::{Edits, Filter, Manifest, OnResponseHeaders, Outcome};

/// The table `config` of the filter.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Value of `x-served-by`.
    name: String,
}

/// The filter, one per instance.
pub struct MyFilter {
    name: String,
}

impl Filter for MyFilter {
    type Config = Config;
    const NAME: &'static str = "my-filter";

    fn manifest() -> Manifest {
        Manifest::new(env!("CARGO_PKG_VERSION"), "Names who served.")
            .writes_headers(&["x-served-by"])
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self { name: config.name })
    }
}

impl OnResponseHeaders for MyFilter {
    fn on_response_headers(&self, status: u16) -> Outcome {
        if status >= 500 {
            return Outcome::Pass;
        }
        Edits::new()
            .set_header("x-served-by", self.name.clone())
            .into()
    }
}

weir_sdk::export!(MyFilter: OnResponseHeaders);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::testing::{Exchange, filter};

    #[test]
    fn good_answers_are_marked() {
        let filter: MyFilter = filter(r#"{"name": "here"}"#).unwrap();
        for (status, marked) in [(200, true), (404, true), (503, false)] {
            let mut exchange = Exchange::new().response(status, &[]);
            let outcome = exchange.run(|| filter.on_response_headers(status));
            assert_eq!(matches!(outcome, Outcome::Edit(_)), marked, "{status}");
        }
    }
}
