//! The main job: a model call and its answer, who may call, what the edge keeps to itself.

use http::{Method, Request};
use serde_json::{Value, json};
use weir_tests::caller::{
    Answer, Body, chat, chat_body, get, post, request, send, whole, with_header,
};
use weir_tests::config_text::{ConfigText, KEY};
use weir_tests::gateway::Gateway;
use weir_tests::simulated::Simulated;
use weir_tests::upstream::{Upstream, answer, completion};

use crate::demo::{Speaks, demo, demo_with};

const PATH: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_chat_completion() {
    let (gateway, simulated) = demo().await;
    for speaks in Speaks::BOTH {
        let answer = speaks.ask(&gateway, chat("")).await;
        assert_eq!(answer.status, 200, "{speaks:?}: {}", answer.text());
        let body = answer.json();
        assert_eq!(
            body["model"], "demo/sim",
            "{speaks:?}: the caller's own word for it"
        );
        assert_eq!(body["object"], "chat.completion");
        assert!(
            !body["choices"][0]["message"]["content"]
                .as_str()
                .unwrap()
                .is_empty()
        );
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(
            answer.header("content-length"),
            answer.body.len().to_string()
        );
        assert_eq!(answer.header("x-request-id").len(), 36, "{speaks:?}");
        let seen = simulated.last_request().await;
        let sent: Value = serde_json::from_str(seen["body"].as_str().unwrap()).unwrap();
        assert_eq!(
            sent,
            json!({"model": "sim", "messages": [{"role": "user", "content": "hi"}]})
        );
    }
}

