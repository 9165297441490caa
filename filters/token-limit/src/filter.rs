//! The reservation.

use std::rc::Rc;

use weir_sdk::exchange::PerSettings;
use weir_sdk::state::{Subject, TakeResult};
use weir_sdk::{ConfigError, Failure, Filter, Manifest, OnRequest, Outcome, RequestView};

use crate::config::{Config, Counted, OnStoreFailure};
use crate::limiters::{Limiters, Opened};
use crate::refusal;

/// Reserves what a request will probably cost; the host settles it with what it did cost.
pub struct TokenLimit {
    default: Option<String>,
    subject: Subject,
    counted: Counted,
    default_output_tokens: u32,
    on_store_failure: OnStoreFailure,
    limiters: Limiters,
    opened: PerSettings<Option<Rc<Opened>>>,
}

impl Filter for TokenLimit {
    type Config = Config;
    const NAME: &'static str = "token-limit";

    fn manifest() -> Manifest {
        Manifest::new(
            env!("CARGO_PKG_VERSION"),
            "Keeps callers within token budgets per time window.",
        )
    }

    fn validate(config: &Config) -> Vec<ConfigError> {
        config.errors()
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self {
            subject: config.subject(),
            counted: config.unit,
            default_output_tokens: config.default_output_tokens,
            on_store_failure: config.on_store_failure,
            limiters: Limiters::new(config.unit.limiter_name(), config.scope.scope()),
            opened: PerSettings::new("weir.token-rate-limit"),
            default: config.default,
        })
    }
}

impl OnRequest for TokenLimit {
    fn on_request(&self, request: RequestView) -> Outcome {
        self.admit(&request)
            .unwrap_or_else(|failure| self.without_store(failure))
    }
}

impl TokenLimit {
    fn admit(&self, request: &RequestView) -> Result<Outcome, Failure> {
        let Some(opened) = self.opened.of(request, |text| self.limit(text))? else {
            return Ok(Outcome::Pass);
        };
        let wanted = self.estimate(request);
        if let Some((budget, span)) = opened.limit.too_small_for(wanted) {
            return Ok(refusal::too_large(self.counted, wanted, budget, span).into());
        }
        match opened
            .limiter
            .reserve(self.subject, "", wanted, self.counted.unit())?
        {
            TakeResult::Granted(_) => Ok(Outcome::Pass),
            TakeResult::Limited(limited) => {
                let left = opened.limiter.peek(self.subject, "").ok();
                Ok(
                    refusal::limited(self.counted, &opened.limit, wanted, &limited, left.as_ref())
                        .into(),
                )
            }
        }
    }

    /// The model's own limit, else the default.
    fn limit(&self, text: Option<String>) -> Result<Option<Rc<Opened>>, Failure> {
        if let Some(text) = text
            && let Some(opened) = self.limiters.of(&text)?
        {
            return Ok(Some(opened));
        }
        match &self.default {
            Some(text) => self.limiters.of(text),
            None => Ok(None),
        }
    }

    fn estimate(&self, request: &RequestView) -> u64 {
        let input = u64::from(request.est_input_tokens);
        let output = u64::from(match request.max_output_tokens {
            0 => self.default_output_tokens,
            given => given,
        });
        match self.counted {
            Counted::TotalTokens => input + output,
            Counted::InputTokens => input,
            Counted::OutputTokens => output,
            Counted::Requests => 1,
        }
    }

