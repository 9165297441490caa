//! The walk's conditions: which filters a phase is not worth a call to.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderMap, Method};
use weir_dialect::Api;

use super::*;
use crate::attributes::Attributes;
use crate::facts::{SessionKey, SessionSource, Transport};
use crate::filter::Answer;
use crate::ledger::Ledger;
use crate::verdict::Summary;
use crate::view::RequestView;

/// Counts the calls of the conditional phases and passes everything.
struct Counting {
    name: Arc<str>,
    phases: Phases,
    affinities: AtomicU32,
    heads: AtomicU32,
}

impl Filter for Counting {
    fn name(&self) -> &Arc<str> {
        &self.name
    }
    fn phases(&self) -> Phases {
        self.phases
    }
    fn on_error(&self) -> OnError {
        OnError::Deny
    }
    fn request_headers(&self, facts: Box<Facts>) -> PhaseCall<'_, Outcome> {
        PhaseCall::Done((facts, Ok(Outcome::Pass)))
    }
    fn authorize(&self, facts: Box<Facts>) -> PhaseCall<'_, Decision> {
        PhaseCall::Done((facts, Ok(Decision::Abstain)))
    }
    fn request(&self, facts: Box<Facts>) -> PhaseCall<'_, Outcome> {
        PhaseCall::Done((facts, Ok(Outcome::Pass)))
    }
    fn affinity(&self, facts: Box<Facts>) -> PhaseCall<'_, Option<Affinity>> {
        self.affinities.fetch_add(1, Relaxed);
        PhaseCall::Done((facts, Ok(None)))
    }
    fn route(&self, facts: Box<Facts>, _: u64) -> PhaseCall<'_, Choice> {
        PhaseCall::Done((facts, Ok(Choice::Abstain)))
    }
    fn response_headers(&self, facts: Box<Facts>) -> PhaseCall<'_, Outcome> {
        self.heads.fetch_add(1, Relaxed);
        PhaseCall::Done((facts, Ok(Outcome::Pass)))
    }
    fn events(&self, facts: Box<Facts>, _: &[StreamEvent]) -> Answer<Vec<EventVerdict>> {
        (facts, Ok(Vec::new()))
    }
    fn complete(&self, _: &[Summary]) {}
    fn tick(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

/// Private bytes by filter.
type Scratch<'a> = &'a [(&'a str, &'a str)];

fn facts(session_keys: Vec<SessionKey>, scratch: Scratch<'_>) -> Box<Facts> {
    let private = |(name, bytes): &(&str, &str)| (Arc::from(*name), bytes.as_bytes().to_vec());
    Box::new(Facts {
        id: 1,
        request_id: "r".into(),
        transport: Transport::Http1,
        received_unix_ms: 0,
        view: RequestView::new(Api::ChatCompletions),
        method: Method::POST,
        path: String::new(),
        query: None,
        headers: HeaderMap::new(),
        edited_headers: Vec::new(),
        peer: None,
        sni: None,
        body: Bytes::new(),
        body_edited: false,
        messages: 0,
        inputs: 0,
        session_keys,
        principal: None,
        routing_key: "".into(),
        model: "".into(),
        settings: None,
        attributes: Attributes::default(),
        scratch: scratch.iter().map(private).collect(),
        candidates: None,
        affinity: None,
        session: weir_routing::Session::Unknown,
        excluded: Vec::new(),
        response: None,
        ledger: Arc::new(Ledger::default()),
        filter_ns: 0,
    })
}

/// None of the fakes suspends.
fn now<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("a fake has suspended"),
    }
}

#[test]
fn conditional_phases_are_called_only_where_they_can_matter() {
    let key = || SessionKey {
        source: SessionSource::SessionHeader,
        value: "s".into(),
        hash: 7,
    };
    // Conditional or not, a key candidate or none, whose private bytes; calls of each phase.
    let table: [(bool, bool, Scratch<'_>, (u32, u32)); 7] = [
        (false, false, &[], (1, 1)),
        (true, false, &[], (0, 0)),
        (true, true, &[], (1, 0)),
        (true, false, &[("mine", "x")], (0, 1)),
        (true, false, &[("other", "x")], (0, 0)),
        (true, false, &[("other", "x"), ("mine", "")], (0, 0)),
        (true, true, &[("other", "x"), ("mine", "x")], (1, 1)),
    ];
    for (conditional, has_key, scratch, expected) in table {
        let filter = Arc::new(Counting {
            name: "mine".into(),
            phases: Phases {
                affinity: true,
                response_headers: true,
                affinity_by_session_key: conditional,
                response_headers_after_scratch: conditional,
                ..Phases::default()
            },
            affinities: AtomicU32::new(0),
            heads: AtomicU32::new(0),
        });
        let chain = Chain::new("p", vec![filter.clone()]);
        let keys = if has_key { vec![key()] } else { Vec::new() };
        let (facts, affinity) = now(chain.affinity(facts(keys, scratch)));
        let (_, passed) = now(chain.response_headers(facts));
        let called = (filter.affinities.load(Relaxed), filter.heads.load(Relaxed));
        assert_eq!(called, expected, "{conditional} {has_key} {scratch:?}");
        assert_eq!((affinity, passed), (Ok(None), Ok(())));
        if conditional && has_key {
            let (_, again) = now(chain.affinity(self::facts(vec![key()], &[])));
            assert_eq!(again, Ok(None));
            assert_eq!(filter.affinities.load(Relaxed), 1, "asked again");
        }
    }
}
