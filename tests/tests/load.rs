//! The load client against the simulated model server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::SocketAddr;
use std::time::Duration;

use weir_simulator::{Settings, Simulator};
use weir_tests::load::{Plan, Report, Stop, chat_request, run};
use weir_tests::process::status_of;

async fn start(settings: Settings) -> SocketAddr {
    let simulator = Simulator::bind(SocketAddr::from(([127, 0, 0, 1], 0)), settings)
        .await
        .unwrap();
    let address = simulator.local_addr();
    tokio::spawn(simulator.serve(std::future::pending()));
    address
}

async fn load(addr: SocketAddr, requests: Stop, stream: bool, extra: &str) -> Report {
    let head_and_body = chat_request(addr, "key", "demo/sim", stream, extra);
    run(Plan {
        addr,
        connections: 4,
        requests,
        head_and_body,
        stream,
    })
    .await
}

#[tokio::test]
async fn unary_and_streams() {
    let address = start(Settings::default()).await;
    assert_eq!(status_of(address, "/health").await.unwrap(), 200);
    let unary = load(address, Stop::Count(100), false, "").await;
    assert_eq!(
        (unary.requests, unary.failed, unary.statuses[&200]),
        (100, 0, 100),
        "{:?}",
        unary.failures
    );
    assert_eq!(
        (unary.latency_us.len(), unary.events, unary.done),
        (100, 0, 0)
    );
    assert!(unary.p50() <= unary.p99() && unary.p99() <= unary.latency_us[99]);
    assert!(unary.rate() > 0.0);
    let streams = load(address, Stop::Count(50), true, r#""max_tokens":5"#).await;
    assert_eq!(
        (streams.requests, streams.failed, streams.done),
        (50, 0, 50),
        "{:?}",
        streams.failures
    );
    assert_eq!(streams.events, 50 * (1 + 5 + 1 + 1));
    let timed = load(
        address,
        Stop::Duration(Duration::from_millis(50)),
        false,
        "",
    )
    .await;
    assert_eq!(timed.failed, 0, "{:?}", timed.failures);
    assert!(timed.requests >= 4 && timed.seconds >= 0.05);
}

#[tokio::test]
async fn failures_are_told() {
    let address = start(Settings::default()).await;
    let refused = load(
        address,
        Stop::Count(30),
        false,
        r#""metadata":{"sim_error":"503"}"#,
    )
    .await;
    assert_eq!(
        (refused.requests, refused.failed, refused.statuses[&503]),
        (30, 30, 30)
    );
    assert_eq!(refused.failures.len(), 20);
    assert!(
        refused.failures[0].starts_with("status 503: {\"error\""),
        "{}",
        refused.failures[0]
    );
    let cut = load(
        address,
        Stop::Count(8),
        true,
        r#""metadata":{"sim_disconnect_after":"3"}"#,
    )
    .await;
    assert_eq!((cut.requests, cut.failed, cut.done), (8, 8, 0));
    assert!(cut.statuses.is_empty() && cut.latency_us.is_empty() && cut.p99() == 0);
}
