//! Filters that loop, grow, trap, panic, overreach or flood: their requests pay, nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::caller;
use weir_tests::config_text::{ConfigText, KEY};
use weir_tests::gateway::Gateway;
use weir_tests::guests::Guest;
use weir_tests::load::{self, Plan, Report, Stop};
use weir_tests::process::Signal;
use weir_tests::simulated::{Settings, Simulated};

use crate::stage::{
    EVIL, Evil, alone, beside_others, chat, check, evil_chat, evil_config, folder_with, logged,
};

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

fn misdeeds(lines: &str) -> Vec<Evil> {
    let filter = |(phase, deed, _): &(&str, &str, &str)| {
        let config = format!(r#"phase = "{phase}", only = "{deed}""#);
        // Time is measured on the wall: little of it makes good calls fail on a busy machine.
        let request_ms = if *deed == "loop" { 30 } else { 500 };
        let limits = format!("limits = {{ request_ms = {request_ms} }}\n");
        Evil::new(&format!("{phase}-{deed}"), &config).lines(&format!("{limits}{lines}"))
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
    for _ in 0..ROUNDS {
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
            let message = error["message"].as_str().unwrap();
            assert!(
                message.contains(&name),
                "{name}: {message}; the log:\n{}",
                gateway.log()
            );
            assert!(
                error["type"].is_string(),
                "in the words of the API: {error}"
            );
        }
    }
    let beside = beside.await.unwrap();
    for report in [&before, &beside] {
        assert_eq!(report.failed, 0, "{:?}", report.failures);
        assert!(report.requests > 100);
    }
    let bound = (2 * before.p99()).max(before.p99() + 20_000);
    eprintln!("p99 {} µs beside {} µs", beside.p99(), before.p99());
    assert!(
        beside.p99() <= bound,
        "p99 {} µs beside {} µs",
        beside.p99(),
        before.p99()
    );
    let rss = gateway.process().rss_bytes().unwrap();
    assert!(
        rss < rss_before + (128 << 20),
        "{rss} bytes of memory after {rss_before}"
    );
    for (phase, deed, kind) in MISDEEDS {
        let labels = [
            format!("filter=\"{phase}-{deed}\""),
            format!("kind=\"{kind}\""),
        ];
        let failures = gateway
            .metric("weir_filter_failures_total", &[&labels[0], &labels[1]])
            .await;
        assert!(failures >= ROUNDS as f64, "{phase} {deed} {kind}");
    }
    assert_eq!(gateway.metric("weir_filter_quarantined", &[]).await, 0.0);
}

/// Fewer than put a filter into quarantine.
const ROUNDS: u32 = 3;

#[tokio::test]
async fn allowed_to_fail_it_is_passed_over() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let config = evil_config(upstream.address(), &misdeeds("on_error = \"allow\""));
    let gateway = Gateway::start_in(folder_with(Guest::Hostile), &config).await;
    for (phase, deed, kind) in MISDEEDS {
        let answer = evil_chat(&gateway, &format!("{phase}/{deed}")).await;
        assert_eq!(answer.status, 200, "{phase} {deed}: {}", answer.text());
        assert_eq!(answer.header("x-forbidden"), "", "{phase} {deed}");
        let sent = upstream.last_request().await["headers"].to_string();
        assert!(!sent.contains("x-forbidden"), "{phase} {deed}: {sent}");
        let filter = format!("filter=\"{phase}-{deed}\"");
        let kind = format!("kind=\"{kind}\"");
        let failures = gateway
            .metric("weir_filter_failures_total", &[&filter, &kind])
            .await;
        assert_eq!(failures, 1.0, "{phase} {deed}");
    }
}

