//! The simulator through a real socket: formats, controls, failures, pacing and capacity.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "tests"
)]

mod client;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_simulator::Settings;

use client::{CHAT, Reply, chat, request, send, start, stats, stats_when};

#[tokio::test]
async fn unary_answers_of_each_api() {
    let address = start(Settings::default());
    let completion = send(address, "POST", CHAT, "", &chat("")).await;
    assert!(
        completion.head.contains("content-type: application/json"),
        "{}",
        completion.head
    );
    let completion = completion.json();
    assert_eq!(completion["object"], "chat.completion");
    assert_eq!(completion["model"], "a/b");
    assert_eq!(completion["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        completion["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .split(' ')
            .count(),
        16
    );
    assert_eq!(completion["usage"]["prompt_tokens"], 3);
    assert_eq!(completion["usage"]["completion_tokens"], 16);
    assert_eq!(completion["usage"]["total_tokens"], 19);

    let response = send(
        address,
        "POST",
        "/v1/responses",
        "",
        r#"{"model":"m","input":"hi","max_output_tokens":2}"#,
    )
    .await;
    let response = response.json();
    assert_eq!(response["status"], "incomplete");
    assert_eq!(response["output"][0]["content"][0]["type"], "output_text");
    assert_eq!(response["usage"]["output_tokens"], 2);

    let body = r#"{"model":"m","max_tokens":3,"messages":[{"role":"user","content":"hi"}]}"#;
    let message = send(address, "POST", "/v1/messages", "", body).await.json();
    assert_eq!(message["stop_reason"], "max_tokens");
    assert_eq!(message["content"][0]["type"], "text");
    assert_eq!(message["usage"]["output_tokens"], 3);

    let list = send(
        address,
        "POST",
        "/v1/embeddings",
        "",
        r#"{"model":"m","input":["a","b"],"dimensions":4}"#,
    )
    .await;
    assert_eq!(
        list.json()["data"][1]["embedding"]
            .as_array()
            .unwrap()
            .len(),
        4
    );

    assert_eq!(
        send(address, "GET", "/v1/models", "", "").await.json()["data"][0]["id"],
        "sim"
    );
    assert_eq!(send(address, "GET", "/health", "", "").await.status, 200);
}

#[tokio::test]
async fn a_chat_stream() {
    let address = start(Settings::default());
    let plain = send(
        address,
        "POST",
        CHAT,
        "x-request-id: r\r\n",
        &chat(r#","stream":true,"max_tokens":3"#),
    )
    .await;
    assert!(
        plain.head.contains("content-type: text/event-stream"),
        "{}",
        plain.head
    );
    assert!(plain.complete);
    let events = plain.events();
    assert_eq!(events.len(), 1 + 3 + 1 + 1);
    assert_eq!(events[5], "[DONE]");
    assert_eq!(
        plain.event_json(0)["choices"][0]["delta"]["role"],
        "assistant"
    );
    assert_eq!(plain.event_json(4)["choices"][0]["finish_reason"], "length");
    assert!(!plain.body.contains("usage"));

    let extra = r#","stream":true,"max_tokens":3,"stream_options":{"include_usage":true}"#;
    let counted = send(address, "POST", CHAT, "x-request-id: r\r\n", &chat(extra)).await;
    assert_eq!(counted.events().len(), 7);
    assert_eq!(counted.event_json(1)["usage"], Value::Null);
    assert_eq!(counted.event_json(5)["choices"], json!([]));
    assert_eq!(counted.event_json(5)["usage"]["completion_tokens"], 3);
    assert_eq!(streamed_text(&plain), streamed_text(&counted));

    let unary = send(
        address,
        "POST",
        CHAT,
        "x-request-id: r\r\n",
        &chat(r#","max_tokens":3"#),
    )
    .await
    .json();
    assert_eq!(
        unary["choices"][0]["message"]["content"],
        streamed_text(&plain)
    );
}

fn streamed_text(reply: &Reply) -> String {
    let events = reply.events();
    let text = |event: &&str| serde_json::from_str::<Value>(event).ok();
    events
        .iter()
        .filter_map(text)
        .filter_map(|event| Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect()
}

#[tokio::test]
async fn streams_of_the_other_apis() {
    let address = start(Settings::default());
    let kinds = |reply: &Reply| -> Vec<String> {
        let kind = |line: &str| line.strip_prefix("event: ").map(str::to_owned);
        reply.body.lines().filter_map(kind).collect()
    };
    let reply = send(
        address,
        "POST",
        "/v1/responses",
        "x-sim-tokens: 2\r\n",
        r#"{"model":"m","input":"hi","stream":true}"#,
    )
    .await;
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(kinds(&reply), expected);
    for (index, kind) in expected.into_iter().enumerate() {
        let event = reply.event_json(index);
        assert_eq!(event["type"], kind);
        assert_eq!(event["sequence_number"], index);
    }
    let last = reply.event_json(9);
    assert_eq!(
        last["response"]["output"][0]["content"][0]["text"],
        reply.event_json(6)["text"]
    );
    assert_eq!(last["response"]["usage"]["output_tokens"], 2);

    let body =
        r#"{"model":"m","max_tokens":2,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let reply = send(address, "POST", "/v1/messages", "", body).await;
    let expected = [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(kinds(&reply), expected);
    for (index, kind) in expected.into_iter().enumerate() {
        assert_eq!(reply.event_json(index)["type"], kind);
    }
    assert_eq!(reply.event_json(6)["usage"]["output_tokens"], 2);
}

#[tokio::test]
async fn refusals_speak_the_api() {
    let address = start(Settings::default());
    let no_model = r#"{"messages":[{"role":"user","content":"x"}]}"#;
    let table = [
        (
            "POST",
            CHAT,
            "{",
            400,
            "/error/type",
            "invalid_request_error",
        ),
        ("POST", CHAT, no_model, 400, "/error/param", "model"),
        ("POST", "/v1/messages", "[]", 400, "/type", "error"),
        ("GET", CHAT, "", 405, "/error/type", "invalid_request_error"),
        (
            "GET",
            "/no",
            "",
            404,
            "/error/type",
            "invalid_request_error",
        ),
    ];
    for (method, path, body, status, pointer, expected) in table {
        let reply = send(address, method, path, "", body).await;
        assert_eq!(reply.status, status, "{path} {body}");
        assert_eq!(
            reply.json().pointer(pointer).unwrap(),
            expected,
            "{path} {body}"
        );
    }
    let stats = stats(address).await;
    assert_eq!(stats["active"], 0);
    assert_eq!(stats["client_aborts"], 0);
    assert_eq!(stats["requests"]["other"], 1);
}

#[tokio::test]
async fn asked_for_errors_speak_the_api() {
    let address = start(Settings::default());
    let body = r#"{"model":"m","max_tokens":2,"messages":[{"role":"user","content":"hi"}]}"#;
    let table = [
        (
            CHAT,
            "x-sim-error: 503",
            503,
            "/error/type",
            "service_unavailable_error",
        ),
        (
            CHAT,
            "x-sim-error: 429",
            429,
            "/error/code",
            "rate_limit_exceeded",
        ),
        (
            CHAT,
            "x-sim-tokens: x",
            400,
            "/error/type",
            "invalid_request_error",
        ),
        (
            "/v1/messages",
            "x-sim-error: 529",
            529,
            "/error/type",
            "overloaded_error",
        ),
    ];
    for (path, header, status, pointer, expected) in table {
        let reply = send(address, "POST", path, &format!("{header}\r\n"), body).await;
        assert_eq!(reply.status, status, "{path} {header}");
        assert_eq!(
            reply.json().pointer(pointer).unwrap(),
            expected,
            "{path} {header}"
        );
    }
    let by_metadata = chat(r#","metadata":{"sim_error":"500"}"#);
    assert_eq!(
        send(address, "POST", CHAT, "", &by_metadata).await.status,
        500
    );
}

#[tokio::test]
async fn streams_cut_short() {
    let address = start(Settings::default());
    let body = chat(r#","stream":true"#);
    let cut = send(
        address,
        "POST",
        CHAT,
        "x-sim-disconnect-after: 4\r\n",
        &body,
    )
    .await;
    assert_eq!(
        (cut.status, cut.complete, cut.events().len()),
        (200, false, 4)
    );
    let by_metadata = chat(r#","stream":true,"metadata":{"sim_disconnect_after":"4"}"#);
    let cut = send(address, "POST", CHAT, "", &by_metadata).await;
    assert_eq!(
        (cut.status, cut.complete, cut.events().len()),
        (200, false, 4)
    );
    let failed = send(address, "POST", CHAT, "x-sim-error-event: 2\r\n", &body).await;
    assert_eq!(
        (failed.status, failed.complete, failed.events().len()),
        (200, true, 1 + 2 + 1)
    );
    assert_eq!(failed.event_json(3)["error"]["type"], "server_error");
    let unary = send(
        address,
        "POST",
        CHAT,
        "x-sim-disconnect-after: 10\r\n",
        &chat(""),
    )
    .await;
    assert_eq!(
        (unary.status, unary.complete, unary.body.len()),
        (200, false, 10)
    );
    let nothing = send(
        address,
        "POST",
        CHAT,
        "x-sim-disconnect-after: 0\r\n",
        &chat(""),
    )
    .await;
    assert!(!nothing.complete);
    let silent = send(address, "POST", CHAT, "x-sim-no-usage: 1\r\n", &chat(""))
        .await
        .json();
    assert_eq!(silent.get("usage"), None);
    assert_eq!(stats(address).await["client_aborts"], 0);
}

#[tokio::test]
async fn a_leaving_caller_is_counted() {
    let address = start(Settings::default());
    let long = r#","stream":true,"metadata":{"sim_tokens":"1000000","sim_tps":"0.001"}"#;
    let waiting = r#","metadata":{"sim_ttft_ms":"10000000"}"#;
    let stalled = r#","stream":true,"metadata":{"sim_stall_after":"2"}"#;
    for (index, extra) in [long, waiting, stalled].into_iter().enumerate() {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(&request("POST", CHAT, "", &chat(extra)))
            .await
            .unwrap();
        if extra != waiting {
            assert!(stream.read_u8().await.is_ok(), "the answer begins");
        }
        stats_when(address, |stats| stats["active"] == 1).await;
        drop(stream);
        let stats = stats_when(address, |stats| stats["active"] == 0).await;
        assert_eq!(stats["client_aborts"], index + 1, "{extra}");
    }
}

#[tokio::test]
async fn slots_make_others_wait() {
    let address = start(Settings {
        slots: 1,
        ..Settings::default()
    });
    let mut first = TcpStream::connect(address).await.unwrap();
    first
        .write_all(&request(
            "POST",
            CHAT,
            "x-sim-stall-after: 1\r\n",
            &chat(r#","stream":true"#),
        ))
        .await
        .unwrap();
    first.read_u8().await.unwrap();
    let second = tokio::spawn(async move { send(address, "POST", CHAT, "", &chat("")).await });
    stats_when(address, |stats| stats["active"] == 2).await;
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.await.unwrap().status, 200);
}

#[tokio::test]
async fn the_prefix_cache_hits_and_fills() {
    let address = start(Settings {
        kv_tokens: 64,
        ..Settings::default()
    });
    let body = |letter: &str, count, extra: &str| {
        json!({"model": "m", "messages": [{"role": "user", "content": letter.repeat(count)}]})
            .to_string()
            .replace("\"model\":\"m\"", &format!("\"model\":\"m\"{extra}"))
    };
    for cached in [0, 48] {
        let reply = send(address, "POST", CHAT, "", &body("a", 192, ""))
            .await
            .json();
        assert_eq!(
            reply["usage"]["prompt_tokens_details"]["cached_tokens"],
            cached
        );
    }
    assert_eq!(
        send(address, "POST", CHAT, "", &body("a", 1000, ""))
            .await
            .status,
        503
    );
    let mut busy = TcpStream::connect(address).await.unwrap();
    let held = body("b", 192, r#","stream":true"#);
    busy.write_all(&request("POST", CHAT, "x-sim-stall-after: 1\r\n", &held))
        .await
        .unwrap();
    busy.read_u8().await.unwrap();
    assert_eq!(
        send(address, "POST", CHAT, "", &body("a", 192, ""))
            .await
            .status,
        503
    );
    drop(busy);
    stats_when(address, |stats| stats["active"] == 0).await;
    assert_eq!(
        send(address, "POST", CHAT, "", &body("a", 192, ""))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn failures_repeat_with_the_seed() {
    let outcomes = async |seed| {
        let address = start(Settings {
            seed,
            error_rate: 0.3,
            disconnect_rate: 0.3,
            ..Settings::default()
        });
        let mut outcomes = Vec::new();
        for _ in 0..40 {
            let reply = send(address, "POST", CHAT, "", &chat(r#","stream":true"#)).await;
            let text = if reply.status == 200 {
                streamed_text(&reply)
            } else {
                String::new()
            };
            outcomes.push((reply.status, reply.complete, text));
        }
        outcomes
    };
    let first = outcomes(1).await;
    assert_eq!(first, outcomes(1).await);
    assert_ne!(first, outcomes(2).await);
    assert!(first.iter().any(|outcome| outcome.0 == 500));
    assert!(first.iter().any(|outcome| outcome.0 == 200 && !outcome.1));
}

#[tokio::test(start_paused = true)]
async fn pacing_follows_the_settings() {
    let address = start(Settings {
        ttft_ms: 200,
        tokens_per_second: 10.0,
        ..Settings::default()
    });
    for (extra, expected_ms) in [
        (r#","stream":true"#, 200 + 1500),
        ("", 200 + 1500),
        (r#","max_tokens":1"#, 200),
    ] {
        let begun = tokio::time::Instant::now();
        assert!(send(address, "POST", CHAT, "", &chat(extra)).await.complete);
        let taken = u64::try_from(begun.elapsed().as_millis()).unwrap();
        assert!(
            (expected_ms..expected_ms + 50).contains(&taken),
            "{extra}: {taken} ms"
        );
    }
}
