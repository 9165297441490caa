//! One worker, from its hello to the loss of its connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use weir_tunnel::gateway::{Event, Events, Pending};
use weir_tunnel::{
    CloseCode, Draining, Heartbeat, ModelStats, NewsPace, Observed, RefusalCode, Refused, Status,
    Welcome,
};

use crate::runtime::Runtime;
use crate::snapshot::Snapshot;
use crate::upstream::IdleLinks;
use crate::workers::pool::Pool;
use crate::workers::registry::NotSeated;
use crate::workers::report::report;
use crate::workers::seat::{Link, STREAM_IDLE, Said, SaidModel, Seat};

/// Time for an answer to a hello to reach the agent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// So many heartbeats may stay away before a worker counts as silent, and no less than the time.
const HEARTBEATS_MISSED_MAX: u32 = 3;
const SILENCE_MIN: Duration = Duration::from_secs(4);
/// Most models of one worker; more are not served.
const MODELS_MAX: usize = 256;

/// Answers a hello and stays with the worker until it is gone.
pub(crate) async fn serve(runtime: Arc<Runtime>, gateway_id: Arc<str>, pending: Pending) {
    let address = pending.address();
    let admitted = match admit(&runtime, &pending) {
        Ok(admitted) => admitted,
        Err(refused) => {
            let (code, worker) = (refused.code(), &pending.hello().worker_id);
            tracing::warn!(%address, worker, reason = code.name(), "worker refused");
            runtime.metrics.workers.refused(code.name());
            _ = timeout(ANSWER_TIMEOUT, pending.refuse(refused)).await;
            return;
        }
    };
    let hello = pending.hello().clone();
    let workers = runtime.snapshot().config.workers.clone();
    let welcome = Welcome {
        version: 0,
        gateway_id: gateway_id.to_string(),
        heartbeat_ms: u32::try_from(workers.heartbeat_ms).unwrap_or(u32::MAX),
        peers: workers.peers.clone(),
    };
    let welcomed = timeout(ANSWER_TIMEOUT, pending.welcome(welcome)).await;
    let Ok(Ok((tunnel, events))) = welcomed else {
        tracing::debug!(%address, "a worker left before it was welcomed");
        return;
    };
    let link = Arc::new(Link {
        worker: hello.worker_id.as_str().into(),
        function: admitted.function,
        token: admitted.token,
        agent: format!("{} {}", hello.agent, hello.agent_version),
        epoch: hello.epoch,
        tunnel,
        idle: IdleLinks::default(),
        draining: AtomicBool::new(false),
        since: Instant::now(),
        news: Arc::default(),
        said: Mutex::default(),
    });
    if let Some(older) = runtime.workers.join(&link) {
        // Its streams break; what they carried is told to callers as any loss is.
        older.tunnel.close(
            CloseCode::Superseded,
            "a newer connection of this worker is there",
        );
    }
    tracing::info!(%address, worker = %link.worker, function = %link.function, token = %link.token, "worker joined");
    let session = Session {
        runtime: Arc::clone(&runtime),
        seats: HashMap::new(),
        token: hello.token,
        config: 0,
        peers: workers.peers,
        pace: NewsPace::new(),
        is_full: false,
        drains: false,
        heard: Instant::now(),
        beat: Duration::from_millis(workers.heartbeat_ms),
        link,
    };
    session.run(events).await;
}

/// Whose worker it is.
struct Admitted {
    function: Arc<str>,
    token: Arc<str>,
}

fn admit(runtime: &Runtime, pending: &Pending) -> Result<Admitted, Refused> {
    let hello = pending.hello();
    if runtime.is_draining() {
        return Err(Refused::new(
            RefusalCode::Draining,
            "the gateway is about to end",
        ));
    }
    let snapshot = runtime.snapshot();
    let owner = snapshot.worker_tokens.lookup(hello.token.as_bytes());
    let owner = owner.ok_or_else(|| {
        Refused::new(
            RefusalCode::Unauthenticated,
            "the token is not one of the gateway's [[workers.tokens]]",
        )
    })?;
    let (function, token) = (Arc::clone(&owner.tenant), Arc::clone(&owner.subject));
    let may_join = runtime
        .workers
        .may_join(&function, &hello.worker_id, hello.epoch);
    may_join.map_err(|error| {
        let code = match error {
            NotSeated::Superseded => RefusalCode::Superseded,
            NotSeated::Full => RefusalCode::Overloaded,
        };
        Refused::new(code, error.to_string())
    })?;
    Ok(Admitted { function, token })
}

struct Session {
    runtime: Arc<Runtime>,
    link: Arc<Link>,
    /// Where it sits, by model.
    seats: HashMap<String, (Arc<Pool>, Arc<Seat>)>,
    /// What it has shown, to be looked up again in the next configuration.
    token: String,
    /// The configuration in which it counted last.
    config: u64,
    /// Peers it was told of.
    peers: Vec<String>,
    /// Telling it before its time what goes on between it and this gateway.
    pace: NewsPace,
    /// That there is no room for one of its models was told.
    is_full: bool,
    /// It was told that this gateway ends.
    drains: bool,
    /// When it was heard last.
    heard: Instant,
    beat: Duration,
}

