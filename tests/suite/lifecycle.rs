//! How a process ends: drained, cut off, or handed over to the next one.

use std::time::{Duration, Instant};

use http::Response;
use hyper::body::Incoming;
use weir_tests::caller::{self, Caller};
use weir_tests::config_text::{ConfigText, KEY};
use weir_tests::gateway::{DEADLINE, Gateway, wait_until};
use weir_tests::load::{self, Plan, Report, Stop};
use weir_tests::process::Signal;
use weir_tests::simulated::{Settings, Simulated};

use crate::stage::{alone, beside_others};

/// A gateway before a model server whose streams last this long.
async fn streaming(drain_ms: u64, stream_ms: u64) -> (Gateway, Simulated) {
    let settings = Settings {
        tokens_per_second: 20.0,
        output_tokens: u32::try_from(stream_ms / 50).unwrap(),
        ..Settings::default()
    };
    let upstream = Simulated::with(settings).await;
    let config = ConfigText::new(&[upstream.address()]).text();
    let drain = format!("drain_timeout_ms = {drain_ms}");
    let gateway = Gateway::start(&config.replace("drain_timeout_ms = 5000", &drain)).await;
    (gateway, upstream)
}

/// A stream of which something has come.
async fn begun(gateway: &Gateway) -> (Caller, Response<Incoming>) {
    let mut caller = Caller::http1(gateway.address()).await.unwrap();
    let mut stream = caller.open(caller::chat("\"stream\":true")).await.unwrap();
    assert!(caller::next_bytes(&mut stream).await.unwrap().is_some());
    (caller, stream)
}

/// The rest of a stream, or how it broke.
async fn rest(stream: &mut Response<Incoming>) -> Result<String, String> {
    let mut text = Vec::new();
    loop {
        match caller::next_bytes(stream).await {
            Ok(Some(bytes)) => text.extend_from_slice(&bytes),
            Ok(None) => return Ok(String::from_utf8(text).unwrap()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[tokio::test]
async fn sigterm_lets_streams_finish() {
    let _guard = beside_others().await;
    let (mut gateway, _upstream) = streaming(20_000, 2_000).await;
    let (_caller, mut stream) = begun(&gateway).await;
    gateway.process().signal(Signal::TERM).unwrap();
    gateway
        .wait_for("readiness to be off", async |gateway| {
            gateway.admin("/readyz").await.status == 503
        })
        .await;
    assert_eq!(
        gateway.admin("/healthz").await.status,
        200,
        "it still lives"
    );
    let text = rest(&mut stream).await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(
        text.contains("\"finish_reason\":\"stop\""),
        "all that was to come: {text}"
    );
    let done = Instant::now();
    let status = gateway.process().wait_for_exit(DEADLINE).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let waited = done.elapsed();
    assert!(
        waited < Duration::from_secs(10),
        "exits {waited:?} after the last stream, not at the limit"
    );
}

#[tokio::test]
async fn sigterm_waits_no_longer_than_the_limit() {
    let _guard = beside_others().await;
    let (mut gateway, _upstream) = streaming(1_000, 60_000).await;
    let (_caller, mut stream) = begun(&gateway).await;
    let told = Instant::now();
    gateway.process().signal(Signal::TERM).unwrap();
    let end = rest(&mut stream).await;
    assert!(end.is_err(), "cut off in the middle: {end:?}");
    assert!(
        told.elapsed() >= Duration::from_secs(1),
        "not before the limit"
    );
    let status = gateway
        .process()
        .wait_for_exit(Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(gateway.log().contains("cut=1"), "{}", gateway.log());
}

#[tokio::test]
async fn sigterm_ends_an_idle_process_soon() {
    let _guard = beside_others().await;
    let (mut gateway, _upstream) = streaming(60_000, 50).await;
    let mut caller = Caller::http1(gateway.address()).await.unwrap();
    assert_eq!(caller.ask(caller::chat("")).await.unwrap().status, 200);
    gateway.process().signal(Signal::TERM).unwrap();
    let status = gateway
        .process()
        .wait_for_exit(Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(status.code(), Some(0), "a kept connection does not hold it");
}

#[tokio::test]
async fn sigint_ends_at_once() {
    let _guard = beside_others().await;
    let (mut gateway, _upstream) = streaming(60_000, 60_000).await;
    let (_caller, mut stream) = begun(&gateway).await;
    gateway.process().signal(Signal::INT).unwrap();
    let status = gateway
        .process()
        .wait_for_exit(Duration::from_secs(10))
        .await;
    assert!(status.is_ok(), "{status:?}");
    assert!(rest(&mut stream).await.is_err(), "streams are cut off");
}

fn busy(gateway: &Gateway, stream: bool) -> impl Future<Output = Report> + use<> {
    load::run(Plan {
        addr: gateway.address(),
        connections: 4,
        requests: Stop::Duration(Duration::from_secs(8)),
        head_and_body: load::chat_request(gateway.address(), KEY, "demo/sim", stream, ""),
        stream,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_takes_over_without_a_failed_request() {
    let _alone = alone().await;
    let settings = Settings {
        tokens_per_second: 100.0,
        output_tokens: 30,
        ..Settings::default()
    };
    let upstream = Simulated::with(settings).await;
    let config = ConfigText::new(&[upstream.address()]).text();
    let server = "[server]\nupgrade_socket = \"{folder}/upgrade.sock\"";
    let config = config
        .replace("[server]", server)
        .replace("poll_ms = 50", "poll_ms = 3600000");
    let mut old = Gateway::start(&config).await;
    let unary = tokio::spawn(busy(&old, false));
    let streams = tokio::spawn(busy(&old, true));
    // So that the two can be told apart.
    old.edit(|config| {
        config.replace(
            "[[listeners]]",
            "[limits]\nbody_max_bytes = 77777\n[[listeners]]",
        )
    });
    let mut new = old.sibling(&["--upgrade"]);
    let socket = old.folder().join("upgrade.sock");
    wait_until("the next process to wait for the sockets", async || {
        socket.exists()
    })
    .await;
    old.process().signal(Signal::QUIT).unwrap();
    let status = old.process().wait_for_exit(DEADLINE).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", old.log());
    let (unary, streams) = (unary.await.unwrap(), streams.await.unwrap());
    for report in [&unary, &streams] {
        assert_eq!(
            report.failed,
            0,
            "{:?}; the new one's log:\n{}",
            report.failures,
            new.log()
        );
        assert!(report.requests > 20, "{} requests", report.requests);
    }
    assert_eq!(streams.done, streams.requests, "every stream is complete");
    let live = old.admin_json("/config").await;
    assert_eq!(
        live["config"]["limits"]["body_max_bytes"], 77_777,
        "the new one serves: {live}"
    );
    assert_eq!(
        caller::send(old.address(), caller::chat("")).await.status,
        200
    );
    new.signal(Signal::TERM).unwrap();
    assert_eq!(new.wait_for_exit(DEADLINE).await.unwrap().code(), Some(0));
}
