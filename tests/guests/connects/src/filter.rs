//! The filter: what it imports is what it must not have.

use std::net::TcpStream;

use weir_hostile_deeds::Config;
use weir_sdk::{Filter, Manifest, OnRequest, Outcome, RequestView};

/// The filter.
pub struct Guest;

impl Filter for Guest {
    type Config = Config;
    const NAME: &'static str = "connects";

    fn manifest() -> Manifest {
        Manifest::new(env!("CARGO_PKG_VERSION"), "Opens a connection by itself.")
    }

    fn new(_: Config) -> Result<Self, String> {
        Ok(Self)
    }
}

impl OnRequest for Guest {
    fn on_request(&self, _: RequestView) -> Outcome {
        let connected = TcpStream::connect("127.0.0.1:9");
        Outcome::from(weir_sdk::Edits::new().attribute("connected", format!("{connected:?}")))
    }
}

weir_sdk::export!(Guest: OnRequest);
