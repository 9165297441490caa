//! Key tables, the order of the ways, and the table of the configuration.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use weir_sdk::testing::{self, Exchange};
use weir_sdk::{Endpoint, Failure, Principal};

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
        (r#"{"key_table":"a","jwt":{"key_set":"k"}}"#, "/jwt"),
        (r#"{"jwt":{"issuer":"i"}}"#, "/jwt"),
        (r#"{"jwt":{"issuer":"","key_set":"k"}}"#, "/jwt/issuer"),
        (
            r#"{"jwt":{"issuer":"i","key_set":"k","cluster":"c"}}"#,
            "/jwt/cluster",
        ),
        (
            r#"{"jwt":{"issuer":"i","key_set":"k","algorithms":["RS256","HS256"]}}"#,
            "/jwt/algorithms/1",
        ),
        (
            r#"{"jwt":{"issuer":"i","cluster":"c","path":"keys"}}"#,
            "/jwt/path",
        ),
        (
            r#"{"jwt":{"issuer":"i","key_set":"k","audience":7}}"#,
            "/jwt/audience",
        ),
        (r#"{"nvcf":{}}"#, "/nvcf"),
        (
            r#"{"nvcf":{"cluster":"c","timeout_ms":0}}"#,
            "/nvcf/timeout_ms",
        ),
        (
            r#"{"nvcf":{"cluster":"c","ttl_seconds":999999}}"#,
            "/nvcf/ttl_seconds",
        ),
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
