//! Finds out how fast prompts are processed, by a few requests that get longer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::error::LocalError;
use crate::local;
use crate::rate::float;
use crate::worker::{Worker, answering};

/// Tries until it has a rate. It is measured with the first model and counts for all of the engine.
pub(crate) async fn calibrate(worker: Arc<Worker>) {
    let (mut health, mut models) = (worker.health(), worker.models());
    loop {
        answering(&mut health).await;
        let first = models.wait_for(|models| !models.is_empty()).await;
        let Some(model) = first
            .ok()
            .and_then(|models| BTreeSet::first(&models).cloned())
        else {
            return;
        };
        match measure(&worker, &model).await {
            Ok(rate) => {
                tracing::info!(model, rate, "calibrated: prompt tokens per second");
                worker.set_start_rate(rate);
                return;
            }
            Err(error) => {
                tracing::warn!(
                    model,
                    %error,
                    "calibration failed, trying again; with initial_input_tps it is not needed"
                );
                sleep(RETRY).await;
            }
        }
    }
}

async fn measure(worker: &Worker, model: &str) -> Result<f64, LocalError> {
    let (mut tokens, mut time) = (0, Duration::ZERO);
    for round in 0..ROUNDS {
        let words = WORDS_FIRST << round;
        let sent = Instant::now();
        match ask(worker, model, words).await {
            // The first warms up: it counts only if no other succeeds.
            Ok(prompt) if round <= 1 => {
                (tokens, time) = (prompt, sent.elapsed().max(FLOOR));
            }
            Ok(prompt) => {
                tokens += prompt;
                time += sent.elapsed().max(FLOOR);
            }
            // A longer one does not fit, perhaps: what is known by now is enough.
            Err(error) if tokens > 0 => {
                tracing::debug!(%error, words, "calibration ends early");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(float(tokens) / time.as_secs_f64())
}

/// The prompt tokens of one request that was answered.
async fn ask(worker: &Worker, model: &str, words: u64) -> Result<u64, LocalError> {
    let request = json!({
        "model": model,
        "messages": [{ "role": "user", "content": prompt(words) }],
        "max_tokens": 1,
        "stream": false,
    });
    let upstream = &worker.settings.upstream;
    let (status, body) =
        local::post(upstream, "/v1/chat/completions", request.to_string(), WAIT).await?;
    if !status.is_success() {
        return Err(LocalError::Status(status));
    }
    let answer: Answer =
        serde_json::from_slice(&body).map_err(|error| LocalError::Content(error.to_string()))?;
    // A word is a token at least.
    Ok(answer
        .usage
        .map_or(words, |usage| usage.prompt_tokens)
        .max(1))
}

/// Words that no cache has seen before.
fn prompt(words: u64) -> String {
    let mut text = String::new();
    for _ in 0..words {
        text.push_str(WORDS.get(fastrand::usize(..WORDS.len())).unwrap_or(&"one"));
        text.push(' ');
    }
    text
}

#[derive(Deserialize)]
struct Answer {
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
}

const ROUNDS: u32 = 5;
const WORDS_FIRST: u64 = 256;
const WAIT: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(10);

/// An answer that takes less is out of a cache.
const FLOOR: Duration = Duration::from_millis(10);

const WORDS: [&str; 16] = [
    "one", "red", "tree", "north", "seven", "glass", "river", "stone", "cold", "paper", "moon",
    "iron", "salt", "wheel", "green", "door",
];
