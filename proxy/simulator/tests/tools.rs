//! Tool calls of each API, whole and as a stream.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "tests"
)]

mod client;

use serde_json::{Value, json};
use weir_simulator::Settings;

use client::{CHAT, Reply, send, start};

const SEED: &str = "x-request-id: r\r\nx-sim-tokens: 3\r\n";

fn schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
}

/// The request of each API that leaves the model no choice.
fn requests() -> [(&'static str, Value); 3] {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let function = json!({"name": "weather", "parameters": schema()});
    [
        (
            CHAT,
            json!({"model": "m", "messages": messages, "tool_choice": "required",
                "tools": [{"type": "function", "function": function}]}),
        ),
        (
            "/v1/responses",
            json!({"model": "m", "input": "hi", "tool_choice": {"type": "function", "name": "weather"},
                "tools": [{"type": "function", "name": "weather", "parameters": schema()}]}),
        ),
        (
            "/v1/messages",
            json!({"model": "m", "max_tokens": 9, "messages": messages, "tool_choice": {"type": "any"},
                "tools": [{"name": "weather", "input_schema": schema()}]}),
        ),
    ]
}

/// Name, arguments and the reason for the end.
fn whole(path: &str, answer: &Value) -> (String, Value, String) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let parsed = |value: &Value| serde_json::from_str(value.as_str().unwrap()).unwrap();
    match path {
        CHAT => {
            let choice = &answer["choices"][0];
            let call = &choice["message"]["tool_calls"][0]["function"];
            assert_eq!(choice["message"]["content"], Value::Null);
            (
                text(&call["name"]),
                parsed(&call["arguments"]),
                text(&choice["finish_reason"]),
            )
        }
        "/v1/responses" => {
            let call = &answer["output"][0];
            (
                text(&call["name"]),
                parsed(&call["arguments"]),
                text(&call["type"]),
            )
        }
        _ => {
            let call = &answer["content"][0];
            (
                text(&call["name"]),
                call["input"].clone(),
                text(&answer["stop_reason"]),
            )
        }
    }
}

/// The arguments put together from their pieces.
fn streamed(reply: &Reply) -> Value {
    let mut arguments = String::new();
    for event in reply.events() {
        let Ok(event) = serde_json::from_str::<Value>(event) else {
            continue;
        };
        let is_delta = event["type"] == "response.function_call_arguments.delta";
        let pieces = [
            &event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"],
            &event["delta"]["partial_json"],
            if is_delta {
                &event["delta"]
            } else {
                &Value::Null
            },
        ];
        arguments.extend(pieces.into_iter().filter_map(Value::as_str));
    }
    serde_json::from_str(&arguments).unwrap_or_else(|error| panic!("{error}: {arguments}"))
}

#[tokio::test]
async fn calls_that_are_asked_for() {
    let address = start(Settings::default());
    let reasons = ["tool_calls", "function_call", "tool_use"];
    for ((path, body), reason) in requests().into_iter().zip(reasons) {
        let answer = send(address, "POST", path, SEED, &body.to_string()).await;
        let (name, arguments, end) = whole(path, &answer.json());
        assert_eq!((name.as_str(), end.as_str()), ("weather", reason), "{path}");
        assert_eq!(
            arguments["city"].as_str().unwrap().split(' ').count(),
            3,
            "{path}"
        );
        let mut body = body;
        body["stream"] = true.into();
        let stream = send(address, "POST", path, SEED, &body.to_string()).await;
        assert_eq!(streamed(&stream), arguments, "{path}");
        assert!(stream.body.contains(reason), "{path}");
    }
}

#[tokio::test]
async fn a_streamed_call_of_responses_in_order() {
    let address = start(Settings::default());
    let [_, (path, mut body), _] = requests();
    body["stream"] = true.into();
    let reply = send(address, "POST", path, SEED, &body.to_string()).await;
    let delta = "response.function_call_arguments.delta";
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        delta,
        delta,
        delta,
        delta,
        delta,
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(reply.events().len(), expected.len());
    for (index, kind) in expected.into_iter().enumerate() {
        let event = reply.event_json(index);
        assert_eq!(event["type"], kind);
        assert_eq!(event["sequence_number"], index);
    }
}

#[tokio::test]
async fn choices_left_to_the_model_get_text() {
    let address = start(Settings::default());
    for (path, mut body) in requests() {
        body["tool_choice"] = match path {
            "/v1/messages" => json!({"type": "auto"}),
            _ => json!("auto"),
        };
        let answer = send(address, "POST", path, "", &body.to_string()).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.body.contains("weather"), "{path}: {}", answer.body);
        body["tools"] = json!([]);
        body["tool_choice"] = match path {
            "/v1/messages" => json!({"type": "tool", "name": "weather"}),
            _ => json!("required"),
        };
        let refused = send(address, "POST", path, "", &body.to_string()).await;
        assert_eq!(refused.status, 400, "{path}");
    }
}
