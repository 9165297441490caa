//! Which method decides.

use std::cell::Cell;
use std::rc::Rc;

use weir_sdk::candidates::{self, PerGeneration};
use weir_sdk::exchange::Header;
use weir_sdk::{
    Choice, ConfigError, Filter, Manifest, RequestView, Route, Routing, Traits, exchange, host,
};

use crate::config::{Config, Expressions};
use crate::expression::{self, Class};
use crate::method::Method;
use crate::plan::{Plan, Plans};
use crate::pulsar::Asked;
use crate::weights::Weights;
use crate::{
    admission, groq_multiregion, power_of_two, pulsar, pulsar_multiregion, random, round_robin,
    sticky,
};

/// Chooses the backend by the model's routing method.
pub struct RoutingMethod {
    config: Config,
    /// Set where requests may choose.
    expression: Option<Header>,
    /// The same for the time in which they want a first token.
    slo: Option<Header>,
    plans: Plans,
    weights: PerGeneration<Weights>,
    warned: Cell<bool>,
}

impl Filter for RoutingMethod {
    type Config = Config;
    const NAME: &'static str = "routing-method";

    fn manifest() -> Manifest {
        Manifest::new(
            env!("CARGO_PKG_VERSION"),
            "Chooses the backend: round robin, random, power of two, wait and widen, pulsar.",
        )
    }

    fn validate(config: &Config) -> Vec<ConfigError> {
        config.errors()
    }

    fn new(config: Config) -> Result<Self, String> {
        let header = |name| match config.expressions {
            Expressions::Never => None,
            Expressions::Trusted => Some(Header::new(name)),
        };
        Ok(Self {
            expression: header("x-routing-method"),
            slo: header("x-request-slo-ms"),
            config,
            plans: Plans::default(),
            weights: PerGeneration::new(),
            warned: Cell::new(false),
        })
    }
}

impl Route for RoutingMethod {
    fn route(&self, request: RequestView, routing: Routing) -> Choice {
        let expression = self.expression(&request);
        let plan = match self.plan(&request, expression.as_deref().unwrap_or_default()) {
            Ok(plan) => plan,
            Err(class) => return class.refusal().into(),
        };
        if request.attempt == 0 {
            if let Some(refusal) = admission::refusal(&plan.settings, &request, &routing) {
                return refusal.into();
            }
            if routing.candidates == 1 && !plan.method.sees_affinity() {
                // Nothing to choose, so nothing to ask for.
                return Choice::Pick(0);
            }
        }
        let tried = match request.attempt {
            0 => Vec::new(),
            _ => candidates::excluded(),
        };
        let weights = self.weights.of(&routing, Weights::of);
        let count = routing.candidates;
        let method = plan.method;
        if plan.settings.sticky && routing.affinity_hash != 0 && !method.sees_affinity() {
            return sticky::pick(routing.affinity_hash, &weights, count, &tried).into();
        }
        let asked = Asked {
            plan: &plan,
            request: &request,
            routing: &routing,
            weights: &weights,
            tried: &tried,
        };
        match method {
            Method::RoundRobin => round_robin::pick(&weights, count, &tried).into(),
            Method::Random => random::pick(&weights, count, &tried).into(),
            Method::PowerOfTwo => {
                power_of_two::pick(plan.settings.power_of_two, &weights, count, &tried).into()
            }
            Method::GroqMultiregion => {
                let slo_ms = self.slo_ms(&request, &plan.settings);
                groq_multiregion::choose(&asked, slo_ms)
            }
            Method::Pulsar => pulsar::choose(&asked),
            Method::PulsarMultiregion => pulsar_multiregion::choose(&asked),
        }
    }
}

impl RoutingMethod {
    /// What the request says of its method, if it may.
    fn expression(&self, request: &RequestView) -> Option<String> {
        let value = self.expression?.value()?;
        if value.is_empty() || !self.trusts(request) {
            return None;
        }
        if value.len() > expression::EXPRESSION_BYTES_MAX {
            // Too long to be kept, and wrong whatever it says.
            return Some(",".to_owned());
        }
        Some(String::from_utf8(value).unwrap_or_else(|_| ",".to_owned()))
    }

    /// The time in which the request wants a first token: its own, if it may say so, else the
    /// setting. What is no number of milliseconds says nothing.
    fn slo_ms(&self, request: &RequestView, settings: &Config) -> u32 {
        let rules = &settings.groq_multiregion;
        let own = || {
            // Without a limit that grows nobody asks.
            rules.max_queue_time_floor_ms?;
            let value = String::from_utf8(self.slo?.value()?).ok()?;
            let slo_ms = value.trim().parse().ok()?;
            self.trusts(request).then_some(slo_ms)
        };
        own().unwrap_or(rules.slo_ms)
    }

