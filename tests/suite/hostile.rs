//! Filters that loop, grow, trap, panic, overreach or flood: their requests pay, nobody else.

use std::time::{Duration, Instant};

use weir_tests::config_text::KEY;
use weir_tests::gateway::Gateway;
use weir_tests::guests::Guest;
use weir_tests::load::{self, Plan, Report, Stop};
use weir_tests::simulated::Simulated;
use weir_tests::{caller, events};

use crate::stage::{Evil, alone, beside_others, chat, evil_chat, evil_config, folder_with};

/// What a deed in a phase counts as.
const MISDEEDS: [(&str, &str, &str); 14] = [
    ("request", "loop", "deadline"),
    ("request", "grow", "memory"),
    ("request", "trap", "trap"),
    ("request", "recurse", "trap"),
    ("request", "panic", "trap"),
    ("request", "forbidden-edit", "forbidden_edit"),
    ("request", "many-edits", "forbidden_edit"),
    ("request", "huge-attribute", "forbidden_edit"),
    ("request", "bad-status", "bad_verdict"),
    ("request-headers", "loop", "deadline"),
    ("affinity", "trap", "trap"),
    ("route", "bad-pick", "bad_verdict"),
    ("response-headers", "forbidden-edit", "forbidden_edit"),
    ("response-headers", "loop", "deadline"),
];

fn misdeeds(lines: &'static str) -> Vec<Evil> {
    let filter = |(phase, deed, _): &(&str, &str, &str)| {
        let config = format!(r#"phase = "{phase}", only = "{deed}""#);
        Evil::new(&format!("{phase}-{deed}"), &config).lines(lines)
    };
    MISDEEDS.iter().map(filter).collect()
}

fn load(gateway: &Gateway, requests: Stop) -> impl Future<Output = Report> + use<> {
    load::run(Plan {
        addr: gateway.address(),
        connections: 4,
        requests,
        head_and_body: load::chat_request(gateway.address(), KEY, "demo/sim", false, ""),
        stream: false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misdeed_is_the_affair_of_its_request() {
    let _alone = alone().await;
    let upstream = Simulated::start().await;
    let config = evil_config(upstream.address(), &misdeeds(""));
    let mut gateway = Gateway::start_in(folder_with(Guest::Hostile), &config).await;
    // Warm, and the instances there are.
    load(&gateway, Stop::Count(500)).await;
    let before = load(&gateway, Stop::Duration(Duration::from_secs(3))).await;
    let rss_before = gateway.process().rss_bytes().unwrap();

    let beside = tokio::spawn(load(&gateway, Stop::Duration(Duration::from_secs(3))));
    for _ in 0..4 {
        for (phase, deed, _) in MISDEEDS {
            let answer = evil_chat(&gateway, &format!("{phase}/{deed}")).await;
            let name = format!("{phase}-{deed}");
            assert_eq!(
                (answer.status, &*answer.code()),
                (503, "filter_unavailable"),
                "{name}: {}",
                answer.text()
            );
            let error = answer.json()["error"].clone();
            assert!(error["message"].as_str().unwrap().contains(&name), "{error}");
            assert!(error["type"].is_string(), "in the words of the API: {error}");
        }
    }
    let beside = beside.await.unwrap();
    for report in [&before, &beside] {
        assert_eq!(report.failed, 0, "{:?}", report.failures);
        assert!(report.requests > 100);
    }
    let bound = (2 * before.p99()).max(before.p99() + 20_000);
    assert!(beside.p99() <= bound, "p99 {} µs beside {} µs", beside.p99(), before.p99());
    let rss = gateway.process().rss_bytes().unwrap();
    assert!(rss < rss_before + (128 << 20), "{rss} bytes of memory after {rss_before}");
    for (phase, deed, kind) in MISDEEDS {
        let labels = [format!("filter=\"{phase}-{deed}\""), format!("kind=\"{kind}\"")];
        let failures = gateway
            .metric("weir_filter_failures_total", &[&labels[0], &labels[1]])
            .await;
        assert_eq!(failures, 4.0, "{phase} {deed} {kind}");
    }
    assert_eq!(gateway.metric("weir_filter_quarantined", &[]).await, 0.0);
}
