//! The simulated machine through a real socket: rates, cache, slowdown, and what it tells of itself.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "tests"
)]

mod client;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use weir_simulator::{Hardware, Settings, Simulator};

use client::{CHAT, request, send, stats_when};

fn start(settings: Settings, hardware: Hardware) -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let simulator = Simulator::from_listener(listener, settings)
        .unwrap()
        .with_hardware(hardware);
    let address = simulator.local_addr();
    tokio::spawn(simulator.serve(std::future::pending()));
    address
}

fn prefill(tokens_per_second: f64) -> Hardware {
    Hardware {
        name: "one".to_owned(),
        prefill_tokens_per_second: tokens_per_second,
        ..Hardware::default()
    }
}

/// A chat of so many prompt tokens that begin alike for one letter.
fn chat_of(letter: &str, tokens: usize, extra: Value) -> String {
    let mut body =
        json!({"model": "m", "messages": [{"role": "user", "content": letter.repeat(4 * tokens)}]});
    let members = extra.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(members);
    body.to_string()
}

/// Milliseconds a chat of one token took, and how many of its prompt tokens were cached.
async fn timed(address: SocketAddr, letter: &str, tokens: usize) -> (u64, u64) {
    let begun = Instant::now();
    let body = chat_of(letter, tokens, json!({"max_tokens": 1}));
    let reply = send(address, "POST", CHAT, "", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.head.contains("x-sim-server: one"), "{}", reply.head);
    let cached = &reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"];
    let taken = u64::try_from(begun.elapsed().as_millis()).unwrap();
    (taken, cached.as_u64().unwrap())
}

async fn slow_down(address: SocketAddr, factor: f64) -> u16 {
    let body = json!({ "factor": factor }).to_string();
    send(address, "POST", "/sim/slowdown", "", &body)
        .await
        .status
}

#[tokio::test(start_paused = true)]
async fn prefill_is_shared_and_cached() {
    let settings = Settings {
        ttft_ms: 50,
        kv_tokens: 100_000,
        ..Settings::default()
    };
    let address = start(settings, prefill(1000.0));
    let near = |taken: u64, expected: u64| (expected..expected + 40).contains(&taken);
    let (taken, cached) = timed(address, "a", 1600).await;
    assert!(near(taken, 1650) && cached == 0, "{taken} ms, {cached}");
    let (taken, cached) = timed(address, "a", 1760).await;
    assert!(near(taken, 210) && cached == 1600, "{taken} ms, {cached}");
    let (one, two) = tokio::join!(timed(address, "b", 1600), timed(address, "c", 1600));
    let (first, last) = (one.0.min(two.0), one.0.max(two.0));
    assert!(near(first, 1650) && near(last, 3250), "{first}, {last}");
}

#[tokio::test(start_paused = true)]
async fn time_is_scaled_and_slowed_down() {
    let hardware = Hardware {
        time_scale: 4.0,
        ..prefill(1000.0)
    };
    let address = start(Settings::default(), hardware);
    for (factor, expected_ms) in [(1.0, 400), (3.0, 1200), (1.0, 400)] {
        assert_eq!(slow_down(address, factor).await, 200);
        let (taken, _) = timed(address, "a", 1600).await;
        assert!(
            (expected_ms..expected_ms + 40).contains(&taken),
            "{factor}: {taken} ms"
        );
    }
    assert_eq!(slow_down(address, 0.0).await, 400);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_shares_the_rate_of_generation() {
    let settings = Settings {
        tokens_per_second: 10.0,
        ..Settings::default()
    };
    let hardware = Hardware {
        decode_batch: 1,
        ..prefill(1e9)
    };
    let address = start(settings, hardware);
    let body = chat_of("a", 4, json!({"max_tokens": 11, "stream": true}));
    let begun = Instant::now();
    let replies = tokio::join!(
        send(address, "POST", CHAT, "", &body),
        send(address, "POST", CHAT, "", &body)
    );
    assert!(replies.0.complete && replies.1.complete);
    let taken = begun.elapsed().as_millis();
    assert!((1900..2150).contains(&taken), "{taken} ms");
}

#[tokio::test]
async fn prompts_wait_for_room_in_the_cache() {
    let settings = Settings {
        kv_tokens: 64,
        ..Settings::default()
    };
    let address = start(settings, prefill(1e9));
    let mut busy = TcpStream::connect(address).await.unwrap();
    let held = chat_of("b", 48, json!({"stream": true}));
    busy.write_all(&request("POST", CHAT, "x-sim-stall-after: 1\r\n", &held))
        .await
        .unwrap();
    busy.read_u8().await.unwrap();
    let waiting = tokio::spawn(async move { timed(address, "c", 48).await });
    stats_when(address, |stats| stats["active"] == 2).await;
    let text = metrics(address).await;
    assert_eq!(figure(&text, "num_requests_running"), 1.0, "{text}");
    assert_eq!(figure(&text, "num_requests_waiting"), 1.0, "{text}");
    assert_eq!(figure(&text, "kv_cache_usage_perc"), 0.75, "{text}");
    assert!(!waiting.is_finished());
    drop(busy);
    assert_eq!(waiting.await.unwrap().1, 0);
    let too_long = chat_of("d", 65, json!({}));
    let refused = send(address, "POST", CHAT, "", &too_long).await;
    assert_eq!(refused.status, 503, "never fits, so it must not wait");
}

async fn metrics(address: SocketAddr) -> String {
    send(address, "GET", "/metrics", "", "").await.body
}

fn figure(text: &str, name: &str) -> f64 {
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("vllm:{name}{{")));
    let value = line.and_then(|line| line.rsplit_once(' '));
    value
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .1
        .parse()
        .unwrap()
}

