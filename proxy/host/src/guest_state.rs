//! What a filter's store carries: the exchange at hand, the filter's grants, its handles.

use std::sync::Arc;

use http::HeaderName;
use parking_lot::Mutex;
use tokio::time::Instant;
use weir_config::{FilterLimits, Grants, WasiGrant};
use weir_pipeline::facts::Facts;
use weir_pipeline::principal::Principal;
use weir_routing::KeyHashes;

use crate::capability::metrics::FilterMetrics;
use crate::capability::state::StateHandles;
use crate::capability::wasi::WasiState;
use crate::services::Services;

/// A configured filter as its capabilities see it: name, grants and limits in a form that is fast
/// to check. Shared by all its instances.
pub struct FilterIdentity {
    /// Name in the config.
    pub name: Arc<str>,
    /// What it may use up.
    pub limits: FilterLimits,
    /// What it was granted, as configured.
    pub grants: Grants,
    reads: Vec<HeaderName>,
    reads_all: bool,
    log: Mutex<LogSecond>,
    pub(crate) sends: tokio::sync::Semaphore,
}

struct LogSecond {
    began: Instant,
    lines: u32,
    suppressed: u64,
}

/// Whether a line of the log may be written.
pub(crate) enum LogPermit {
    /// Yes; the number of lines that were left out in an earlier second, to be told once.
    Write { suppressed: u64 },
    /// Too many in this second.
    Suppress,
}

impl FilterIdentity {
    /// A filter with its grants and limits, and no cluster to send requests to.
    #[must_use]
    pub fn new(name: &str, grants: Grants, limits: FilterLimits) -> Self {
        let named = grants.read_headers.iter().filter(|name| *name != "*");
        Self {
            name: Arc::from(name),
            reads: named
                .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
                .collect(),
            reads_all: grants.read_headers.iter().any(|name| name == "*"),
            grants,
            sends: tokio::sync::Semaphore::new(limits.sends_max as usize),
            limits,
            log: Mutex::new(LogSecond {
                began: Instant::now(),
                lines: 0,
                suppressed: 0,
            }),
        }
    }

    /// Whether it may read this header. Credentials are never part of `*`.
    #[must_use]
    pub fn reads(&self, name: &HeaderName) -> bool {
        let credential = CREDENTIALS.contains(&name.as_str());
        (self.reads_all && !credential) || self.reads.contains(name)
    }

    /// Whether it may send requests to this cluster.
    #[must_use]
    pub fn sends_to(&self, cluster: &str) -> bool {
        self.grants
            .clusters
            .iter()
            .any(|granted| granted == cluster)
    }

    /// Counts a line of the log.
    pub(crate) fn log_permit(&self) -> LogPermit {
        self.log_permit_at(Instant::now())
    }

    fn log_permit_at(&self, now: Instant) -> LogPermit {
        let mut second = self.log.lock();
        if now.saturating_duration_since(second.began).as_secs() >= 1 {
            second.began = now;
            second.lines = 0;
        }
        if second.lines >= self.limits.log_lines_per_second {
            second.suppressed += 1;
            return LogPermit::Suppress;
        }
        second.lines += 1;
        LogPermit::Write {
            suppressed: std::mem::take(&mut second.suppressed),
        }
    }
}

/// The data of one store.
pub(crate) struct GuestState {
    /// Whose instance this is.
    pub(crate) filter: Arc<FilterIdentity>,
    /// What the process offers to filters.
    pub(crate) services: Arc<Services>,
    /// The exchange a phase call is about.
    pub(crate) current: Option<Box<Facts>>,
    /// Set for `describe` and `validate`: only the log and pure helpers answer.
    pub(crate) pure: bool,
    /// Whether the call at hand may suspend.
    pub(crate) may_suspend: bool,
    /// Principals found by `secrets.lookup-key` in this call, by number.
    pub(crate) found: Vec<Arc<Principal>>,
    /// Set by calls that change something outside the instance: the phase call must not be made
    /// again.
    pub(crate) side_effects: bool,
    /// Bounds of the instance's memory and tables.
    pub(crate) memory: MemoryLimiter,
    /// Present with the grant `wasi = "minimal"`.
    pub(crate) wasi: Option<WasiState>,
    /// Bytes of log text left in this call.
    pub(crate) log_left: u32,
    /// Header names by interned id; `None` = not granted.
    pub(crate) header_names: Vec<(u32, Option<HeaderName>)>,
    /// The key that was ranked last, for the next question about it.
    pub(crate) key_hashes: KeyHashes,
    /// Open stores and limiters.
    pub(crate) handles: StateHandles,
    /// Series of this filter.
    pub(crate) metrics: Arc<FilterMetrics>,
}

