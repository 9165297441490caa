//! A server to test and a plain client which sees every byte of its answers.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses a part of it"
)]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_simulator::{Settings, Simulator};

/// A server which runs as long as the test's runtime.
pub fn start(settings: Settings) -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let simulator = Simulator::from_listener(listener, settings).unwrap();
    let address = simulator.local_addr();
    tokio::spawn(simulator.serve(std::future::pending()));
    address
}

pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
    /// The body ended as its framing promised.
    pub complete: bool,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The `data:` of each event.
    pub fn events(&self) -> Vec<&str> {
        let data = |event: &'_ str| event.find("data: ").map(|start| start + 6);
        self.body
            .split_terminator("\n\n")
            .map(|event| &event[data(event).unwrap()..])
            .collect()
    }

    pub fn event_json(&self, index: usize) -> Value {
        serde_json::from_str(self.events()[index]).unwrap()
    }
}

pub fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

pub async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(&request(method, path, headers, body))
        .await
        .unwrap();
    let mut bytes = Vec::new();
    let _cut_connections_may_reset = stream.read_to_end(&mut bytes).await;
    let answer = String::from_utf8(bytes).unwrap();
    let (head, rest) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let (body, complete) = if head.contains("transfer-encoding: chunked") {
        unchunk(rest)
    } else {
        plain(head, rest)
    };
    let complete = complete && !head.is_empty();
    let status = head.get(9..12).map_or(0, |status| status.parse().unwrap());
    Reply {
        status,
        head: head.to_owned(),
        body,
        complete,
    }
}

fn plain(head: &str, body: &str) -> (String, bool) {
    let declared = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map(|text| text.parse().unwrap());
    (body.to_owned(), declared.unwrap_or(0) == body.len())
}

fn unchunk(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    (body, false)
}

pub async fn stats(address: SocketAddr) -> Value {
    send(address, "GET", "/sim/stats", "", "").await.json()
}

/// Waits until the counters satisfy `condition`.
pub async fn stats_when(address: SocketAddr, condition: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            let stats = stats(address).await;
            if condition(&stats) {
                return stats;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("condition not met in time")
}

pub fn chat(extra: &str) -> String {
    format!(r#"{{"model":"a/b","messages":[{{"role":"user","content":"hello you"}}]{extra}}}"#)
}

pub const CHAT: &str = "/v1/chat/completions";
