//! The configurations a process has served, and what it thought of the last one offered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::snapshot::Snapshot;

/// One configuration that was live.
#[derive(Clone)]
pub(crate) struct Past {
    /// The snapshot, kept warm for a rollback.
    pub(crate) snapshot: Arc<Snapshot>,
    /// When it went live, in ms since the Unix epoch.
    pub(crate) since_unix_ms: u64,
    /// What differed from the one before.
    pub(crate) changes: Vec<String>,
    /// Why it went live: `start`, `file`, `signal`, `api`, `functions`, `rollback`, `breaker`.
    pub(crate) why: &'static str,
}

/// A configuration that was refused.
#[derive(Clone, Serialize)]
pub(crate) struct Rejected {
    /// When, in ms since the Unix epoch.
    pub(crate) at_unix_ms: u64,
    /// Every reason.
    pub(crate) errors: Vec<String>,
}

/// Past configurations, newest last, bounded by `reload.history`.
pub(crate) struct History {
    past: VecDeque<Past>,
    /// The last offer, when it was refused.
    pub(crate) rejected: Option<Rejected>,
    /// Fingerprint of a configuration that was rolled back: not taken again until it changes.
    pub(crate) bad: Option<[u8; 32]>,
    /// Keys that changed but need a restart.
    pub(crate) needs_restart: Vec<String>,
}

impl History {
    /// A process begins.
    pub(crate) fn starting_with(snapshot: &Arc<Snapshot>) -> Self {
        let first = Past {
            snapshot: Arc::clone(snapshot),
            since_unix_ms: unix_ms(),
            changes: Vec::new(),
            why: "start",
        };
        Self {
            past: VecDeque::from([first]),
            rejected: None,
            bad: None,
            needs_restart: Vec::new(),
        }
    }

    /// A configuration went live.
    pub(crate) fn push(
        &mut self,
        snapshot: &Arc<Snapshot>,
        changes: Vec<String>,
        why: &'static str,
    ) {
        let max = snapshot.config.reload.history.max(1);
        self.past.push_back(Past {
            snapshot: Arc::clone(snapshot),
            since_unix_ms: unix_ms(),
            changes,
            why,
        });
        while self.past.len() > max {
            self.past.pop_front();
        }
        self.rejected = None;
    }

    /// All, oldest first.
    pub(crate) fn past(&self) -> impl DoubleEndedIterator<Item = &Past> {
        self.past.iter()
    }

    /// By its number.
    pub(crate) fn find(&self, number: u64) -> Option<&Past> {
        self.past.iter().find(|past| past.snapshot.number == number)
    }

    /// The one before the live one.
    pub(crate) fn previous(&self) -> Option<&Past> {
        self.past.iter().rev().nth(1)
    }

    /// The live one.
    pub(crate) fn live(&self) -> Option<&Past> {
        self.past.back()
    }
}

/// Now.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
