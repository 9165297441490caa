//! Token budgets: exact under a crowd, settled by what was really used.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use weir_tests::caller::{Answer, Caller, chat, chat_body, next_bytes, post, send, with_header};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::Gateway;
use weir_tests::simulated::Simulated;
use weir_tests::upstream::{
    Connection, LAST_CHUNK, STREAM_HEAD, Upstream, answer, chunk, completion, delta,
};

use crate::demo::demo_with;

/// What a request would cost by the gateway's own estimate, told by a refusal.
fn estimate(refusal: &Answer) -> u64 {
    let message = refusal.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    let (_, rest) = message
        .split_once("needs about ")
        .unwrap_or_else(|| panic!("{message}"));
    rest.split([' ', '.']).next().unwrap().parse().unwrap()
}

fn limited(budget: u64) -> String {
    format!("token_rate_limit = \"{budget}-W\"")
}

/// What is left of a budget of which something has been used.
async fn remaining(gateway: &Gateway, budget: u64) -> u64 {
    let ask = async |max_tokens: u64| {
        let body = chat_body("demo/sim", &format!(r#""max_tokens":{max_tokens}"#));
        let refusal = send(gateway.address(), post("/v1/chat/completions", body)).await;
        assert_eq!(refusal.status, 429, "{}", refusal.text());
        refusal
    };
    // An exchange that has just been settled may correct the estimate between two questions.
    let mut input = estimate(&ask(budget).await) - budget;
    for _ in 0..ESTIMATES_MAX {
        // The whole budget, to the token: refused when anything of it is gone.
        let refusal = ask(budget - input).await;
        let corrected = input + estimate(&refusal) - budget;
        if corrected == input {
            return refusal
                .header("x-ratelimit-remaining-tokens")
                .parse()
                .unwrap();
        }
        input = corrected;
    }
    panic!("the estimate of one request changed {ESTIMATES_MAX} times in a row");
}

/// Corrections that may come between the questions of [`remaining`]: one for each exchange that
/// ends meanwhile, and these tests have few.
const ESTIMATES_MAX: usize = 100;

/// Waits until so much is left; budgets refill by a token every half minute or slower.
async fn wait_for_remaining(gateway: &Gateway, budget: u64, expected: u64) {
    let what = format!("{expected} of {budget} to be left");
    let condition = async |gateway: &Gateway| {
        let left = remaining(gateway, budget).await;
        assert!(
            left <= expected + 2,
            "{left} instead of {expected} are left"
        );
        left >= expected
    };
    gateway.wait_for(&what, condition).await;
}

/// A model server that answers nobody before it is told to.
async fn gated() -> (Upstream, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let upstream = Upstream::scripted(move |mut connection: Connection| {
        let gate = Arc::clone(&opened);
        async move {
            while connection.request().await.is_ok() {
                let Ok(_permit) = gate.acquire().await else {
                    return;
                };
                connection
                    .send(answer("200 OK", "application/json", &completion("ok")))
                    .await;
            }
        }
    })
    .await;
    (upstream, gate)
}

#[tokio::test]
async fn a_crowd_gets_exactly_the_budget() {
    const CALLERS: usize = 1_000;
    const ADMITTED: usize = 100;
    /// What `completion` reports: 7 and 3 tokens.
    const USED: u64 = 10;
    let (upstream, gate) = gated().await;
    let config = ConfigText::new(&[upstream.address()]).model(&limited(1));
    let gateway = Gateway::start(&config.text()).await;
    let request = || chat(r#""max_tokens":20"#);
    let cost = estimate(&send(gateway.address(), request()).await);
    assert!(cost > 20, "{cost}");
    let budget = cost * ADMITTED as u64;
    gateway.edit(|text| text.replace(&limited(1), &limited(budget)));
    gateway
        .wait_for("the budget", async |gateway| {
            gateway.config_number().await == 2
        })
        .await;

    let refused = Arc::new(AtomicUsize::new(0));
    let mut crowd = JoinSet::new();
    for _ in 0..CALLERS {
        let (address, refused) = (gateway.address(), Arc::clone(&refused));
        crowd.spawn(async move {
            let answer = Caller::http1(address).await?.ask(request()).await?;
            if answer.status == 429 {
                refused.fetch_add(1, Ordering::SeqCst);
            }
            std::io::Result::Ok(answer)
        });
    }
    // Nothing is settled before all have asked: no refund may let another one in.
    gateway
        .wait_for("the crowd to be sorted", async |_| {
            refused.load(Ordering::SeqCst) >= CALLERS - ADMITTED && upstream.requests() >= ADMITTED
        })
        .await;
    assert_eq!(
        (refused.load(Ordering::SeqCst), upstream.requests()),
        (CALLERS - ADMITTED, ADMITTED)
    );
    assert_eq!(
        remaining(&gateway, budget).await,
        0,
        "all of it is reserved"
    );
    // Everybody may pass from now on.
    gate.add_permits(CALLERS);
    while let Some(answer) = crowd.join_next().await {
        let answer = answer.unwrap().unwrap();
        match answer.status {
            200 => {}
            429 => assert_eq!(answer.code(), "rate_limit_exceeded", "{}", answer.text()),
            _ => panic!("{}: {}", answer.status, answer.text()),
        }
    }
    assert_eq!(
        (refused.load(Ordering::SeqCst), upstream.requests()),
        (CALLERS - ADMITTED, ADMITTED)
    );
    wait_for_remaining(&gateway, budget, budget - USED * ADMITTED as u64).await;
}

#[tokio::test]
async fn what_was_not_used_is_given_back() {
    const BUDGET: u64 = 20_000;
    let (gateway, simulated) = demo_with(|config| config.model(&limited(BUDGET))).await;
    let first = send(gateway.address(), chat("")).await;
    let mut left = BUDGET - first.json()["usage"]["total_tokens"].as_u64().unwrap();
    wait_for_remaining(&gateway, BUDGET, left).await;
    let free = [
        ("bad", post("/v1/chat/completions", "{"), 400),
        (
            "unknown",
            post("/v1/chat/completions", chat_body("demo/none", "")),
            404,
        ),
        (
            "failed",
            with_header(chat(""), "x-sim-error", Some("500")),
            500,
        ),
        (
            "turned down",
            with_header(chat(""), "x-sim-error", Some("400")),
            400,
        ),
    ];
    for (what, request, status) in free {
        let answer = send(gateway.address(), request).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        wait_for_remaining(&gateway, BUDGET, left).await;
    }
    // Answers cost what they report, not what was allowed.
    for members in [
        r#""max_tokens":5"#,
        r#""max_tokens":7,"stream":true"#,
        r#""max_tokens":4000"#,
    ] {
        let answer = send(gateway.address(), chat(members)).await;
        assert_eq!(answer.status, 200, "{members}: {}", answer.text());
        left -= match answer.header("content-type") {
            "application/json" => answer.json()["usage"]["total_tokens"].as_u64().unwrap(),
            _ => 7 + prompt_tokens(&simulated).await,
        };
        wait_for_remaining(&gateway, BUDGET, left).await;
    }
}

/// What the model server counts for the prompt of [`chat`], asked directly.
async fn prompt_tokens(simulated: &Simulated) -> u64 {
    let answer = send(
        simulated.address(),
        post("/v1/chat/completions", chat_body("sim", "")),
    )
    .await;
    answer.json()["usage"]["prompt_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn refusals_say_when_to_come_back() {
    let (gateway, _simulated) =
        demo_with(|config| config.model("token_rate_limit = \"600-M,100000-D\"")).await;
    let ask = async || {
        let held = with_header(chat(r#""max_tokens":400"#), "x-sim-tokens", Some("400"));
        send(gateway.address(), held).await
    };
    assert_eq!(ask().await.status, 200);
    let refusal = ask().await;
    assert_eq!(
        (refusal.status, refusal.code().as_str()),
        (429, "rate_limit_exceeded"),
        "{}",
        refusal.text()
    );
    let seconds: u64 = refusal.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(refusal.header("x-ratelimit-limit-tokens"), "600");
    let remaining: u64 = refusal
        .header("x-ratelimit-remaining-tokens")
        .parse()
        .unwrap();
    assert!((150..=250).contains(&remaining), "{remaining}");
    assert!(refusal.header("x-ratelimit-reset-tokens").ends_with('s'));
    assert_eq!(
        refusal.header("x-should-retry"),
        "",
        "it is worth waiting for"
    );
    let error = &refusal.json()["error"];
    assert_eq!(error["type"], "rate_limit_error");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("600 tokens per minute"), "{message}");

    let body =
        r#"{"model":"demo/sim","max_tokens":4000,"messages":[{"role":"user","content":"hi"}]}"#;
    let refusal = send(gateway.address(), post("/v1/messages", body)).await;
    assert_eq!(refusal.status, 429);
    assert_eq!(
        refusal.json()["error"]["type"],
        "rate_limit_error",
        "{}",
        refusal.text()
    );
    assert_eq!(
        refusal.header("x-should-retry"),
        "false",
        "waiting does not help"
    );
}

#[tokio::test]
async fn tenants_have_budgets_of_their_own() {
    let keys = r#"
[[key_tables.demo.keys]]
id = "second"
key = "second-key"
tenant = "second"
[[key_tables.demo.keys]]
id = "colleague"
key = "colleague-key"
tenant = "demo"
"#;
    let (gateway, _simulated) = demo_with(|config| config.model(&limited(500)).more(keys)).await;
    let ask = async |key: &str| {
        let request = with_header(chat(r#""max_tokens":400"#), "x-sim-tokens", Some("400"));
        send(
            gateway.address(),
            with_header(request, "authorization", Some(&format!("Bearer {key}"))),
        )
        .await
        .status
    };
    assert_eq!(ask("weir-demo-key").await, 200);
    assert_eq!(ask("weir-demo-key").await, 429);
    assert_eq!(ask("colleague-key").await, 429, "the same tenant");
    assert_eq!(ask("second-key").await, 200, "another tenant");
}

#[tokio::test]
async fn a_caller_that_leaves_pays_for_what_was_made() {
    const BUDGET: u64 = 20_000;
    let (gateway, simulated) = demo_with(|config| config.model(&limited(BUDGET))).await;
    let slow = with_header(
        chat(r#""stream":true,"max_tokens":15000"#),
        "x-sim-tps",
        Some("200"),
    );
    let slow = with_header(slow, "x-sim-tokens", Some("15000"));
    let mut caller = Caller::http1(gateway.address()).await.unwrap();
    let mut answer = caller.open(slow).await.unwrap();
    for _ in 0..10 {
        assert!(next_bytes(&mut answer).await.unwrap().is_some());
    }
    let reserved = remaining(&gateway, BUDGET).await;
    assert!(
        reserved < 5_002,
        "{reserved} are left while the answer is under way"
    );
    drop((answer, caller));
    simulated.wait_for("/client_aborts", 1).await;
    gateway
        .wait_for("the rest to be given back", async |gateway| {
            remaining(gateway, BUDGET).await > BUDGET / 2
        })
        .await;
    let left = remaining(&gateway, BUDGET).await;
    assert!(left < BUDGET, "what was made is charged");
}

/// Names and values of all headers about limits, sorted.
fn told(answer: &Answer) -> Vec<(String, String)> {
    let about_limits = |name: &str| name.contains("ratelimit") || name.starts_with("retry-after");
    let mut told: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| about_limits(name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    told.sort();
    told
}

/// A model server that is asked for what it does by `user`, and has limits of its own.
async fn with_limits_of_its_own() -> Upstream {
    const OWN: &str = "x-ratelimit-limit-tokens: 7\r\nx-ratelimit-remaining-requests: 7\r\nratelimit: \"own\";r=7;t=7\r\nanthropic-ratelimit-tokens-limit: 7\r\n";
    Upstream::scripted(async |mut connection: Connection| {
        while let Ok(request) = connection.request().await {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let answered = if body.contains("\"stream\":true") {
                let done = chunk(format!("{}data: [DONE]\n\n", delta("ok")));
                let head = STREAM_HEAD.replacen("\r\n", &format!("\r\n{OWN}"), 1);
                [head.as_bytes(), &done, LAST_CHUNK.as_bytes()].concat()
            } else {
                let status = if body.contains("fail") {
                    "400 Bad"
                } else {
                    "200 OK"
                };
                let whole = answer(status, "application/json", &completion("ok"));
                whole
                    .replacen("\r\n", &format!("\r\n{OWN}"), 1)
                    .into_bytes()
            };
            connection.send(answered).await;
        }
    })
    .await
}

#[tokio::test]
async fn every_answer_says_where_the_caller_stands() {
    let upstream = with_limits_of_its_own().await;
    let limits = "token_rate_limit = \"100000-D\"\noutput_token_rate_limit = \"5000-D,90000-W\"\nrequest_rate_limit = \"1000-D\"";
    let config = ConfigText::new(&[upstream.address()]).model(limits);
    let gateway = Gateway::start(&config.text()).await;
    let ask = async |path: &str, members: &str| {
        let body = chat_body("demo/sim", members);
        send(gateway.address(), post(path, body)).await
    };
    let openai = [
        "ratelimit",
        "ratelimit-policy",
        "x-ratelimit-limit-output-tokens",
        "x-ratelimit-limit-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-output-tokens",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-output-tokens",
        "x-ratelimit-reset-requests",
        "x-ratelimit-reset-tokens",
    ];
    let anthropic = [
        "anthropic-ratelimit-output-tokens-limit",
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-output-tokens-reset",
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
        "ratelimit",
        "ratelimit-policy",
    ];
    let chat = "/v1/chat/completions";
    let table = [
        (chat, r#""max_tokens":100"#, 200, openai),
        (chat, r#""max_tokens":100,"stream":true"#, 200, openai),
        (chat, r#""max_tokens":100,"user":"fail""#, 400, openai),
        ("/v1/messages", r#""max_tokens":100"#, 200, anthropic),
    ];
    for (path, members, status, names) in table {
        let answer = ask(path, members).await;
        assert_eq!(answer.status, status, "{members}: {}", answer.text());
        let told = told(&answer);
        let seen: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(seen, names, "{path} {members}");
        assert!(told.iter().all(|(_, value)| value != "7"), "{told:?}");
        let policy = answer.header("ratelimit-policy");
        assert_eq!(
            policy,
            r#""requests-day";q=1000;w=86400, "tokens-day";q=100000;w=86400;qu="tokens", "output-tokens-day";q=5000;w=86400;qu="output-tokens", "output-tokens-week";q=90000;w=604800;qu="output-tokens""#
        );
    }
    let first = ask(chat, r#""max_tokens":100"#).await;
    let left = |answer: &Answer, what: &str| -> u64 {
        let name = format!("x-ratelimit-remaining-{what}");
        answer.header(&name).parse().unwrap()
    };
    assert_eq!(first.header("x-ratelimit-limit-output-tokens"), "5000");
    assert!((4_800..=4_900).contains(&left(&first, "output-tokens")));

    // One refuses: the others give back what they granted, and say so.
    let refusal = ask(chat, r#""max_tokens":4999"#).await;
    assert_eq!(refusal.status, 429, "{}", refusal.text());
    let message = refusal.json()["error"]["message"].to_string();
    assert!(message.contains("5000 output tokens per day"), "{message}");
    assert!(left(&refusal, "tokens") > 99_000);
    let seconds: u64 = refusal.header("retry-after").parse().unwrap();
    let ms: u64 = refusal.header("retry-after-ms").parse().unwrap();
    assert_eq!(seconds, ms.div_ceil(1_000));
    assert_eq!(
        refusal.header("x-should-retry"),
        if seconds > 60 { "false" } else { "" }
    );
    let standing = refusal.header("ratelimit");
    assert!(
        standing.starts_with("\"output-tokens-day\";r="),
        "{standing}"
    );
    let (_, t) = standing.rsplit_once("t=").unwrap();
    assert!(t.parse::<u64>().unwrap() <= seconds, "{standing} {seconds}");
    let next = ask(chat, r#""max_tokens":100"#).await;
    assert!(left(&next, "tokens") > 99_000, "{:?}", told(&next));
    assert_eq!(
        left(&first, "requests") - left(&next, "requests"),
        1,
        "the refused one was not counted"
    );
}

#[tokio::test]
async fn without_limits_the_backends_own_words_pass() {
    let upstream = with_limits_of_its_own().await;
    let config = ConfigText::new(&[upstream.address()]).text();
    let silent = "headers = [], default = \"1000000000-S\"";
    let config = config.replace("default = \"1000000000-S\"", silent);
    let gateway = Gateway::start(&config).await;
    let answer = send(gateway.address(), chat("")).await;
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), "7");
    assert_eq!(answer.header("ratelimit"), "\"own\";r=7;t=7");
}

/// Tokens counted so far for an API: input, output, and how many of them were reported.
async fn counted(gateway: &Gateway, api: &str) -> (u64, u64, u64) {
    let api = format!("api=\"{api}\"");
    let sum = async |label: &str| {
        let sum = gateway.metric("weir_tokens_total", &[&api, label]).await;
        sum as u64
    };
    (
        sum("direction=\"input\"").await,
        sum("direction=\"output\"").await,
        sum("reported=\"true\"").await,
    )
}

#[tokio::test]
async fn what_was_not_reported_is_counted() {
    let started = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"sim\",\"content\":[],\"usage\":{\"input_tokens\":50,\"output_tokens\":1}}}\n\n";
    let text = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"12345678\"}}\n\n";
    let failed = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"no\"}}\n\n";
    let vectors = r#"{"object":"list","model":"sim","data":[{"object":"embedding","index":0,"embedding":[0.5,0.25]}]}"#;
    let stream = |events: String| [STREAM_HEAD.as_bytes(), &chunk(events)].concat();
    let whole = |body: &str| answer("200 OK", "application/json", body).into_bytes();
    // (path, more members, what the backend sends before it closes, input if not estimated, output)
    let table = [
        (
            "/v1/messages",
            r#","max_tokens":99,"stream":true"#,
            stream(format!("{started}{}", text.repeat(10))),
            Some(50),
            20,
        ),
        (
            "/v1/messages",
            r#","max_tokens":99,"stream":true"#,
            stream(format!("{started}{failed}")),
            Some(0),
            0,
        ),
        (
            "/v1/messages",
            r#","max_tokens":99,"stream":true"#,
            stream(format!("{started}{text}{failed}")),
            Some(50),
            2,
        ),
        (
            "/v1/embeddings",
            r#","input":"some text""#,
            whole(vectors),
            None,
            0,
        ),
        (
            "/v1/chat/completions",
            r#","stream":true"#,
            stream(delta("123456789")),
            None,
            3,
        ),
    ];
    for (path, members, sent, input, output) in table {
        let upstream = Upstream::fixed(sent).await;
        let config = ConfigText::new(&[upstream.address()]).model(&limited(1_000_000));
        let gateway = Gateway::start(&config.text()).await;
        let body = format!(
            r#"{{"model":"demo/sim","messages":[{{"role":"user","content":"hi"}}]{members}}}"#
        );
        let answer = send(gateway.address(), post(path, body.clone())).await;
        let what = format!("{path} {members}: {}", answer.text());
        let api = path.trim_start_matches("/v1/").replace('/', "_");
        gateway
            .wait_for("the end of the exchange", async |gateway| {
                gateway.metric("weir_requests_total", &[]).await == 1.0
            })
            .await;
        let seen = counted(&gateway, &api).await;
        assert_eq!((seen.1, seen.2), (output, 0), "{what}");
        match input {
            Some(input) => assert_eq!(seen.0, input, "{what}"),
            None => assert!((2..=body.len() as u64).contains(&seen.0), "{what}"),
        }
        let settled = gateway.metric("weir_limit_settled_total", &[]).await;
        assert_eq!(settled as u64, seen.0 + seen.1, "{what}");
        let open = gateway.metric("weir_limit_open_reservations", &[]).await;
        assert_eq!(open, 0.0, "{what}");
    }
}

#[tokio::test]
async fn estimates_learn_and_remember_over_reloads() {
    // Reports 7 tokens of input.
    let upstream = Upstream::scripted(async |mut connection: Connection| {
        while connection.request().await.is_ok() {
            let whole = answer("200 OK", "application/json", &completion("ok"));
            connection.send(whole).await;
        }
    })
    .await;
    let config = ConfigText::new(&[upstream.address()]).model(&limited(20_000));
    let gateway = Gateway::start(&config.text()).await;
    // What is asked for beside the input is more than the budget.
    let input = async || {
        let refusal = send(gateway.address(), chat(r#""max_tokens":20000"#)).await;
        assert_eq!(refusal.status, 429, "{}", refusal.text());
        estimate(&refusal) - 20_000
    };
    let first = input().await;
    assert!(first >= 20, "{first} tokens by the length of the body");
    for _ in 0..40 {
        assert_eq!(send(gateway.address(), chat("")).await.status, 200);
    }
    let learned = input().await;
    assert!((6..=10).contains(&learned), "{learned} instead of {first}");
    gateway.edit(|text| text.replace(&limited(20_000), "token_rate_limit = \"20000-D\""));
    gateway
        .wait_for("the reload", async |gateway| {
            gateway.config_number().await == 2
        })
        .await;
    assert_eq!(input().await, learned);
}