#[tokio::test]
async fn an_authorizer_that_fails_lets_nobody_in() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let evil = Evil::new("door", "phase = \"authorize\"").lines("limits = { request_ms = 200 }");
    // Behind `auth` it would not be asked.
    let config = evil_config(upstream.address(), &[evil]).replace("\"auth\", ", "");
    let folder = folder_with(Guest::HostileAuth);
    let gateway = Gateway::start_in(folder, &config).await;
    assert_eq!(chat(&gateway).await.status, 200);
    for deed in ["trap", "loop", "panic"] {
        let answer = evil_chat(&gateway, deed).await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (503, "filter_unavailable"),
            "{deed}"
        );
    }
    let answer = evil_chat(&gateway, "respond").await;
    assert_eq!((answer.status, &*answer.code()), (403, "not_you"));
    assert_eq!(upstream.chats().await, 1, "nothing of it went upstream");

    const MODULE: &str = "module = \"evil.wasm\"\n";
    for (lines, reason) in [
        (
            "on_error = \"allow\"",
            "a filter that authorizes may not be skipped",
        ),
        ("role = \"auth\"\non_error = \"allow\"", "on_error"),
    ] {
        gateway.edit(|config| config.replace(MODULE, &format!("{MODULE}{lines}\n")));
        let (code, errors) = check(&gateway.config_file());
        assert!(
            code == 1 && errors.contains(reason),
            "{lines}: {code} {errors}"
        );
        gateway.edit(|config| config.replace(&format!("{lines}\n"), ""));
    }
}

#[tokio::test]
async fn a_fresh_instance_is_tried_where_the_config_says_so() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let filters = ["deny", "retry-fresh"].map(|policy| {
        Evil::new(
            policy,
            &format!(
                "phase = \"{}\"",
                if policy == "deny" {
                    "request"
                } else {
                    "affinity"
                }
            ),
        )
        .lines(&format!(
            "on_error = \"{policy}\"\nlimits = {{ request_ms = 200 }}"
        ))
    });
    let gateway = Gateway::start_in(
        folder_with(Guest::Hostile),
        &evil_config(upstream.address(), &filters),
    )
    .await;
    let failures = async |filter: &str| {
        gateway
            .metric(
                "weir_filter_failures_total",
                &[&format!("filter=\"{filter}\"")],
            )
            .await
    };
    let shown = gateway.admin_json("/filters").await;
    for policy in ["deny", "retry-fresh"] {
        assert_eq!(shown[policy]["on_error"], policy, "{shown}");
    }
    chat(&gateway).await;
    // Twice, and twice more below: the fifth failure would put it into quarantine.
    for _ in 0..2 {
        // The same instance serves again and again when requests come one after another.
        chat(&gateway).await;
        assert_eq!(
            evil_chat(&gateway, "affinity/trap-unless-fresh")
                .await
                .status,
            200
        );
    }
    assert!(
        failures("retry-fresh").await >= 1.0,
        "the first tries failed"
    );
    assert_eq!(
        evil_chat(&gateway, "affinity/trap").await.status,
        503,
        "and only one more try"
    );
    for _ in 0..20 {
        chat(&gateway).await;
    }
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(
            evil_chat(&gateway, "request/trap-unless-fresh")
                .await
                .status,
        );
        chat(&gateway).await;
    }
    assert!(
        statuses.contains(&503) && failures("deny").await >= 1.0,
        "{statuses:?}"
    );
}

#[tokio::test]
async fn what_keeps_failing_is_left_alone_and_tried_again() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let limits = "limits = { request_ms = 200 }";
    let filters = [
        Evil::new("strict", "phase = \"request\"").lines(limits),
        Evil::new("lenient", "phase = \"affinity\"")
            .lines(&format!("on_error = \"allow\"\n{limits}")),
    ];
    let gateway = Gateway::start_in(
        folder_with(Guest::Hostile),
        &evil_config(upstream.address(), &filters),
    )
    .await;
    let quarantined = async |filter: &str| {
        let metric = gateway
            .metric(
                "weir_filter_quarantined",
                &[&format!("filter=\"{filter}\"")],
            )
            .await;
        let stats = gateway.admin_json("/filters").await[filter]["stats"].clone();
        assert_eq!(stats["quarantined"], Value::Bool(metric > 0.0), "{stats}");
        metric > 0.0
    };
    for (filter, phase, left_alone) in [("lenient", "affinity", 200), ("strict", "request", 503)] {
        for _ in 0..4 {
            evil_chat(&gateway, &format!("{phase}/trap")).await;
        }
        assert!(
            !quarantined(filter).await,
            "{filter}: four failures are not enough"
        );
        assert_eq!(chat(&gateway).await.status, 200, "{filter}");
        evil_chat(&gateway, &format!("{phase}/trap")).await;
        assert!(quarantined(filter).await, "{filter}");
        let answer = chat(&gateway).await;
        assert_eq!(
            answer.status,
            left_alone,
            "{filter} in quarantine: {}",
            answer.text()
        );
        let labels = [&*format!("filter=\"{filter}\""), "kind=\"quarantined\""];
        assert!(
            gateway.metric("weir_filter_failures_total", &labels).await >= 1.0,
            "{filter}"
        );
        logged(&gateway, "filter put into quarantine").await;
        gateway
            .wait_for("a probe to close the breaker", async |gateway| {
                chat(gateway).await;
                !quarantined(filter).await
            })
            .await;
        assert_eq!(chat(&gateway).await.status, 200, "{filter}");
        assert_eq!(
            gateway.admin_json("/filters").await[filter]["stats"]["trips"],
            1
        );
    }
}

