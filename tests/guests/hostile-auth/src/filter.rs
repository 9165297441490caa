//! The filter: `authorize`, and a signature to tell it from the other one.

use weir_hostile_deeds::{Config, Deed, Hostile, Phase};
use weir_sdk::{
    Authorize, Decision, Edits, Filter, LocalResponse, Manifest, OnResponseHeaders, Outcome,
    Principal, RequestView,
};

/// The filter.
pub struct Guest(Hostile);

impl Filter for Guest {
    type Config = Config;
    const NAME: &'static str = "hostile-auth";

    fn manifest() -> Manifest {
        Manifest::new(
            env!("CARGO_PKG_VERSION"),
            "Lets everyone in, or misbehaves.",
        )
    }

    fn new(config: Config) -> Result<Self, String> {
        Hostile::new(config).map(Self)
    }
}

impl Authorize for Guest {
    fn authorize(&self, _: RequestView) -> Decision {
        match self.0.deed(Phase::Authorize) {
            Deed::Respond => LocalResponse::error(403, "", "not_you", "not you").into(),
            _ => Principal::new("anyone", "hostile").into(),
        }
    }
}

impl OnResponseHeaders for Guest {
    fn on_response_headers(&self, _: u16) -> Outcome {
        if self.0.signs() {
            Edits::new().set_header("x-guest", Self::NAME).into()
        } else {
            Outcome::Pass
        }
    }
}

weir_sdk::export!(Guest: Authorize, OnResponseHeaders);
