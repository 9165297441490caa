//! 9: what NVCF's gateway is known to do badly, row by row of that list, each with how the old
//! behaviour would show.
//!
//! Rows of it that stand elsewhere: 2 in `chat`, `responses` and `messages` (a stream that breaks
//! off was silent, or ended as if complete) and `streams::an_upstream_killed_in_mid_stream` of the
//! suite; 4, the crowd that overshoots, in `limits::a_crowd_gets_exactly_the_budget` of the suite,
//! debt and budgets by model in `limits`, refill in `weir-store`; 6, a call of the authorization
//! service for each request and no answer without it, in `auth` of the suite; 7 in `headers`, and
//! for routes in `passthrough::headers_of_routes` of the suite; 9 also in `reload` of the suite; 11,
//! the key that changed at every turn, in `sessions`; 16, other protocols, in `passthrough` of the
//! suite. Rows 10, 12 to 14 and 17 are of the router, the worker's tunnel and the gRPC proxy, not
//! of this gateway; 18 is `make bench`.

use std::time::Duration;

use http::Request;
use serde_json::json;
use tokio::time::Instant;
use weir_tests::caller::{Body, Caller, chat, chat_body, get, next_bytes, post, send, with_header};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::Gateway;
use weir_tests::simulated::Simulated;
use weir_tests::upstream::{Connection, LAST_CHUNK, STREAM_HEAD, Upstream, chunk, delta, refusing};

use super::row::{PATHS, Row, call, call_body, recorded, refused, served, walk};

