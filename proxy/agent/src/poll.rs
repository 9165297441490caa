//! Reads the engine's figures: its metrics again and again, its stream for as long as it lasts.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep, timeout};

use crate::engine_metrics::figures;
use crate::error::{Error, LocalError};
use crate::local::{self, Lines};
use crate::settings::StatsStream;
use crate::stats_stream::LINE_BYTES_MAX;
use crate::worker::{Worker, answering};

/// Reads the metrics at `path`.
pub(crate) async fn metrics(worker: Arc<Worker>, path: String) {
    let mut failing = false;
    loop {
        let wait = worker.settings.health.timeout;
        let failed = match local::get(&worker.settings.upstream, &path, wait).await {
            Ok((status, body)) if status.is_success() => {
                worker.measure(&figures(&String::from_utf8_lossy(&body)));
                None
            }
            Ok((status, _)) => Some(LocalError::Status(status)),
            Err(error) => Some(error),
        };
        if let (Some(error), false) = (&failed, failing) {
            tracing::warn!(path, %error, "the metrics of the engine cannot be read");
        }
        failing = failed.is_some();
        sleep(worker.settings.metrics_interval).await;
    }
}

/// Reads the engine's stream. Ends when there is none and none is required.
pub(crate) async fn stats_stream(worker: Arc<Worker>) -> Result<(), Error> {
    let settings = &worker.settings;
    let mut health = worker.health();
    let mut wait = RETRY_FIRST;
    loop {
        answering(&mut health).await;
        let began = Instant::now();
        match Lines::open(
            &settings.upstream,
            &settings.stats_path,
            settings.health.timeout,
        )
        .await
        {
            Ok(lines) => {
                let ended = read(&worker, lines).await;
                worker.stream_ended();
                tracing::info!(reason = %ended, "the engine's stream of figures ended");
            }
            Err(LocalError::Status(status)) if is_missing(status) => {
                if settings.stats_stream == StatsStream::Required {
                    return Err(Error::NoStatsStream {
                        path: settings.stats_path.clone(),
                        status: status.as_u16(),
                    });
                }
                tracing::info!(
                    path = settings.stats_path,
                    %status,
                    "the engine has no stream of figures: metrics and gateways tell the load"
                );
                return Ok(());
            }
            Err(error) => {
                tracing::debug!(%error, "the engine's stream of figures cannot be opened")
            }
        }
        if began.elapsed() > RETRY_RESET {
            wait = RETRY_FIRST;
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_LONGEST);
    }
}

/// Reads to the end and says why it was the end.
async fn read(worker: &Worker, mut lines: Lines) -> String {
    loop {
        let next = timeout(SILENCE_MAX, lines.next(LINE_BYTES_MAX));
        let Ok(next) = next.await else {
            return "silent".to_owned();
        };
        match next {
            Ok(Some(line)) => {
                if let Err(error) = worker.stream_line(&line) {
                    tracing::debug!(error, "a line of the engine's stream is wrong");
                }
            }
            Ok(None) => return "closed".to_owned(),
            Err(error) => return error.to_string(),
        }
    }
}

fn is_missing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
    )
}

/// A stream that says nothing for so long, not even that it is there, is opened anew.
const SILENCE_MAX: Duration = Duration::from_secs(60);

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// A stream that lasted this long was a good one.
const RETRY_RESET: Duration = Duration::from_secs(10);
