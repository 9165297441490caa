//! Asks the model server which models it has.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use tokio::time::sleep;

use crate::error::LocalError;
use crate::local;
use crate::worker::{Worker, answering};

/// Asks again and again while the server is well. What it said last counts until it says other.
pub(crate) async fn watch(worker: Arc<Worker>) {
    let mut health = worker.health();
    loop {
        answering(&mut health).await;
        match ask(&worker).await {
            Ok(models) => worker.set_models(models),
            Err(error) => tracing::warn!(%error, "the model server does not say its models"),
        }
        tokio::select! {
            () = sleep(worker.settings.discover_interval) => {}
            // It may come back with other models.
            _ = health.changed() => {}
        }
    }
}

async fn ask(worker: &Worker) -> Result<BTreeSet<String>, LocalError> {
    let wait = worker.settings.health.timeout;
    let (status, body) = local::get(&worker.settings.upstream, "/v1/models", wait).await?;
    if !status.is_success() {
        return Err(LocalError::Status(status));
    }
    models(&body)
}

#[derive(Deserialize)]
struct List {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
}

fn models(body: &[u8]) -> Result<BTreeSet<String>, LocalError> {
    let list: List =
        serde_json::from_slice(body).map_err(|error| LocalError::Content(error.to_string()))?;
    let ids = list.data.into_iter().map(|entry| entry.id);
    Ok(ids
        .filter(|id| (1..=MODEL_BYTES_MAX).contains(&id.len()))
        .take(MODELS_MAX)
        .collect())
}

const MODELS_MAX: usize = 1024;
const MODEL_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let body = br#"{"object":"list","data":[{"id":"b","owned_by":"x"},{"id":"a"},{"id":""},{"id":"a"}]}"#;
        assert_eq!(
            models(body).unwrap(),
            BTreeSet::from(["a".to_owned(), "b".to_owned()])
        );
        assert!(models(b"{}").is_err());
        assert!(models(b"<html>").is_err());
    }
}
