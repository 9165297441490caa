//! Joins one stream that a gateway opened to a new connection of the model server.

use std::sync::Arc;

use weir_tunnel::agent::Arrival;
use weir_tunnel::{Undelivered, splice};

use crate::worker::Worker;

/// Carries the stream to its end; or refuses it, when it is certain that nothing was delivered.
pub(crate) async fn carry(worker: Arc<Worker>, arrival: Arrival) {
    if worker.drains_until().is_some() {
        return refuse(&worker, arrival, Undelivered::Draining);
    }
    let Ok(_permit) = Arc::clone(&worker.streams).try_acquire_owned() else {
        return refuse(&worker, arrival, Undelivered::Busy);
    };
    let mut accepted = match arrival.accept().await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::debug!(%error, "a stream of the gateway is none");
            return;
        }
    };
    let settings = &worker.settings;
    let connected = tokio::select! {
        connected = settings.upstream.connect(settings.connect_timeout) => connected,
        () = accepted.abandoned() => return,
    };
    match connected {
        Ok(socket) => {
            let spliced = splice(accepted.into_stream(), socket).await;
            worker.counters.carried(&spliced);
            if spliced.end == weir_tunnel::SpliceEnd::Upstream {
                worker.doubt.notify_one();
            }
        }
        Err(error) => {
            tracing::warn!(%error, "cannot connect to the model server");
            accepted.refuse(Undelivered::ConnectFailed);
            worker.counters.refused(Undelivered::ConnectFailed);
            worker.doubt.notify_one();
        }
    }
}

fn refuse(worker: &Worker, arrival: Arrival, reason: Undelivered) {
    arrival.refuse(reason);
    worker.counters.refused(reason);
}