#[tokio::test]
async fn a_streamed_chat_completion() {
    let (gateway, simulated) = demo().await;
    for speaks in Speaks::BOTH {
        let answer = speaks
            .ask(&gateway, chat(r#""stream":true,"max_tokens":5"#))
            .await;
        assert_eq!(answer.status, 200, "{speaks:?}: {}", answer.text());
        assert!(
            answer
                .header("content-type")
                .starts_with("text/event-stream")
        );
        let mut events = answer.events();
        assert_eq!(events.pop().unwrap().data, "[DONE]", "{speaks:?}");
        let text = |chunk: &Value| {
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .map(str::to_owned)
        };
        let chunks: Vec<Value> = events.iter().map(|event| event.json()).collect();
        let words: Vec<_> = chunks
            .iter()
            .filter_map(text)
            .filter(|text| !text.is_empty())
            .collect();
        assert_eq!(words.len(), 5, "{speaks:?}: {chunks:?}");
        for chunk in &chunks {
            assert_eq!(chunk["model"], "demo/sim", "{speaks:?}");
        }
        let seen = simulated.last_request().await;
        let sent: Value = serde_json::from_str(seen["body"].as_str().unwrap()).unwrap();
        assert_eq!(sent["model"], "sim");
    }
}

#[tokio::test]
async fn the_other_apis() {
    let (gateway, _simulated) = demo().await;
    let cases = [
        (
            "/v1/responses",
            r#"{"model":"demo/sim","input":"hi"}"#,
            "/object",
            json!("response"),
        ),
        (
            "/v1/embeddings",
            r#"{"model":"demo/sim","input":["a","b"]}"#,
            "/data/1/index",
            json!(1),
        ),
        (
            "/v1/messages",
            r#"{"model":"demo/sim","max_tokens":4,"messages":[{"role":"user","content":"hi"}]}"#,
            "/type",
            json!("message"),
        ),
    ];
    for (path, body, pointer, expected) in cases {
        for speaks in Speaks::BOTH {
            let answer = speaks.ask(&gateway, post(path, body)).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            let answer = answer.json();
            assert_eq!(answer.pointer(pointer), Some(&expected), "{path}: {answer}");
            assert_eq!(answer["model"], "demo/sim", "{path}");
        }
    }
    let streams = [
        (
            "/v1/responses",
            r#"{"model":"demo/sim","input":"hi","stream":true}"#,
            "response.completed",
        ),
        (
            "/v1/messages",
            r#"{"model":"demo/sim","max_tokens":4,"messages":[{"role":"user","content":"hi"}],"stream":true}"#,
            "message_stop",
        ),
    ];
    for (path, body, last) in streams {
        let answer = send(gateway.address(), post(path, body)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.events().last().unwrap().name, last, "{path}");
        assert!(
            !answer.text().contains(r#""model":"sim""#),
            "{path}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn the_models_a_caller_may_use() {
    let (gateway, _simulated) = demo_with(|config| {
        config.more(
            r#"
[[key_tables.demo.keys]]
id = "narrow"
key = "narrow-key"
models = ["demo/other"]
[functions.demo.models.other]
cluster = "sim"
"#,
        )
    })
    .await;
    let ids = |answer: &Answer| -> Vec<String> {
        let body = answer.json();
        let models = body["data"].as_array().unwrap();
        models
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    };
    for path in ["/v1/models", "/v1/models/"] {
        let all = send(gateway.address(), get(path)).await;
        assert_eq!(
            (all.status, ids(&all)),
            (200, vec!["demo/other".to_owned(), "demo/sim".to_owned()])
        );
    }
    for path in [
        "/v1/models/demo/sim",
        "/v1/models/demo%2Fsim",
        "/v1/models/demo%2fsim",
    ] {
        let one = send(gateway.address(), get(path)).await;
        assert_eq!(one.status, 200, "{path}: {}", one.text());
        assert_eq!(
            (one.json()["id"].clone(), one.json()["object"].clone()),
            (json!("demo/sim"), json!("model"))
        );
    }
    let none = send(gateway.address(), get("/v1/models/demo/none")).await;
    assert_eq!(
        (none.status, none.code()),
        (404, "model_not_found".to_owned())
    );
    let nobody = send(
        gateway.address(),
        with_header(get("/v1/models"), "authorization", None),
    )
    .await;
    assert_eq!(nobody.status, 401, "{}", nobody.text());

    let narrow = |request| with_header(request, "authorization", Some("Bearer narrow-key"));
    let few = send(gateway.address(), narrow(get("/v1/models"))).await;
    assert_eq!(ids(&few), ["demo/other"]);
    let hidden = send(gateway.address(), narrow(get("/v1/models/demo/sim"))).await;
    assert_eq!(hidden.status, 404, "{}", hidden.text());
    let denied = send(gateway.address(), narrow(chat(""))).await;
    assert_eq!(
        (denied.status, denied.code()),
        (403, "model_not_allowed".to_owned()),
        "{}",
        denied.text()
    );
    let body = chat_body("demo/other", "");
    let allowed = send(
        gateway.address(),
        narrow(post("/v1/chat/completions", body)),
    )
    .await;
    assert_eq!(allowed.status, 200, "{}", allowed.text());
}

type Refused = (&'static str, Request<Body>, u16, &'static str);

/// Asks and expects these statuses and codes, told as OpenAI's API tells errors.
async fn assert_refused(gateway: &Gateway, cases: impl IntoIterator<Item = Refused>) {
    for (what, request, status, code) in cases {
        let answer = send(gateway.address(), request).await;
        let got = (answer.status, answer.code());
        assert_eq!(got, (status, code.to_owned()), "{what}: {}", answer.text());
        let error = &answer.json()["error"];
        let told = error["message"].as_str().is_some_and(|text| text.len() > 8);
        assert!(told, "{what}: {error}");
        let kind = error["type"].as_str().unwrap_or_default();
        assert!(kind.ends_with("_error"), "{what}: {error}");
        assert!(error.get("param").is_some(), "{what}: {error}");
        assert_eq!(answer.header("content-type"), "application/json", "{what}");
        assert!(!answer.header("x-request-id").is_empty(), "{what}");
    }
}

#[tokio::test]
async fn callers_and_paths_that_are_refused() {
    let (gateway, simulated) = demo().await;
    let keyed = |value| with_header(chat(""), "authorization", value);
    let delete = request(Method::DELETE, "/v1/models", whole(""));
    let unread = with_header(post(PATH, "{"), "authorization", None);
    let cases = [
        ("no key", keyed(None), 401, "missing_api_key"),
        (
            "a wrong key",
            keyed(Some("Bearer nobody")),
            401,
            "invalid_api_key",
        ),
        (
            "another scheme",
            keyed(Some("Basic eDp5")),
            401,
            "missing_api_key",
        ),
        ("no key and a bad body", unread, 401, "missing_api_key"),
        ("a wrong method", get(PATH), 405, "method_not_allowed"),
        ("another wrong method", delete, 405, "method_not_allowed"),
        ("an unknown path", get("/nope"), 404, "path_not_found"),
    ];
    assert_refused(&gateway, cases).await;
    assert_eq!(
        simulated.chats().await,
        0,
        "nothing of this reached a model server"
    );
    let allow = send(gateway.address(), get(PATH)).await;
    assert_eq!(allow.header("allow"), "POST");
    let challenged = send(gateway.address(), keyed(None)).await;
    assert!(challenged.header("www-authenticate").starts_with("Bearer"));
}

#[tokio::test]
async fn bodies_that_are_refused() {
    let (gateway, simulated) = demo().await;
    let of_model = |model: &str| chat_body(model, "");
    let with = |members: &str| chat_body("demo/sim", members);
    let cases = [
        (
            "an unknown model",
            of_model("demo/none"),
            404,
            "model_not_found",
        ),
        (
            "an unknown function",
            of_model("none/sim"),
            404,
            "model_not_found",
        ),
        ("no slash", of_model("sim"), 400, "invalid_model"),
        (
            "nothing before the slash",
            of_model("/sim"),
            400,
            "invalid_model",
        ),
        (
            "nothing behind the slash",
            of_model("demo/"),
            400,
            "invalid_model",
        ),
        ("no JSON", "{".into(), 400, "invalid_json"),
        ("two values", "{} {}".into(), 400, "invalid_json"),
        ("an array", "[]".into(), 400, "invalid_json"),
        ("nothing", String::new(), 400, "invalid_json"),
        (
            "no model",
            r#"{"messages":[{"role":"user","content":"x"}]}"#.into(),
            400,
            "missing_model",
        ),
        (
            "no messages",
            r#"{"model":"demo/sim"}"#.into(),
            400,
            "missing_messages",
        ),
        (
            "two models",
            with(r#""model":"demo/x""#),
            400,
            "duplicate_member",
        ),
        (
            "one in disguise",
            with(r#""m\u006fdel":"demo/x""#),
            400,
            "duplicate_member",
        ),
        (
            "another letter case",
            with(r#""Model":"demo/x""#),
            400,
            "duplicate_member",
        ),
        (
            "a number for the model",
            r#"{"model":5,"messages":[]}"#.into(),
            400,
            "invalid_type",
        ),
        (
            "text for stream",
            with(r#""stream":"yes""#),
            400,
            "invalid_type",
        ),
        (
            "text for max_tokens",
            with(r#""max_tokens":"many""#),
            400,
            "invalid_type",
        ),
    ];
    let cases = cases.map(|(what, body, status, code)| (what, post(PATH, body), status, code));
    assert_refused(&gateway, cases).await;
    assert_eq!(
        simulated.chats().await,
        0,
        "nothing of this reached a model server"
    );
}

#[tokio::test]
async fn refusals_in_the_words_of_messages() {
    let (gateway, _simulated) = demo().await;
    let cases = [
        (
            r#"{"model":"demo/none","max_tokens":4,"messages":[{"role":"user","content":"hi"}]}"#,
            404,
            "not_found_error",
        ),
        ("{", 400, "invalid_request_error"),
    ];
    for (body, status, kind) in cases {
        let request = with_header(post("/v1/messages", body), "x-request-id", Some("id-7"));
        let answer = send(gateway.address(), request).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        let body = answer.json();
        assert_eq!(
            (&body["type"], &body["error"]["type"]),
            (&json!("error"), &json!(kind)),
            "{body}"
        );
        assert_eq!(body["request_id"], "id-7", "{body}");
    }
    let body = r#"{"model":"demo/sim","max_tokens":4,"messages":[{"role":"user","content":"hi"}]}"#;
    let answer = send(
        gateway.address(),
        with_header(post("/v1/messages", body), "authorization", None),
    )
    .await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["type"]),
        (401, &json!("authentication_error"))
    );
}

#[tokio::test]
async fn a_path_the_model_does_not_serve() {
    let (gateway, simulated) =
        demo_with(|config| config.model(r#"uris = ["/v1/embeddings"]"#)).await;
    let refused = send(gateway.address(), chat("")).await;
    assert_eq!(
        (refused.status, refused.code()),
        (400, "endpoint_not_supported".to_owned()),
        "{}",
        refused.text()
    );
    let served = send(
        gateway.address(),
        post("/v1/embeddings", r#"{"model":"demo/sim","input":"a"}"#),
    )
    .await;
    assert_eq!(served.status, 200, "{}", served.text());
    assert_eq!(simulated.chats().await, 0);
}

/// What the model server saw of a header; empty when it saw none.
async fn seen(simulated: &Simulated, name: &str) -> String {
    let last = simulated.last_request().await;
    last["headers"][name]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn headers_on_the_way_in() {
    let (gateway, simulated) = demo().await;
    let cases = [
        // What is the caller's, goes on.
        ("user-agent", "tester", "tester"),
        ("x-request-id", "mine-1", "mine-1"),
        ("tracestate", "a=b", "a=b"),
        ("openai-beta", "v2", "v2"),
        // Credentials are for the gateway alone.
        ("cookie", "session=1", ""),
        ("x-api-key", "secret", ""),
        // They belong to the connection.
        ("te", "trailers", ""),
        ("keep-alive", "timeout=5", ""),
        ("proxy-authorization", "Basic eDp5", ""),
        ("upgrade", "h2c", ""),
        // What a caller may not say.
        ("x-weir-anything", "1", ""),
        ("x-stargate-anything", "1", ""),
        ("x-routing-key", "other", ""),
        ("x-token-estimate", "1", ""),
        ("x-inference-server-url", "http://elsewhere", ""),
        // The answer is read here.
        ("accept-encoding", "gzip", "identity"),
    ];
    for (name, value, expected) in cases {
        let answer = send(gateway.address(), with_header(chat(""), name, Some(value))).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert_eq!(seen(&simulated, name).await, expected, "{name}");
        assert_eq!(seen(&simulated, "authorization").await, "", "{name}");
    }
    let named = with_header(chat(""), "x-private", Some("1"));
    let named = with_header(named, "connection", Some("keep-alive, x-private"));
    assert_eq!(send(gateway.address(), named).await.status, 200);
    assert_eq!(
        seen(&simulated, "x-private").await,
        "",
        "named by `connection`"
    );
    assert!(!seen(&simulated, "connection").await.contains("x-private"));
    assert_eq!(
        seen(&simulated, "host").await,
        simulated.address().to_string()
    );
}

#[tokio::test]
async fn headers_on_the_way_out() {
    let body = completion("ok");
    let head = answer("200 OK", "application/json", &body).replacen(
        "\r\n",
        "\r\nx-kept: 1\r\nx-weir-secret: 1\r\nx-stargate-x: 1\r\nx-inference-server-id: 7\r\n\
         connection: x-private\r\nx-private: 1\r\nkeep-alive: timeout=5\r\nx-request-id: theirs\r\n",
        1,
    );
    let upstream = Upstream::fixed(head).await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).text()).await;
    for speaks in Speaks::BOTH {
        let request = with_header(chat(""), "x-request-id", Some("mine-2"));
        let answer = speaks.ask(&gateway, request).await;
        assert_eq!(answer.status, 200, "{speaks:?}: {}", answer.text());
        assert_eq!(answer.header("x-kept"), "1");
        assert_eq!(answer.header("x-request-id"), "mine-2", "{speaks:?}");
        for internal in [
            "x-weir-secret",
            "x-stargate-x",
            "x-inference-server-id",
            "x-private",
            "keep-alive",
        ] {
            assert_eq!(answer.header(internal), "", "{speaks:?} {internal}");
        }
    }
}

#[tokio::test]
async fn credentials_for_the_upstream() {
    let (gateway, simulated) = demo_with(|config| {
        config.more(
            r#"
[clusters.passing]
endpoints = ["{endpoint}"]
pass_authorization = true
[functions.demo.models.passing]
cluster = "passing"
[clusters.keyed]
endpoints = ["{endpoint}"]
api_key = "the-providers-key"
[functions.demo.models.keyed]
cluster = "keyed"
"#,
        )
    })
    .await;
    let cases = [
        ("demo/sim", String::new()),
        ("demo/passing", format!("Bearer {KEY}")),
        ("demo/keyed", "Bearer the-providers-key".to_owned()),
    ];
    for (model, expected) in cases {
        let answer = send(
            gateway.address(),
            post("/v1/chat/completions", chat_body(model, "")),
        )
        .await;
        assert_eq!(answer.status, 200, "{model}: {}", answer.text());
        assert_eq!(seen(&simulated, "authorization").await, expected, "{model}");
    }
    let config = gateway.admin("/config").await.text();
    assert!(
        !config.contains("the-providers-key"),
        "a secret in the admin's view: {config}"
    );
    assert!(
        !gateway.log().contains("the-providers-key"),
        "a secret in the log"
    );
}

#[tokio::test]
async fn traces_are_joined() {
    let (gateway, simulated) = demo().await;
    let parts = |value: String| -> Vec<String> { value.split('-').map(str::to_owned).collect() };
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    send(
        gateway.address(),
        with_header(chat(""), "traceparent", Some(given)),
    )
    .await;
    let joined = parts(seen(&simulated, "traceparent").await);
    assert_eq!(joined[1], "0af7651916cd43dd8448eb211c80319c");
    assert_ne!(joined[2], "b7ad6b7169203331", "a span of its own");
    assert_eq!(joined[3], "01");
    for bad in [None, Some("00-zz-zz-01")] {
        send(gateway.address(), with_header(chat(""), "traceparent", bad)).await;
        let begun = parts(seen(&simulated, "traceparent").await);
        assert_eq!(
            (begun[1].len(), begun[2].len()),
            (32, 16),
            "{bad:?}: {begun:?}"
        );
    }
}
