//! What can be wrong with an agent's settings, and what can end it.

/// One thing wrong with the settings. The text never holds a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}; {remedy}")]
pub struct ConfigError {
    /// The key of the file, which with `-` for `_` is the flag.
    pub key: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// What ends an agent, or keeps it from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are wrong, in all these ways.
    #[error("{} wrong with the settings", count(.0))]
    Config(Vec<ConfigError>),
    /// The admin address cannot be bound.
    #[error("cannot listen on the admin address {address}")]
    Admin {
        /// The address of the settings.
        address: std::net::SocketAddr,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The stats stream is required and the model server has none.
    #[error(
        "the model server answers {status} for the stats stream at {path}, which is required; \
         start it with one or set stats_stream to \"auto\""
    )]
    NoStatsStream {
        /// Where it was looked for.
        path: String,
        /// The status answered.
        status: u16,
    },
    /// A part of the agent ended by a bug.
    #[error("a task of the agent ended")]
    Task(#[source] tokio::task::JoinError),
}

fn count(errors: &[ConfigError]) -> String {
    match errors.len() {
        1 => "one thing is".to_owned(),
        many => format!("{many} things are"),
    }
}

/// Why a gateway was not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("its name cannot be resolved")]
    Resolve(#[source] std::io::Error),
    #[error("the token file {} cannot be read", path.display())]
    Token {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Tunnel(#[from] weir_tunnel::Error),
}

/// What went wrong with a request of the agent's own to its model server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("no answer in time")]
    Slow,
    #[error("the exchange broke")]
    Http(#[from] hyper::Error),
    #[error("the answer is too large or broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer has status {0}")]
    Status(http::StatusCode),
    #[error("the answer is not what it should be: {0}")]
    Content(String),
}
