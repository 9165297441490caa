//! What of a filter's request is sent, and once or several times.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use weir_config::{FilterLimits, Grants};

use super::*;
use crate::guest_state::FilterIdentity;
use crate::services::Services;

/// Answers with the path; `/never` is never answered, `/wait` when it is told to.
struct Echo {
    requests: AtomicUsize,
    told: Arc<Semaphore>,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            requests: AtomicUsize::new(0),
            told: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: "POST".into(),
            path_and_query: "/a".into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: 60_000,
            tls_only: false,
            share: None,
        }
    }
}

impl Outbound for Echo {
    fn send(&self, request: OutboundRequest) -> OutboundAnswer {
        self.requests.fetch_add(1, SeqCst);
        let told = self.told.clone();
        Box::pin(async move {
            match request.path_and_query.as_str() {
                "/never" => std::future::pending().await,
                "/long" => Err(OutboundError::TooLarge),
                _ if request.tls_only => Err(OutboundError::Plaintext),
                path => {
                    if path == "/wait" {
                        told.acquire().await.unwrap().forget();
                    }
                    Ok(OutboundResponse {
                        status: StatusCode::OK,
                        headers: request.headers,
                        body: Bytes::copy_from_slice(path.as_bytes()),
                        trailers: HeaderMap::from_iter([(
                            HeaderName::from_static("grpc-status"),
                            HeaderValue::from_static("0"),
                        )]),
                    })
                }
            }
        })
    }
}

fn services(echo: Option<Arc<Echo>>) -> Arc<Services> {
    let services = Arc::new(Services::new(prometheus::Registry::new()));
    if let Some(echo) = echo {
        assert!(services.outbound.set(echo).is_ok());
    }
    services
}

fn identity(sends_max: u32) -> Arc<FilterIdentity> {
    let grants = Grants {
        clusters: vec!["c".into(), "d".into()],
        ..Grants::default()
    };
    let limits = FilterLimits {
        sends_max,
        ..FilterLimits::default()
    };
    Arc::new(FilterIdentity::new("f", grants, limits))
}

fn guest(filter: &Arc<FilterIdentity>, services: &Arc<Services>) -> GuestState {
    let mut state = GuestState::new(filter.clone(), services.clone());
    state.may_suspend = true;
    state
}

fn request(path: &str, header: &str) -> Request {
    Request {
        path_and_query: path.into(),
        headers: vec![(header.into(), b"v".to_vec())],
        timeout_ms: 1,
        ..Request::default()
    }
}

#[tokio::test]
async fn sends_only_what_is_granted_and_well_formed() {
    let table = [
        ("c", "/a?b", "x-a", true, Ok(&b"/a?b"[..])),
        ("other", "/a", "x-a", true, Err(Failure::Denied)),
        ("c", "/a", "x-a", false, Err(Failure::WouldBlock)),
        ("c", "a", "x-a", true, Err(Failure::Invalid)),
        ("c", "/a b", "x-a", true, Err(Failure::Invalid)),
        ("c", "/a", "host", true, Err(Failure::Denied)),
        ("c", "/a", "te", true, Err(Failure::Denied)),
        ("c", "/a", "x a", true, Err(Failure::Invalid)),
        ("c", "/long", "x-a", true, Err(Failure::TooLarge)),
        ("c", "/never", "x-a", true, Err(Failure::Timeout)),
    ];
    let filter = identity(1);
    let unset = guest(&filter, &services(None))
        .send("c".into(), request("/a", "x-a"))
        .await;
    assert_eq!(unset.unwrap_err(), Failure::Unavailable);
    let mut state = guest(&filter, &services(Some(Arc::default())));
    for (cluster, path, header, may_suspend, expected) in table {
        state.enter(None);
        state.may_suspend = may_suspend;
        let answer = state.send(cluster.into(), request(path, header)).await;
        let sent = matches!(expected, Ok(_) | Err(Failure::TooLarge | Failure::Timeout));
        assert_eq!(state.side_effects, sent, "{path}");
        assert_eq!(
            answer.as_ref().map(|answer| &*answer.body).map_err(|e| *e),
            expected,
            "{path}"
        );
    }
    assert_eq!(state.filter.sends.available_permits(), 1);
}

#[tokio::test]
async fn trailers_come_back_and_tls_is_asked_for() {
    let filter = identity(1);
    let mut state = guest(&filter, &services(Some(Arc::default())));
    let answer = state.send("c".into(), Request::default()).await.unwrap();
    assert_eq!(answer.trailers, [("grpc-status".to_owned(), b"0".to_vec())]);
    let private = Request {
        tls_only: true,
        ..Request::default()
    };
    let answer = state.send("c".into(), private).await;
    assert_eq!(answer.unwrap_err(), Failure::Denied);
}

#[tokio::test]
async fn equal_requests_under_way_are_sent_once() {
    let echo = Arc::new(Echo::default());
    let (filter, services) = (identity(3), services(Some(echo.clone())));
    let mut asking = JoinSet::new();
    let mut ask = |cluster: &str, share: Option<&str>| {
        let mut state = guest(&filter, &services);
        let (cluster, share) = (cluster.to_owned(), share.map(str::to_owned));
        let request = Request {
            path_and_query: "/wait".into(),
            share,
            ..Request::default()
        };
        asking.spawn(async move { state.send(cluster, request).await.map(|answer| answer.body) });
    };
    for _ in 0..100 {
        ask("c", Some("token"));
    }
    ask("d", Some("token"));
    ask("c", Some("other token"));
    while echo.requests.load(SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    // Only what is sent counts: the three leave no room for one more.
    let mut state = guest(&filter, &services);
    let refused = state.send("c".into(), Request::default()).await;
    assert_eq!(refused.unwrap_err(), Failure::Unavailable);
    echo.told.add_permits(3);
    let answers = asking.join_all().await;
    assert_eq!(answers, vec![Ok(b"/wait".to_vec()); 102]);
    assert_eq!(echo.requests.load(SeqCst), 3);
    let long = Request {
        share: Some("s".repeat(257)),
        ..Request::default()
    };
    assert_eq!(
        state.send("c".into(), long).await.unwrap_err(),
        Failure::TooLarge
    );
}
