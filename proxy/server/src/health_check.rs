//! Active health checks: each backend of a cluster with `health` is asked at its interval.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use pingora::http::RequestHeader;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use weir_config::HealthTable;
use weir_routing::Member;

use crate::members::Target;
use crate::runtime::Runtime;
use crate::snapshot::Upstream;

/// How often is looked whose turn it is.
const TICK: Duration = Duration::from_millis(100);

/// Probes until the process ends; follows the live snapshot.
pub(crate) async fn run(runtime: Arc<Runtime>) {
    let mut due: HashMap<(Arc<str>, Arc<str>), Instant> = HashMap::new();
    let mut probes = JoinSet::new();
    loop {
        tokio::time::sleep(TICK).await;
        while probes.try_join_next().is_some() {}
        let snapshot = runtime.snapshot();
        let now = Instant::now();
        let mut living = HashMap::new();
        for upstream in snapshot.upstreams.values() {
            let Some(health) = &upstream.table.health else {
                continue;
            };
            let members = upstream.members(&runtime);
            for (candidate, target) in members.cluster.backends().iter().zip(&members.targets) {
                let id = (
                    Arc::clone(&upstream.name),
                    Arc::clone(candidate.backend.id()),
                );
                let next = due.get(&id).copied().unwrap_or(now);
                let next = if next <= now {
                    probes.spawn(probe(
                        Arc::clone(&runtime),
                        Arc::clone(upstream),
                        candidate.clone(),
                        target.clone(),
                        health.clone(),
                    ));
                    now + Duration::from_millis(health.interval_ms)
                } else {
                    next
                };
                living.insert(id, next);
            }
        }
        due = living;
    }
}

async fn probe(
    runtime: Arc<Runtime>,
    upstream: Arc<Upstream>,
    candidate: Member,
    target: Target,
    health: HealthTable,
) {
    let limit = Duration::from_millis(health.timeout_ms);
    let ok = timeout(limit, ask(&runtime, &upstream, &target, &health.path))
        .await
        .unwrap_or(false);
    let change = candidate
        .backend
        .on_probe(ok, health.healthy_after, health.unhealthy_after);
    if let Some(standing) = change {
        tracing::info!(cluster = %upstream.name, backend = %candidate.backend.id(), ?standing, "backend health changed");
    }
}

/// Whether the backend answers the path with 2xx. Connections are not kept: a probe also asks
/// whether new ones are accepted.
async fn ask(runtime: &Runtime, upstream: &Upstream, target: &Target, path: &str) -> bool {
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
        session.write_request_header(Box::new(head)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let ok = session
            .response_header()
            .is_some_and(|head| head.status.is_success());
        session.shutdown().await;
        Ok::<bool, Box<pingora::Error>>(ok)
    };
    asked.await.unwrap_or(false)
}
