//! What is told of exchanges: series per function, model and tenant.

use std::fmt::Write;

use weir_tests::caller::{Caller, chat, post, send, with_header};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::Gateway;
use weir_tests::simulated::{Settings, Simulated};
use weir_tests::upstream::{Upstream, answer, completion};

const DURATION: &str = "gen_ai_server_request_duration_seconds";
const FIRST_TOKEN: &str = "gen_ai_server_time_to_first_token_seconds";
const PER_TOKEN: &str = "gen_ai_server_time_per_output_token_seconds";
const TOKENS: &str = "gen_ai_client_token_usage";

/// The count of a histogram, over the series with these labels.
async fn count(gateway: &Gateway, name: &str, labels: &[&str]) -> f64 {
    gateway.metric(&format!("{name}_count"), labels).await
}

/// The sum of a histogram, over the series with these labels.
async fn sum(gateway: &Gateway, name: &str, labels: &[&str]) -> f64 {
    gateway.metric(&format!("{name}_sum"), labels).await
}

/// The metrics are moved when the answer is on its way already.
async fn wait_for_exchanges(gateway: &Gateway, expected: f64) {
    let ended = async |gateway: &Gateway| count(gateway, DURATION, &[]).await == expected;
    gateway.wait_for("the exchanges to be counted", ended).await;
}

