//! Guests that do what filters should not, and the pool around them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "tests"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use weir_config::{FilterLimits, FilterTable, OnError};
use weir_pipeline::facts::Facts;
use weir_pipeline::filter::{Filter, PhaseCall};
use weir_pipeline::verdict::{FailureKind, FilterFailure, Outcome, StreamEvent};

use crate::capability::http_client::{Outbound, OutboundAnswer, OutboundRequest, OutboundResponse};
use crate::filter::WasmFilter;
use crate::module::LoadError;
use crate::prepare::PrepareError;
use crate::test_guest::{Deed, facts, foreign_guest, guest, host, table};

fn filter(table: &FilterTable) -> Arc<WasmFilter> {
    let host = host();
    let module = host.load(&guest(false)).unwrap();
    host.prepare("f", &module, table).unwrap()
}

fn request(filter: &WasmFilter, deed: Deed) -> (Box<Facts>, Result<Outcome, FilterFailure>) {
    match filter.request(facts(deed)) {
        PhaseCall::Done(answer) => answer,
        PhaseCall::Suspended(_) => panic!("a filter without http-client suspends"),
    }
}

fn kind(filter: &WasmFilter, deed: Deed) -> Result<Outcome, FailureKind> {
    request(filter, deed).1.map_err(|failure| failure.kind)
}

#[test]
fn each_misdeed_has_its_kind_and_gives_the_exchange_back() {
    let filter = filter(&table());
    let table = [
        (Deed::Pass, Ok(Outcome::Pass)),
        (Deed::Loop, Err(FailureKind::Deadline)),
        (Deed::Grow, Err(FailureKind::Memory)),
        (Deed::Trap, Err(FailureKind::Trap)),
        (Deed::Edit, Err(FailureKind::ForbiddenEdit)),
        (Deed::Pass, Ok(Outcome::Pass)),
    ];
    for (deed, expected) in table {
        let (facts, result) = request(&filter, deed);
        assert_eq!(
            result.as_ref().map_err(|failure| failure.kind),
            expected.as_ref().map_err(|kind| *kind),
            "{result:?}"
        );
        assert_eq!(
            (facts.id, facts.view.body_bytes),
            (1, deed as u32),
            "the same exchange"
        );
        assert!(facts.headers.is_empty() && facts.filter_ns > 0);
    }
    let stats = filter.stats();
    assert_eq!(
        stats.failures.into_iter().collect::<Vec<_>>(),
        [
            ("deadline", 1),
            ("forbidden_edit", 1),
            ("memory", 1),
            ("trap", 1)
        ]
    );
    assert_eq!(
        (
            stats.phases["request"].calls,
            stats.pool_idle,
            stats.pool_live
        ),
        (6, 1, 1)
    );
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&filter.host.services().registry.gather())
        .unwrap();
    assert!(
        text.contains(r#"weir_filter_failures_total{filter="f",kind="deadline"} 1"#),
        "{text}"
    );
}

#[test]
fn bad_verdicts_are_failures_of_the_filter() {
    let filter = filter(&table());
    assert_eq!(
        kind(&filter, Deed::RespondBadly),
        Err(FailureKind::BadVerdict)
    );
    let PhaseCall::Done((_, choice)) = filter.route(facts(Deed::Pass), 0) else {
        panic!("suspended")
    };
    assert_eq!(
        choice.unwrap_err().kind,
        FailureKind::BadVerdict,
        "there is no candidate 7"
    );
    let event = StreamEvent {
        seq: 0,
        name: String::new(),
        data: Bytes::from_static(b"{}"),
        delta: String::new(),
        finish: false,
        usage: None,
    };
    let (_, verdicts) = filter.events(facts(Deed::Pass), &[event]);
    assert_eq!(verdicts.unwrap_err().kind, FailureKind::Deadline);
}

