//! The agent as a whole: its tasks, and its end.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::roster::Roster;
use crate::settings::{Settings, StartRate, StatsStream};
use crate::shutdown::Shutdown;
use crate::worker::Worker;
use crate::{admin, calibration, discovery, fleet, health, poll};

/// Runs an agent until `shutdown` drains or ends it. Must run inside a tokio runtime.
///
/// # Errors
/// When the admin address cannot be bound, or a stats stream is required and there is none.
pub async fn run(settings: Settings, shutdown: Shutdown) -> Result<(), Error> {
    let worker = Arc::new(Worker::new(settings));
    let roster = Arc::new(Roster::new(&worker.settings.gateways));
    let mut tasks = JoinSet::new();
    if let Some(address) = worker.settings.admin {
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|source| Error::Admin { address, source })?;
        tracing::info!(address = ?listener.local_addr(), "the admin address is open");
        let (worker, roster) = (Arc::clone(&worker), Arc::clone(&roster));
        tasks.spawn(async move {
            admin::serve(listener, worker, roster).await;
            Ok(())
        });
    }
    watch_model_server(&mut tasks, &worker);
    let fleet = fleet::run(Arc::clone(&worker), roster, shutdown);
    tokio::pin!(fleet);
    loop {
        tokio::select! {
            ended = &mut fleet => return ended,
            Some(ended) = tasks.join_next() => ended.map_err(Error::Task)??,
        }
    }
}

/// The tasks that find out about the model server. They end with the agent.
fn watch_model_server(tasks: &mut JoinSet<Result<(), Error>>, worker: &Arc<Worker>) {
    let settings = &worker.settings;
    let probing = health::watch(Arc::clone(worker));
    tasks.spawn(async move {
        probing.await;
        Ok(())
    });
    if settings.models.is_empty() {
        let discovering = discovery::watch(Arc::clone(worker));
        tasks.spawn(async move {
            discovering.await;
            Ok(())
        });
    }
    if settings.start_rate == StartRate::Calibrate {
        let calibrating = calibration::calibrate(Arc::clone(worker));
        tasks.spawn(async move {
            calibrating.await;
            Ok(())
        });
    }
    if let Some(path) = settings.metrics_path.clone() {
        let polling = poll::metrics(Arc::clone(worker), path);
        tasks.spawn(async move {
            polling.await;
            Ok(())
        });
    }
    if settings.stats_stream != StatsStream::Off {
        tasks.spawn(poll::stats_stream(Arc::clone(worker)));
    }
}
