//! Grants, keys, and claims that are settled exactly once.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use sha2::{Digest, Sha256};
use weir_config::{FilterLimits, Grants};
use weir_dialect::{Api, Usage};
use weir_pipeline::attributes::Attributes;
use weir_pipeline::facts::{Facts, Transport};
use weir_pipeline::intern::NameId;
use weir_pipeline::principal::Principal;
use weir_pipeline::view::RequestView;

use super::*;
use crate::bindings::weir::filter::{exchange, host, metrics, secrets};
use crate::guest_state::FilterIdentity;
use crate::key_table::{KeyEntry, KeyTable, KeyTables};
use crate::services::Services;

fn facts() -> Box<Facts> {
    let mut headers = HeaderMap::new();
    headers.insert("x-a", HeaderValue::from_static("1"));
    headers.insert("authorization", HeaderValue::from_static("Bearer s"));
    Box::new(Facts {
        id: 1,
        request_id: "r".into(),
        transport: Transport::Http1,
        received_unix_ms: 0,
        view: RequestView::new(Api::ChatCompletions),
        method: Method::POST,
        path: "/v1/chat/completions".into(),
        query: None,
        headers,
        edited_headers: Vec::new(),
        peer: None,
        sni: None,
        body: Bytes::from_static(br#"{"model":"f/m","a":{"b":[1,2]}}"#),
        body_edited: false,
        messages: 0,
        inputs: 0,
        session_keys: Vec::new(),
        principal: None,
        routing_key: "f".into(),
        model: "m".into(),
        settings: None,
        attributes: Attributes::default(),
        scratch: Vec::new(),
        candidates: None,
        affinity: None,
        session: weir_routing::Session::Unknown,
        excluded: Vec::new(),
        response: None,
        ledger: Arc::default(),
        filter_ns: 0,
    })
}

fn principal(tenant: &str, models: &[&str]) -> Arc<Principal> {
    Arc::new(Principal {
        id: NameId::NONE,
        subject: "s".into(),
        tenant: tenant.into(),
        plan: "p".into(),
        scopes: Vec::new(),
        models: models.iter().map(|model| (*model).to_owned()).collect(),
        priority: None,
    })
}

fn all() -> Grants {
    Grants {
        read_headers: vec!["*".into()],
        read_body: true,
        key_tables: vec!["keys".into()],
        limiters: true,
        stores: true,
        slots: true,
        ..Grants::default()
    }
}

fn state(name: &str, grants: Grants, services: &Arc<Services>) -> GuestState {
    let filter = FilterIdentity::new(name, grants, FilterLimits::default());
    let mut state = GuestState::new(Arc::new(filter), services.clone());
    state.enter(Some(facts()));
    state
}

fn services() -> Arc<Services> {
    Arc::new(Services::new(prometheus::Registry::new()))
}

fn hour(budget: u64) -> Vec<Window> {
    vec![Window {
        budget,
        seconds: 3600,
    }]
}

fn left(state: &mut GuestState, at: u32) -> u64 {
    state
        .peek(at, Subject::default(), String::new())
        .unwrap()
        .remaining
}

#[test]
fn claims_are_settled_once_by_what_was_used() {
    let usage = Usage {
        input_tokens: 30,
        output_tokens: 5,
        ..Usage::default()
    };
    let used = Settlement::Used(usage);
    let table = [
        (Unit::InputTokens, used, 1000 - 30),
        (Unit::OutputTokens, used, 1000 - 5),
        (Unit::TotalTokens, used, 1000 - 35),
        (Unit::Requests, used, 1000 - 100),
        (Unit::TotalTokens, Settlement::Refund, 1000),
    ];
    for (unit, settlement, expected) in table {
        let services = services();
        let mut state = state("f", all(), &services);
        let at = state
            .open_limiter("l".into(), hour(1000), Scope::Local)
            .unwrap();
        assert!(!state.side_effects);
        let taken = state
            .reserve(at, Subject::default(), String::new(), 100, unit)
            .unwrap();
        assert!(matches!(
            taken,
            TakeResult::Granted(Granted {
                remaining: 900,
                limit: 1000,
                ..
            })
        ));
        assert!(state.side_effects);
        let facts = state.leave().unwrap();
        assert_eq!(facts.ledger.len(), 1);
        facts.ledger.settle(&settlement);
        facts.ledger.settle(&settlement);
        drop(facts);
        assert_eq!(left(&mut state, at), expected, "{unit:?} {settlement:?}");
        assert_eq!(services.limiters.stats().first().unwrap().open_holds, 0);
    }
}

#[test]
fn a_full_ledger_gives_the_reservation_back() {
    let mut state = state("f", all(), &services());
    let at = state
        .open_limiter("l".into(), hour(1000), Scope::Local)
        .unwrap();
    let mut reserve = || state.reserve(at, Subject::default(), String::new(), 1, Unit::Requests);
    let granted = (0..weir_pipeline::ledger::CLAIMS_MAX + 5)
        .filter(|_| reserve().is_ok())
        .count();
    assert_eq!(granted, weir_pipeline::ledger::CLAIMS_MAX);
    assert_eq!(left(&mut state, at), 1000 - granted as u64);
}

#[test]
fn refusals_name_the_window_and_take_nothing() {
    let mut state = state("f", all(), &services());
    let windows = vec![
        Window {
            budget: 500,
            seconds: 3600,
        },
        Window {
            budget: 10,
            seconds: 60,
        },
    ];
    let at = state
        .open_limiter("l".into(), windows, Scope::Local)
        .unwrap();
    let taken = state
        .take(at, Subject::default(), String::new(), 8)
        .unwrap();
    assert!(matches!(taken, TakeResult::Granted(_)));
    let refused = state
        .reserve(at, Subject::default(), String::new(), 3, Unit::Requests)
        .unwrap();
    assert!(
        matches!(
            refused,
            TakeResult::Limited(Limited {
                window: 1,
                limit: 10,
                ..
            })
        ),
        "{refused:?}"
    );
    assert!(state.current.as_ref().unwrap().ledger.is_empty());
    assert_eq!(left(&mut state, at), 2);
}

#[test]
fn budgets_that_granted_get_back_what_another_refused() {
    let units = [
        Unit::Requests,
        Unit::TotalTokens,
        Unit::InputTokens,
        Unit::OutputTokens,
    ];
    for tight in units {
        let services = services();
        let mut state = state("f", all(), &services);
        let mut open = |unit: Unit| {
            let budget = if unit == tight { 9 } else { 1000 };
            let name = format!("{unit:?}");
            let at = state.open_limiter(name, hour(budget), Scope::Local);
            at.unwrap()
        };
        let opened = units.map(|unit| (unit, open(unit)));
        for (unit, at) in opened {
            let taken = state.reserve(at, Subject::default(), String::new(), 10, unit);
            let granted = matches!(taken.unwrap(), TakeResult::Granted(_));
            assert_eq!(granted, unit != tight);
        }
        let facts = state.leave().unwrap();
        facts.ledger.settle(&Settlement::Refund);
        for (unit, at) in opened {
            let budget = if unit == tight { 9 } else { 1000 };
            assert_eq!(left(&mut state, at), budget, "{unit:?}, {tight:?} refused");
        }
        for stats in services.limiters.stats() {
            assert_eq!(stats.open_holds, 0, "{stats:?}");
            assert_eq!(stats.refunded, stats.reserved, "{stats:?}");
        }
    }
}

#[test]
fn every_dimension_goes_into_debt_and_out_of_it() {
    let usage = Usage {
        input_tokens: 700,
        output_tokens: 700,
        ..Usage::default()
    };
    for unit in [Unit::InputTokens, Unit::OutputTokens, Unit::TotalTokens] {
        let mut state = state("f", all(), &services());
        let at = state
            .open_limiter("l".into(), hour(600), Scope::Local)
            .unwrap();
        let reserve = |state: &mut GuestState, estimate| {
            let taken = state.reserve(at, Subject::default(), String::new(), estimate, unit);
            matches!(taken.unwrap(), TakeResult::Granted(_))
        };
        assert!(reserve(&mut state, 100));
        let facts = state.leave().unwrap();
        facts.ledger.settle(&Settlement::Used(usage));
        state.enter(Some(facts));
        assert_eq!(left(&mut state, at), 0, "{unit:?}");
        assert!(!reserve(&mut state, 1), "{unit:?} in debt");
        let owed = if unit == Unit::TotalTokens { 800 } else { 100 };
        state
            .adjust(at, Subject::default(), String::new(), -owed)
            .unwrap();
        assert!(!reserve(&mut state, 1), "{unit:?}: the debt alone is paid");
        state
            .adjust(at, Subject::default(), String::new(), -1)
            .unwrap();
        assert!(reserve(&mut state, 1), "{unit:?}");
    }
}

#[test]
fn announced_reservations_leave_notices() {
    let mut state = state("f", all(), &services());
    let mut open = |name: &str, budget| {
        let at = state.open_limiter(name.into(), hour(budget), Scope::Local);
        at.unwrap()
    };
    let (told, quiet) = (open("told", 1000), open("quiet", 1000));
    let both = HeaderForms::X_RATELIMIT | HeaderForms::RATELIMIT;
    state
        .announce(told, Unit::OutputTokens, HeaderForms::RATELIMIT)
        .unwrap();
    state.announce(quiet, Unit::TotalTokens, both).unwrap();
    state
        .announce(quiet, Unit::TotalTokens, HeaderForms::default())
        .unwrap();
    assert_eq!(
        state.announce(99, Unit::Requests, both),
        Err(Failure::NotFound)
    );
    let mut reserve = |at, estimate, unit| {
        let taken = state.reserve(at, Subject::default(), String::new(), estimate, unit);
        taken.unwrap();
        let facts = state.current.as_deref().unwrap();
        facts.ledger.tell(|notices| {
            let notice = notices.iter().next().unwrap();
            assert_eq!(notice.of.dimension, Dimension::OutputTokens);
            assert!(notice.of.ratelimit && !notice.of.x_ratelimit);
            let refused = notice.refused_ms.is_some();
            (notice.limit, notice.remaining, notice.taken, refused)
        })
    };
    assert_eq!(reserve(quiet, 1, Unit::TotalTokens), None);
    assert_eq!(
        reserve(told, 400, Unit::OutputTokens),
        Some((1000, 600, 400, false))
    );
    assert_eq!(
        reserve(told, 900, Unit::OutputTokens),
        Some((1000, 600, 0, true))
    );
}

#[test]
fn slots_return_when_the_exchange_ends() {
    let services = services();
    let mut state = state("f", all(), &services);
    let acquire =
        |state: &mut GuestState| state.acquire_slot("s".into(), "k".into(), 1, Scope::Local);
    assert_eq!(acquire(&mut state), Ok(true));
    assert_eq!(acquire(&mut state), Ok(false));
    drop(state.leave());
    assert_eq!(services.slots.taken("f/s", "k"), 0);
    assert_eq!(
        acquire(&mut state),
        Err(Failure::Invalid),
        "outside of an exchange"
    );
}

#[test]
fn without_grants_everything_is_denied_or_absent() {
    let mut state = state("f", Grants::default(), &services());
    let denied = Failure::Denied;
    assert_eq!(
        state.open_limiter("l".into(), hour(1), Scope::Local),
        Err(denied)
    );
    assert_eq!(state.open_store("s".into(), Scope::Local), Err(denied));
    assert_eq!(
        state.acquire_slot("s".into(), "k".into(), 1, Scope::Local),
        Err(denied)
    );
    assert_eq!(
        secrets::Host::lookup_key(&mut state, "keys".into(), b"k".to_vec()).unwrap_err(),
        denied
    );
    assert_eq!(exchange::Host::body(&mut state, 0, 9), Err(denied));
    assert_eq!(exchange::Host::json(&mut state, "/model".into()), None);
    assert_eq!(exchange::Host::get_header(&mut state, "x-a".into()), None);
    assert!(exchange::Host::header_list(&mut state).is_empty());
    let id = host::Host::header_id(&mut state, "X-A".into());
    assert_eq!(exchange::Host::header_by_id(&mut state, id), None);
}

#[test]
fn with_grants_the_exchange_is_readable() {
    let mut state = state("f", all(), &services());
    assert_eq!(
        exchange::Host::json(&mut state, "/a/b/1".into()).as_deref(),
        Some("2")
    );
    assert_eq!(exchange::Host::json(&mut state, "/none".into()), None);
    assert_eq!(exchange::Host::body(&mut state, 2, 5).unwrap(), b"model");
    assert_eq!(exchange::Host::body(&mut state, 9999, 5).unwrap(), b"");
    let id = host::Host::header_id(&mut state, "X-A".into());
    let secret = host::Host::header_id(&mut state, "Authorization".into());
    let values = exchange::Host::headers_by_id(&mut state, vec![id, secret, 0, id]);
    assert_eq!(
        values,
        [Some(b"1".to_vec()), None, None, Some(b"1".to_vec())]
    );
    assert_eq!(exchange::Host::header_list(&mut state).len(), 1);
    assert!(exchange::Host::set_scratch(&mut state, vec![0; 5000]).is_err());
    exchange::Host::set_scratch(&mut state, vec![7]).unwrap();
    assert_eq!(exchange::Host::scratch(&mut state), [7]);
    state.leave();
    assert_eq!(exchange::Host::header_by_id(&mut state, id), None);
    assert_eq!(exchange::Host::method(&mut state), "");
}

#[test]
fn pure_calls_reach_nothing() {
    let mut state = state("f", all(), &services());
    state.pure = true;
    assert_eq!(
        state.open_limiter("l".into(), hour(1), Scope::Local),
        Err(Failure::Denied)
    );
    assert_eq!(
        state.open_store("s".into(), Scope::Local),
        Err(Failure::Denied)
    );
    assert_eq!(host::Host::intern(&mut state, "a".into()), 0);
    let defined = metrics::Host::define(
        &mut state,
        "m".into(),
        metrics::Kind::Gauge,
        String::new(),
        vec![],
        vec![],
    );
    assert!(defined.is_err());
}

#[test]
fn names_are_private_and_cluster_scopes_are_not_there() {
    let services = services();
    let (mut one, mut other) = (state("a", all(), &services), state("b", all(), &services));
    let (first, second) = (
        one.open_store("s".into(), Scope::Local).unwrap(),
        other.open_store("s".into(), Scope::Local).unwrap(),
    );
    assert_eq!(one.open_store("s".into(), Scope::Local), Ok(first));
    one.set(first, "k".into(), b"v".to_vec(), None).unwrap();
    assert!(other.get(second, "k".into()).unwrap().is_none());
    assert_eq!(
        one.compare_and_swap(first, "k".into(), 0, vec![], None),
        Err(Failure::Conflict)
    );
    assert_eq!(one.get(99, "k".into()).unwrap_err(), Failure::NotFound);
    assert_eq!(
        one.open_store("x/y".into(), Scope::Local),
        Err(Failure::Invalid)
    );
    assert_eq!(
        one.open_store("s".into(), Scope::ClusterExact),
        Err(Failure::Unavailable)
    );
}

#[test]
fn keys_tell_subjects_apart() {
    let key = |tenant: Option<&str>, model: &str, who, extra: &str| {
        let mut facts = facts();
        facts.principal = tenant.map(|tenant| principal(tenant, &[]));
        facts.model = model.into();
        let mut key = String::from("left over");
        state_key::compose(&mut key, who, extra, Some(&facts)).unwrap();
        key
    };
    let both = Subject::TENANT | Subject::MODEL;
    assert_eq!(key(Some("acme"), "m", both, ""), "t4:acmem1:m");
    assert_eq!(key(None, "m", both, "x"), "t-m1:mx1:x");
    assert_ne!(key(Some("-"), "m", both, ""), key(None, "m", both, ""));
    assert_ne!(
        key(Some("a"), "b:c", both, ""),
        key(Some("a:b"), "c", both, "")
    );
    assert_ne!(
        key(Some("am1"), "b", both, ""),
        key(Some("a"), "m1:b", both, "")
    );
    let long = key(None, &"m".repeat(1000), both, "");
    assert_eq!((long.len(), long.starts_with('#')), (65, true));
    assert!(state_key::compose(&mut String::new(), Subject::TENANT, "", None).is_none());
}

#[test]
fn key_lookups_find_principals_for_one_call() {
    let services = services();
    let entry = KeyEntry {
        sha256: Sha256::digest("k").into(),
        principal: principal("t", &["f/m"]),
    };
    services
        .key_tables
        .store(Arc::new(KeyTables::new(vec![KeyTable::new(
            "keys",
            vec![entry],
        )])));
    let mut state = state("f", all(), &services);
    let mut lookup =
        |key: &str| secrets::Host::lookup_key(&mut state, "keys".into(), key.into()).unwrap();
    assert!(lookup("wrong").is_none());
    let found = lookup("k").unwrap();
    assert!(found.restricted);
    let who = secrets::Host::principal_of(&mut state, found.who).unwrap();
    assert_eq!((who.tenant.as_str(), who.models.len()), ("t", 1));
    state.enter(Some(facts()));
    assert!(secrets::Host::principal_of(&mut state, found.who).is_none());
}
