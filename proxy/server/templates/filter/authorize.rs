//! Filter `my-filter`: lets in the teams that are named in its table.

use weir_sdk::exchange::Header;
use weir_sdk::lifecycle::config_error;
use weir_sdk::{
    Authorize, ConfigError, Decision, Filter, LocalResponse, Manifest, Principal, RequestView,
};

/// The table `config` of the filter.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Values of `x-team` that are let in.
    teams: Vec<String>,
}

/// The filter, one per instance.
pub struct MyFilter {
    header: Header,
    teams: Vec<String>,
}

impl Filter for MyFilter {
    type Config = Config;
    const NAME: &'static str = "my-filter";

    fn manifest() -> Manifest {
        Manifest::new(
            env!("CARGO_PKG_VERSION"),
            "Lets in the teams that are named.",
        )
        .reads_headers(&["x-team"])
    }

    fn validate(config: &Config) -> Vec<ConfigError> {
        if config.teams.is_empty() {
            return vec![config_error(
                "/teams",
                "name at least one team, or nobody is let in",
            )];
        }
        Vec::new()
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self {
            header: Header::new("x-team"),
            teams: config.teams,
        })
    }
}

impl Authorize for MyFilter {
    fn authorize(&self, _request: RequestView) -> Decision {
        let Some(given) = self.header.value() else {
            // No opinion: a later authorizer decides; if none does, the request is refused.
            return Decision::Abstain;
        };
        // The header proves nothing by itself: have something before Weir set it, or check a
        // signature here.
        match self.teams.iter().find(|team| team.as_bytes() == given) {
            Some(team) => Principal::new(team, team).into(),
            None => LocalResponse::error(
                403,
                "permission_error",
                "unknown_team",
                "this team may not call",
            )
            .into(),
        }
    }
}

weir_sdk::export!(MyFilter: Authorize);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::testing::{Exchange, filter};

    #[test]
    fn only_named_teams_are_let_in() {
        let filter: MyFilter = filter(r#"{"teams": ["red"]}"#).unwrap();
        let table = [
            (None, "abstain"),
            (Some("red"), "red"),
            (Some("blue"), "unknown_team"),
        ];
        for (team, expected) in table {
            let exchange = Exchange::new();
            let mut exchange = match team {
                Some(team) => exchange.header("x-team", team),
                None => exchange,
            };
            let view = exchange.view();
            let got = match exchange.run(|| filter.authorize(view)) {
                Decision::Allow(principal) => principal.subject,
                Decision::Deny(response) => response.error_code,
                _ => "abstain".to_owned(),
            };
            assert_eq!(got, expected, "{team:?}");
        }
    }
}
