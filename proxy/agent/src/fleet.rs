//! A task for each gateway that is wanted.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::error::Error;
use crate::roster::Roster;
use crate::shutdown::Shutdown;
use crate::tunnel::keep;
use crate::worker::Worker;

/// Keeps tunnels until the agent drains and all of them have ended.
pub(crate) async fn run(
    worker: Arc<Worker>,
    roster: Arc<Roster>,
    mut shutdown: Shutdown,
) -> Result<(), Error> {
    let mut tasks = JoinSet::new();
    let mut running = HashMap::new();
    let mut changes = roster.changes();
    let mut draining = false;
    loop {
        if !draining {
            for address in roster.wanted() {
                if running.values().any(|known| *known == address) {
                    continue;
                }
                let (worker, roster) = (Arc::clone(&worker), Arc::clone(&roster));
                let task = tasks.spawn(keep(worker, roster, address.clone(), shutdown.clone()));
                running.insert(task.id(), address);
            }
        } else if tasks.is_empty() {
            return Ok(());
        }
        tokio::select! {
            Some(ended) = tasks.join_next_with_id() => match ended {
                Ok((id, ())) => {
                    running.remove(&id);
                }
                Err(error) => return Err(Error::Task(error)),
            },
            Ok(()) = changes.changed() => {}
            () = shutdown.draining(), if !draining => {
                draining = true;
                worker.drain();
            }
        }
    }
}
