//! The main job: a model call and its answer, credentials and traces. Refusals, models and headers
//! stand in the tables of the suite `nvcf`.

use serde_json::{Value, json};
use weir_tests::caller::{chat, chat_body, post, send, with_header};
use weir_tests::config_text::KEY;
use weir_tests::simulated::Simulated;

use crate::demo::{Speaks, demo, demo_with};

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

/// What the model server saw of a header; empty when it saw none.
async fn seen(simulated: &Simulated, name: &str) -> String {
    let last = simulated.last_request().await;
    last["headers"][name]
        .as_str()
        .unwrap_or_default()
        .to_owned()
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
