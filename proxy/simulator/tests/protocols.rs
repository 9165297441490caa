//! The simulator over h2c and WebSocket, and what it tells about the requests it saw.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "tests"
)]

mod client;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_simulator::Settings;

use client::{CHAT, chat, send, start, stats, stats_when};

#[tokio::test]
async fn h2c_on_the_same_port() {
    let address = start(Settings::default());
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = |extra: &str| {
        let uri = format!("http://{address}{CHAT}");
        http::Request::post(uri)
            .body(Full::new(Bytes::from(chat(extra))))
            .unwrap()
    };
    let answer = sender
        .send_request(request(r#","stream":true"#))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    let cut = sender
        .send_request(request(
            r#","stream":true,"metadata":{"sim_disconnect_after":"3"}"#,
        ))
        .await
        .unwrap();
    assert!(cut.into_body().collect().await.is_err(), "a reset stream");
    let long = r#","stream":true,"metadata":{"sim_stall_after":"3"}"#;
    let left = sender.send_request(request(long)).await.unwrap();
    drop(left);
    stats_when(address, |stats| {
        stats["client_aborts"] == 1 && stats["active"] == 0
    })
    .await;
}

#[tokio::test]
async fn echo_and_last_request() {
    let address = start(Settings::default());
    let echo = send(
        address,
        "PUT",
        "/echo/a?b=c",
        "x-one: 1\r\nx-one: 2\r\n",
        "12345",
    )
    .await
    .json();
    assert_eq!(
        (&echo["method"], &echo["path"], &echo["body_bytes"]),
        (&json!("PUT"), &json!("/echo/a?b=c"), &json!(5))
    );
    assert_eq!(echo["headers"]["x-one"], "1, 2");
    send(
        address,
        "POST",
        CHAT,
        "authorization: Bearer k\r\n",
        &chat(""),
    )
    .await;
    send(address, "GET", "/health", "", "").await;
    let stats = stats(address).await;
    assert_eq!(
        stats["last_request"]["headers"]["authorization"],
        "Bearer k"
    );
    assert_eq!(stats["last_request"]["body"], chat(""));
    assert_eq!(stats["requests"][CHAT], 1);
    assert_eq!(stats["requests"]["/echo"], 1);
    assert_eq!(stats["tokens"], 16);
}

#[tokio::test]
async fn a_websocket_echoes() {
    let address = start(Settings::default());
    assert_eq!(send(address, "GET", "/ws", "", "").await.status, 426);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let handshake = "GET /ws HTTP/1.1\r\nhost: sim\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(
        head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{head}"
    );
    for (first, answer_first, length) in [
        (0x81, 0x81, 5),
        (0x82, 0x82, 300),
        (0x82, 0x82, 70_000),
        (0x89, 0x8a, 3),
        (0x88, 0x88, 2),
    ] {
        let payload = vec![7; length];
        stream
            .write_all(&masked_frame(first, &payload))
            .await
            .unwrap();
        let mut answer = vec![0; unmasked_frame(answer_first, &payload).len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(
            answer,
            unmasked_frame(answer_first, &payload),
            "{length} bytes"
        );
    }
    assert!(
        stream.read_u8().await.is_err(),
        "closed after the close frame"
    );
}

fn masked_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = frame_head(first, 0x80, payload.len());
    frame.extend(mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

fn unmasked_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame_head(first, 0, payload.len());
    frame.extend(payload);
    frame
}

fn frame_head(first: u8, mask: u8, length: usize) -> Vec<u8> {
    match u16::try_from(length) {
        Ok(short @ 0..=125) => vec![first, mask | u8::try_from(short).unwrap()],
        Ok(medium) => [&[first, mask | 126], &medium.to_be_bytes()[..]].concat(),
        Err(_) => [&[first, mask | 127], &(length as u64).to_be_bytes()[..]].concat(),
    }
}
