//! The address of workers, served in the runtime of a listener: what one thread does for an exchange
//! and its tunnel another one need not be woken for.

use async_trait::async_trait;
use pingora::server::{ListenFds, RuntimeOpts, ShutdownWatch};
use pingora::services::Service;

use crate::workers::listen::WorkerListener;

/// A listener for callers that takes in workers too.
pub(crate) struct Beside<S> {
    callers: S,
    workers: Option<WorkerListener>,
}

impl<S> Beside<S> {
    /// Takes workers in for as long as `callers` serves.
    pub(crate) fn new(callers: S, workers: WorkerListener) -> Self {
        Self {
            callers,
            workers: Some(workers),
        }
    }
}

#[async_trait]
impl<S: Service> Service for Beside<S> {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        if let Some(workers) = self.workers.take() {
            tokio::spawn(workers.run(shutdown.clone()));
        }
        self.callers
            .start_service(fds, shutdown, listeners_per_fd)
            .await;
    }

    fn name(&self) -> &str {
        self.callers.name()
    }

    fn threads(&self) -> Option<usize> {
        self.callers.threads()
    }

    fn runtime_opts_override(&self, global: &RuntimeOpts) -> Option<RuntimeOpts> {
        self.callers.runtime_opts_override(global)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.callers.listen_addresses()
    }
}
