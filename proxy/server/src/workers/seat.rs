//! A worker in the pool of one model.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use pingora::protocols::Stream;
use tokio::sync::Notify;
use tokio::time::Instant;
use weir_routing::{Backend, Report};
use weir_tunnel::ModelStats;
use weir_tunnel::gateway::Tunnel;

use crate::upstream::IdleLinks;
use crate::workers::observed::Observer;

/// How long a stream waits for the next request at most: it holds one of the agent's, and one of
/// the model server's connections.
pub(crate) const STREAM_IDLE: Duration = Duration::from_secs(10);

/// One connection of one worker.
pub(crate) struct Link {
    /// What the worker calls itself; unique in its function.
    pub(crate) worker: Arc<str>,
    /// The function its token serves.
    pub(crate) function: Arc<str>,
    /// The token's name.
    pub(crate) token: Arc<str>,
    /// Program and version, as it says.
    pub(crate) agent: String,
    /// Of two connections of a worker the one with the greater epoch is the newer.
    pub(crate) epoch: u64,
    /// Streams to the model server.
    pub(crate) tunnel: Tunnel,
    /// Those that wait for the next request.
    pub(crate) idle: IdleLinks,
    /// It takes nothing new.
    pub(crate) draining: AtomicBool,
    /// When it was welcomed.
    pub(crate) since: Instant,
    /// Raised when the worker should hear at once of what goes on between it and this gateway.
    pub(crate) news: Arc<Notify>,
    /// What it said of itself last.
    pub(crate) said: Mutex<Said>,
}

/// What a worker says of itself as a whole.
#[derive(Clone, Default)]
pub(crate) struct Said {
    /// Where it is.
    pub(crate) region: String,
    /// Its capacity domain; empty: itself.
    pub(crate) domain: String,
    /// Its models.
    pub(crate) models: Vec<SaidModel>,
}

/// What a worker says of one of its models.
#[derive(Clone)]
pub(crate) struct SaidModel {
    pub(crate) name: String,
    /// As operators read it.
    pub(crate) status: &'static str,
    pub(crate) stats: ModelStats,
}

/// A worker as it serves one model.
pub(crate) struct Seat {
    /// The connection.
    pub(crate) link: Arc<Link>,
    /// Capacity domain it counts among.
    pub(crate) domain: Arc<str>,
    /// What goes on between it and this gateway.
    pub(crate) observer: Arc<Observer>,
    report: Mutex<Option<Report>>,
    backend: ArcSwapOption<Backend>,
}

impl Link {
    /// Where it dialled from.
    pub(crate) fn address(&self) -> SocketAddr {
        self.tunnel.address()
    }

    /// It takes nothing new, and waits for nothing that only waits itself.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Relaxed);
        self.idle.sweep(Duration::ZERO);
    }

    /// Keeps a stream for the next request.
    pub(crate) fn keep(&self, stream: Stream) {
        self.idle.keep(stream);
        if self.is_draining() {
            self.idle.sweep(Duration::ZERO);
        }
    }

    /// Whether it says that it ends.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}

impl Seat {
    /// A worker that has just said that it serves a model.
    pub(crate) fn new(link: Arc<Link>, domain: &str) -> Self {
        Self {
            observer: Arc::new(Observer::new(Arc::clone(&link.news))),
            link,
            domain: domain.into(),
            report: Mutex::new(None),
            backend: ArcSwapOption::empty(),
        }
    }

    /// Takes what the worker says of its load.
    pub(crate) fn report(&self, report: Report, now_ms: u64) {
        self.observer.learn_rate(report.input_tps);
        if let Some(backend) = &*self.backend.load() {
            backend.report(&report, now_ms);
            backend.record_rtt_us(self.rtt_us());
        }
        *self.report.lock() = Some(report);
    }

    /// From now on reports go to this backend.
    pub(crate) fn attach(&self, backend: &Arc<Backend>, now_ms: u64) {
        let known = self.backend.load();
        if known
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, backend))
        {
            return;
        }
        self.backend.store(Some(Arc::clone(backend)));
        if let Some(report) = &*self.report.lock() {
            backend.report(report, now_ms);
        }
        backend.record_rtt_us(self.rtt_us());
    }

    fn rtt_us(&self) -> u64 {
        u64::try_from(self.link.tunnel.rtt().as_micros()).unwrap_or(u64::MAX)
    }
}
