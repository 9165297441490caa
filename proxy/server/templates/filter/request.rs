//! Filter `my-filter`: bounds the length of answers.

use weir_sdk::{Edits, Filter, LocalResponse, Manifest, OnRequest, Outcome, RequestView};

/// The table `config` of the filter.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Output tokens a request may ask for; one that names no number gets this one.
    #[serde(default = "tokens_max")]
    tokens_max: u32,
}

fn tokens_max() -> u32 {
    256
}

/// The filter, one per instance.
pub struct MyFilter {
    tokens_max: u32,
}

impl Filter for MyFilter {
    type Config = Config;
    const NAME: &'static str = "my-filter";

    fn manifest() -> Manifest {
        Manifest::new(env!("CARGO_PKG_VERSION"), "Bounds the length of answers.")
            .writes_json(&["/max_tokens"])
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self {
            tokens_max: config.tokens_max,
        })
    }
}

impl OnRequest for MyFilter {
    fn on_request(&self, request: RequestView) -> Outcome {
        match request.max_output_tokens {
            0 => Edits::new()
                .set_json("/max_tokens", self.tokens_max.to_string())
                .into(),
            asked if asked <= self.tokens_max => Outcome::Pass,
            asked => {
                let message = format!(
                    "{asked} output tokens were asked for, at most {} are allowed",
                    self.tokens_max
                );
                LocalResponse::error(400, "invalid_request_error", "answer_too_long", message)
                    .into()
            }
        }
    }
}

weir_sdk::export!(MyFilter: OnRequest);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::testing::{Exchange, filter};

    #[test]
    fn answers_are_bounded() {
        let filter: MyFilter = filter(r#"{"tokens_max": 10}"#).unwrap();
        for (asked, expected) in [(0, "edit"), (10, "pass"), (11, "answer_too_long")] {
            let mut exchange = Exchange::new().tokens(5, asked);
            let view = exchange.view();
            let got = match exchange.run(|| filter.on_request(view)) {
                Outcome::Pass => "pass".to_owned(),
                Outcome::Edit(_) => "edit".to_owned(),
                Outcome::Respond(response) => response.error_code,
            };
            assert_eq!(got, expected, "{asked}");
        }
    }
}