#[tokio::test]
async fn metrics_are_those_of_vllm() {
    let settings = Settings {
        kv_tokens: 4096,
        model: "meta/\"x\"".to_owned(),
        ..Settings::default()
    };
    let address = start(settings, prefill(1e9));
    timed(address, "a", 160).await;
    timed(address, "a", 160).await;
    let text = metrics(address).await;
    for (name, expected) in [
        ("num_requests_running", 0.0),
        ("num_requests_waiting", 0.0),
        ("kv_cache_usage_perc", 0.0),
        ("prefix_cache_queries_total", 320.0),
        ("prefix_cache_hits_total", 160.0),
        ("prompt_tokens_total", 320.0),
        ("generation_tokens_total", 2.0),
        ("cache_config_info", 1.0),
    ] {
        assert_eq!(figure(&text, name), expected, "{name} in {text}");
    }
    assert!(text.contains(r#"model_name="meta/\"x\"""#), "{text}");
    assert!(text.contains(r#"block_size="16""#) && text.contains(r#"num_gpu_blocks="256""#));
}

#[tokio::test]
async fn statistics_are_streamed() {
    let hardware = Hardware {
        stats_stream_path: "/stats".to_owned(),
        ..prefill(1e9)
    };
    let settings = Settings {
        output_tokens: 40,
        ..Settings::default()
    };
    let address = start(settings, hardware);
    let mut listener = TcpStream::connect(address).await.unwrap();
    listener
        .write_all(b"GET /stats HTTP/1.1\r\nhost: sim\r\n\r\n")
        .await
        .unwrap();
    let mut seen = String::new();
    read_until(&mut listener, &mut seen, r#""type":"ping""#).await;
    assert!(seen.contains("application/x-ndjson"), "{seen}");
    let body = chat_of("a", 20, json!({"stream": true}));
    send(address, "POST", CHAT, "x-request-id: r-1\r\n", &body).await;
    read_until(&mut listener, &mut seen, r#""finished":true"#).await;
    let lines: Vec<Value> = seen
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["type"] == "stats")
        .collect();
    let counts: Vec<(u64, u64)> = lines
        .iter()
        .map(|line| {
            assert_eq!(
                (&line["request_id"], &line["v"]),
                (&json!("r-1"), &json!(1))
            );
            let count = |name: &str| line[name].as_u64().unwrap();
            (count("tokens_processed"), count("tokens_generated"))
        })
        .collect();
    assert_eq!(
        counts,
        [(0, 0), (20, 0), (20, 1), (20, 16), (20, 32), (20, 40)]
    );
    let other = send(address, "GET", "/pylon/v1/stats/stream", "", "").await;
    assert_eq!(other.status, 404, "the path is another one here");
}

async fn read_until(stream: &mut TcpStream, seen: &mut String, wanted: &str) {
    let read = async {
        let mut buffer = [0; 4096];
        while !seen.contains(wanted) {
            let bytes = stream.read(&mut buffer).await.unwrap();
            assert!(bytes > 0, "ended: {seen}");
            seen.push_str(std::str::from_utf8(&buffer[..bytes]).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("no such line in time");
}