/// 1: the limit of 60 s was on the whole answer, so that a stream of any length beyond it was cut.
/// Here all limits are short and the stream outlasts each of them by far: cut, it would miss its
/// end.
#[tokio::test]
async fn no_limit_is_on_the_whole_answer() {
    const LIMIT: Duration = Duration::from_millis(250);
    let upstream = Upstream::scripted(async |mut connection: Connection| {
        while connection.request().await.is_ok() {
            connection.send(STREAM_HEAD).await;
            let begun = Instant::now();
            while begun.elapsed() < LIMIT * 4 {
                connection.send(chunk(delta("x"))).await;
                tokio::time::sleep(LIMIT / 25).await;
            }
            connection.send(chunk("data: [DONE]\n\n")).await;
            connection.send(LAST_CHUNK).await;
        }
    })
    .await;
    // The one on silence between two reads has to bear with a busy machine.
    let cluster = "write_timeout_ms = 250\nconnect_timeout_ms = 250\nidle_timeout_ms = 250";
    let config = ConfigText::new(&[upstream.address()])
        .cluster(cluster)
        .listener("idle_timeout_ms = 250");
    let gateway = Gateway::start(&config.text()).await;
    for mut caller in [
        Caller::http1(gateway.address()).await.unwrap(),
        Caller::http2(gateway.address()).await.unwrap(),
    ] {
        let answer = caller.ask(chat(r#""stream":true"#)).await.unwrap();
        let events = answer.events();
        assert_eq!(events.last().unwrap().data, "[DONE]", "{}", answer.text());
    }
}

/// 2: an operator saw nothing of a stream that broke off: its status was 200 and stayed so.
#[tokio::test]
async fn a_broken_stream_is_known_to_the_operator() {
    let mut bytes = STREAM_HEAD.as_bytes().to_vec();
    bytes.extend_from_slice(&chunk(delta("a")));
    let upstream = Upstream::fixed(bytes).await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).text()).await;
    let request = with_header(chat(r#""stream":true"#), "x-request-id", Some("broken-1"));
    assert_eq!(send(gateway.address(), request).await.status, 200);
    let counted = async |gateway: &Gateway| {
        gateway
            .metric("weir_requests_total", &[r#"end="upstream_error""#])
            .await
            == 1.0
    };
    gateway.wait_for("the end to be counted", counted).await;
    let logged = async |gateway: &Gateway| {
        let log = gateway.log();
        let line = log
            .lines()
            .find(|line| line.contains("broken-1") && line.contains("end="));
        line.is_some_and(|line| line.contains("upstream_disconnected"))
    };
    gateway.wait_for("the access log to say it", logged).await;
}

const BUDGET: u64 = 50_000;

/// Waits until so much of the budget of [`BUDGET`] tokens a week is left.
async fn wait_for_left(gateway: &Gateway, model: &str, expected: u64) {
    let model = model.to_owned();
    let left = async |gateway: &Gateway| {
        let body = chat_body(&model, &format!(r#""max_tokens":{BUDGET}"#));
        let refusal = send(gateway.address(), post("/v1/chat/completions", body)).await;
        assert_eq!(refusal.status, 429, "{}", refusal.text());
        let left: u64 = refusal
            .header("x-ratelimit-remaining-tokens")
            .parse()
            .unwrap();
        // One comes back every twelve seconds.
        (expected..=expected + 4).contains(&left)
    };
    gateway
        .wait_for(&format!("{expected} tokens of {model} to be left"), left)
        .await;
}

/// 3: streams were charged only where the caller asked for usage, and embeddings never by what
/// they were: too little would be left after embeddings, too much after a stream.
#[tokio::test]
async fn everything_is_charged_by_what_it_was() {
    let limit = format!("token_rate_limit = \"{BUDGET}-W\"");
    let (gateway, _recorder) = recorded(|config| config.model(&limit)).await;
    let mut left = BUDGET;
    let chats = "/v1/chat/completions";
    let cases = [
        (call(chats, r#""max_tokens":4000"#), 10),
        (call(chats, r#""max_tokens":4000,"stream":true"#), 10),
        (call("/v1/responses", r#""max_output_tokens":4000"#), 10),
        (
            call("/v1/responses", r#""max_output_tokens":4000,"stream":true"#),
            10,
        ),
        (call("/v1/messages", ""), 10),
        (call("/v1/messages", r#""stream":true"#), 10),
        (
            call("/v1/embeddings", &format!(r#""x":"{}""#, "x".repeat(4_000))),
            5,
        ),
    ];
    for (request, used) in cases {
        let answer = send(gateway.address(), request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        left -= used;
        wait_for_left(&gateway, "demo/sim", left).await;
    }
    let labels = [r#"direction="output""#, r#"reported="true""#];
    let tokens = gateway.metric("weir_tokens_total", &labels).await;
    assert_eq!(tokens, 18.0, "three of each but of the embeddings");
}

/// 5: without its store the old gateway let everything pass, and nobody saw it. The filter that may
/// not use the limiters stands for one whose store fails.
#[tokio::test]
async fn without_a_store_the_config_decides() {
    let without = |policy: &str| {
        let config = ConfigText::new(&[refusing()]).text();
        let changed = config.replace("grants = { limiters = true }", "");
        assert_ne!(config, changed, "the grant is still written so");
        let limits = r#"config = { default = "1000000000-S" }"#;
        let policed = changed.replace(
            limits,
            &format!(r#"config = {{ default = "1000-S", on_store_failure = "{policy}" }}"#),
        );
        assert_ne!(changed, policed, "the limit is still written so");
        policed
    };
    for (policy, status, code) in [
        ("deny", 503, "rate_limit_unavailable"),
        ("allow", 502, "upstream_unreachable"),
    ] {
        let gateway = Gateway::start(&without(policy)).await;
        let answer = send(gateway.address(), chat("")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{policy}: {}",
            answer.text()
        );
        let counted = gateway
            .metric("weir_filter_token_limit_store_failures_total", &[])
            .await;
        assert_eq!(counted, 1.0, "{policy}: it is to be seen");
    }
}

/// What goes wrong, as a row for each API.
fn refusals(
    what: &str,
    status: u16,
    code: &'static str,
    request: impl Fn(&'static str) -> Request<Body>,
) -> Vec<Row> {
    PATHS
        .map(|path| refused(format!("9 #8 {path}: {what}"), request(path), status, code))
        .into()
}

/// 8: the gateway answered `{"message": ..}` and the router nothing at all, which no SDK can read.
/// [`refused`] holds every row to the shape of its API, a stable code and the request id.
#[tokio::test]
async fn every_refusal_has_the_shape_of_its_api() {
    let keys = "[limits]\nbody_max_bytes = 1000\n[functions.demo.models.none]\ncluster = \"none\"\n[clusters.none]\nendpoints = [\"{nobody}\"]\n[functions.demo.models.tight]\ncluster = \"sim\"\ntoken_rate_limit = \"1-W\"\n[functions.demo.models.picky]\ncluster = \"sim\"\nuris = [\"/v1/other\"]";
    let keys = keys.replace("{nobody}", &refusing().to_string());
    let (gateway, recorder) = recorded(|config| config.more(&keys)).await;
    let of = |path: &'static str, model: &str| post(path, call_body(path, model, ""));
    let stranger = |path| with_header(call(path, ""), "authorization", None);
    let wrong = |path| with_header(call(path, ""), "authorization", Some("Bearer nobody"));
    let long = |path| call(path, &format!(r#""x":"{}""#, "x".repeat(1_000)));
    let rows = [
        refusals("no key", 401, "missing_api_key", stranger),
        refusals("a wrong key", 401, "invalid_api_key", wrong),
        refusals("no JSON", 400, "invalid_json", |path| post(path, "{")),
        refusals("no such model", 404, "model_not_found", |path| {
            of(path, "demo/nowhere")
        }),
        refusals("no slash", 400, "invalid_model", |path| of(path, "sim")),
        refusals(
            "a path it does not serve",
            400,
            "endpoint_not_supported",
            |path| of(path, "demo/picky"),
        ),
        refusals("too long", 413, "body_too_large", long),
        refusals("no budget", 429, "rate_limit_exceeded", |path| {
            of(path, "demo/tight")
        }),
        refusals("nobody there", 502, "upstream_unreachable", |path| {
            of(path, "demo/none")
        }),
        refusals("a wrong method", 405, "method_not_allowed", get),
    ];
    walk(&gateway, &recorder, rows.into_iter().flatten().collect()).await;
}

/// 9: how requests are spread was read at the start only. Here it changes under a stream that goes
/// on, a bad change is refused as a whole, and the number of the live configuration tells them
/// apart.
#[tokio::test]
async fn how_requests_are_spread_is_reloaded() {
    let (slow, rest) = (Simulated::start().await, Simulated::start().await);
    let config = ConfigText::new(&[slow.address(), rest.address()])
        .model("routing_method = \"round_robin\"");
    let gateway = Gateway::start(&config.text()).await;
    let mut caller = Caller::http1(gateway.address()).await.unwrap();
    let endless =
        r#""stream":true,"max_tokens":100000,"metadata":{"sim_tokens":"100000","sim_tps":"50"}"#;
    let mut stream = caller.open(chat(endless)).await.unwrap();
    assert!(next_bytes(&mut stream).await.unwrap().is_some());
    let number = gateway.config_number().await;

    gateway.edit(|text| text.replace("\"round_robin\"\n", "\"no_such_method\"\n"));
    let rejected =
        async |gateway: &Gateway| gateway.metric("weir_config_rejected", &[]).await == 1.0;
    gateway
        .wait_for("the bad change to be refused", rejected)
        .await;
    assert_eq!(gateway.config_number().await, number);
    assert_eq!(send(gateway.address(), chat("")).await.status, 200);

    // All to one: the other's share is as small as can be.
    let (all, none) = (slow.address(), rest.address());
    let before = format!("endpoints = [\"{all}\", \"{none}\"]");
    let after = format!("endpoints = [\"{all}\"]");
    gateway.edit(|text| {
        text.replace("\"no_such_method\"\n", "\"power_of_two\"\n")
            .replace(&before, &after)
    });
    let taken = async |gateway: &Gateway| gateway.config_number().await > number;
    gateway.wait_for("the good change", taken).await;
    let asked = rest.chats().await;
    for _ in 0..6 {
        assert_eq!(send(gateway.address(), chat("")).await.status, 200);
    }
    assert_eq!(rest.chats().await, asked, "the new rule holds");
    assert!(
        next_bytes(&mut stream).await.unwrap().is_some(),
        "the stream goes on"
    );
}

/// 11: requests without a key all hashed to one cluster. Here they spread.
#[tokio::test]
async fn requests_without_a_key_are_spread() {
    let (one, two) = (Simulated::start().await, Simulated::start().await);
    let config = ConfigText::new(&[one.address(), two.address()]);
    let gateway = Gateway::start(&config.text()).await;
    for _ in 0..20 {
        let answer = send(gateway.address(), call("/v1/embeddings", "")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let embeddings = "/requests/~1v1~1embeddings";
    let counts = [one.count(embeddings).await, two.count(embeddings).await];
    assert!(counts.iter().all(|count| *count >= 5), "{counts:?}");
}

/// 11: a conversation whose caller sends nothing back stays on one backend, turn after turn, and
/// others go elsewhere.
#[tokio::test]
async fn a_conversation_stays_put() {
    let (one, two) = (Simulated::start().await, Simulated::start().await);
    let config = ConfigText::new(&[one.address(), two.address()]).as_shipped();
    let gateway = Gateway::start(&config.text()).await;
    let mut backends_used = [0_u64; 2];
    for conversation in 0..12 {
        let mut messages =
            vec![json!({"role": "user", "content": format!("question {conversation}")})];
        let before = [one.chats().await, two.chats().await];
        for turn in 0..4 {
            let body = json!({"model": "demo/sim", "messages": messages});
            let answer = send(
                gateway.address(),
                post("/v1/chat/completions", body.to_string()),
            )
            .await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            messages.push(answer.json()["choices"][0]["message"].clone());
            messages.push(json!({"role": "user", "content": format!("more {turn}")}));
        }
        let after = [one.chats().await, two.chats().await];
        let turns = [after[0] - before[0], after[1] - before[1]];
        assert!(
            turns == [4, 0] || turns == [0, 4],
            "conversation {conversation} went {turns:?}"
        );
        backends_used[0] += u64::from(turns[0] > 0);
        backends_used[1] += u64::from(turns[1] > 0);
    }
    assert!(
        backends_used.iter().all(|count| *count > 0),
        "{backends_used:?}"
    );
}

/// 15: a request was sent again after a backend had begun to answer it.
#[tokio::test]
async fn what_has_begun_is_not_begun_again() {
    let begun = async |mut connection: Connection| {
        if connection.request().await.is_ok() {
            connection.send(STREAM_HEAD).await;
            connection.send(chunk(delta("a"))).await;
        }
    };
    let (one, two) = (
        Upstream::scripted(begun).await,
        Upstream::scripted(begun).await,
    );
    let config = ConfigText::new(&[one.address(), two.address()]);
    let gateway = Gateway::start(&config.text()).await;
    for asked in 1..=4 {
        let answer = send(gateway.address(), chat(r#""stream":true"#)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(one.requests() + two.requests(), asked, "{}", answer.text());
    }
}

/// 16: four APIs that a model answers on, over both versions of HTTP.
#[tokio::test]
async fn the_apis_there_are() {
    let (gateway, recorder) = recorded(|config| config).await;
    let rows: Vec<Row> = PATHS
        .map(|path| served(format!("9 #16 {path}"), call(path, "")).saw_path(path))
        .into();
    walk(&gateway, &recorder, rows).await;
    for path in PATHS {
        let mut caller = Caller::http2(gateway.address()).await.unwrap();
        let answer = caller.ask(call(path, "")).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
}
