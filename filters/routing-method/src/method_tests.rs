//! Tables of values for the methods that look at a whole fleet.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use weir_sdk::candidates::{Figure, Session};
use weir_sdk::testing::{self, Exchange, backend, load};
use weir_sdk::{Choice, LocalResponse, Principal, Route};

use crate::RoutingMethod;

fn method(config: &str) -> RoutingMethod {
    testing::filter(config).unwrap_or_else(|errors| panic!("{config}: {errors:?}"))
}

/// `count` equal candidates that work through 1,000 input tokens a second, and a request of 100.
fn fleet(count: u32) -> Exchange {
    let candidates = (0..count).map(|at| (backend(&format!("cluster-{at}"), 1), load(0)));
    let mut exchange = Exchange::new()
        .model("demo", "sim")
        .tokens(100, 0)
        .candidates(candidates);
    for at in 0..count {
        exchange.set_figure(at, Figure::InputTps, 1_000.0);
    }
    exchange
}

fn choose(filter: &RoutingMethod, exchange: &mut Exchange, key: &str) -> Choice {
    exchange.set_affinity_key(Some(key).filter(|key| !key.is_empty()));
    let hash = u64::from(!key.is_empty());
    let (view, routing) = (exchange.view(), exchange.routing(hash));
    exchange.run(|| filter.route(view, routing))
}

fn picked(filter: &RoutingMethod, exchange: &mut Exchange, key: &str) -> u32 {
    match choose(filter, exchange, key) {
        Choice::Pick(position) => position,
        other => panic!("nobody was picked: {other:?}"),
    }
}

fn refused(choice: Choice) -> LocalResponse {
    match choice {
        Choice::Reject(response) => response,
        other => panic!("{other:?}"),
    }
}

/// Sets the predicted times to the first byte, milliseconds.
fn ttfts(exchange: &mut Exchange, ms: &[f64]) {
    for (at, ms) in (0..).zip(ms) {
        exchange.set_figure(at, Figure::TtftUs, ms * 1e3);
    }
}

#[test]
fn power_of_two_compares_what_is_asked_for() {
    let table = [
        ("ttft", Figure::TtftUs),
        ("queue-time", Figure::QueueUs),
        ("input-work-seconds", Figure::InputWorkUs),
        ("utilization", Figure::Utilization),
        ("num-requests-queued", Figure::Queued),
    ];
    for (comparator, figure) in table {
        let filter = method(&format!(
            r#"{{"default":"power-of-n","power_of_two":{{"sample_count":3,"comparator":"{comparator}"}}}}"#
        ));
        let mut exchange = fleet(3);
        for (at, value) in [(0, 9.0), (1, 2.0), (2, 3.0)] {
            exchange.set_figure(at, figure, value);
        }
        for _ in 0..10 {
            assert_eq!(
                choose(&filter, &mut exchange, ""),
                Choice::Pick(1),
                "{comparator}"
            );
        }
    }
}

