//! Asks the model server whether it is well.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::sleep;

use crate::error::LocalError;
use crate::local;
use crate::worker::{Answers, Worker};

/// Asks again and again; whoever doubts the server's health has it asked at once.
pub(crate) async fn watch(worker: Arc<Worker>) {
    let health = &worker.settings.health;
    let mut prober = Prober::default();
    loop {
        let answers = prober.ask(&worker).await;
        if let Some(answers) = answers {
            worker.set_health(answers);
        }
        tokio::select! {
            () = sleep(health.interval) => {}
            () = worker.doubt.notified() => sleep(DOUBT_GAP.min(health.interval)).await,
        }
    }
}

#[derive(Default)]
struct Prober {
    /// The path that the server knows.
    path: Option<String>,
    slow_in_a_row: u32,
}

/// What one answer says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Well,
    Unwell,
    /// There is no such path.
    Nothing,
}

fn said(status: StatusCode) -> Said {
    match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            Said::Nothing
        }
        status if status.is_success() => Said::Well,
        _ => Said::Unwell,
    }
}

impl Prober {
    /// Whether the server is well; `None` when this does not tell.
    async fn ask(&mut self, worker: &Worker) -> Option<Answers> {
        let (upstream, health) = (&worker.settings.upstream, &worker.settings.health);
        let paths = match &self.path {
            Some(path) => vec![path.clone()],
            None => health.paths.clone(),
        };
        for path in paths {
            match local::get(upstream, &path, health.timeout).await {
                Ok((status, _)) => {
                    self.slow_in_a_row = 0;
                    let said = said(status);
                    if said == Said::Nothing {
                        continue;
                    }
                    tracing::debug!(path, %status, "the model server answers for its health");
                    self.path = Some(path);
                    return Some(if said == Said::Well {
                        Answers::Yes
                    } else {
                        Answers::No
                    });
                }
                Err(LocalError::Slow) => {
                    // One slow answer is a busy server, two are a stuck one.
                    self.slow_in_a_row += 1;
                    return (self.slow_in_a_row >= SLOW_MAX).then_some(Answers::No);
                }
                Err(error) => {
                    tracing::debug!(path, %error, "the model server does not answer");
                    return Some(Answers::No);
                }
            }
        }
        // Another server may have come in its place.
        if self.path.take().is_none() {
            tracing::warn!(paths = ?health.paths, "the model server knows none of its health paths");
        }
        Some(Answers::No)
    }
}

const SLOW_MAX: u32 = 2;

/// The least time between two questions.
const DOUBT_GAP: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_well_unwell_or_nothing() {
        for (status, expected) in [
            (200, Said::Well),
            (204, Said::Well),
            (404, Said::Nothing),
            (405, Said::Nothing),
            (501, Said::Nothing),
            (500, Said::Unwell),
            (503, Said::Unwell),
            (401, Said::Unwell),
        ] {
            assert_eq!(
                said(StatusCode::from_u16(status).unwrap()),
                expected,
                "{status}"
            );
        }
    }
}