#[tokio::test]
async fn times_and_tokens_are_told_by_model_and_tenant() {
    let settings = Settings {
        ttft_ms: 30,
        tokens_per_second: 200.0,
        ..Settings::default()
    };
    let backend = Simulated::with(settings).await;
    let gateway = Gateway::start(&ConfigText::new(&[backend.address()]).text()).await;
    let whole = send(gateway.address(), chat(r#""max_tokens":5"#)).await;
    wait_for_exchanges(&gateway, 1.0).await;
    let all = [
        r#"gen_ai_operation_name="chat""#,
        r#"gen_ai_provider_name="openai""#,
        r#"gen_ai_request_model="sim""#,
        r#"weir_function="demo""#,
        r#"weir_tenant="demo""#,
    ];
    let with = |more: &'static str| [&all[..], &[more]].concat();
    let usage = whole.json()["usage"].clone();
    let (input, output) = (
        with(r#"gen_ai_token_type="input""#),
        with(r#"gen_ai_token_type="output""#),
    );
    assert_eq!(
        count(&gateway, DURATION, &with(r#"error_type="""#)).await,
        1.0
    );
    assert_eq!(
        sum(&gateway, TOKENS, &input).await,
        usage["prompt_tokens"].as_f64().unwrap()
    );
    assert_eq!(
        sum(&gateway, TOKENS, &output).await,
        usage["completion_tokens"].as_f64().unwrap()
    );
    assert_eq!(
        count(&gateway, FIRST_TOKEN, &[]).await,
        0.0,
        "only streams have a first token"
    );

    let stream = send(
        gateway.address(),
        chat(r#""max_tokens":5,"stream":true,"stream_options":{"include_usage":true}"#),
    )
    .await;
    wait_for_exchanges(&gateway, 2.0).await;
    let events = stream.events();
    let streamed = events
        .iter()
        .map(|event| event.json()["usage"]["completion_tokens"].clone())
        .find_map(|tokens| tokens.as_f64());
    let streamed = streamed.unwrap_or_else(|| panic!("no usage in {events:?}"));
    assert_eq!(count(&gateway, FIRST_TOKEN, &all).await, 1.0);
    assert_eq!(count(&gateway, PER_TOKEN, &all).await, 1.0);
    assert_eq!(count(&gateway, TOKENS, &output).await, 2.0);
    assert_eq!(
        sum(&gateway, TOKENS, &output).await,
        usage["completion_tokens"].as_f64().unwrap() + streamed
    );
    // The backend waits 30 ms before the first token.
    let (first, per) = (
        sum(&gateway, FIRST_TOKEN, &all).await,
        sum(&gateway, PER_TOKEN, &all).await,
    );
    assert!(first >= 0.03 && per > 0.0, "{first} s, {per} s");
    let total = sum(&gateway, DURATION, &all).await;
    assert!(total >= first + per * (streamed - 1.0), "{total} s");
}

#[tokio::test]
async fn the_series_are_those_of_the_conventions() {
    let backend = Simulated::start().await;
    let gateway = Gateway::start(&ConfigText::new(&[backend.address()]).text()).await;
    let embeddings = r#"{"model":"demo/sim","input":"hi"}"#;
    let messages =
        r#"{"model":"demo/sim","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;
    let responses = r#"{"model":"demo/sim","input":"hi"}"#;
    for (path, body) in [
        ("/v1/embeddings", embeddings),
        ("/v1/messages", messages),
        ("/v1/responses", responses),
    ] {
        assert_eq!(send(gateway.address(), post(path, body)).await.status, 200);
    }
    send(gateway.address(), chat(r#""stream":true"#)).await;
    wait_for_exchanges(&gateway, 4.0).await;
    let (embeddings, anthropic) = (
        [r#"name="embeddings""#, r#"provider_name="openai""#],
        [r#"name="chat""#, r#"provider_name="anthropic""#],
    );
    assert_eq!(count(&gateway, DURATION, &embeddings).await, 1.0);
    assert_eq!(
        count(&gateway, TOKENS, &embeddings).await,
        1.0,
        "input only"
    );
    assert_eq!(count(&gateway, DURATION, &anthropic).await, 1.0);
    assert_eq!(
        count(&gateway, DURATION, &[r#"provider_name="openai""#]).await,
        3.0
    );

    let text = gateway.admin("/metrics").await.text();
    let bounds = |name: &str| {
        let bound = |line: &str| {
            let line = line.strip_prefix(name)?.strip_prefix("_bucket{")?;
            let (_, bound) = line.split_once("le=\"")?;
            bound.split_once('"').map(|(bound, _)| bound.to_owned())
        };
        let mut bounds: Vec<String> = text.lines().filter_map(bound).collect();
        let end = bounds.iter().position(|bound| bound == "+Inf").unwrap();
        bounds.truncate(end);
        bounds.join(" ")
    };
    for (name, expected) in [
        (
            DURATION,
            "0.01 0.02 0.04 0.08 0.16 0.32 0.64 1.28 2.56 5.12 10.24 20.48 40.96 81.92",
        ),
        (
            FIRST_TOKEN,
            "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10",
        ),
        (
            PER_TOKEN,
            "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5",
        ),
        (
            TOKENS,
            "1 4 16 64 256 1024 4096 16384 65536 262144 1048576 4194304 16777216 67108864",
        ),
    ] {
        assert_eq!(bounds(name), expected, "{name}");
        assert!(
            text.contains(&format!("# TYPE {name} histogram\n")),
            "{name}"
        );
    }
}

#[tokio::test]
async fn errors_are_told_by_their_kind() {
    let full = answer("429 Too Many Requests", "application/json", "{}");
    let gone = answer("410 Gone", "application/json", "{}");
    for (backend, key, error, tenant) in [
        (
            Upstream::fixed(full).await,
            "Bearer weir-demo-key",
            "429",
            "demo",
        ),
        (
            Upstream::fixed(gone).await,
            "Bearer weir-demo-key",
            "_OTHER",
            "demo",
        ),
        (
            Upstream::fixed("").await,
            "Bearer weir-demo-key",
            "upstream_error",
            "demo",
        ),
        (Upstream::fixed("").await, "Bearer wrong", "denied", ""),
    ] {
        let config = ConfigText::new(&[backend.address()])
            .cluster("retries = 0")
            .text();
        let gateway = Gateway::start(&config).await;
        let request = with_header(chat(""), "authorization", Some(key));
        send(gateway.address(), request).await;
        wait_for_exchanges(&gateway, 1.0).await;
        let labels = [
            &format!("error_type=\"{error}\""),
            &format!("weir_tenant=\"{tenant}\""),
        ];
        let labels = labels.map(String::as_str);
        let text = gateway.admin("/metrics").await.text();
        assert_eq!(
            count(&gateway, DURATION, &labels).await,
            1.0,
            "{error}: {text}"
        );
        assert_eq!(count(&gateway, TOKENS, &[]).await, 0.0, "{error}");
    }
}

#[tokio::test]
async fn a_thousand_tenants_do_not_make_a_thousand_series() {
    let backend = Upstream::scripted(async |mut connection| {
        while connection.request().await.is_ok() {
            let answer = answer("200 OK", "application/json", &completion("hi"));
            connection.send(answer).await;
        }
    })
    .await;
    let mut tables = "[telemetry]\nseries_max = 40\n".to_owned();
    for tenant in 0..TENANTS {
        _ = writeln!(
            tables,
            "[[key_tables.demo.keys]]\nid = \"k{tenant}\"\nkey = \"the key of {tenant}\"\ntenant = \"t{tenant}\""
        );
    }
    let config = ConfigText::new(&[backend.address()]).more(&tables).text();
    let gateway = Gateway::start(&config).await;
    let mut caller = Caller::http1(gateway.address()).await.unwrap();
    for tenant in 0..TENANTS {
        let key = format!("Bearer the key of {tenant}");
        let request = with_header(chat(""), "authorization", Some(&key));
        assert_eq!(caller.ask(request).await.unwrap().status, 200);
    }
    wait_for_exchanges(&gateway, f64::from(TENANTS)).await;
    let text = gateway.admin("/metrics").await.text();
    let series = text
        .lines()
        .filter(|line| line.starts_with(&format!("{DURATION}_count")));
    let named = 30.0;
    assert_eq!(
        series.count(),
        31,
        "three quarters of 40 by name, and the others in one"
    );
    let other = [r#"weir_tenant="other""#];
    assert_eq!(
        count(&gateway, DURATION, &other).await,
        f64::from(TENANTS) - named
    );
    assert_eq!(
        sum(&gateway, TOKENS, &[r#"type="input""#]).await,
        7.0 * f64::from(TENANTS)
    );
    assert_eq!(
        count(&gateway, DURATION, &[r#"weir_tenant="t29""#]).await,
        1.0
    );
    assert_eq!(
        count(&gateway, DURATION, &[r#"weir_tenant="t30""#]).await,
        0.0
    );
}

const TENANTS: u32 = 1_000;

#[tokio::test]
async fn series_of_models_that_are_gone_end() {
    let backend = Simulated::start().await;
    let gateway = Gateway::start(&ConfigText::new(&[backend.address()]).text()).await;
    send(gateway.address(), chat("")).await;
    wait_for_exchanges(&gateway, 1.0).await;
    gateway.edit(|text| text.replace("[functions.demo.models.sim]", "[functions.demo.models.new]"));
    let ended = async |gateway: &Gateway| count(gateway, DURATION, &[]).await == 0.0;
    gateway.wait_for("the series to end", ended).await;
    assert_eq!(gateway.metric("weir_requests_total", &[]).await, 1.0);
    let text = gateway.admin("/metrics").await.text();
    assert!(!text.contains(r#"gen_ai_request_model="sim""#), "{text}");
}