#[test]
fn edits_and_answers_need_grants() {
    let mut granted = table();
    granted.grants.write_headers = vec!["x-edit".into()];
    let (edited, result) = request(&filter(&granted), Deed::Edit);
    assert_eq!(result, Ok(Outcome::Pass));
    assert_eq!(edited.headers["x-edit"], "x-edit");
    let Ok(Outcome::Respond(response)) = kind(&filter(&granted), Deed::Respond) else {
        panic!("no response")
    };
    assert_eq!(response.status, StatusCode::FORBIDDEN);
    granted.grants.respond = false;
    assert_eq!(
        kind(&filter(&granted), Deed::Respond),
        Err(FailureKind::ForbiddenEdit)
    );
}

#[test]
fn retry_fresh_calls_once_more_on_a_new_instance() {
    let deny = filter(&table());
    assert_eq!(kind(&deny, Deed::Pass), Ok(Outcome::Pass));
    assert_eq!(kind(&deny, Deed::TrapUnlessFresh), Err(FailureKind::Trap));
    assert_eq!(
        kind(&deny, Deed::TrapUnlessFresh),
        Ok(Outcome::Pass),
        "the trapped instance is gone"
    );

    let retry = filter(&FilterTable {
        on_error: OnError::RetryFresh,
        ..table()
    });
    assert_eq!(kind(&retry, Deed::Pass), Ok(Outcome::Pass));
    assert_eq!(kind(&retry, Deed::TrapUnlessFresh), Ok(Outcome::Pass));
    assert_eq!(
        kind(&retry, Deed::Trap),
        Err(FailureKind::Trap),
        "but only once"
    );
    assert_eq!(retry.stats().failures["trap"], 3);
}

#[test]
fn instances_are_replaced_by_calls_and_by_memory() {
    let limits = FilterLimits {
        calls_max: 2,
        memory_bytes: 600 << 10,
        ..table().limits
    };
    let filter = filter(&FilterTable { limits, ..table() });
    let live = || (filter.stats().pool_live, filter.meters.started.get());
    assert_eq!(live(), (1, 1), "warm");
    assert_eq!(kind(&filter, Deed::Pass), Ok(Outcome::Pass));
    assert_eq!(live(), (1, 1));
    assert_eq!(
        kind(&filter, Deed::TrapUnlessFresh),
        Err(FailureKind::Trap),
        "the second call of it"
    );
    assert_eq!(live(), (0, 1));
    assert_eq!(kind(&filter, Deed::GrowALittle), Ok(Outcome::Pass));
    assert_eq!(live(), (0, 2), "above three quarters of its memory");
    for started in [3, 3, 4] {
        assert_eq!(kind(&filter, Deed::Pass), Ok(Outcome::Pass));
        assert_eq!(filter.meters.started.get(), started, "two calls each");
    }
    filter.shrink();
    assert_eq!(filter.stats().pool_idle, 1);
}

#[test]
fn beyond_the_maximum_there_are_some_one_call_instances_and_no_more() {
    let limits = FilterLimits {
        instances_max: 1,
        ..table().limits
    };
    let filter = filter(&FilterTable { limits, ..table() });
    let mut leases: Vec<_> = (0..17).map(|_| filter.pool.take().unwrap()).collect();
    assert_eq!(kind(&filter, Deed::Pass), Err(FailureKind::PoolExhausted));
    assert_eq!(filter.breaker.trips(), 0);
    leases
        .drain(..)
        .for_each(|lease| lease.give_back(std::time::Instant::now()));
    assert_eq!((filter.stats().pool_idle, filter.stats().pool_live), (1, 1));
    assert_eq!(kind(&filter, Deed::Pass), Ok(Outcome::Pass));
}

#[test]
fn a_filter_that_keeps_failing_is_left_alone() {
    let filter = filter(&table());
    let trips = Arc::new(AtomicUsize::new(0));
    let counted = trips.clone();
    filter.host.on_trip(move |name| {
        assert_eq!(&**name, "f");
        counted.fetch_add(1, Relaxed);
    });
    for _ in 0..5 {
        assert_eq!(kind(&filter, Deed::Trap), Err(FailureKind::Trap));
    }
    assert_eq!(kind(&filter, Deed::Pass), Err(FailureKind::Quarantined));
    assert_eq!(
        (
            trips.load(Relaxed),
            filter.trips(),
            filter.stats().quarantined
        ),
        (1, 1, true)
    );
    assert_eq!(filter.stats().calls, 5);
}

