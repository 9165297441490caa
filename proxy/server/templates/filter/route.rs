//! Filter `my-filter`: fills one backend before it uses the next.

use weir_sdk::lifecycle::config_error;
use weir_sdk::{Choice, ConfigError, Filter, Manifest, RequestView, Route, Routing, candidates};

/// The table `config` of the filter.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Requests a backend may have running before the next one is used.
    #[serde(default = "spill_at")]
    spill_at: u32,
}

fn spill_at() -> u32 {
    4
}

/// The filter, one per instance.
pub struct MyFilter {
    spill_at: u32,
}

impl Filter for MyFilter {
    type Config = Config;
    const NAME: &'static str = "my-filter";

    fn manifest() -> Manifest {
        Manifest::new(
            env!("CARGO_PKG_VERSION"),
            "Fills one backend before it uses the next.",
        )
    }

    fn validate(config: &Config) -> Vec<ConfigError> {
        if config.spill_at == 0 {
            return vec![config_error("/spill_at", "must be at least 1")];
        }
        Vec::new()
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self {
            spill_at: config.spill_at,
        })
    }
}

impl Route for MyFilter {
    fn route(&self, _request: RequestView, routing: Routing) -> Choice {
        let tried = candidates::excluded();
        let has_room = |position: &u32| {
            let load = candidates::load(*position);
            !tried.contains(position) && load.is_some_and(|load| load.running < self.spill_at)
        };
        // Nobody has room: no opinion, the next routing filter or the gateway decides.
        (0..routing.candidates).find(has_room).into()
    }
}

weir_sdk::export!(MyFilter: Route);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::testing::{Exchange, backend, filter, load};

    #[test]
    fn the_first_with_room_is_picked() {
        let filter: MyFilter = filter(r#"{"spill_at": 2}"#).unwrap();
        let table: [(&[u32], &[u32], Option<u32>); 4] = [
            (&[0, 0], &[], Some(0)),
            (&[2, 0], &[], Some(1)),
            (&[0, 0], &[0], Some(1)),
            (&[2, 2], &[], None),
        ];
        for (running, tried, expected) in table {
            let backends = running
                .iter()
                .map(|running| (backend(&format!("b{running}"), 1), load(*running)));
            let mut exchange = Exchange::new().candidates(backends).excluded(tried);
            let (view, routing) = (exchange.view(), exchange.routing(0));
            let choice = exchange.run(|| filter.route(view, routing));
            let picked = if let Choice::Pick(position) = choice {
                Some(position)
            } else {
                None
            };
            assert_eq!(picked, expected, "running {running:?}, tried {tried:?}");
        }
    }

    #[test]
    fn a_bad_table_is_refused() {
        assert_eq!(
            filter::<MyFilter>(r#"{"spill_at": 0}"#).err().unwrap()[0].pointer,
            "/spill_at"
        );
    }
}
