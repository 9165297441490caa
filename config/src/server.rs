//! The tables `[server]`, `[admin]`, `[log]`, `[limits]` and `[reload]`.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Serialize;

use crate::field::{BYTES, Field, TIME_MS};
use crate::reader::Table;

/// `[server]`: the process. A change needs a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerTable {
    /// Worker threads; 0 is one per core.
    pub threads: usize,
    /// How long running exchanges may take to finish after SIGTERM, in milliseconds.
    pub drain_timeout_ms: u64,
    /// Where the sockets are handed over to the next binary; empty: not at all.
    pub upgrade_socket: String,
    /// Where compiled filters are kept; empty: the cache directory of the user.
    pub cache_dir: String,
}

impl Default for ServerTable {
    fn default() -> Self {
        Self {
            threads: 0,
            drain_timeout_ms: 30_000,
            upgrade_socket: String::new(),
            cache_dir: String::new(),
        }
    }
}

impl ServerTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let read = Self {
            threads: table.or("threads", default.threads, |f| f.integer(0..=1024)),
            drain_timeout_ms: table.or("drain_timeout_ms", default.drain_timeout_ms, |f| {
                f.integer(0..=*TIME_MS.end())
            }),
            upgrade_socket: table.or("upgrade_socket", default.upgrade_socket, Field::text),
            cache_dir: table.or("cache_dir", default.cache_dir, Field::text),
        };
        table.finish();
        read
    }
}

/// `[admin]`: the listener for operators. A change needs a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdminTable {
    /// Where it listens. It has no authentication of its own: keep it on loopback.
    pub listen: SocketAddr,
}

impl Default for AdminTable {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9901)),
        }
    }
}

impl AdminTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let listen = table.or("listen", Self::default().listen, Field::socket_addr);
        table.finish();
        Self { listen }
    }
}

/// `[log]`: what is written to standard error. `access` is live; the rest needs a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogTable {
    /// A level, or directives as tracing's env-filter takes them: `info,weir_host=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// Whether each exchange writes one line.
    pub access: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for LogTable {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Text,
            access: true,
        }
    }
}

impl LogTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let read = Self {
            level: table.or("level", default.level, Field::name),
            format: table.or("format", default.format, |f| f.choice(&formats)),
            access: table.or("access", default.access, Field::flag),
        };
        table.finish();
        read
    }
}

/// `[limits]`: bounds on what one exchange may hold in memory. Live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitsTable {
    /// Largest request body of a model call, in bytes; a larger one is refused with 413.
    /// Pass-through routes stream and have no limit.
    pub body_max_bytes: usize,
    /// Largest answer of a model call that is not a stream, in bytes.
    pub response_max_bytes: usize,
    /// Header fields of a request, as a number.
    pub headers_max: usize,
    /// All header fields of a request together, in bytes.
    pub headers_max_bytes: usize,
    /// Largest single server-sent event, in bytes.
    pub event_max_bytes: usize,
}

impl Default for LimitsTable {
    fn default() -> Self {
        Self {
            body_max_bytes: 16 << 20,
            response_max_bytes: 64 << 20,
            headers_max: 100,
            headers_max_bytes: 64 << 10,
            event_max_bytes: 4 << 20,
        }
    }
}

impl LimitsTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let mut bytes = |name, default| table.or(name, default, |f| f.integer(BYTES));
        let (body_max_bytes, response_max_bytes, headers_max_bytes) = (
            bytes("body_max_bytes", default.body_max_bytes),
            bytes("response_max_bytes", default.response_max_bytes),
            bytes("headers_max_bytes", default.headers_max_bytes),
        );
        let event_max_bytes = bytes("event_max_bytes", default.event_max_bytes);
        let headers_max = table.or("headers_max", default.headers_max, |f| {
            f.integer(1..=10_000)
        });
        table.finish();
        Self {
            body_max_bytes,
            response_max_bytes,
            headers_max,
            headers_max_bytes,
            event_max_bytes,
        }
    }
}

/// `[streams]`: what keeps streamed answers alive and whole. Live, for new exchanges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamsTable {
    /// After how long a silence a caller that waits for events gets an SSE comment, in
    /// milliseconds; 0: never. The first one sends the head of the answer, too.
    pub comment_interval_ms: u64,
    /// Whether the first events are held until one says something, so that another endpoint can
    /// be asked when it is an error.
    pub hold_first_event: bool,
}

impl Default for StreamsTable {
    fn default() -> Self {
        Self {
            comment_interval_ms: 10_000,
            hold_first_event: true,
        }
    }
}

impl StreamsTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let read = Self {
            comment_interval_ms: table.or(
                "comment_interval_ms",
                default.comment_interval_ms,
                |f| f.integer(0..=*TIME_MS.end()),
            ),
            hold_first_event: table.or("hold_first_event", default.hold_first_event, Field::flag),
        };
        table.finish();
        read
    }
}

/// `[reload]`: how changes of this file, key files, certificates and filter modules are taken
/// over. Live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReloadTable {
    /// How often the files are looked at, in milliseconds.
    pub poll_ms: u64,
    /// Good configurations kept for a roll-back, as a number.
    pub history: usize,
    /// For how long after a reload a new or changed filter that goes into quarantine brings the
    /// configuration before it back, in milliseconds; 0: never.
    pub rollback_window_ms: u64,
}

impl Default for ReloadTable {
    fn default() -> Self {
        Self {
            poll_ms: 1_000,
            history: 16,
            rollback_window_ms: 600_000,
        }
    }
}

impl ReloadTable {
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let read = Self {
            poll_ms: table.or("poll_ms", default.poll_ms, |f| {
                f.integer(10..=*TIME_MS.end())
            }),
            history: table.or("history", default.history, |f| f.integer(1..=1_000)),
            rollback_window_ms: table.or("rollback_window_ms", default.rollback_window_ms, |f| {
                f.integer(0..=*TIME_MS.end())
            }),
        };
        table.finish();
        read
    }
}
