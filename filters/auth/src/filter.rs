//! The decision.

use weir_sdk::exchange::Header;
use weir_sdk::secrets::{self, Found};
use weir_sdk::{
    Authorize, ConfigError, Decision, Endpoint, Filter, LocalResponse, Manifest, RequestView, host,
};

use crate::config::Config;
use crate::{credential, refusal};

/// Looks the presented key up and lets its principal in.
pub struct Auth {
    key_table: String,
    header_name: String,
    header: Header,
    also: Vec<Header>,
    optional: bool,
}

impl Filter for Auth {
    type Config = Config;
    const NAME: &'static str = "auth";

    fn manifest() -> Manifest {
        Manifest::new(
            env!("CARGO_PKG_VERSION"),
            "Lets in callers whose key is in a key table.",
        )
        .reads_headers(&["authorization"])
    }

    fn validate(config: &Config) -> Vec<ConfigError> {
        config.errors()
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self {
            header: Header::new(&config.header),
            also: config.also.iter().map(|name| Header::new(name)).collect(),
            header_name: config.header.to_ascii_lowercase(),
            key_table: config.key_table,
            optional: config.optional,
        })
    }
}

impl Authorize for Auth {
    fn authorize(&self, request: RequestView) -> Decision {
        match self.presented(|key| secrets::lookup_key(&self.key_table, key)) {
            None if self.optional => Decision::Abstain,
            None => refusal::missing(&self.header_name).into(),
            Some(Ok(None)) => refusal::invalid().into(),
            Some(Ok(Some(found))) => match forbidden_model(found, &request) {
                None => found.into(),
                Some(refused) => refused.into(),
            },
            Some(Err(failure)) => {
                weir_sdk::error!(
                    "key table `{}` cannot be asked: {failure:?}",
                    self.key_table
                );
                refusal::unavailable().into()
            }
        }
    }
}

impl Auth {
    /// Runs `check` on the key presented, if there is one.
    fn presented<R>(&self, check: impl Fn(&[u8]) -> R) -> Option<R> {
        if let Some(result) = self
            .header
            .value()
            .and_then(|value| credential::bearer(&value).map(&check))
        {
            return Some(result);
        }
        self.also
            .iter()
            .find_map(|header| credential::whole(&header.value()?).map(&check))
    }
}

/// A refusal when the principal may call only some models and this is none of them.
fn forbidden_model(found: Found, request: &RequestView) -> Option<LocalResponse> {
    if !found.is_restricted() || names_no_model(request) {
        return None;
    }
    let mut wanted = host::name_of(request.routing_key);
    if request.model != 0 {
        wanted.push('/');
        wanted.push_str(&host::name_of(request.model));
    }
    let allowed = found.principal()?.models;
    let is_allowed = allowed.contains(&wanted);
    (!is_allowed).then(|| refusal::model_not_allowed(&wanted))
}