impl GuestState {
    /// The state of a new instance, between calls.
    pub(crate) fn new(filter: Arc<FilterIdentity>, services: Arc<Services>) -> Self {
        let wasi = (filter.grants.wasi == WasiGrant::Minimal).then(|| WasiState::new(&filter));
        Self {
            metrics: services.metrics_of(&filter),
            memory: MemoryLimiter::new(filter.limits.memory_bytes),
            log_left: filter.limits.log_bytes,
            filter,
            services,
            current: None,
            pure: false,
            may_suspend: false,
            found: Vec::new(),
            side_effects: false,
            wasi,
            header_names: Vec::new(),
            key_hashes: KeyHashes::default(),
            handles: StateHandles::default(),
        }
    }

    /// Begins a call: what the one before it left is forgotten.
    pub(crate) fn enter(&mut self, facts: Option<Box<Facts>>) {
        self.current = facts;
        self.found.clear();
        self.side_effects = false;
        self.log_left = self.filter.limits.log_bytes;
        self.memory.refused = false;
    }

    /// Ends a call, whatever became of it, and gives the exchange back. `found` and `side_effects`
    /// can be read until the next one begins.
    pub(crate) fn leave(&mut self) -> Option<Box<Facts>> {
        self.current.take()
    }
}

/// Keeps an instance within its memory. Growth that is refused traps: guests that go on with a
/// failed allocation are rare and end in worse ways.
pub(crate) struct MemoryLimiter {
    bytes_max: usize,
    /// Bytes of all linear memories.
    bytes: usize,
    /// Whether the last call asked for more than it may have.
    pub(crate) refused: bool,
}

impl MemoryLimiter {
    fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            bytes: 0,
            refused: false,
        }
    }

    /// Bytes of all linear memories of the instance.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl wasmtime::ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Reported per memory; a component may have several.
        let total = self.bytes.saturating_sub(current).saturating_add(desired);
        if total > self.bytes_max {
            self.refused = true;
            return Err(wasmtime::Error::msg("memory limit of the filter reached"));
        }
        self.bytes = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            self.refused = true;
            return Err(wasmtime::Error::msg("table limit of the filter reached"));
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

/// Milliseconds and nanoseconds of one monotonic clock for the whole process.
pub(crate) mod clock {
    use std::sync::OnceLock;

    use tokio::time::Instant;

    static BEGAN: OnceLock<Instant> = OnceLock::new();

    /// Since the first question.
    pub(crate) fn now_ns() -> u64 {
        let began = *BEGAN.get_or_init(Instant::now);
        let now = Instant::now().saturating_duration_since(began).as_nanos();
        u64::try_from(now).unwrap_or(u64::MAX)
    }

    /// Starts at 1: 0 is "never" to some.
    pub(crate) fn now_ms() -> u64 {
        now_ns() / 1_000_000 + 1
    }
}

/// Headers that carry credentials: readable only if the grant names them.
const CREDENTIALS: &[&str] = &[
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
];

const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Core instances, tables and memories of one component: its module and the adapters that the
/// component model puts around it.
const INSTANCES_MAX: usize = 16;
const TABLES_MAX: usize = 16;
const MEMORIES_MAX: usize = 2;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use wasmtime::ResourceLimiter;

    #[test]
    fn star_reads_all_but_credentials() {
        let table: [(&[&str], &str, bool); 6] = [
            (&["*"], "x-a", true),
            (&["*"], "authorization", false),
            (&["*"], "cookie", false),
            (&["*", "authorization"], "authorization", true),
            (&["x-a"], "x-b", false),
            (&[], "x-a", false),
        ];
        for (granted, name, expected) in table {
            let grants = Grants {
                read_headers: granted.iter().map(|name| (*name).to_owned()).collect(),
                ..Grants::default()
            };
            let filter = FilterIdentity::new("f", grants, FilterLimits::default());
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(filter.reads(&name), expected, "{granted:?} {name}");
        }
    }

    #[test]
    fn memory_is_counted_over_all_memories() {
        let mut limiter = MemoryLimiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 30, None).unwrap());
        assert!(limiter.memory_growing(60, 70, None).unwrap());
        assert!(!limiter.refused);
        assert!(limiter.memory_growing(30, 31, None).is_err());
        assert!(limiter.refused);
        assert_eq!(limiter.bytes(), 100);
    }

    #[test]
    fn log_lines_are_counted_by_the_second() {
        let limits = FilterLimits {
            log_lines_per_second: 2,
            ..FilterLimits::default()
        };
        let filter = FilterIdentity::new("f", Grants::default(), limits);
        let now = Instant::now();
        let written =
            (0..5).filter(|_| matches!(filter.log_permit_at(now), LogPermit::Write { .. }));
        assert_eq!(written.count(), 2);
        let later = now + std::time::Duration::from_secs(2);
        assert!(matches!(
            filter.log_permit_at(later),
            LogPermit::Write { suppressed: 3 }
        ));
        assert!(matches!(
            filter.log_permit_at(later),
            LogPermit::Write { suppressed: 0 }
        ));
    }
}
