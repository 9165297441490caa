//! Active health checks: each endpoint of a cluster with `health` is asked at its interval. Of workers
//! their agents tell.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use pingora::http::RequestHeader;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use weir_config::HealthTable;
use weir_routing::Backend;

use crate::members::{Members, Target, Way};
use crate::runtime::Runtime;
use crate::snapshot::{Snapshot, Upstream};

/// How often is looked whose turn it is.
const TICK: Duration = Duration::from_millis(100);

/// Probes until the process ends; follows the live snapshot.
pub(crate) async fn run(runtime: Arc<Runtime>) {
    let mut due: HashMap<Endpoint, Instant> = HashMap::new();
    let mut probes = JoinSet::new();
    loop {
        tokio::time::sleep(TICK).await;
        while probes.try_join_next().is_some() {}
        let snapshot = runtime.snapshot();
        let now = Instant::now();
        let mut living = HashMap::new();
        for (id, asked) in endpoints(&runtime, &snapshot) {
            let Some(health) = &asked.upstream.table.health else {
                continue;
            };
            let mut next = due.get(&id).copied().unwrap_or(now);
            if next <= now {
                next = now + Duration::from_millis(health.interval_ms);
                let health = health.clone();
                probes.spawn(probe(Arc::clone(&runtime), asked, health));
            }
            living.insert(id, next);
        }
        due = living;
    }
}

/// Name of the cluster, and address.
type Endpoint = (Arc<str>, Arc<str>);

/// What a probe asks, and whom its answer is about.
struct Asked {
    upstream: Arc<Upstream>,
    members: Arc<Members>,
    /// Which of these.
    index: usize,
    /// The endpoint as the members of each model know it.
    backends: Vec<Arc<Backend>>,
}

/// Each endpoint once, however many models it serves beside workers.
fn endpoints(runtime: &Runtime, snapshot: &Snapshot) -> HashMap<Endpoint, Asked> {
    let mut found: HashMap<Endpoint, Asked> = HashMap::new();
    let mut seen = HashSet::new();
    for upstream in snapshot.all_upstreams() {
        if upstream.table.health.is_none() || !seen.insert(Arc::as_ptr(upstream)) {
            continue;
        }
        let members = upstream.members(runtime);
        let targets = members.targets.iter().enumerate();
        for (member, (index, target)) in members.cluster.backends().iter().zip(targets) {
            if matches!(target.way, Way::Tunnel(_)) {
                continue;
            }
            let id = (Arc::clone(&upstream.name), Arc::clone(member.backend.id()));
            let asked = found.entry(id).or_insert_with(|| Asked {
                upstream: Arc::clone(upstream),
                members: Arc::clone(&members),
                index,
                backends: Vec::new(),
            });
            // A model and a route to it are served by the same backends.
            let backend = &member.backend;
            if !asked
                .backends
                .iter()
                .any(|known| Arc::ptr_eq(known, backend))
            {
                asked.backends.push(Arc::clone(backend));
            }
        }
    }
    found
}

async fn probe(runtime: Arc<Runtime>, asked: Asked, health: HealthTable) {
    let Asked {
        upstream, backends, ..
    } = asked;
    let Some(target) = asked.members.targets.get(asked.index) else {
        return;
    };
    let limit = Duration::from_millis(health.timeout_ms);
    let answered = timeout(limit, ask(&runtime, &upstream, target, &health.path));
    let round_trip = answered.await.unwrap_or(None);
    let mut change = None;
    for backend in &backends {
        if let Some(round_trip) = round_trip {
            let us = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
            backend.record_rtt_us(us);
        }
        let (well, ill) = (health.healthy_after, health.unhealthy_after);
        let changed = backend.on_probe(round_trip.is_some(), well, ill);
        change = change.or(changed.map(|standing| (backend.id(), standing)));
    }
    if let Some((backend, standing)) = change {
        tracing::info!(cluster = %upstream.name, %backend, ?standing, "backend health changed");
    }
}

/// How long the backend takes to answer the path with 2xx, `None` if it does not. Connections are not
/// kept: a probe also asks whether new ones are accepted.
async fn ask(
    runtime: &Runtime,
    upstream: &Upstream,
    target: &Target,
    path: &str,
) -> Option<Duration> {
    let asked = async {
        let mut peer = target.peer.clone();
        // A pool of its own, never filled.
        peer.group_key = u64::MAX;
        let (mut session, _) = runtime.connector.get_http_session(&peer).await?;
        let mut head = RequestHeader::build("GET", path.as_bytes(), None)?;
        if upstream.table.http2 {
            let scheme = if upstream.table.tls.is_some() {
                "https"
            } else {
                "http"
            };
            let authority = target.authority.to_str().unwrap_or("localhost");
            if let Ok(uri) = format!("{scheme}://{authority}{path}").parse() {
                head.set_uri(uri);
            }
        } else {
            head.insert_header(HOST, target.authority.clone())?;
        }
        let begun = Instant::now();
        session.write_request_header(Box::new(head)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let round_trip = begun.elapsed();
        let ok = session
            .response_header()
            .is_some_and(|head| head.status.is_success());
        session.shutdown().await;
        Ok::<_, Box<pingora::Error>>(ok.then_some(round_trip))
    };
    asked.await.unwrap_or(None)
}
