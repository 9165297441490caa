//! Which figures are told before their time.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Whether a queue has become so much longer or shorter than was said last, both in milliseconds,
/// that the other side hears of it at once and not with the next heartbeat: by more than 25 ms and
/// by more than a quarter.
///
/// The tolerances are those by which a worker of NVCF refuses a request whose router expected a
/// shorter queue.
#[must_use]
pub fn is_news(said_ms: f64, now_ms: f64) -> bool {
    let (less, more) = (said_ms.min(now_ms), said_ms.max(now_ms));
    more > (less + 25.0).max(less * 1.25)
}

/// When a side tells before its time: at once, but no sooner than 50 ms after it told last.
#[derive(Debug)]
pub struct NewsPace {
    told_at: Instant,
    due: Option<Instant>,
}

impl NewsPace {
    /// Nothing is to be told.
    #[must_use]
    pub fn new() -> Self {
        Self {
            told_at: Instant::now(),
            due: None,
        }
    }

    /// There is news.
    pub fn hurry(&mut self) {
        self.due = Some(self.told_at + NEWS_INTERVAL);
    }

    /// All was told.
    pub fn told(&mut self) {
        *self = Self::new();
    }

    /// Waits until news is to be told, for ever while there is none. Loses nothing when dropped.
    pub async fn due(&self) {
        match self.due {
            Some(moment) => sleep_until(moment).await,
            None => std::future::pending().await,
        }
    }
}

impl Default for NewsPace {
    fn default() -> Self {
        Self::new()
    }
}

const NEWS_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_changes_wait_for_the_heartbeat() {
        let table = [
            (0.0, 25.0, false),
            (0.0, 26.0, true),
            (1000.0, 1250.0, false),
            (1000.0, 1251.0, true),
            (1000.0, 799.0, true),
            (1000.0, 800.0, false),
            (26.0, 0.0, true),
            (0.0, f64::INFINITY, true),
            (f64::NAN, f64::NAN, false),
        ];
        for (said, now, expected) in table {
            assert_eq!(is_news(said, now), expected, "{said} {now}");
        }
    }
}