#[test]
fn groq_takes_the_first_bucket_and_widens_with_time() {
    let filter = method(r#"{"default":"groq_multiregion"}"#);
    // Buckets: 100..=120 and 200; the gap of 100 ms opens after 25 ms.
    let mut exchange = fleet(3);
    ttfts(&mut exchange, &[200.0, 100.0, 119.0]);
    for _ in 0..20 {
        assert_eq!(
            choose(&filter, &mut exchange, ""),
            Choice::Pick(1),
            "the least of the bucket"
        );
    }
    for at in [1, 2] {
        exchange.set_figure(at, Figure::Slots, 2.0);
        exchange.set_figure(at, Figure::Running, 2.0);
    }
    assert_eq!(
        choose(&filter, &mut exchange, ""),
        Choice::WaitMs(25),
        "no slot, one more bucket"
    );
    exchange.advance_ms(20);
    assert_eq!(choose(&filter, &mut exchange, ""), Choice::WaitMs(5));
    exchange.advance_ms(5);
    assert_eq!(choose(&filter, &mut exchange, ""), Choice::Pick(0));
    exchange.set_figure(0, Figure::Slots, 1.0);
    exchange.set_figure(0, Figure::Running, 1.0);
    assert_eq!(
        choose(&filter, &mut exchange, ""),
        Choice::WaitMs(25),
        "until a slot is free"
    );
    exchange.advance_ms(60_000);
    assert_eq!(
        refused(choose(&filter, &mut exchange, "")).error_code,
        "overloaded_error"
    );
}

#[test]
fn groq_drops_long_queues_by_the_time_passed() {
    let filter = method(
        r#"{"default":"groq_multiregion","groq_multiregion":{"max_queue_time_floor_ms":10,"max_queue_time_ceil_ms":110,"slo_ms":100}}"#,
    );
    let mut exchange = fleet(2);
    exchange.set_figure(0, Figure::QueueUs, 60_000.0);
    exchange.set_figure(1, Figure::QueueUs, 90_000.0);
    assert!(matches!(
        choose(&filter, &mut exchange, ""),
        Choice::WaitMs(_)
    ));
    exchange.advance_ms(50);
    assert_eq!(choose(&filter, &mut exchange, ""), Choice::Pick(0));
}

#[test]
fn the_time_for_a_first_token_is_what_trusted_callers_say() {
    let filter = method(
        r#"{"default":"groq_multiregion","expressions":"trusted","groq_multiregion":{"max_queue_time_floor_ms":10,"max_queue_time_ceil_ms":110,"slo_ms":100}}"#,
    );
    let mut exchange = fleet(2).header("x-request-slo-ms", "50");
    exchange.set_figure(0, Figure::QueueUs, 100_000.0);
    exchange.set_figure(1, Figure::QueueUs, 200_000.0);
    exchange.advance_ms(50);
    let waits =
        |exchange: &mut Exchange| matches!(choose(&filter, exchange, ""), Choice::WaitMs(_));
    assert!(waits(&mut exchange), "it is nobody's business");
    let mut caller = Principal::new("router", "acme");
    caller.scopes.push("routing".to_owned());
    exchange.set_principal(caller);
    assert_eq!(choose(&filter, &mut exchange, ""), Choice::Pick(0));
    exchange.set_header("x-request-slo-ms", "soon");
    assert!(waits(&mut exchange), "what is no number says nothing");
}

#[test]
fn groq_keeps_a_conversation_in_its_group_for_a_time() {
    let filter = method(
        r#"{"default":"groq_multiregion","groq_multiregion":{"cache_affinity_backend_selection_count":1,"cache_affinity_wait_ms":40}}"#,
    );
    let mut exchange = fleet(8);
    let home = picked(&filter, &mut exchange, "conversation");
    ttfts(&mut exchange, &[5.0; 8]);
    exchange.set_figure(home, Figure::TtftUs, 9e6);
    assert_eq!(
        choose(&filter, &mut exchange, "conversation"),
        Choice::Pick(home)
    );
    exchange.set_figure(home, Figure::Slots, 1.0);
    exchange.set_figure(home, Figure::Running, 1.0);
    assert_eq!(
        choose(&filter, &mut exchange, "conversation"),
        Choice::WaitMs(25)
    );
    exchange.set_session(Session::New);
    assert!(
        matches!(choose(&filter, &mut exchange, "conversation"), Choice::Pick(other) if other != home),
        "a new one has nothing to wait for"
    );
    exchange.set_session(Session::Returning((home + 1) % 8));
    assert_eq!(
        choose(&filter, &mut exchange, "conversation"),
        Choice::Pick((home + 1) % 8),
        "where it was last"
    );
    exchange.set_session(Session::Unknown);
    exchange.advance_ms(40);
    assert!(
        matches!(choose(&filter, &mut exchange, "conversation"), Choice::Pick(other) if other != home)
    );
}

#[test]
fn groq_leaves_a_group_that_would_answer_late() {
    let filter = method(
        r#"{"default":"groq_multiregion","groq_multiregion":{"cache_affinity_backend_selection_count":1,"cache_affinity_input_tokens_scale":0.5,"cache_affinity_ttft_penalty_ms":50}}"#,
    );
    let mut exchange = fleet(8);
    let home = picked(&filter, &mut exchange, "conversation");
    ttfts(&mut exchange, &[100.0; 8]);
    exchange.set_figure(home, Figure::PrefillUs, 40_000.0);
    for (home_ms, stays) in [(50.0, true), (170.0, true), (171.0, false)] {
        exchange.set_figure(home, Figure::TtftUs, home_ms * 1e3);
        let choice = choose(&filter, &mut exchange, "conversation");
        assert_eq!(choice == Choice::Pick(home), stays, "{home_ms}: {choice:?}");
        assert!(matches!(choice, Choice::Pick(_)), "{choice:?}");
    }
}

#[test]
fn pulsar_leaves_a_busy_first_and_a_late_one() {
    let filter = method(r#"{"default":"pulsar","pulsar":{"ttft_penalty_ms":50}}"#);
    let mut exchange = fleet(6);
    let first = picked(&filter, &mut exchange, "key");
    assert_eq!(choose(&filter, &mut exchange, "key"), Choice::Pick(first));
    exchange.set_figure(first, Figure::Running, 7.0);
    assert_eq!(
        choose(&filter, &mut exchange, "key"),
        Choice::Pick(first),
        "slots are assumed"
    );
    exchange.set_figure(first, Figure::Running, 8.0);
    let second = picked(&filter, &mut exchange, "key");
    assert_ne!(second, first, "above its share and its slots");
    exchange.set_figure(first, Figure::Running, 0.0);
    let without = r#"{"default":"pulsar","pulsar":{"c":0}}"#;
    exchange.set_figure(first, Figure::TtftUs, 151_000.0);
    assert_eq!(
        choose(&filter, &mut exchange, "key"),
        Choice::Pick(second),
        "later by 51 ms"
    );
    exchange.set_figure(first, Figure::Running, 1e6);
    assert_eq!(
        choose(&method(without), &mut exchange, "key"),
        Choice::Pick(first),
        "no bound"
    );
    exchange.set_session(Session::Returning(second));
    exchange.set_figure(first, Figure::Running, 0.0);
    assert_eq!(
        choose(&method(without), &mut exchange, "key"),
        Choice::Pick(second),
        "its last"
    );
}

#[test]
fn pulsar_puts_new_conversations_where_they_are_answered_sooner() {
    let filter = method(
        r#"{"default":"pulsar","pulsar":{"ttft_penalty_ms":500,"new_session_ttft_penalty_ms":50}}"#,
    );
    let mut exchange = fleet(6);
    let first = picked(&filter, &mut exchange, "key");
    let table = [
        (Session::Unknown, 400.0, true),
        (Session::Returning(first), 400.0, true),
        (Session::New, 40.0, true),
        (Session::New, 60.0, false),
        (Session::Stale, 60.0, false),
        (Session::Returning(first), 600.0, false),
    ];
    for (session, later_ms, stays) in table {
        exchange.set_session(session);
        exchange.set_figure(first, Figure::TtftUs, 100_000.0 + later_ms * 1e3);
        let choice = choose(&filter, &mut exchange, "key");
        assert_eq!(
            choice == Choice::Pick(first),
            stays,
            "{session:?} {later_ms}"
        );
    }
    let for_all = r#"{"default":"pulsar","pulsar":{"ttft_penalty_ms":500}}"#;
    exchange.set_session(Session::New);
    exchange.set_figure(first, Figure::TtftUs, 500_000.0);
    assert_eq!(
        choose(&method(for_all), &mut exchange, "key"),
        Choice::Pick(first)
    );
}

#[test]
fn pulsar_goes_down_the_order_as_far_as_it_has_to() {
    let filter = method(r#"{"default":"pulsar","pulsar":{"ttft_penalty_ms":50}}"#);
    let mut exchange = fleet(50);
    let mut order: Vec<u32> = Vec::new();
    for _ in 0..50 {
        let next = picked(&filter, &mut exchange, "key");
        assert!(!order.contains(&next), "{next} again after {order:?}");
        order.push(next);
        exchange.set_figure(next, Figure::TtftUs, 1e6);
    }
    for depth in [0, 5, 7, 8, 20, 31, 32, 40] {
        for at in [depth, depth + 7] {
            exchange.set_figure(order[at], Figure::TtftUs, 0.0);
        }
        let picked = choose(&filter, &mut exchange, "key");
        assert_eq!(picked, Choice::Pick(order[depth]), "{depth} of {order:?}");
        for at in [depth, depth + 7] {
            exchange.set_figure(order[at], Figure::TtftUs, 1e6);
        }
    }
}

#[test]
fn pulsar_looks_at_the_cache_when_asked() {
    let filter = method(r#"{"default":"pulsar","pulsar":{"consider_kv_free_tokens":true}}"#);
    let mut exchange = fleet(5);
    assert_eq!(
        refused(choose(&filter, &mut exchange, "key")).status,
        503,
        "nobody reports"
    );
    exchange.set_figure(3, Figure::KvFreeTokens, 100.0);
    exchange.set_figure(4, Figure::KvFreeTokens, 99.0);
    assert_eq!(choose(&filter, &mut exchange, "key"), Choice::Pick(3));
}

#[test]
fn pulsar_compat_is_the_ranking_and_nothing_else() {
    let filter = method(r#"{"default":"pulsar","pulsar":{"compat":true}}"#);
    let mut exchange = fleet(5);
    let first = choose(&filter, &mut exchange, "key");
    let Choice::Pick(position) = first else {
        panic!("{first:?}");
    };
    exchange.set_figure(position, Figure::Running, 1e6);
    assert_eq!(choose(&filter, &mut exchange, "key"), first, "no bound");
    let keyless = choose(&filter, &mut exchange, "");
    assert_eq!(choose(&filter, &mut exchange, ""), keyless, "all together");
    for at in 0..5 {
        exchange.set_figure(at, Figure::MaxInputTps, f64::from(u8::from(at == 2)));
    }
    assert_eq!(
        choose(&filter, &mut exchange, "key"),
        Choice::Pick(2),
        "no weight, no candidate"
    );
}

#[test]
fn keyless_requests_are_spread() {
    for name in ["pulsar", "pulsar_multiregion"] {
        let filter = method(&format!(r#"{{"default":"{name}"}}"#));
        let mut exchange = fleet(4);
        let mut counts = [0; 4];
        for _ in 0..400 {
            match choose(&filter, &mut exchange, "") {
                Choice::Pick(position) => counts[position as usize] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(counts.iter().all(|count| *count > 50), "{name} {counts:?}");
    }
}

#[test]
fn pulsar_multiregion_goes_down_the_ranking_in_bands() {
    let filter = method(
        r#"{"default":"pulsar_multiregion","pulsar_multiregion":{"cache_affinity_wait_ms":10}}"#,
    );
    let mut exchange = fleet(40);
    let first = picked(&filter, &mut exchange, "key");
    for at in 0..40 {
        exchange.set_figure(at, Figure::Slots, 1.0);
        exchange.set_figure(at, Figure::Running, 1.0);
    }
    assert_eq!(
        choose(&filter, &mut exchange, "key"),
        Choice::WaitMs(10),
        "the group alone"
    );
    exchange.advance_ms(10);
    assert_eq!(
        choose(&filter, &mut exchange, "key"),
        Choice::WaitMs(10),
        "the next band"
    );
    for at in (0..40).filter(|at| *at != first) {
        exchange.set_figure(at, Figure::Running, 0.0);
    }
    let mut found: Vec<u32> = (0..60)
        .map(|_| match choose(&filter, &mut exchange, "key") {
            Choice::Pick(position) => position,
            other => panic!("{other:?}"),
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    assert!(found.len() == 2 && !found.contains(&first), "{found:?}");
}

#[test]
fn retries_go_to_others_and_end() {
    for name in ["groq_multiregion", "pulsar", "pulsar_multiregion"] {
        let filter = method(&format!(r#"{{"default":"{name}"}}"#));
        let mut exchange = fleet(3).excluded(&[0, 2]);
        for _ in 0..10 {
            let mut found = choose(&filter, &mut exchange, "key");
            if matches!(found, Choice::WaitMs(_)) {
                exchange.advance_ms(20_000);
                found = choose(&filter, &mut exchange, "key");
            }
            assert_eq!(found, Choice::Pick(1), "{name}");
        }
    }
}

#[test]
fn requests_are_refused_by_what_the_model_needs() {
    let table = [
        (
            r#"{"require_cache_affinity_key":true}"#,
            400,
            "cache_affinity_key_required",
        ),
        (
            r#"{"max_input_work_seconds":0.04}"#,
            503,
            "input_work_limit_exceeded",
        ),
    ];
    for (config, status, code) in table {
        let response = refused(choose(&method(config), &mut fleet(2), ""));
        assert_eq!(
            (response.status, response.error_code.as_str()),
            (status, code)
        );
    }
    let needs_input = method(r#"{"require_input_tokens":true}"#);
    let mut empty = fleet(2).tokens(0, 0);
    let response = refused(choose(&needs_input, &mut empty, ""));
    assert_eq!(response.error_code, "input_tokens_required");
    let enough = method(r#"{"max_input_work_seconds":0.06}"#);
    assert!(matches!(
        choose(&enough, &mut fleet(2), ""),
        Choice::Pick(_)
    ));
}

#[test]
fn models_differ() {
    let filter = method(
        r#"{"default":"random","models":{"demo/*":{"default":"pulsar","seed":"x"},"demo/sim":"round_robin"}}"#,
    );
    let turns: Vec<Choice> = {
        let mut exchange = fleet(3);
        (0..3).map(|_| choose(&filter, &mut exchange, "")).collect()
    };
    assert_eq!(turns, [Choice::Pick(0), Choice::Pick(1), Choice::Pick(2)]);
    let mut other = fleet(8).model("demo", "big");
    let first = choose(&filter, &mut other, "key");
    assert!((0..20).all(|_| choose(&filter, &mut other, "key") == first));
    let errors = [
        (r#"{"models":{"a/b":"luck"}}"#, "/models/a~1b/default"),
        (
            r#"{"models":{"a/b":{"pulsar":{"c":0.5}}}}"#,
            "/models/a~1b/pulsar/c",
        ),
        (r#"{"models":{"a/b":{"pulsa":{}}}}"#, "/models/a~1b"),
        (
            r#"{"models":{"a/b":{"models":{"c/d":"random"}}}}"#,
            "/models/a~1b",
        ),
    ];
    for (config, pointer) in errors {
        let errors = testing::filter::<RoutingMethod>(config).err();
        let first = errors.map(|errors| errors[0].pointer.clone());
        assert_eq!(first.as_deref(), Some(pointer), "{config}");
    }
}

#[test]
fn trusted_requests_choose_their_method() {
    let trusted = method(r#"{"expressions":"trusted","request_algorithms":["pulsar"]}"#);
    let mut caller = Principal::new("router", "acme");
    let mut exchange = fleet(3).header("x-routing-method", "luck");
    assert!(
        matches!(choose(&trusted, &mut exchange, ""), Choice::Pick(_)),
        "no scope"
    );
    exchange.set_principal(caller.clone());
    assert!(
        matches!(choose(&trusted, &mut exchange, ""), Choice::Pick(_)),
        "no scope"
    );
    caller.scopes.push("routing".to_owned());
    exchange.set_principal(caller);
    for (expression, code) in [
        ("luck", "unknown_method"),
        ("random", "unavailable"),
        (",", "malformed_expression"),
    ] {
        exchange.set_header("x-routing-method", expression);
        let response = refused(choose(&trusted, &mut exchange, ""));
        assert_eq!((response.status, response.error_code.as_str()), (400, code));
    }
    exchange.set_header("x-routing-method", "pulsar;require_cache_affinity_key");
    let response = refused(choose(&trusted, &mut exchange, ""));
    assert_eq!(response.error_code, "cache_affinity_key_required");
    let deaf = method("{}");
    exchange.set_header("x-routing-method", "luck");
    assert!(
        matches!(choose(&deaf, &mut exchange, ""), Choice::Pick(_)),
        "not looked at"
    );
}