#[test]
fn foreign_imports_are_refused_by_name() {
    let host = host();
    let module = host.load(&foreign_guest()).unwrap();
    match host.prepare("f", &module, &table()) {
        Err(PrepareError::Imports(names)) => assert_eq!(names, ["wasi:random/random@0.2.0"]),
        other => panic!("{:?}", other.err()),
    }
    assert!(matches!(
        host.load(b"\0asm\x0d\0\x01\0"),
        Err(LoadError::NoLifecycle)
    ));
    assert!(matches!(
        host.load(b"not wasm"),
        Err(LoadError::NotAComponent(_))
    ));
    assert!(matches!(
        host.load(b"\0asm\x01\0\0\0"),
        Err(LoadError::NotAComponent(_) | LoadError::NoLifecycle)
    ));
}

#[test]
fn the_same_bytes_are_one_module_while_it_is_used() {
    let host = host();
    let module = host.load(&guest(false)).unwrap();
    assert!(Arc::ptr_eq(&module, &host.load(&guest(false)).unwrap()));
    assert_eq!(module.exports, ["request", "route", "events"]);
    assert_eq!(module.sha256.len(), 64);
}

/// Answers after having been polled twice, or never.
struct Upstream {
    answers: bool,
}

impl Outbound for Upstream {
    fn send(&self, request: OutboundRequest) -> OutboundAnswer {
        assert_eq!((&*request.cluster, &*request.path_and_query), ("eu", "/"));
        let answers = self.answers;
        Box::pin(async move {
            tokio::task::yield_now().await;
            if !answers {
                std::future::pending::<()>().await;
            }
            Ok(OutboundResponse {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: Bytes::new(),
                trailers: HeaderMap::new(),
            })
        })
    }
}

fn sending(answers: bool) -> Arc<WasmFilter> {
    let host = host();
    drop(host.services().outbound.set(Arc::new(Upstream { answers })));
    let module = host.load(&guest(true)).unwrap();
    {
        let mut table = table();
        table.grants.clusters = vec!["eu".into()];
        host.prepare("f", &module, &table).unwrap()
    }
}

#[tokio::test]
async fn a_filter_that_sends_suspends_and_goes_on() {
    let filter = sending(true);
    for _ in 0..3 {
        let (facts, result) = filter.request(facts(Deed::Send)).answer().await;
        assert_eq!((facts.id, result), (1, Ok(Outcome::Pass)));
    }
    let (_, result) = filter.request(facts(Deed::Loop)).answer().await;
    assert_eq!(result.unwrap_err().kind, FailureKind::Deadline);
    // Without the grant it is answered at once, and by a filter that does not suspend.
    let host = host();
    let module = host.load(&guest(true)).unwrap();
    let denied = host.prepare("f", &module, &table()).unwrap();
    assert!(matches!(kind(&denied, Deed::Send), Ok(Outcome::Respond(_))));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_deadline_and_gives_the_exchange_back() {
    let filter = sending(false);
    let mut facts = facts(Deed::Send);
    facts.view.deadline_ms = 700;
    let (facts, result) = filter.request(facts).answer().await;
    assert_eq!(
        (facts.id, result.unwrap_err().kind),
        (1, FailureKind::Deadline)
    );
    assert_eq!(
        filter.stats().pool_live,
        1,
        "only the one that does not suspend"
    );
}

#[tokio::test]
async fn a_dropped_call_costs_its_instance_and_nothing_else() {
    let filter = sending(false);
    {
        let mut call = std::pin::pin!(filter.request(facts(Deed::Send)).answer());
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context)))
                .await;
        assert!(polled.is_pending());
        assert_eq!(filter.stats().pool_live, 2);
    }
    assert_eq!(filter.stats().pool_live, 1);
    assert!(filter.stats().failures.is_empty());
}
