//! The stream of statistics: what happens to each request, one JSON object per line (NVCF's engine
//! statistics, version 1).

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

/// Those who listen.
#[derive(Debug, Default)]
pub(crate) struct StatsStream {
    subscribers: Mutex<Vec<mpsc::Sender<Bytes>>>,
    /// Whether there may be any: nothing is formatted for nobody.
    any: AtomicBool,
}

/// One listener's body: lines as they come, and a ping when there was none for a while.
#[derive(Debug)]
pub(crate) struct Lines {
    receiver: mpsc::Receiver<Bytes>,
    ping: Interval,
}

/// Counters of one request; they only grow.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) model: &'a str,
    pub(crate) processed: u64,
    pub(crate) generated: u64,
    pub(crate) finished: bool,
}

impl StatsStream {
    /// A listener from now on; `None` when there are too many.
    pub(crate) fn subscribe(&self) -> Option<Lines> {
        let mut subscribers = self.subscribers.lock();
        subscribers.retain(|subscriber| !subscriber.is_closed());
        if subscribers.len() >= SUBSCRIBERS_MAX {
            return None;
        }
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        subscribers.push(sender);
        self.any.store(true, Relaxed);
        let mut ping = tokio::time::interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(Lines { receiver, ping })
    }

    /// Tells all listeners. A listener that does not keep up misses lines; the counters of later
    /// ones make up for it.
    pub(crate) fn publish(&self, progress: &Progress) {
        if !self.any.load(Relaxed) {
            return;
        }
        let line = Bytes::from(line(progress));
        let mut subscribers = self.subscribers.lock();
        subscribers.retain(|subscriber| {
            let sent = subscriber.try_send(line.clone());
            !matches!(sent, Err(mpsc::error::TrySendError::Closed(_)))
        });
        self.any.store(!subscribers.is_empty(), Relaxed);
    }
}

impl Lines {
    pub(crate) fn poll(&mut self, context: &mut Context) -> Poll<Option<Bytes>> {
        if let Poll::Ready(line) = Pin::new(&mut self.receiver).poll_recv(context) {
            self.ping.reset();
            return Poll::Ready(line);
        }
        // The first tick is at once: it tells the listener that it is heard.
        self.ping
            .poll_tick(context)
            .map(|_| Some(Bytes::from_static(PING)))
    }
}

fn line(progress: &Progress) -> String {
    let mut line = serde_json::json!({
        "v": 1,
        "type": "stats",
        "request_id": progress.request_id,
        "model": progress.model,
        "tokens_processed": progress.processed,
        "tokens_generated": progress.generated,
        "finished": progress.finished,
    })
    .to_string();
    line.push('\n');
    line
}

const PING: &[u8] = b"{\"v\":1,\"type\":\"ping\"}\n";
const PING_INTERVAL: Duration = Duration::from_secs(5);
const SUBSCRIBERS_MAX: usize = 16;
/// Lines a listener may be behind.
const LINES_MAX: usize = 4096;
