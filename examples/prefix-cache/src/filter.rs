//! The choice: a sum of what is cached and of how idle a backend is.

use std::cell::RefCell;
use std::rc::Rc;

use serde::Deserialize;
use weir_sdk::candidates::{self, Figure, PerGeneration};
use weir_sdk::lifecycle::config_error;
use weir_sdk::{Choice, ConfigError, Filter, Manifest, RequestView, Route, Routing};

use crate::index::Index;
use crate::prompt;

/// The table `[filters.NAME.config]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes of a block; 64 are about 16 tokens.
    block_bytes: usize,
    /// Blocks looked at of one prompt.
    blocks_max: usize,
    /// Blocks remembered of one backend.
    blocks_per_backend: usize,
    /// What a prompt that is cached as a whole counts.
    prefix_weight: f64,
    /// What an idle backend counts beside the busiest.
    idle_weight: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            block_bytes: 256,
            blocks_max: 128,
            blocks_per_backend: 2_048,
            prefix_weight: 2.0,
            idle_weight: 1.0,
        }
    }
}

/// The filter. What it has learnt is a cache: an instance that is replaced learns it again.
pub struct PrefixCache {
    config: Config,
    index: RefCell<Index>,
    ids: PerGeneration<Vec<u32>>,
}

impl Filter for PrefixCache {
    type Config = Config;
    const NAME: &'static str = "prefix-cache";

    fn manifest() -> Manifest {
        Manifest::new(
            env!("CARGO_PKG_VERSION"),
            "Sends a prompt where its beginning is cached.",
        )
        .reads_body()
    }

    fn validate(config: &Config) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut check = |ok: bool, pointer: &str, message: &str| {
            if !ok {
                errors.push(config_error(pointer, message));
            }
        };
        let within = |value: usize, most: usize| (1..=most).contains(&value);
        let weight = |value: f64| value.is_finite() && value >= 0.0;
        check(
            within(config.block_bytes, 65_536),
            "/block_bytes",
            "must be between 1 and 65536",
        );
        check(
            within(config.blocks_max, 256),
            "/blocks_max",
            "must be between 1 and 256",
        );
        check(
            within(config.blocks_per_backend, 16_384),
            "/blocks_per_backend",
            "must be between 1 and 16384",
        );
        check(
            weight(config.prefix_weight),
            "/prefix_weight",
            "must be at least 0",
        );
        check(
            weight(config.idle_weight),
            "/idle_weight",
            "must be at least 0",
        );
        errors
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self {
            index: RefCell::new(Index::new(config.blocks_per_backend)),
            config,
            ids: PerGeneration::new(),
        })
    }
}

impl Route for PrefixCache {
    fn route(&self, request: RequestView, routing: Routing) -> Choice {
        let config = &self.config;
        let blocks = prompt::blocks(&request, config.block_bytes, config.blocks_max);
        if blocks.is_empty() {
            // Nothing to go by: the next routing filter decides.
            return Choice::Abstain;
        }
        let ids: Rc<Vec<u32>> = self.ids.of(&routing, |backends| {
            backends.iter().map(|backend| backend.id).collect()
        });
        let tried = if request.attempt == 0 {
            Vec::new()
        } else {
            candidates::excluded()
        };
        let running = candidates::column(Figure::Running);
        let busiest = running.iter().copied().fold(1.0, f64::max);
        let mut index = self.index.borrow_mut();
        let mut best: Option<(Score, u32, u32)> = None;
        for ((position, id), running) in (0..).zip(ids.iter()).zip(running) {
            if tried.contains(&position) {
                continue;
            }
            let matched = index.matched(*id, &blocks) as f64 / blocks.len() as f64;
            let idle = 1.0 - running / busiest;
            let score = Score {
                sum: config.prefix_weight * matched + config.idle_weight * idle,
                // New prompts go where the last new one is longest ago: caches fill up evenly.
                last_cold: index.last_cold(*id),
            };
            if best.as_ref().is_none_or(|(known, _, _)| score.beats(known)) {
                best = Some((score, position, *id));
            }
        }
        let Some((_, position, id)) = best else {
            return Choice::Abstain;
        };
        let cold = index.matched(id, &blocks) == 0;
        index.insert(id, &blocks, cold);
        Choice::Pick(position)
    }
}

struct Score {
    sum: f64,
    last_cold: u64,
}

impl Score {
    fn beats(&self, other: &Self) -> bool {
        self.sum > other.sum || (self.sum == other.sum && self.last_cold < other.last_cold)
    }
}

#[cfg(test)]
mod tests {
    use weir_sdk::testing::{self, Exchange, backend, load};

    use super::*;

    fn exchange(prompt: &str) -> Exchange {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"{prompt}"}}]}}"#);
        Exchange::new()
            .model("demo", "sim")
            .body(body)
            .candidates(["a", "b", "c"].map(|id| (backend(id, 1), load(0))))
    }

    fn route(filter: &PrefixCache, exchange: &mut Exchange) -> Choice {
        let (view, routing) = (exchange.view(), exchange.routing(0));
        exchange.run(|| filter.route(view, routing))
    }

    #[test]
    fn a_prompt_goes_where_its_beginning_is() {
        let filter: PrefixCache = testing::filter(r#"{"block_bytes":32}"#).unwrap();
        let (red, blue) = ("red ".repeat(100), "blue ".repeat(100));
        let first = route(&filter, &mut exchange(&red));
        let other = route(&filter, &mut exchange(&blue));
        assert_ne!(first, other, "new prompts are spread");
        let longer = format!("{red} and more");
        assert_eq!(route(&filter, &mut exchange(&longer)), first);
        assert_eq!(route(&filter, &mut exchange(&blue)), other);
    }

    #[test]
    fn a_busy_backend_is_left_when_little_is_cached() {
        let filter: PrefixCache = testing::filter(r#"{"block_bytes":32}"#).unwrap();
        let long = "word ".repeat(100);
        assert_eq!(route(&filter, &mut exchange(&long)), Choice::Pick(0));
        let mut busy = exchange(&long);
        busy.set_load(0, load(9));
        assert_eq!(
            route(&filter, &mut busy),
            Choice::Pick(0),
            "all of it is cached"
        );
        let mut other = exchange(&format!("{}{}", "word ".repeat(20), "else ".repeat(200)));
        other.set_load(0, load(9));
        assert_ne!(route(&filter, &mut other), Choice::Pick(0));
    }

    #[test]
    fn retries_go_elsewhere_and_empty_prompts_to_others() {
        let filter: PrefixCache = testing::filter("{}").unwrap();
        let mut tried = exchange("hello").excluded(&[0, 1]);
        assert_eq!(route(&filter, &mut tried), Choice::Pick(2));
        let mut all = exchange("hello").excluded(&[0, 1, 2]);
        assert_eq!(route(&filter, &mut all), Choice::Abstain);
        assert_eq!(route(&filter, &mut Exchange::new()), Choice::Abstain);
    }

    #[test]
    fn a_bad_table_is_refused_with_the_place() {
        for (config, pointer) in [
            (r#"{"block_bytes":0}"#, "/block_bytes"),
            (r#"{"prefix_weight":-1}"#, "/prefix_weight"),
            (r#"{"blocks":1}"#, "/blocks"),
        ] {
            let errors = testing::filter::<PrefixCache>(config).err().unwrap();
            assert_eq!(errors[0].pointer, pointer, "{config}");
        }
    }
}