    /// Whether the request may say how it is routed.
    fn trusts(&self, request: &RequestView) -> bool {
        request.traits.contains(Traits::INTERNAL_TRAFFIC)
            || exchange::principal()
                .is_some_and(|caller| caller.scopes.contains(&self.config.expression_scope))
    }

    fn plan(&self, request: &RequestView, expression: &str) -> Result<Rc<Plan>, Class> {
        self.plans.of(request, expression, |named| {
            let (method, settings) = self.configured(request, named);
            let (method, settings) = match expression {
                "" => (method, settings),
                expression => expression::apply(expression, &settings)?,
            };
            Ok(Plan::new(method, settings, request))
        })
    }

    /// What the configuration says of a model: the method it names, else the table's, and the
    /// table with what is different for the model.
    fn configured(&self, request: &RequestView, named: Option<String>) -> (Method, Config) {
        let [function, model] = [request.routing_key, request.model].map(host::name_of);
        let changes = self.config.for_model(&function, &model);
        let settings = changes
            .and_then(|changes| self.config.changed(changes).ok())
            .unwrap_or_else(|| self.config.clone());
        let default = Method::parse(&settings.default).unwrap_or(Method::RoundRobin);
        let method = named.map_or(default, |name| self.named(&name, default));
        (method, settings)
    }

