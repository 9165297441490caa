//! Filter `my-filter`: keeps all requests of one user on one backend.

use weir_sdk::exchange::Header;
use weir_sdk::{Affinity, AffinityKey, Filter, Manifest, RequestView};

/// The table `config` of the filter.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long a user is remembered, in milliseconds.
    #[serde(default = "ttl_ms")]
    ttl_ms: u32,
}

fn ttl_ms() -> u32 {
    600_000
}

/// The filter, one per instance.
pub struct MyFilter {
    header: Header,
    ttl_ms: u32,
}

impl Filter for MyFilter {
    type Config = Config;
    const NAME: &'static str = "my-filter";

    fn manifest() -> Manifest {
        Manifest::new(env!("CARGO_PKG_VERSION"), "Keeps a user on one backend.")
            .reads_headers(&["x-user"])
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self {
            header: Header::new("x-user"),
            ttl_ms: config.ttl_ms,
        })
    }
}

impl Affinity for MyFilter {
    fn affinity(&self, _request: RequestView) -> Option<AffinityKey> {
        // No header, or no text: no opinion, the next affinity filter is asked.
        let user = String::from_utf8(self.header.value()?).ok()?;
        Some(AffinityKey {
            key: format!("user:{user}"),
            ttl_ms: self.ttl_ms,
            strict: false,
            answer_headers: Vec::new(),
        })
    }
}

weir_sdk::export!(MyFilter: Affinity);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::testing::{Exchange, filter};

    #[test]
    fn the_user_is_the_key() {
        let filter: MyFilter = filter("{}").unwrap();
        let mut exchange = Exchange::new().header("x-user", "ann");
        let view = exchange.view();
        let key = exchange.run(|| filter.affinity(view)).unwrap();
        assert_eq!((key.key.as_str(), key.ttl_ms), ("user:ann", 600_000));
        let mut exchange = Exchange::new();
        assert!(exchange.run(|| filter.affinity(view)).is_none());
    }
}
