//! The reservation.

use std::rc::Rc;

use weir_sdk::exchange::{self, PerSettings};
use weir_sdk::metrics::Series;
use weir_sdk::state::{Limited, Subject, TakeResult};
use weir_sdk::{ConfigError, Failure, Filter, Manifest, OnRequest, Outcome, RequestView};

use crate::config::{Config, OnStoreFailure};
use crate::dimension::Dimension;
use crate::limiters::{Limiters, Opened};
use crate::refusal;

/// Reserves what a request will probably cost; the host settles it with what it did cost.
pub struct TokenLimit {
    config: Config,
    subject: Subject,
    limiters: Limiters,
    budgets: PerSettings<Rc<[Rc<Opened>]>>,
    store_failures: Series,
}

impl Filter for TokenLimit {
    type Config = Config;
    const NAME: &'static str = "token-limit";

    fn manifest() -> Manifest {
        Manifest::new(
            env!("CARGO_PKG_VERSION"),
            "Keeps callers within budgets of tokens and requests per time window.",
        )
    }

    fn validate(config: &Config) -> Vec<ConfigError> {
        config.errors()
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self {
            subject: config.subject(),
            limiters: Limiters::new(config.scope.scope(), config.header_forms()),
            budgets: PerSettings::new(Dimension::Total.attribute()),
            store_failures: Series::counter(
                "store_failures_total",
                "Requests whose budgets could not be asked, by what became of them.",
                &["verdict"],
            )?
            .with_labels(&[config.on_store_failure.verdict()]),
            config,
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
    /// All budgets are asked even after one has refused: the caller hears of the one that admits
    /// it last, and what was reserved of others goes back when the request is refused.
    fn admit(&self, request: &RequestView) -> Result<Outcome, Failure> {
        let budgets = self
            .budgets
            .of(request, |total| self.budgets(request, total))?;
        let mut last: Option<(&Opened, u64, Limited)> = None;
        for budget in budgets.iter() {
            let dimension = budget.dimension;
            let wanted = dimension.estimate(request, self.config.assumed_output_tokens);
            let unit = dimension.unit();
            let taken = budget.limiter.reserve(self.subject, "", wanted, unit)?;
            if let TakeResult::Limited(limited) = taken
                && last
                    .as_ref()
                    .is_none_or(|(_, _, known)| limited.retry_after_ms > known.retry_after_ms)
            {
                last = Some((budget, wanted, limited));
            }
        }
        Ok(match last {
            Some((budget, wanted, limited)) => refusal::limited(budget, wanted, &limited).into(),
            None => Outcome::Pass,
        })
    }

    /// For each dimension the model's own limit, else the default.
    fn budgets(
        &self,
        request: &RequestView,
        total: Option<String>,
    ) -> Result<Rc<[Rc<Opened>]>, Failure> {
        let mut budgets = Vec::new();
        for dimension in Dimension::ALL {
            let own = match dimension {
                Dimension::Total => total.clone(),
                _ if request.settings == 0 => None,
                _ => exchange::attribute(dimension.attribute()),
            };
            let own = match own {
                Some(text) => self.limiters.of(dimension, &text)?,
                None => None,
            };
            let budget = match (own, self.config.default_of(dimension)) {
                (None, Some(text)) => self.limiters.of(dimension, text)?,
                (own, _) => own,
            };
            budgets.extend(budget);
        }
        Ok(budgets.into())
    }

    fn without_store(&self, failure: Failure) -> Outcome {
        self.store_failures.observe(1.0);
        match self.config.on_store_failure {
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
    use weir_sdk::state::{HeaderForms, Unit};
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
                r#"{"default":"1000-M","assumed_output_tokens":0}"#,
                None,
                (100, 0),
                10,
            ),
            (r#"{"default_input":"1000-M"}"#, None, (100, 900), 10),
            (r#"{"default_output":"1000-M"}"#, None, (900, 100), 10),
            (r#"{"default_requests":"7-M"}"#, None, (900, 100), 7),
            (
                r#"{"default":"9000-M","default_input":"500-M","default_output":"400-M","default_requests":"7-M"}"#,
                None,
                (100, 100),
                4,
            ),
            (
                r#"{"default":"1000-M"}"#,
                Some(("token", "400-M")),
                (100, 100),
                2,
            ),
            (
                r#"{"default":"1000-M"}"#,
                Some(("token", "no limit")),
                (100, 100),
                5,
            ),
            (
                r#"{"default":"1000-M"}"#,
                Some(("request", "3-M")),
                (100, 100),
                3,
            ),
            (
                r#"{"default_output":"200-M"}"#,
                Some(("output-token", "600-M")),
                (100, 100),
                6,
            ),
            ("{}", Some(("input-token", "200-M")), (100, 100), 2),
            ("{}", Some(("token", "400-M,1000-H")), (100, 100), 2),
            (r#"{"default":"1000-M,600-H"}"#, None, (100, 100), 3),
        ];
        for (config, attribute, (input, output), expected) in table {
            let filter = limit(config);
            let mut exchange = exchange().tokens(input, output);
            if let Some((what, text)) = attribute {
                exchange.set_attribute(&format!("weir.{what}-rate-limit"), text);
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
            ("retry-after-ms", Some("20000")),
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
    fn the_limit_that_admits_last_is_named() {
        // (config, what is named, retry-after, x-should-retry)
        let table = [
            (
                r#"{"default_requests":"60-M","default":"200-M"}"#,
                "200 tokens per minute",
                Some("60"),
                None,
            ),
            (
                r#"{"default_requests":"1-H","default":"300-M"}"#,
                "1 requests per hour",
                Some("3600"),
                Some("false"),
            ),
            (
                r#"{"default_input":"150-S","default_output":"150-D"}"#,
                "150 output tokens per day",
                Some("28800"),
                Some("false"),
            ),
            (
                r#"{"default_input":"150-D","default_output":"150-S"}"#,
                "150 input tokens per day",
                Some("28800"),
                Some("false"),
            ),
            (
                r#"{"default_requests":"1-W","default_output":"99-S"}"#,
                "100 output tokens, the whole limit is 99 per second",
                None,
                Some("false"),
            ),
        ];
        for (config, named, retry_after, should_retry) in table {
            let filter = limit(config);
            let mut exchange = exchange().tokens(100, 100);
            _ = run(&filter, &mut exchange);
            let response = refused(&filter, &mut exchange);
            assert!(response.message.contains(named), "{}", response.message);
            let seen = header(&response, "retry-after");
            assert_eq!(seen.as_deref(), retry_after, "{config}");
            let seen = header(&response, "x-should-retry");
            assert_eq!(seen.as_deref(), should_retry, "{config}");
        }
    }

    #[test]
    fn callers_are_told_in_the_configured_forms() {
        let both = HeaderForms::X_RATELIMIT | HeaderForms::RATELIMIT;
        let table = [
            (r#"{"default":"9-S"}"#, Some(both)),
            (
                r#"{"default":"9-S","headers":["ratelimit"]}"#,
                Some(HeaderForms::RATELIMIT),
            ),
            (r#"{"default":"9-S","headers":[]}"#, None),
        ];
        for (config, forms) in table {
            let mut exchange = exchange().tokens(1, 1);
            exchange.set_attribute("weir.request-rate-limit", "5-S");
            run(&limit(config), &mut exchange);
            let told = |name| exchange.announced(name);
            let expected = |unit| forms.map(|forms| (unit, forms));
            assert_eq!(told("total_tokens"), expected(Unit::TotalTokens));
            assert_eq!(told("requests"), expected(Unit::Requests));
            assert_eq!(told("input_tokens"), None, "{config}");
        }
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
            response.message.starts_with("rate limit exceeded: this"),
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
            (r#"{"default_input":"1-S,"}"#, "/default_input"),
            (r#"{"default_output":"0-S"}"#, "/default_output"),
            (r#"{"default_requests":"1-S,1-S"}"#, "/default_requests"),
            (r#"{"headers":["x-rate"]}"#, "/headers/0"),
            (r#"{"per":["tenant","team"]}"#, "/per/1"),
            (r#"{"per":["tenant","tenant"]}"#, "/per/1"),
            (r#"{"unit":"requests"}"#, "/unit"),
            (r#"{"scope":"galaxy"}"#, "/scope"),
            (r#"{"limit":"1-S"}"#, "/limit"),
        ];
        for (config, pointer) in table {
            let errors = testing::filter::<TokenLimit>(config).err().unwrap();
            assert_eq!(errors[0].pointer, pointer, "{config}");
        }
    }
}
