//! Hundreds of reloads under busy connections, and thousands for the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weir_tests::caller::{self, Caller};
use weir_tests::config_text::{ConfigText, KEY};
use weir_tests::gateway::Gateway;
use weir_tests::load::{self, Plan, Report, Stop};
use weir_tests::simulated::Simulated;

use crate::stage::alone;

/// A gateway that reloads when it is told to, and only then.
async fn gateway(upstreams: &[Simulated]) -> Gateway {
    let addresses: Vec<_> = upstreams.iter().map(Simulated::address).collect();
    let config = ConfigText::new(&addresses).text();
    Gateway::start(&config.replace("poll_ms = 50", "poll_ms = 3600000")).await
}

/// Swaps between two configs that differ in a filter's table, in a cluster and in a bound.
fn other(config: &str) -> String {
    let pairs = [
        ("1000000000-S", "999999999-S"),
        (
            "[clusters.sim]\nendpoints",
            "[clusters.sim]\nretries = 3\nendpoints",
        ),
        (
            "[[listeners]]",
            "[limits]\nbody_max_bytes = 100000\n[[listeners]]",
        ),
    ];
    if config.contains(pairs[0].0) {
        pairs
            .iter()
            .fold(config.to_owned(), |text, (from, to)| text.replace(from, to))
    } else {
        pairs
            .iter()
            .fold(config.to_owned(), |text, (to, from)| text.replace(from, to))
    }
}

/// Reloads again and again, each time another config.
async fn reload(gateway: &Gateway, times: usize) {
    let mut admin = Caller::http1(gateway.admin_address()).await.unwrap();
    for _ in 0..times {
        gateway.edit(other);
        let answer = admin.ask(caller::post("/reload", "")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// A load until something is over.
async fn busy(plan: Plan, over: Arc<AtomicBool>) -> Vec<Report> {
    let mut reports = Vec::new();
    while !over.load(Ordering::SeqCst) {
        reports.push(load::run(plan.clone()).await);
    }
    reports
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_reloads_fail_no_request() {
    let _alone = alone().await;
    let upstreams = [Simulated::start().await, Simulated::start().await];
    let gateway = gateway(&upstreams).await;
    let over = Arc::new(AtomicBool::new(false));
    let [unary, streams] = [false, true].map(|stream| {
        let plan = Plan {
            addr: gateway.address(),
            connections: 16,
            requests: Stop::Duration(ROUND),
            head_and_body: load::chat_request(gateway.address(), KEY, "demo/sim", stream, ""),
            stream,
        };
        tokio::spawn(busy(plan, Arc::clone(&over)))
    });
    reload(&gateway, 500).await;
    over.store(true, Ordering::SeqCst);
    let (unary, streams) = (unary.await.unwrap(), streams.await.unwrap());
    for report in unary.iter().chain(&streams) {
        assert_eq!(report.failed, 0, "{:?}", report.failures);
        assert_eq!(report.resent, 0, "no connection was closed");
        assert!(report.requests >= 16, "{} requests", report.requests);
    }
    for report in &streams {
        assert_eq!(report.done, report.requests, "every stream is complete");
    }
    assert_eq!(gateway.config_number().await, 501);
    let failures = gateway.metric("weir_filter_failures_total", &[]).await;
    assert_eq!(failures, 0.0, "no filter failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_reloads_do_not_cost_memory() {
    let _alone = alone().await;
    let upstreams = [Simulated::start().await];
    let mut gateway = gateway(&upstreams).await;
    reload(&gateway, 100).await;
    let after_100 = gateway.process().rss_bytes().unwrap();
    reload(&gateway, 1_900).await;
    let after_2000 = gateway.process().rss_bytes().unwrap();
    assert!(
        after_2000 * 10 <= after_100 * 12,
        "{after_100} bytes grew to {after_2000}"
    );
    assert_eq!(gateway.config_number().await, 2_001);
}

/// A load goes on in rounds; the last one outlasts the reloads.
const ROUND: Duration = Duration::from_secs(2);