impl Session {
    async fn run(mut self, mut events: Events) {
        let mut ticks = interval(self.beat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let loss = loop {
            tokio::select! {
                event = events.next() => match event {
                    Event::Heartbeat(heartbeat) => self.beat(heartbeat),
                    Event::Draining(draining) => self.drain(&draining),
                    Event::Closed(loss) => break loss,
                },
                _ = ticks.tick() => self.tick().await,
                () = self.link.news.notified() => self.pace.hurry(),
                () = self.pace.due() => self.tell().await,
            }
        };
        for (pool, _) in self.seats.values() {
            pool.leave(&self.link);
        }
        self.runtime.workers.leave(&self.link);
        self.runtime.metrics.workers.left(loss.name());
        tracing::info!(worker = %self.link.worker, function = %self.link.function, reason = loss.name(), %loss, "worker left");
    }

    /// The worker's whole state: what it does not name it does not serve.
    fn beat(&mut self, heartbeat: Heartbeat) {
        self.heard = Instant::now();
        let domain = match heartbeat.cluster_id.as_str() {
            "" => self.link.worker.to_string(),
            domain => domain.to_owned(),
        };
        let unix_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            });
        let now_ms = self.runtime.now_ms();
        let mut said = Vec::new();
        let mut active = Vec::new();
        for (name, model) in heartbeat.models.into_iter().take(MODELS_MAX) {
            let status = model.status();
            let stats = model.stats.unwrap_or_default();
            if status == Status::Active && !self.link.is_draining() {
                self.serve_model(&name, &domain, &stats, unix_ms, now_ms);
                active.push(name.clone());
            }
            said.push(SaidModel {
                name,
                status: status_name(status),
                stats,
            });
        }
        self.stand_up(|name| !active.iter().any(|active| active == name));
        *self.link.said.lock() = Said {
            region: heartbeat.region,
            domain,
            models: said,
        };
    }

    fn serve_model(
        &mut self,
        name: &str,
        domain: &str,
        stats: &ModelStats,
        unix_ms: u64,
        now_ms: u64,
    ) {
        let pool = match self.seats.get(name) {
            Some((pool, _)) => Arc::clone(pool),
            None => match self.runtime.workers.announced(&self.link.function, name) {
                Some(pool) => pool,
                None => {
                    if !std::mem::replace(&mut self.is_full, true) {
                        tracing::warn!(worker = %self.link.worker, model = name, "the workers of the function serve as many models as they may");
                    }
                    return;
                }
            },
        };
        let seat = pool.seat(&self.link, domain);
        seat.report(report(stats, unix_ms), now_ms);
        self.seats.insert(name.to_owned(), (pool, seat));
    }

    /// Leaves the pools of the models for which `gone` holds.
    fn stand_up(&mut self, gone: impl Fn(&str) -> bool) {
        let link = &self.link;
        self.seats.retain(|name, (pool, _)| {
            let stays = !gone(name);
            if !stays {
                pool.leave(link);
            }
            stays
        });
    }

    fn drain(&mut self, draining: &Draining) {
        tracing::info!(worker = %self.link.worker, reason = draining.reason, "worker drains");
        self.link.drain();
        self.stand_up(|_| true);
    }

    /// Whether its token still serves its function.
    fn counts(&mut self, snapshot: &Snapshot) -> bool {
        if self.config == snapshot.number {
            return true;
        }
        self.config = snapshot.number;
        let owner = snapshot.worker_tokens.lookup(self.token.as_bytes());
        owner.is_some_and(|owner| {
            *owner.tenant == *self.link.function && *owner.subject == *self.link.token
        })
    }

    /// Tells the worker what goes on between it and this gateway.
    async fn tell(&mut self) {
        self.pace.told();
        let models = self.seats.iter();
        let models =
            models.filter_map(|(name, (_, seat))| Some((name.clone(), seat.observer.tell()?)));
        let observed = Observed {
            models: models.collect(),
        };
        // A tunnel that takes no message closes itself, which `events` tells.
        _ = self.link.tunnel.send_observed(observed).await;
    }

    async fn tick(&mut self) {
        self.link.idle.sweep(STREAM_IDLE);
        let silence = (self.beat * (HEARTBEATS_MISSED_MAX + 1)).max(SILENCE_MIN);
        if self.heard.elapsed() > silence {
            self.link
                .tunnel
                .close(CloseCode::Silent, "no heartbeat came");
            return;
        }
        let snapshot = self.runtime.snapshot();
        if !self.counts(&snapshot) {
            self.link
                .tunnel
                .close(CloseCode::Revoked, "the token does not count any more");
            return;
        }
        self.tell().await;
        let peers = &snapshot.config.workers.peers;
        if *peers != self.peers {
            self.peers.clone_from(peers);
            _ = self.link.tunnel.send_peers(peers.clone()).await;
        }
        if self.runtime.is_draining() && !self.drains {
            self.drains = true;
            let draining = Draining {
                reason: "the gateway is about to end".into(),
                timeout_ms: snapshot.config.server.drain_timeout_ms,
            };
            _ = self.link.tunnel.send_draining(draining).await;
        }
    }
}

/// A status as operators read it.
fn status_name(status: Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Inactive => "inactive",
        Status::Unknown => "unknown",
    }
}