/// Listings, health and the like. Inference without a model the host could read is not one of
/// them: a restricted key must not get around its list that way.
fn names_no_model(request: &RequestView) -> bool {
    request.endpoint == Endpoint::Other && request.routing_key == 0 && request.model == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use weir_sdk::testing::{self, Exchange};
    use weir_sdk::{Failure, Principal};

    use super::*;

    fn auth(config: &str) -> Auth {
        testing::filter(config).unwrap_or_else(|errors| panic!("{config}: {errors:?}"))
    }

    fn exchange() -> Exchange {
        let mut restricted = Principal::new("bob", "acme");
        restricted.models = vec!["demo/sim".to_owned()];
        Exchange::new()
            .model("demo", "sim")
            .key("demo", "weir-demo-key", Principal::new("alice", "acme"))
            .key("demo", "restricted-key", restricted)
    }

    /// Status and code of a refusal, or what else was decided.
    fn verdict(decision: Decision) -> String {
        match decision {
            Decision::Abstain => "abstain".to_owned(),
            Decision::AllowFound(who) => format!("allow {who}"),
            Decision::Deny(refused) => format!("{} {}", refused.status, refused.error_code),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn decisions() {
        let plain = r#"{"key_table":"demo"}"#;
        let also = r#"{"key_table":"demo","also":["x-api-key"]}"#;
        let optional = r#"{"key_table":"demo","optional":true}"#;
        let table: [(&str, &[(&str, &str)], &str); 12] = [
            (
                plain,
                &[("authorization", "Bearer weir-demo-key")],
                "allow 0",
            ),
            (
                plain,
                &[("Authorization", "bearer weir-demo-key")],
                "allow 0",
            ),
            (plain, &[], "401 missing_api_key"),
            (
                plain,
                &[("authorization", "Basic abc")],
                "401 missing_api_key",
            ),
            (
                plain,
                &[("authorization", "Bearer wrong")],
                "401 invalid_api_key",
            ),
            (
                plain,
                &[("x-api-key", "weir-demo-key")],
                "401 missing_api_key",
            ),
            (also, &[("x-api-key", "weir-demo-key")], "allow 0"),
            (
                also,
                &[
                    ("authorization", "Bearer wrong"),
                    ("x-api-key", "weir-demo-key"),
                ],
                "401 invalid_api_key",
            ),
            (
                also,
                &[("authorization", "Bearer restricted-key")],
                "allow 1",
            ),
            (optional, &[], "abstain"),
            (
                optional,
                &[("authorization", "Bearer wrong")],
                "401 invalid_api_key",
            ),
            (
                r#"{"key_table":"none"}"#,
                &[("authorization", "Bearer x")],
                "503 authentication_unavailable",
            ),
        ];
        for (config, headers, expected) in table {
            let auth = auth(config);
            let mut exchange = headers.iter().fold(exchange(), |exchange, (name, value)| {
                exchange.header(name, *value)
            });
            let view = exchange.view();
            assert_eq!(
                verdict(exchange.run(|| auth.authorize(view))),
                expected,
                "{config} {headers:?}"
            );
        }
    }

    #[test]
    fn restricted_keys_call_only_their_models() {
        let auth = auth(r#"{"key_table":"demo"}"#);
        let chat = Endpoint::ChatCompletions;
        let table = [
            ("demo", "sim", chat, "allow 1"),
            ("demo", "other", chat, "403 model_not_allowed"),
            ("other", "sim", chat, "403 model_not_allowed"),
            ("", "", chat, "403 model_not_allowed"),
            ("", "", Endpoint::RawHttp, "403 model_not_allowed"),
            ("", "", Endpoint::Other, "allow 1"),
        ];
        for (function, model, endpoint, expected) in table {
            let mut exchange = exchange()
                .model(function, model)
                .endpoint(endpoint)
                .header("authorization", "Bearer restricted-key");
            let view = exchange.view();
            assert_eq!(
                verdict(exchange.run(|| auth.authorize(view))),
                expected,
                "{function}/{model}"
            );
        }
    }

    #[test]
    fn refusals_carry_a_challenge_and_no_key() {
        let auth = auth(r#"{"key_table":"demo"}"#);
        let mut exchange = exchange().header("authorization", "Bearer secret-of-someone");
        let view = exchange.view();
        let Decision::Deny(refused) = exchange.run(|| auth.authorize(view)) else {
            panic!("let in");
        };
        assert_eq!(refused.headers[0].0, "www-authenticate");
        assert!(!format!("{refused:?}{:?}", exchange.logs()).contains("secret-of-someone"));
    }

    #[test]
    fn failures_are_logged_with_their_reason() {
        let auth = auth(r#"{"key_table":"none"}"#);
        let mut exchange = exchange().header("authorization", "Bearer x");
        let view = exchange.view();
        exchange.run(|| auth.authorize(view));
        let text = format!("{:?}", Failure::NotFound);
        assert!(
            exchange.logs()[0].1.contains(&text),
            "{:?}",
            exchange.logs()
        );
    }

    #[test]
    fn configuration_errors() {
        let table = [
            (r#"{}"#, ""),
            (r#"{"key_table":""}"#, "/key_table"),
            (r#"{"key_table":"a","header":"b c"}"#, "/header"),
            (r#"{"key_table":"a","also":["x","y:"]}"#, "/also/1"),
            (r#"{"key_table":"a","optional":"yes"}"#, "/optional"),
        ];
        for (config, pointer) in table {
            let errors = testing::filter::<Auth>(config).err().unwrap();
            assert_eq!(errors[0].pointer, pointer, "{config}");
        }
    }
}
