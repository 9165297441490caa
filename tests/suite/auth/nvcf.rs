//! Callers that a control plane knows: its gRPC call, what it answers, and when it is not asked.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tempfile::TempDir;
use tokio::task::JoinSet;
use weir_tests::caller::{self, post, with_header};
use weir_tests::control_plane::{Admission, ControlPlane, Manner, Spec};
use weir_tests::gateway::{Gateway, wait_until};
use weir_tests::upstream::{Connection, RawRequest, Upstream, answer, completion, refusing};

use super::kit::{ask, gateway, said, with_credential};

const GRANTS: &str = r#"clusters = ["plane"], stores = true, attributes = true"#;

/// A gateway before a control plane; `table` are more keys of `nvcf`, `cluster` more of its cluster.
async fn asking(plane: &ControlPlane, table: &str, cluster: &str) -> (Gateway, Upstream) {
    static SEEN: Mutex<Vec<RawRequest>> = Mutex::new(Vec::new());
    asking_and_keeping(plane.address(), table, cluster, &SEEN).await
}

async fn asking_and_keeping(
    plane: std::net::SocketAddr,
    table: &str,
    cluster: &str,
    seen: &'static Mutex<Vec<RawRequest>>,
) -> (Gateway, Upstream) {
    let model = Upstream::scripted(move |mut connection: Connection| async move {
        while let Ok(request) = connection.request().await {
            seen.lock().unwrap().push(request);
            let body = answer("200 OK", "application/json", &completion("ok"));
            connection.send(body).await;
        }
    })
    .await;
    let auth = format!(r#"{{ nvcf = {{ cluster = "plane", {table} }} }}"#);
    let more = format!(
        "[clusters.plane]\nendpoints = [\"{plane}\"]\nhttp2 = true\nretries = 0\napi_key = \"gateways-own\"\n{cluster}\n"
    );
    let folder = TempDir::new().unwrap();
    let gateway = gateway(folder, model.address(), (&auth, GRANTS), &more).await;
    (gateway, model)
}

fn admit() -> Manner {
    Manner::Admit(Admission::of("acme", "demo"))
}

#[tokio::test]
async fn the_call_is_the_documented_one_and_is_not_repeated() {
    let plane = ControlPlane::start(admit()).await;
    let (gateway, _model) = asking(&plane, "insecure = true", "").await;
    for _ in 0..3 {
        let answer = ask(&gateway, "secret-credential").await;
        assert_eq!(said(&answer), "200", "{}", answer.text());
    }
    let calls = plane.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    let (headers, path, asked) = &calls[0];
    assert_eq!(path, "/llm_gateway.LlmGateway/AuthLlmInvocation");
    assert_eq!(asked.credential, "secret-credential");
    assert_eq!(asked.routing_key, "demo");
    for (name, expected) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-timeout", "2000m"),
        ("authorization", "Bearer gateways-own"),
    ] {
        assert_eq!(headers[name], expected, "{name}");
    }
    // Another credential is another question.
    assert_eq!(said(&ask(&gateway, "another").await), "200");
    assert_eq!(plane.calls().len(), 2);
    assert!(!gateway.log().contains("secret-credential"));
    let cached = gateway.metric(
        "weir_filter_auth_nvcf_authorizations_total",
        &[r#"from="cache""#],
    );
    assert_eq!(cached.await, 2.0);
}

#[tokio::test]
async fn every_status_has_its_answer_and_is_asked_for_again() {
    let plane = ControlPlane::start(admit()).await;
    let (gateway, _model) = asking(&plane, "insecure = true", "").await;
    let mut calls = 0;
    let table = [
        (Manner::Refuse(3), 400, "invalid_request", "invalid request"),
        (
            Manner::Refuse(16),
            401,
            "invalid_api_key",
            "authentication failed",
        ),
        (
            Manner::Refuse(7),
            403,
            "permission_denied",
            "permission denied",
        ),
        (
            Manner::RefuseLate(7),
            403,
            "permission_denied",
            "permission denied",
        ),
        (Manner::Refuse(5), 404, "function_not_found", "not found"),
        (
            Manner::Refuse(4),
            504,
            "authentication_timeout",
            "authentication timed out",
        ),
        (
            Manner::Refuse(14),
            503,
            "authentication_unavailable",
            "authentication service unavailable",
        ),
        (
            Manner::RefuseLate(13),
            502,
            "authentication_failed",
            "authentication failed",
        ),
        (
            Manner::Refuse(2),
            502,
            "authentication_failed",
            "authentication failed",
        ),
        (
            Manner::Proxy(503),
            503,
            "authentication_unavailable",
            "authentication service unavailable",
        ),
        (
            Manner::Proxy(404),
            502,
            "authentication_failed",
            "authentication failed",
        ),
        (
            Manner::Admit(Admission::of("acme", "other")),
            502,
            "authentication_failed",
            "authentication failed",
        ),
        (
            Manner::Admit(Admission::of("", "demo")),
            502,
            "authentication_failed",
            "authentication failed",
        ),
    ];
    for (manner, status, code, message) in table {
        plane.now(manner);
        let answer = ask(&gateway, "one and the same").await;
        let told = answer.json()["error"]["message"].clone();
        calls += 1;
        assert_eq!(
            (said(&answer), told.as_str().unwrap(), plane.calls().len()),
            (format!("{status} {code}"), message, calls),
            "{}",
            answer.text()
        );
    }
    plane.now(admit());
    assert_eq!(said(&ask(&gateway, "one and the same").await), "200");
}

#[tokio::test]
async fn silence_is_a_timeout_and_nobody_there_is_unavailable() {
    let plane = ControlPlane::start(Manner::Silent).await;
    let (gateway, _model) = asking(&plane, "insecure = true", "").await;
    let answer = ask(&gateway, "a").await;
    assert_eq!(said(&answer), "504 authentication_timeout");
    static SEEN: Mutex<Vec<RawRequest>> = Mutex::new(Vec::new());
    let (gateway, _model) = asking_and_keeping(refusing(), "insecure = true", "", &SEEN).await;
    let answer = ask(&gateway, "a").await;
    assert_eq!(said(&answer), "503 authentication_unavailable");
    assert!(SEEN.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_old_admission_counts_only_while_nothing_is_said() {
    let plane = ControlPlane::start(admit()).await;
    // Old at once: each request asks.
    let table = "insecure = true, ttl_seconds = 0, stale_seconds = 600, timeout_ms = 300";
    let (gateway, _model) = asking(&plane, table, "").await;
    let steps = [
        (admit(), "200"),
        (Manner::Refuse(14), "200"),
        (Manner::Silent, "200"),
        (Manner::Proxy(502), "200"),
        (Manner::Refuse(13), "502 authentication_failed"),
        (Manner::Refuse(14), "503 authentication_unavailable"),
        (admit(), "200"),
        (Manner::Refuse(16), "401 invalid_api_key"),
        (Manner::Silent, "504 authentication_timeout"),
    ];
    for (step, (manner, expected)) in steps.into_iter().enumerate() {
        plane.now(manner);
        let answer = ask(&gateway, "a").await;
        assert_eq!(said(&answer), expected, "step {step}: {}", answer.text());
    }
    let stale = gateway.metric(
        "weir_filter_auth_nvcf_authorizations_total",
        &[r#"from="stale""#],
    );
    assert_eq!(stale.await, 3.0);
}

#[tokio::test]
async fn an_admission_ends_with_its_time() {
    let plane = ControlPlane::start(admit()).await;
    let table = "insecure = true, ttl_seconds = 1, stale_seconds = 600";
    let (gateway, _model) = asking(&plane, table, "").await;
    gateway
        .wait_for("a second call", async |gateway| {
            assert_eq!(said(&ask(gateway, "a").await), "200");
            plane.calls().len() == 2
        })
        .await;
}

#[tokio::test]
async fn a_hundred_first_requests_are_one_call() {
    let plane = ControlPlane::start(admit()).await;
    plane.hold();
    let (gateway, _model) = asking(&plane, "insecure = true", "").await;
    let address = gateway.address();
    let mut asking = JoinSet::new();
    let ask = || async move { caller::send(address, with_credential("same")).await.status };
    let leader = asking.spawn(ask());
    wait_until("the call", async || plane.calls().len() == 1).await;
    for _ in 0..100 {
        asking.spawn(ask());
    }
    gateway
        .wait_for("all of them to be in", async |gateway| {
            gateway.metric("weir_requests_active", &[]).await >= 101.0
        })
        .await;
    // Whoever began the call goes away; the others still get its answer.
    leader.abort();
    plane.release();
    let mut statuses = Vec::new();
    while let Some(done) = asking.join_next().await {
        statuses.extend(done.ok());
    }
    assert_eq!(statuses, vec![200; 100]);
    assert_eq!(plane.calls().len(), 1);
}

#[tokio::test]
async fn credentials_do_not_cross_the_network_in_the_clear() {
    let plane = ControlPlane::start(admit()).await;
    let (gateway, _model) = asking(&plane, "ttl_seconds = 60", "").await;
    let answer = ask(&gateway, "a").await;
    assert_eq!(said(&answer), "503 authentication_unavailable");
    assert!(plane.calls().is_empty());
    gateway
        .wait_for("the reason in the log", async |gateway| {
            gateway.log().contains("nvcf.insecure is false")
        })
        .await;
}

#[tokio::test]
async fn what_the_answer_says_of_the_model_holds() {
    static SEEN: Mutex<Vec<RawRequest>> = Mutex::new(Vec::new());
    let mut admission = Admission::of("acme", "demo");
    admission.priority = Some(0);
    admission.models = BTreeMap::from([(
        "sim".to_owned(),
        Spec {
            uris: vec!["/v1/chat/completions".to_owned()],
            token_rate_limit: Some("1000-W".to_owned()),
            tokenizer: Some("none".to_owned()),
            routing_method: Some("random".to_owned()),
        },
    )]);
    let plane = ControlPlane::start(Manner::Admit(admission.clone())).await;
    let (gateway, _model) = asking_and_keeping(plane.address(), "insecure = true", "", &SEEN).await;
    assert_eq!(said(&ask(&gateway, "a").await), "200");
    let head = SEEN.lock().unwrap()[0].head.clone();
    for line in ["x-priority: 0\r\n", "x-routing-method: random\r\n"] {
        assert!(head.to_ascii_lowercase().contains(line), "{head}");
    }
    assert!(!head.contains("Bearer"), "{head}");
    let embed = with_header(
        post("/v1/embeddings", r#"{"model":"demo/sim","input":"a"}"#),
        "authorization",
        Some("Bearer a"),
    );
    let answer = caller::send(gateway.address(), embed).await;
    assert_eq!(said(&answer), "400 endpoint_not_supported");
    assert_eq!(
        answer.json()["error"]["message"],
        r#"model "sim" does not support /v1/embeddings"#
    );
    // The configuration says nothing of this model's limits: the answer does.
    let large = format!(
        r#"{{"model":"demo/sim","max_tokens":100000,"messages":[{{"role":"user","content":"{}"}}]}}"#,
        "a".repeat(100)
    );
    let large = with_header(
        post("/v1/chat/completions", large),
        "authorization",
        Some("Bearer a"),
    );
    let answer = caller::send(gateway.address(), large).await;
    assert_eq!(said(&answer), "429 rate_limit_exceeded");
    // Absent is not 0.
    admission.priority = None;
    plane.now(Manner::Admit(admission));
    assert_eq!(said(&ask(&gateway, "b").await), "200");
    let head = SEEN.lock().unwrap().last().unwrap().head.clone();
    assert!(!head.to_ascii_lowercase().contains("x-priority"), "{head}");
}
