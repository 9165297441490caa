//! What the tasks of an agent know together: health, models, load, and whether it drains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use weir_tunnel::{Heartbeat, Model, Observed, Status};

use crate::counters::Counters;
use crate::engine_metrics::EngineFigures;
use crate::load::Load;
use crate::settings::{Settings, StartRate};

/// Whether the model server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Unknown,
    Yes,
    No,
}

/// The worker as its tasks share it.
pub(crate) struct Worker {
    pub(crate) settings: Settings,
    pub(crate) counters: Counters,
    /// Streams that may still be carried.
    pub(crate) streams: Arc<Semaphore>,
    /// Somebody saw the model server fail: it should be asked now.
    pub(crate) doubt: Notify,
    began: Instant,
    state: Mutex<State>,
    health: watch::Sender<Answers>,
    models: watch::Sender<BTreeSet<String>>,
    /// Moves when gateways should hear of something at once.
    news: watch::Sender<u64>,
    /// Moves when a gateway has told of its requests.
    observations: watch::Sender<u64>,
    epoch: AtomicU64,
}

struct State {
    load: Load,
    /// Whether the input rate is known, by whatever means.
    rated: bool,
    drain: Option<Instant>,
}

impl Worker {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut load = Load::new(settings.slots);
        let models: BTreeSet<String> = settings.models.iter().cloned().collect();
        load.keep(&models);
        let rated = match settings.start_rate {
            StartRate::Given(rate) => {
                load.start_with(rate, "configured");
                true
            }
            StartRate::Calibrate => false,
        };
        Self {
            counters: Counters::default(),
            streams: Arc::new(Semaphore::new(settings.streams_max)),
            doubt: Notify::new(),
            began: Instant::now(),
            state: Mutex::new(State {
                load,
                rated,
                drain: None,
            }),
            health: watch::Sender::new(Answers::Unknown),
            models: watch::Sender::new(models),
            news: watch::Sender::new(0),
            observations: watch::Sender::new(0),
            epoch: AtomicU64::new(0),
            settings,
        }
    }

    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    pub(crate) fn observations(&self) -> watch::Receiver<u64> {
        self.observations.subscribe()
    }

    pub(crate) fn health(&self) -> watch::Receiver<Answers> {
        self.health.subscribe()
    }

    pub(crate) fn models(&self) -> watch::Receiver<BTreeSet<String>> {
        self.models.subscribe()
    }

    pub(crate) fn set_health(&self, answers: Answers) {
        let changed = |now: &mut Answers| std::mem::replace(now, answers) != answers;
        if self.health.send_if_modified(changed) {
            tracing::info!(?answers, "the health of the model server has changed");
            self.tell();
        }
    }

    pub(crate) fn set_models(&self, models: BTreeSet<String>) {
        self.state.lock().load.keep(&models);
        let changed = self.models.send_if_modified(|now| {
            let changed = *now != models;
            *now = models;
            changed
        });
        if changed {
            tracing::info!(models = ?*self.models.borrow(), "the models have changed");
            self.tell();
        }
    }

    pub(crate) fn set_start_rate(&self, rate: f64) {
        {
            let mut state = self.state.lock();
            state.load.start_with(rate, "calibration");
            state.rated = true;
        }
        self.tell();
    }

    /// Begins to drain. Every gateway hears of it.
    pub(crate) fn drain(&self) {
        let until = Instant::now() + self.settings.drain_timeout;
        self.state.lock().drain.get_or_insert(until);
        self.tell();
    }

    /// When the drain is over at the latest; `None` while there is none.
    pub(crate) fn drains_until(&self) -> Option<Instant> {
        self.state.lock().drain
    }

    fn tell(&self) {
        self.news.send_modify(|news| *news += 1);
    }

    pub(crate) fn observe(&self, gateway: &str, observed: Observed) {
        let now = self.began.elapsed();
        self.state.lock().load.observe(gateway, observed, now);
        self.observations.send_modify(|count| *count += 1);
    }

    /// How long each model's queue takes, milliseconds.
    pub(crate) fn queues_ms(&self) -> BTreeMap<String, f64> {
        self.state.lock().load.queues_ms()
    }

    pub(crate) fn forget(&self, gateway: &str) {
        self.state.lock().load.forget(gateway);
        self.observations.send_modify(|count| *count += 1);
    }

    pub(crate) fn measure(&self, figures: &BTreeMap<String, EngineFigures>) {
        let now = self.began.elapsed();
        self.state.lock().load.measure(figures, now);
    }

    pub(crate) fn stream_line(&self, line: &[u8]) -> Result<(), String> {
        let now = self.began.elapsed();
        self.state.lock().load.stream(line, now)
    }

    pub(crate) fn stream_ended(&self) {
        self.state.lock().load.stream_ended();
    }

    /// The whole state as gateways hear it.
    pub(crate) fn heartbeat(&self) -> Heartbeat {
        let models = self.models.borrow().clone();
        let answers = *self.health.borrow();
        let (now, unix_ms) = (self.began.elapsed(), unix().as_millis() as u64);
        let mut state = self.state.lock();
        state.load.expire(now);
        let status = match answers {
            _ if state.drain.is_some() => Status::Inactive,
            Answers::No => Status::Inactive,
            Answers::Yes if state.rated => Status::Active,
            Answers::Yes | Answers::Unknown => Status::Unknown,
        };
        let model = |name: String| {
            let model = Model {
                status: status.into(),
                stats: Some(state.load.stats(&name, now, unix_ms)),
            };
            (name, model)
        };
        Heartbeat {
            cluster_id: self.settings.cluster_id.clone(),
            region: self.settings.region.clone(),
            models: models.into_iter().map(model).collect(),
        }
    }

    /// The epoch of a new connection: the time, but always later than the one before.
    pub(crate) fn next_epoch(&self) -> u64 {
        let now = unix().as_micros() as u64;
        let later = |last: u64| Some(now.max(last + 1));
        let before = self
            .epoch
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, later)
            .unwrap_or_default();
        now.max(before + 1)
    }
}

/// Waits until the model server answers.
pub(crate) async fn answering(health: &mut watch::Receiver<Answers>) {
    if health
        .wait_for(|health| *health == Answers::Yes)
        .await
        .is_err()
    {
        // The worker is gone, and with it whoever waits.
        std::future::pending::<()>().await;
    }
}

fn unix() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