#[tokio::test]
async fn what_a_filter_says_is_heard_but_not_for_ever() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let evil = Evil::new("talker", "").lines("limits = { request_ms = 1000 }");
    let gateway = Gateway::start_in(
        folder_with(Guest::Hostile),
        &evil_config(upstream.address(), &[evil]),
    )
    .await;
    evil_chat(&gateway, "panic").await;
    logged(&gateway, "a hostile panic").await;
    let line = gateway
        .log()
        .lines()
        .find(|line| line.contains("a hostile panic"))
        .map(str::to_owned);
    let line = line.unwrap_or_default();
    assert!(line.contains("talker"), "with the filter's name: {line}");

    let began = Instant::now();
    for _ in 0..30 {
        assert_eq!(evil_chat(&gateway, "log-flood").await.status, 200);
    }
    let seconds = began.elapsed().as_secs() as usize + 1;
    logged(&gateway, "flood flood").await;
    let log = gateway.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("flood flood"))
        .count();
    assert!(
        lines <= 100 * (seconds + 1),
        "{lines} lines in {seconds} s of 60,000 written"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_loops_does_not_keep_the_process_from_draining() {
    let _guard = beside_others().await;
    let upstream = Simulated::with(Settings {
        tokens_per_second: 20.0,
        output_tokens: 30,
        ..Settings::default()
    })
    .await;
    let evil =
        Evil::new("looping", "").lines("limits = { request_ms = 400 }\non_error = \"allow\"");
    let mut gateway = Gateway::start_in(
        folder_with(Guest::Hostile),
        &evil_config(upstream.address(), &[evil]),
    )
    .await;
    let address = gateway.address();
    let mut streaming = caller::Caller::http1(address).await.unwrap();
    let mut stream = streaming
        .open(caller::chat("\"stream\":true"))
        .await
        .unwrap();
    assert!(caller::next_bytes(&mut stream).await.unwrap().is_some());
    let looping = async move {
        let mut caller = caller::Caller::http1(address).await?;
        caller
            .ask(caller::with_header(
                caller::chat(""),
                "x-evil",
                Some("loop"),
            ))
            .await
    };
    let looping = tokio::spawn(looping);
    gateway
        .wait_for("the loop to be under way or over", async |gateway| {
            let calls = gateway.metric("weir_requests_active", &[]).await;
            calls >= 2.0 || gateway.metric("weir_filter_failures_total", &[]).await > 0.0
        })
        .await;
    gateway.process().signal(Signal::TERM).unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = caller::next_bytes(&mut stream).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.ends_with("data: [DONE]\n\n"),
        "the stream is complete: {text}"
    );
    assert_eq!(
        looping.await.unwrap().unwrap().status,
        200,
        "the one that loops is answered too"
    );
    let status = gateway
        .process()
        .wait_for_exit(Duration::from_secs(20))
        .await
        .unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_stream_ends_with_an_error_of_the_filter_and_not_in_silence() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let filters = [
        Evil::new("strict", "phase = \"events\"").lines("limits = { event_ms = 200 }"),
        Evil::new("lenient", "phase = \"response-headers\"").lines("on_error = \"allow\""),
    ];
    let gateway = Gateway::start_in(
        folder_with(Guest::Hostile),
        &evil_config(upstream.address(), &filters),
    )
    .await;
    let stream = async |deed: &str| {
        let request = caller::with_header(caller::chat("\"stream\":true"), "x-evil", Some(deed));
        caller::send(gateway.address(), request).await
    };
    for deed in ["loop", "trap", "many-verdicts"] {
        let answer = stream(&format!("events/{deed}")).await;
        let text = answer.text();
        assert!(
            text.contains("filter_unavailable"),
            "{deed}: {} {text}",
            answer.status
        );
        assert!(
            !text.contains("\"stop\""),
            "{deed}: not as if it were complete: {text}"
        );
    }
    let answer = stream("response-headers/trap").await;
    assert!(
        answer.status == 200 && answer.text().ends_with("data: [DONE]\n\n"),
        "{}",
        answer.text()
    );
    assert!(stream("ok").await.text().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn what_it_must_not_import_is_refused_by_name() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let evil = Evil::new("evil", "").lines("limits = { request_ms = 200, init_ms = 500 }");
    let config = evil_config(upstream.address(), &[evil]);
    let gateway = Gateway::start_in(folder_with(Guest::Hostile), &config).await;
    let minimal = (
        "read_headers = [\"x-evil\"]",
        "read_headers = [\"x-evil\"], wasi = \"minimal\"",
    );
    let none = ("", "");
    let number = gateway.config_number().await;
    for (guest, grants, names) in [
        (Guest::Connects, minimal, &["wasi:sockets/tcp@0.2"][..]),
        (
            Guest::Connects,
            none,
            &["wasi:sockets/tcp@0.2", "wasi:clocks"][..],
        ),
        (Guest::HostileWasi, none, &["wasi:"][..]),
        (Guest::ImportsEnv, minimal, &["env"][..]),
    ] {
        gateway.edit(|config| config.replace(grants.0, grants.1));
        gateway.replace(EVIL, guest.bytes());
        let (code, errors) = check(&gateway.config_file());
        assert_eq!(code, 1, "{guest:?}");
        let answer = gateway.admin_post("/reload", "").await;
        assert_eq!(answer.status, 422, "{guest:?}: {}", answer.text());
        let rejected = gateway.admin_json("/config").await["rejected"].to_string();
        for name in names {
            assert!(errors.contains(name), "{guest:?}: {errors}");
            assert!(rejected.contains(name), "{guest:?}: {rejected}");
            logged(&gateway, name).await;
        }
        assert_eq!(
            chat(&gateway).await.status,
            200,
            "{guest:?}: the last good one serves"
        );
        assert_eq!(gateway.config_number().await, number);
        gateway.edit(|config| config.replace(grants.1, grants.0));
    }
    // The same as a component serves with the grant.
    gateway.edit(|config| config.replace(minimal.0, minimal.1));
    gateway.replace(EVIL, Guest::HostileWasi.bytes());
    let answer = gateway.admin_post("/reload", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(chat(&gateway).await.status, 200);
    assert_eq!(evil_chat(&gateway, "respond").await.code(), "teapot");
}

#[tokio::test]
async fn a_filter_that_cannot_begin_never_serves() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let evil = Evil::new("evil", "phase = \"request\"").lines("limits = { init_ms = 500 }");
    let gateway = Gateway::start_in(
        folder_with(Guest::Hostile),
        &evil_config(upstream.address(), &[evil]),
    )
    .await;
    for (deed, reason) in [
        ("loop", "deadline"),
        ("trap", "trap"),
        ("grow", "memory"),
        ("panic", "trap"),
    ] {
        gateway.edit(|config| {
            config.replace("phase = \"request\"", &format!("at_start = \"{deed}\""))
        });
        let answer = gateway.admin_post("/reload", "").await;
        let text = answer.text();
        assert!(
            answer.status == 422 && text.contains("filters.evil") && text.contains(reason),
            "{deed}: {text}"
        );
        assert_eq!(chat(&gateway).await.status, 200, "{deed}");
        gateway.edit(|config| {
            config.replace(&format!("at_start = \"{deed}\""), "phase = \"request\"")
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn good_filters_do_not_fail_on_a_busy_machine() {
    let _alone = alone().await;
    let upstream = Simulated::start().await;
    let config = ConfigText::new(&[upstream.address()]).text().replace(
        "limits = { request_ms = 2000, event_ms = 2000, init_ms = 10000 }\n",
        "",
    );
    let gateway = Gateway::start(&config).await;
    // More work than cores: whoever is in a call loses its core again and again.
    let over = Arc::new(AtomicBool::new(false));
    let spinning: Vec<_> = (0..8)
        .map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || while !over.load(Ordering::Relaxed) {})
        })
        .collect();
    let report = load(&gateway, Stop::Duration(Duration::from_secs(8))).await;
    over.store(true, Ordering::Relaxed);
    spinning
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(report.failed, 0, "{:?}", report.failures);
    let failures = gateway.metric("weir_filter_failures_total", &[]).await;
    assert_eq!(failures, 0.0, "of {} requests", report.requests);
}
