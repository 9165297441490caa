//! Requests as they come over the wire: sizes, framing, pipelines, slow senders.

use std::convert::Infallible;

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncWriteExt;
use weir_tests::caller::{
    Body, Caller, chat, chat_body, connect, post, read_to_end, read_until, request, send, send_raw,
};
use weir_tests::config_text::KEY;

use crate::demo::{Speaks, demo, demo_with};

const PATH: &str = "/v1/chat/completions";

/// The head of a chat completion with these further lines, each ended by CRLF.
fn head(lines: &str) -> String {
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/json\r\n{lines}\r\n"
    )
}

fn status_of(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

/// A body whose length is not announced.
fn unannounced(pieces: Vec<Bytes>) -> Body {
    let frames = pieces
        .into_iter()
        .map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let (gateway, simulated) =
        demo_with(|config| config.more("[limits]\nbody_max_bytes = 100000")).await;
    let long = chat_body(
        "demo/sim",
        &format!(r#""user":"{}""#, "u".repeat(3_000_000)),
    );
    for speaks in Speaks::BOTH {
        let pieces = long
            .as_bytes()
            .chunks(50_000)
            .map(Bytes::copy_from_slice)
            .collect();
        let cases = [
            ("announced", post(PATH, long.clone())),
            (
                "unannounced",
                request(Method::POST, PATH, unannounced(pieces)),
            ),
        ];
        for (what, request) in cases {
            let answer = speaks.ask(&gateway, request).await;
            assert_eq!(answer.status, 413, "{speaks:?} {what}: {}", answer.text());
            assert_eq!(answer.code(), "body_too_large", "{speaks:?} {what}");
            let message = answer.json()["error"]["message"]
                .as_str()
                .unwrap()
                .to_owned();
            assert!(message.contains("100000 bytes"), "{message}");
        }
    }
    assert_eq!(simulated.chats().await, 0);
    let fits = chat_body("demo/sim", &format!(r#""user":"{}""#, "u".repeat(90_000)));
    let answer = send(gateway.address(), post(PATH, fits)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn bodies_in_pieces() {
    let (gateway, _simulated) = demo().await;
    let body = chat_body("demo/sim", r#""max_tokens":3"#);
    for size in [1, 7, 64, 1000] {
        for speaks in Speaks::BOTH {
            let pieces = body
                .as_bytes()
                .chunks(size)
                .map(Bytes::copy_from_slice)
                .collect();
            let answer = speaks
                .ask(&gateway, request(Method::POST, PATH, unannounced(pieces)))
                .await;
            assert_eq!(answer.status, 200, "{speaks:?} {size}: {}", answer.text());
        }
        let chunks: String = body
            .as_bytes()
            .chunks(size)
            .map(|piece| {
                format!(
                    "{:x};an=extension\r\n{}\r\n",
                    piece.len(),
                    String::from_utf8_lossy(piece)
                )
            })
            .collect();
        let raw = head("transfer-encoding: chunked\r\nconnection: close\r\n");
        let answer = send_raw(
            gateway.address(),
            format!("{raw}{chunks}0\r\na-trailer: 1\r\n\r\n"),
        )
        .await;
        assert_eq!(status_of(&answer), "200", "{size}: {answer}");
    }
}

#[tokio::test]
async fn a_slow_sender_is_served() {
    let (gateway, _simulated) = demo().await;
    let body = chat_body("demo/sim", "");
    let raw = head(&format!(
        "content-length: {}\r\nconnection: close\r\n",
        body.len()
    ));
    let mut stream = connect(gateway.address()).await.unwrap();
    for byte in format!("{raw}{body}").bytes() {
        stream.write_all(&[byte]).await.unwrap();
        // A segment of its own for each byte.
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = read_to_end(&mut stream).await;
    assert_eq!(status_of(&answer), "200", "{answer}");
}

#[tokio::test]
async fn a_caller_that_waits_for_leave_to_send() {
    let (gateway, _simulated) = demo().await;
    let body = chat_body("demo/sim", "");
    let raw = head(&format!(
        "content-length: {}\r\nexpect: 100-continue\r\nconnection: close\r\n",
        body.len()
    ));
    let mut stream = connect(gateway.address()).await.unwrap();
    stream.write_all(raw.as_bytes()).await.unwrap();
    let leave = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(status_of(&leave), "100", "{leave}");
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert_eq!(status_of(&answer), "200", "{answer}");
}

#[tokio::test]
async fn no_leave_to_send_what_will_be_refused() {
    let (gateway, _simulated) =
        demo_with(|config| config.more("[limits]\nbody_max_bytes = 1000")).await;
    let mut stream = connect(gateway.address()).await.unwrap();
    let raw = head("content-length: 5000\r\nexpect: 100-continue\r\n");
    stream.write_all(raw.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "body_too_large").await;
    assert_eq!(status_of(&answer), "413", "{answer}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (gateway, simulated) = demo().await;
    let one = |id: &str, close: &str| {
        let body = chat_body("demo/sim", "");
        let lines = format!(
            "content-length: {}\r\nx-request-id: {id}\r\n{close}",
            body.len()
        );
        format!("{}{body}", head(&lines))
    };
    let both = one("first-1", "") + &one("second-2", "connection: close\r\n");
    let answer = send_raw(gateway.address(), both).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    let (first, second) = (answer.find("first-1"), answer.find("second-2"));
    assert!(first.is_some() && first < second, "{answer}");
    assert_eq!(simulated.chats().await, 2);
}

#[tokio::test]
async fn a_request_that_comes_during_the_answer_to_another() {
    let (gateway, simulated) = demo().await;
    let body = chat_body("demo/sim", "");
    let length = format!("content-length: {}\r\n", body.len());
    let mut stream = connect(gateway.address()).await.unwrap();
    let first = head(&format!("{length}x-sim-ttft-ms: 300\r\n"));
    stream
        .write_all(format!("{first}{body}").as_bytes())
        .await
        .unwrap();
    simulated.wait_for("/active", 1).await;
    let second = head(&format!("{length}connection: close\r\n"));
    stream
        .write_all(format!("{second}{body}").as_bytes())
        .await
        .unwrap();
    let answer = read_to_end(&mut stream).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert_eq!(simulated.count("/client_aborts").await, 0);
}

#[tokio::test]
async fn connections_are_kept() {
    let (gateway, _simulated) = demo().await;
    for speaks in Speaks::BOTH {
        let mut caller = match speaks {
            Speaks::Http1 => Caller::http1(gateway.address()).await.unwrap(),
            Speaks::Http2 => Caller::http2(gateway.address()).await.unwrap(),
        };
        for members in [
            "",
            r#""stream":true"#,
            r#""n":"#,
            "",
            r#""stream":true"#,
            "",
        ] {
            let answer = caller.ask(chat(members)).await;
            let answer = answer.unwrap_or_else(|error| panic!("{speaks:?} {members}: {error:?}"));
            // The one without a value is bad JSON: a refusal costs nobody the connection.
            let expected = if members.ends_with(':') { 400 } else { 200 };
            assert_eq!(
                answer.status,
                expected,
                "{speaks:?} {members}: {}",
                answer.text()
            );
        }
    }
}

#[tokio::test]
async fn headers_beyond_the_limits() {
    let (gateway, simulated) = demo().await;
    let body = chat_body("demo/sim", "");
    let fields = |count: usize, length: usize| -> String {
        let value = "v".repeat(length);
        (0..count)
            .map(|n| format!("x-field-{n}: {value}\r\n"))
            .collect()
    };
    let cases = [
        ("within", fields(50, 10), &["200"][..]),
        ("too many", fields(101, 1), &["431"]),
        ("too long", fields(1, 70_000), &["431"]),
        (
            "more than the parser takes",
            fields(400, 1),
            &["400", "431"],
        ),
        (
            "longer than the parser takes",
            fields(20, 60_000),
            &["400", "431"],
        ),
    ];
    for (what, lines, expected) in cases {
        let raw = head(&format!(
            "{lines}content-length: {}\r\nconnection: close\r\n",
            body.len()
        ));
        let answer = send_raw(gateway.address(), format!("{raw}{body}")).await;
        let shown: String = answer.chars().take(300).collect();
        assert!(expected.contains(&status_of(&answer)), "{what}: {shown}");
    }
    assert_eq!(simulated.chats().await, 1);
}
