//! A routing filter: each tenant has a home backend, and spills over when that is busy.
//!
//! Home keeps a tenant's prompts where their prefix is cached; spilling keeps a busy tenant from
//! waiting for its home while others idle.

use serde::Deserialize;
use weir_sdk::candidates::{self, Figure};
use weir_sdk::lifecycle::config_error;
use weir_sdk::{
    Choice, ConfigError, Filter, Manifest, RequestView, Route, Routing, exchange, host,
};

/// The table `[filters.NAME.config]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Requests running at home from which on the tenant spills over.
    #[serde(default = "default_spill_at")]
    spill_at: u32,
}

fn default_spill_at() -> u32 {
    8
}

/// The filter. One value per instance, made by `new`; instances come and go, so nothing that
/// matters is kept here.
pub struct HomeWithSpill {
    spill_at: u32,
}

impl Filter for HomeWithSpill {
    type Config = Config;
    const NAME: &'static str = "home-with-spill";

    fn manifest() -> Manifest {
        Manifest::new(
            env!("CARGO_PKG_VERSION"),
            "Sends each tenant to its home backend, elsewhere when that is busy.",
        )
    }

    fn validate(config: &Config) -> Vec<ConfigError> {
        if config.spill_at == 0 {
            return vec![config_error(
                "/spill_at",
                "must be at least 1: with 0 nobody is ever at home",
            )];
        }
        Vec::new()
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self {
            spill_at: config.spill_at,
        })
    }
}

impl Route for HomeWithSpill {
    fn route(&self, request: RequestView, _routing: Routing) -> Choice {
        // A retry: home has just failed, or was full.
        if request.attempt > 0 {
            return candidates::least(Figure::Running, &[]).into();
        }
        // Without a caller there is no home: the next routing filter decides.
        let Some(caller) = exchange::principal() else {
            return Choice::Abstain;
        };
        let key = host::hash(caller.tenant.as_bytes(), 0);
        let Some(home) = candidates::rendezvous(key, 1).first().copied() else {
            return Choice::Abstain;
        };
        match candidates::load(home) {
            Some(load) if load.running < self.spill_at => Choice::Pick(home),
            _ => {
                weir_sdk::debug!("tenant {} spills over", caller.tenant);
                candidates::least(Figure::Running, &[]).into()
            }
        }
    }
}

weir_sdk::export!(HomeWithSpill: Route);

#[cfg(test)]
mod tests {
    use weir_sdk::Principal;
    use weir_sdk::testing::{self, Exchange, backend, load};

    use super::*;

    /// Four idle backends and a caller of `tenant`.
    fn exchange(tenant: &str) -> Exchange {
        let candidates = ["a", "b", "c", "d"].map(|id| (backend(id, 1), load(0)));
        Exchange::new()
            .principal(Principal::new("alice", tenant))
            .candidates(candidates)
    }

    fn route(filter: &HomeWithSpill, exchange: &mut Exchange) -> Choice {
        let (view, routing) = (exchange.view(), exchange.routing(0));
        exchange.run(|| filter.route(view, routing))
    }

    fn home(filter: &HomeWithSpill, exchange: &mut Exchange) -> usize {
        match route(filter, exchange) {
            Choice::Pick(position) => position as usize,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_tenant_stays_at_home_until_it_is_busy() {
        let filter: HomeWithSpill = testing::filter(r#"{"spill_at":2}"#).unwrap();
        let mut exchange = exchange("acme");
        let home = home(&filter, &mut exchange);
        for (running, stays) in [(0, true), (1, true), (2, false), (9, false)] {
            exchange.set_load(home, load(running));
            let at_home = route(&filter, &mut exchange) == Choice::Pick(home as u32);
            assert_eq!(at_home, stays, "{running} running at home");
        }
    }

    #[test]
    fn tenants_live_in_different_places() {
        let filter: HomeWithSpill = testing::filter("{}").unwrap();
        let tenants = (0..50).map(|number| format!("tenant-{number}"));
        let mut homes: Vec<usize> = tenants
            .map(|tenant| home(&filter, &mut exchange(&tenant)))
            .collect();
        homes.sort_unstable();
        homes.dedup();
        assert_eq!(homes, [0, 1, 2, 3]);
    }

    #[test]
    fn a_retry_goes_to_the_least_busy_of_the_others() {
        let filter: HomeWithSpill = testing::filter("{}").unwrap();
        let mut exchange = exchange("acme").excluded(&[0, 1]);
        exchange.set_load(2, load(5));
        assert_eq!(route(&filter, &mut exchange), Choice::Pick(3));
    }

    #[test]
    fn anonymous_requests_are_left_to_others() {
        let filter: HomeWithSpill = testing::filter("{}").unwrap();
        assert_eq!(route(&filter, &mut Exchange::new()), Choice::Abstain);
    }

    #[test]
    fn a_bad_table_is_refused_with_the_place() {
        for (config, pointer) in [
            (r#"{"spill_at":0}"#, "/spill_at"),
            (r#"{"spil_at":1}"#, "/spil_at"),
        ] {
            let errors = testing::filter::<HomeWithSpill>(config).err().unwrap();
            assert_eq!(errors[0].pointer, pointer, "{config}");
        }
    }
}
