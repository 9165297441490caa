//! Streams that do not go well: killed, stalled, left, cut up, oversized, not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Request;
use tokio::io::AsyncWriteExt;
use weir_tests::caller::{Body, Caller, chat, next_bytes, post, send, with_header};
use weir_tests::config_text::ConfigText;
use weir_tests::events::Event;
use weir_tests::gateway::{Gateway, wait_until};
use weir_tests::simulated::{Settings, Simulated};
use weir_tests::upstream::{
    Connection, LAST_CHUNK, STREAM_HEAD, Upstream, chat_event, chunk, delta,
};

use crate::demo::{Speaks, demo, demo_with};

/// A stream of each API.
fn streams() -> [(&'static str, Request<Body>); 3] {
    let messages = r#"{"model":"demo/sim","max_tokens":50,"messages":[{"role":"user","content":"hi"}],"stream":true}"#;
    let responses = r#"{"model":"demo/sim","input":"hi","stream":true}"#;
    [
        ("chat", chat(r#""stream":true"#)),
        ("responses", post("/v1/responses", responses)),
        ("messages", post("/v1/messages", messages)),
    ]
}

/// Whether a stream of this API ends in an error of this code, told as the API tells errors.
#[track_caller]
fn assert_ends_in_error(api: &str, events: &[Event], code: &str) {
    let mut events = events.to_vec();
    let last = events.pop().unwrap_or_else(|| panic!("{api}: no events"));
    let error = last.json();
    match api {
        "chat" => assert_eq!(error["error"]["code"], code, "{last:?}"),
        "responses" => {
            assert_eq!(
                (last.name.as_str(), &error["type"]),
                ("error", &"error".into()),
                "{last:?}"
            );
            assert_eq!(error["code"], code, "{last:?}");
        }
        _ => {
            assert_eq!(
                (last.name.as_str(), &error["type"]),
                ("error", &"error".into()),
                "{last:?}"
            );
            assert_eq!(error["error"]["type"], "api_error", "{last:?}");
        }
    }
    let errors = |event: &&Event| event.name == "error" || !event.json()["error"].is_null();
    assert_eq!(
        events.iter().filter(errors).count(),
        0,
        "{api}: one error is enough: {events:?}"
    );
}

#[tokio::test]
async fn an_upstream_killed_in_mid_stream() {
    let (gateway, _simulated) = demo().await;
    for speaks in Speaks::BOTH {
        for (api, request) in streams() {
            let request = with_header(request, "x-sim-disconnect-after", Some("6"));
            let answer = speaks.ask(&gateway, request).await;
            assert_eq!(answer.status, 200, "{api}: {}", answer.text());
            assert!(
                answer.events().len() >= 6,
                "{api}: what came before is kept: {}",
                answer.text()
            );
            assert_ends_in_error(api, &answer.events(), "upstream_disconnected");
        }
    }
    gateway
        .wait_for("the ends to be counted", async |gateway| {
            gateway
                .metric("weir_requests_total", &[r#"end="upstream_error""#])
                .await
                == 6.0
        })
        .await;
}

#[tokio::test]
async fn an_upstream_that_stalls() {
    let (gateway, simulated) =
        demo_with(|config| config.cluster("between_bytes_timeout_ms = 300")).await;
    for (api, request) in streams() {
        let request = with_header(request, "x-sim-stall-after", Some("6"));
        let answer = send(gateway.address(), request).await;
        assert_eq!(answer.status, 200, "{api}: {}", answer.text());
        assert_ends_in_error(api, &answer.events(), "upstream_stalled");
    }
    // The stalled upstreams are let go of.
    simulated.wait_for("/active", 0).await;
}

#[tokio::test]
async fn an_upstream_that_tells_of_its_error() {
    let (gateway, _simulated) = demo().await;
    for (api, request) in streams() {
        let request = with_header(request, "x-sim-error-event", Some("2"));
        let answer = send(gateway.address(), request).await;
        let errors = |event: &&Event| {
            event.name == "error"
                || event.json()["error"].is_object()
                || event.name == "response.failed"
        };
        let count = answer.events().iter().filter(errors).count();
        // Responses tells it twice: as an event of its own, and as the response's end.
        let told = if api == "responses" { 2 } else { 1 };
        assert_eq!(
            count,
            told,
            "{api}: its own words, and no others: {}",
            answer.text()
        );
        assert!(
            !answer.text().contains("upstream_disconnected"),
            "{api}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn a_caller_that_leaves_in_mid_stream() {
    let slow = Settings {
        tokens_per_second: 20.0,
        output_tokens: 100_000,
        ..Settings::default()
    };
    let simulated = Simulated::with(slow).await;
    let gateway = Gateway::start(&ConfigText::new(&[simulated.address()]).text()).await;
    let mut left = 0;
    let aborts = async |expected: u64| {
        let condition = async |_: &Gateway| simulated.count("/client_aborts").await == expected;
        gateway
            .wait_for(&format!("{expected} aborts"), condition)
            .await;
    };
    for (api, request) in streams() {
        let request = with_header(request, "x-sim-ttft-ms", Some("1"));
        let mut caller = Caller::http1(gateway.address()).await.unwrap();
        let mut answer = caller.open(request).await.unwrap();
        assert!(next_bytes(&mut answer).await.unwrap().is_some(), "{api}");
        drop((answer, caller));
        left += 1;
        aborts(left).await;
    }
    // Over HTTP/2 the stream is reset and the connection goes on.
    let mut caller = Caller::http2(gateway.address()).await.unwrap();
    let mut answer = caller.open(chat(r#""stream":true"#)).await.unwrap();
    assert!(next_bytes(&mut answer).await.unwrap().is_some());
    drop(answer);
    aborts(left + 1).await;
    let short = caller.ask(chat(r#""max_tokens":1"#)).await.unwrap();
    assert_eq!(short.status, 200, "{}", short.text());
    simulated.wait_for("/active", 0).await;
    gateway
        .wait_for("the ends to be counted", async |gateway| {
            gateway
                .metric("weir_requests_total", &[r#"end="client_gone""#])
                .await
                == 4.0
        })
        .await;
    assert_eq!(gateway.metric("weir_requests_active", &[]).await, 0.0);
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_answer() {
    let (gateway, simulated) = demo().await;
    for (left, speaks) in (1..).zip(Speaks::BOTH) {
        let request = with_header(chat(""), "x-sim-ttft-ms", Some("60000"));
        let mut caller = match speaks {
            Speaks::Http1 => Caller::http1(gateway.address()).await.unwrap(),
            Speaks::Http2 => Caller::http2(gateway.address()).await.unwrap(),
        };
        tokio::select! {
            answer = caller.open(request) => panic!("{speaks:?}: {answer:?}"),
            () = simulated.wait_for("/active", 1) => {}
        }
        if speaks == Speaks::Http1 {
            drop(caller);
        }
        simulated.wait_for("/client_aborts", left).await;
    }
}

/// A stream with everything a provider may put between events.
fn odd_stream() -> String {
    let mut stream = String::from(": a comment\n\n");
    for word in ["Grüße", ", ", "世界", " \\u00e9\\n"] {
        stream.push_str(&delta(word));
    }
    stream.push_str("\r\n: ping\r\n\r\n");
    // CRLF, and no space behind the colon.
    stream.push_str(&delta("!").replace("data: ", "data:").replace('\n', "\r\n"));
    stream.push_str(&chat_event(
        r#"{"index":0,"delta":{},"finish_reason":"stop"}"#,
        "",
    ));
    stream.push_str("data: [DONE]\n\n");
    stream
}

#[tokio::test]
async fn events_cut_up_anywhere() {
    let upstream = Upstream::scripted(async |mut connection: Connection| {
        while let Ok(request) = connection.request().await {
            let size = request
                .head
                .lines()
                .find_map(|line| line.strip_prefix("x-size: "));
            let size: usize = size.unwrap().parse().unwrap();
            connection.send(STREAM_HEAD).await;
            for piece in odd_stream().as_bytes().chunks(size) {
                connection.send(chunk(piece)).await;
                tokio::task::yield_now().await;
            }
            connection.send(LAST_CHUNK).await;
        }
    })
    .await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).text()).await;
    for size in [1, 2, 3, 5, 17, 100, 10_000] {
        let request = with_header(chat(r#""stream":true"#), "x-size", Some(&size.to_string()));
        let answer = send(gateway.address(), request).await;
        let events = answer.events();
        let text: String = events
            .iter()
            .filter_map(|event| {
                event.json()["choices"][0]["delta"]["content"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        assert_eq!(text, "Grüße, 世界 é\n!", "{size}: {}", answer.text());
        assert_eq!(events.last().unwrap().data, "[DONE]", "{size}");
        let models = events
            .iter()
            .filter(|event| event.json()["model"] == "demo/sim")
            .count();
        assert_eq!(models, 6, "{size}: {}", answer.text());
    }
}

#[tokio::test]
async fn an_event_without_end() {
    let upstream = Upstream::scripted(async |mut connection: Connection| {
        if connection.request().await.is_ok() {
            connection.send(STREAM_HEAD).await;
            connection.send(chunk(delta("before"))).await;
            connection.send(chunk("data: ")).await;
            for _ in 0..80 {
                connection.send(chunk(vec![b'x'; 1 << 16])).await;
            }
            connection.closed().await;
        }
    })
    .await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).text()).await;
    let answer = send(gateway.address(), chat(r#""stream":true"#)).await;
    assert!(answer.text().contains("before"));
    assert_ends_in_error("chat", &answer.events(), "event_too_large");
    assert!(
        answer.body.len() < 100_000,
        "nothing of it is passed on: {}",
        answer.body.len()
    );
}

#[tokio::test]
async fn a_stream_that_says_nothing() {
    let mut bytes = STREAM_HEAD.as_bytes().to_vec();
    bytes.extend_from_slice(LAST_CHUNK.as_bytes());
    let upstream = Upstream::fixed(bytes).await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).text()).await;
    let answer = send(gateway.address(), chat(r#""stream":true"#)).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "upstream_disconnected");
}

#[tokio::test]
async fn a_reader_that_does_not_read() {
    const OFFERED: u64 = 256 << 20;
    const BLOCKED: Duration = Duration::from_millis(500);
    let sent = Arc::new(AtomicU64::new(0));
    let blocked = Arc::new(AtomicU64::new(0));
    let (sending, blocking) = (Arc::clone(&sent), Arc::clone(&blocked));
    let upstream = Upstream::scripted(move |mut connection: Connection| {
        let (sent, blocked) = (Arc::clone(&sending), Arc::clone(&blocking));
        async move {
            while let Ok(request) = connection.request().await {
                connection.send(STREAM_HEAD).await;
                let endless = request.head.contains("x-endless");
                let piece = chunk(delta(&"x".repeat(8_000)));
                while endless && sent.load(Ordering::SeqCst) < OFFERED {
                    match tokio::time::timeout(BLOCKED, connection.stream.write_all(&piece)).await {
                        Ok(Ok(())) => _ = sent.fetch_add(piece.len() as u64, Ordering::SeqCst),
                        Ok(Err(_)) => return,
                        Err(_) => {
                            blocked.fetch_add(1, Ordering::SeqCst);
                            return connection.closed().await;
                        }
                    }
                }
                connection.send(chunk(delta("quick"))).await;
                connection.send(chunk("data: [DONE]\n\n")).await;
                connection.send(LAST_CHUNK).await;
            }
        }
    })
    .await;
    let mut gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).text()).await;
    let before = gateway.process().rss_bytes().unwrap();
    let mut slow = Caller::http1(gateway.address()).await.unwrap();
    let request = with_header(chat(r#""stream":true"#), "x-endless", Some("1"));
    let unread = slow.open(request).await.unwrap();
    wait_until("the upstream to be held back", async || {
        blocked.load(Ordering::SeqCst) > 0 || sent.load(Ordering::SeqCst) >= OFFERED
    })
    .await;
    let taken = sent.load(Ordering::SeqCst);
    assert!(
        taken < 64 << 20,
        "{taken} bytes were taken for a caller that takes none"
    );
    for _ in 0..20 {
        let answer = send(gateway.address(), chat(r#""stream":true"#)).await;
        assert_eq!(
            answer.events().last().unwrap().data,
            "[DONE]",
            "beside a slow reader"
        );
    }
    let grown = gateway
        .process()
        .rss_bytes()
        .unwrap()
        .saturating_sub(before);
    assert!(grown < 64 << 20, "memory has grown by {grown} bytes");
    drop(unread);
}