    fn without_store(&self, failure: Failure) -> Outcome {
        match self.on_store_failure {
            OnStoreFailure::Deny => {
                weir_sdk::error!("refusing, budgets cannot be asked: {failure:?}");
                refusal::unavailable().into()
            }
            OnStoreFailure::Allow => {
                weir_sdk::warn!("passing uncounted, budgets cannot be asked: {failure:?}");
                Outcome::Pass
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use weir_sdk::testing::{self, Exchange};
    use weir_sdk::{LocalResponse, Principal};

    use super::*;

    fn limit(config: &str) -> TokenLimit {
        testing::filter(config).unwrap_or_else(|errors| panic!("{config}: {errors:?}"))
    }

    fn exchange() -> Exchange {
        Exchange::new()
            .model("demo", "sim")
            .principal(Principal::new("alice", "acme"))
    }

    fn run(filter: &TokenLimit, exchange: &mut Exchange) -> Outcome {
        let view = exchange.view();
        exchange.run(|| filter.on_request(view))
    }

    fn refused(filter: &TokenLimit, exchange: &mut Exchange) -> LocalResponse {
        match run(filter, exchange) {
            Outcome::Respond(response) => response,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn header(response: &LocalResponse, name: &str) -> Option<String> {
        let found = response.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    #[test]
    fn admits_until_the_budget_is_used_up() {
        // Each request counts (input, output) tokens against the limit; how many pass at once.
        let table = [
            (r#"{"default":"1000-M"}"#, None, (100, 100), 5),
            (r#"{"default":"1000-M"}"#, None, (100, 0), 2),
            (
                r#"{"default":"1000-M","default_output_tokens":0}"#,
                None,
                (100, 0),
                10,
            ),
            (
                r#"{"default":"1000-M","unit":"input_tokens"}"#,
                None,
                (100, 900),
                10,
            ),
            (
                r#"{"default":"1000-M","unit":"output_tokens"}"#,
                None,
                (900, 100),
                10,
            ),
            (
                r#"{"default":"7-M","unit":"requests"}"#,
                None,
                (900, 100),
                7,
            ),
            (r#"{"default":"1000-M"}"#, Some("400-M"), (100, 100), 2),
            (r#"{"default":"1000-M"}"#, Some("no limit"), (100, 100), 5),
            (r#"{}"#, Some("400-M,1000-H"), (100, 100), 2),
            (r#"{"default":"1000-M,600-H"}"#, None, (100, 100), 3),
        ];
        for (config, attribute, (input, output), expected) in table {
            let filter = limit(config);
            let mut exchange = exchange().tokens(input, output);
            if let Some(text) = attribute {
                exchange.set_attribute("weir.token-rate-limit", text);
            }
            let passed = (0..100)
                .take_while(|_| run(&filter, &mut exchange) == Outcome::Pass)
                .count();
            assert_eq!(passed, expected, "{config} {attribute:?} {input} {output}");
        }
    }

    #[test]
    fn without_a_limit_everything_passes() {
        let filter = limit("{}");
        let mut exchange = exchange().tokens(u32::MAX, u32::MAX);
        assert!((0..1_000).all(|_| run(&filter, &mut exchange) == Outcome::Pass));
    }

    #[test]
    fn refusals_say_when_to_come_back() {
        let filter = limit(r#"{"default":"600-M"}"#);
        let mut exchange = exchange().tokens(200, 200);
        assert_eq!(run(&filter, &mut exchange), Outcome::Pass);
        let response = refused(&filter, &mut exchange);
        assert_eq!(
            (response.status, response.error_code.as_str()),
            (429, "rate_limit_exceeded")
        );
        let table = [
            ("retry-after", Some("20")),
            ("x-ratelimit-limit-tokens", Some("600")),
            ("x-ratelimit-remaining-tokens", Some("200")),
            ("x-ratelimit-reset-tokens", Some("40s")),
            ("x-should-retry", None),
        ];
        for (name, expected) in table {
            assert_eq!(header(&response, name).as_deref(), expected, "{name}");
        }
        assert!(
            response.message.contains("600 tokens per minute"),
            "{}",
            response.message
        );

        exchange.advance_ms(19_999);
        refused(&filter, &mut exchange);
        exchange.advance_ms(1);
        assert_eq!(
            run(&filter, &mut exchange),
            Outcome::Pass,
            "after the time told"
        );
    }

    #[test]
    fn long_waits_are_not_worth_a_retry() {
        let filter = limit(r#"{"default":"600-D"}"#);
        let mut exchange = exchange().tokens(200, 200);
        run(&filter, &mut exchange);
        assert_eq!(
            header(&refused(&filter, &mut exchange), "x-should-retry").as_deref(),
            Some("false")
        );
    }

    #[test]
    fn a_request_over_the_whole_budget_is_told_so() {
        let filter = limit(r#"{"default":"1000-S"}"#);
        let response = refused(&filter, &mut exchange().tokens(2_000, 1));
        assert_eq!(header(&response, "retry-after"), None);
        assert_eq!(
            header(&response, "x-should-retry").as_deref(),
            Some("false")
        );
        assert!(
            response.message.starts_with("Request too large"),
            "{}",
            response.message
        );
    }

    #[test]
    fn budgets_are_kept_apart_as_configured() {
        let table = [
            (r#"{"default":"100-M"}"#, false),
            (r#"{"default":"100-M","per":["principal"]}"#, true),
            (r#"{"default":"100-M","per":["tenant"]}"#, false),
            (r#"{"default":"100-M","per":[]}"#, false),
        ];
        for (config, second_passes) in table {
            let filter = limit(config);
            let mut exchange = exchange().tokens(50, 50);
            assert_eq!(run(&filter, &mut exchange), Outcome::Pass);
            exchange.set_principal(Principal::new("bob", "acme"));
            let passed = run(&filter, &mut exchange) == Outcome::Pass;
            assert_eq!(passed, second_passes, "{config}");
        }
    }

    #[test]
    fn a_lost_store_refuses_unless_configured_otherwise() {
        let table = [
            (r#"{"default":"100-M"}"#, false),
            (r#"{"default":"100-M","on_store_failure":"allow"}"#, true),
        ];
        for (config, passes) in table {
            let filter = limit(config);
            let mut exchange = exchange().tokens(1, 1);
            exchange.set_state_failure(Some(Failure::Unavailable));
            assert_eq!(
                run(&filter, &mut exchange) == Outcome::Pass,
                passes,
                "{config}"
            );
            exchange.set_state_failure(None);
            assert_eq!(
                run(&filter, &mut exchange),
                Outcome::Pass,
                "{config}, mended"
            );
        }
    }

    #[test]
    fn configuration_errors() {
        let table = [
            (r#"{"default":"1-X"}"#, "/default"),
            (r#"{"per":["tenant","team"]}"#, "/per/1"),
            (r#"{"per":["tenant","tenant"]}"#, "/per/1"),
            (r#"{"unit":"words"}"#, "/unit"),
            (r#"{"scope":"galaxy"}"#, "/scope"),
            (r#"{"limit":"1-S"}"#, "/limit"),
        ];
        for (config, pointer) in table {
            let errors = testing::filter::<TokenLimit>(config).err().unwrap();
            assert_eq!(errors[0].pointer, pointer, "{config}");
        }
    }
}