    fn named(&self, name: &str, default: Method) -> Method {
        Method::parse(name).unwrap_or_else(|| {
            if !self.warned.replace(true) {
                weir_sdk::warn!(
                    "unknown routing method `{name}`, the default decides; known are {}",
                    Method::NAMES
                );
            }
            default
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use weir_sdk::host::Level;
    use weir_sdk::testing::{self, Exchange, backend, load};

    use super::*;

    fn method(config: &str) -> RoutingMethod {
        testing::filter(config).unwrap_or_else(|errors| panic!("{config}: {errors:?}"))
    }

    /// Backends by weight and requests running.
    fn exchange(backends: &[(u32, u32)]) -> Exchange {
        let candidate = |(at, (weight, running)): (usize, &(u32, u32))| {
            (backend(&format!("backend-{at}"), *weight), load(*running))
        };
        Exchange::new()
            .model("demo", "sim")
            .candidates(backends.iter().enumerate().map(candidate))
    }

    fn choose(filter: &RoutingMethod, exchange: &mut Exchange, affinity_hash: u64) -> Choice {
        let (view, routing) = (exchange.view(), exchange.routing(affinity_hash));
        exchange.run(|| filter.route(view, routing))
    }

    fn counts(filter: &RoutingMethod, exchange: &mut Exchange, tries: u32) -> Vec<u32> {
        let mut counts = vec![0; exchange.routing(0).candidates as usize];
        for _ in 0..tries {
            match choose(filter, exchange, 0) {
                Choice::Pick(position) => counts[position as usize] += 1,
                other => panic!("{other:?}"),
            }
        }
        counts
    }

    #[test]
    fn round_robin_takes_turns_by_weight() {
        let table: [(&[(u32, u32)], u32, &[u32]); 3] = [
            (&[(1, 9), (1, 0), (1, 5)], 9, &[3, 3, 3]),
            (&[(2, 0), (1, 0)], 9, &[6, 3]),
            (&[(1, 0)], 4, &[4]),
        ];
        for (backends, tries, expected) in table {
            let filter = method("{}");
            assert_eq!(
                counts(&filter, &mut exchange(backends), tries),
                expected,
                "{backends:?}"
            );
        }
    }

    #[test]
    fn random_reaches_all_by_weight() {
        let filter = method(r#"{"default":"random"}"#);
        let counts = counts(&filter, &mut exchange(&[(3, 0), (1, 0)]), 4_000);
        assert!((2_800..3_200).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn power_of_two_takes_the_better() {
        // With as many choices as backends the best always wins.
        let all = |figure: &str| {
            format!(
                r#"{{"default":"power_of_two","power_of_two":{{"choices":3,"figure":"{figure}"}}}}"#
            )
        };
        let mut with_cache = load(9);
        with_cache.kv_free_tokens = 1_000;
        let table: [(&str, &[(u32, u32)], u32); 4] = [
            ("running", &[(1, 3), (1, 1), (1, 2)], 1),
            ("running", &[(4, 3), (1, 1), (1, 2)], 0),
            ("running", &[(1, 3), (0, 0), (1, 2)], 2),
            ("kv_free_tokens", &[(1, 3), (1, 1), (1, 9)], 2),
        ];
        for (figure, backends, expected) in table {
            let filter = method(&all(figure));
            let mut exchange = exchange(backends);
            if figure == "kv_free_tokens" {
                exchange.set_load(2, with_cache);
            }
            for _ in 0..20 {
                assert_eq!(
                    choose(&filter, &mut exchange, 0),
                    Choice::Pick(expected),
                    "{figure} {backends:?}"
                );
            }
        }
    }

    #[test]
    fn power_of_two_never_takes_the_worst_and_spreads_equals() {
        let filter = method(r#"{"default":"power_of_two"}"#);
        let loaded = counts(&filter, &mut exchange(&[(1, 9), (1, 0), (1, 1)]), 600);
        assert_eq!(loaded[0], 0, "{loaded:?}");
        let idle = counts(&filter, &mut exchange(&[(1, 0), (1, 0), (1, 0)]), 3_000);
        assert!(
            idle.iter().all(|count| (800..1_200).contains(count)),
            "{idle:?}"
        );
    }

    #[test]
    fn tried_backends_are_not_chosen_again() {
        for name in ["round_robin", "random", "power_of_two"] {
            let filter = method(&format!(r#"{{"default":"{name}"}}"#));
            for affinity_hash in [0, 77] {
                let mut exchange = exchange(&[(1, 0), (2, 0), (3, 0)]).excluded(&[0, 2]);
                for _ in 0..20 {
                    let found = choose(&filter, &mut exchange, affinity_hash);
                    assert_eq!(found, Choice::Pick(1), "{name} {affinity_hash}");
                }
                let mut none_left = exchange.excluded(&[0, 1, 2]);
                assert_eq!(
                    choose(&filter, &mut none_left, affinity_hash),
                    Choice::Abstain,
                    "{name}"
                );
            }
            let mut empty = Exchange::new();
            assert_eq!(
                choose(&filter, &mut empty, 0),
                Choice::Abstain,
                "{name}, no candidate"
            );
        }
    }

    #[test]
    fn conversations_stay_where_they_are() {
        let backends = [(1, 0); 8];
        let filter = method(r#"{"default":"random"}"#);
        let mut exchange = exchange(&backends);
        for hash in 1..50 {
            let first = choose(&filter, &mut exchange, hash);
            assert!(
                (0..5).all(|_| choose(&filter, &mut exchange, hash) == first),
                "{hash}"
            );
        }
        let restless = method(r#"{"default":"round_robin","sticky":false}"#);
        let turns: Vec<Choice> = (0..3)
            .map(|_| choose(&restless, &mut exchange, 7))
            .collect();
        assert_eq!(turns, [Choice::Pick(0), Choice::Pick(1), Choice::Pick(2)]);
    }

    #[test]
    fn a_crowd_that_begins_alike_is_spread() {
        let filter = method("{}");
        let mut running = [(1, 0), (1, 0), (2, 0)];
        for arrived in 1..=200 {
            let mut exchange = exchange(&running);
            let Choice::Pick(position) = choose(&filter, &mut exchange, 77) else {
                panic!("nobody was picked");
            };
            running[position as usize].1 += 1;
            let bound = |weight: u32| (1.25 * f64::from(arrived * weight) / 4.0).ceil().max(8.0);
            let crowded = running
                .iter()
                .any(|(weight, running)| f64::from(*running) > bound(*weight));
            assert!(!crowded, "{running:?}");
            if arrived == 8 {
                assert!(
                    running.iter().any(|(_, running)| *running == 8),
                    "{running:?}"
                );
            }
        }
        assert!(
            running.iter().all(|(_, running)| *running > 8),
            "{running:?}"
        );
    }

    #[test]
    fn the_model_names_the_method() {
        let filter = method(r#"{"default":"power_of_two"}"#);
        let mut exchange =
            exchange(&[(1, 9), (1, 0)]).attribute("weir.routing-method", "round_robin");
        assert_eq!(counts(&filter, &mut exchange, 4), [2, 2]);
        exchange.set_attribute("weir.routing-method", "meteor");
        assert_eq!(
            counts(&filter, &mut exchange, 4),
            [0, 4],
            "falls back to the default"
        );
        let warnings = exchange
            .logs()
            .iter()
            .filter(|(level, _)| *level == Level::Warn)
            .count();
        assert_eq!(warnings, 1, "{:?}", exchange.logs());
    }

    #[test]
    fn configuration_errors() {
        let table = [
            (r#"{"default":"meteor"}"#, "/default"),
            (r#"{"power_of_two":{"choices":1}}"#, "/power_of_two/choices"),
            (
                r#"{"power_of_two":{"figure":"luck"}}"#,
                "/power_of_two/figure",
            ),
            (r#"{"sticky":1}"#, "/sticky"),
        ];
        for (config, pointer) in table {
            let errors = testing::filter::<RoutingMethod>(config).err().unwrap();
            assert_eq!(errors[0].pointer, pointer, "{config}");
        }
    }
}
