//! The address that agents dial.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::server::ShutdownWatch;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::task::JoinSet;
use tokio::time::sleep;
use weir_config::WorkersTable;
use weir_tunnel::gateway::Listener;
use weir_tunnel::{ServerTls, Settings};

use crate::compile::Origin;
use crate::request::headers::uuid_v4;
use crate::runtime::Runtime;
use crate::workers::session;

/// A process that is upgraded in place keeps the address until it has drained.
const BIND_AGAIN: Duration = Duration::from_secs(1);
/// How often is looked whether another configuration is live, which may bring a certificate.
const LOOK: Duration = Duration::from_secs(1);
/// Keep-alives in the time after which silence means loss.
const KEEP_ALIVES: u32 = 4;

/// Why agents cannot dial in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// A file that cannot be read.
    #[error("cannot read {file}: {source}")]
    File {
        /// Which.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// No certificate and key in the files, or none could be made.
    #[error("{0}")]
    Certificate(String),
    /// The address.
    #[error(transparent)]
    Tunnel(#[from] weir_tunnel::Error),
}

/// Takes in workers until the process ends.
pub(crate) struct WorkerListener {
    runtime: Arc<Runtime>,
    origin: Origin,
    address: SocketAddr,
}

impl WorkerListener {
    /// For the address of `[workers]`.
    pub(crate) fn new(runtime: Arc<Runtime>, origin: Origin, address: SocketAddr) -> Self {
        Self {
            runtime,
            origin,
            address,
        }
    }

    /// Takes workers in until the process ends.
    pub(crate) async fn run(self, mut shutdown: ShutdownWatch) {
        let listener = tokio::select! {
            listener = self.bind() => listener,
            _ = shutdown.changed() => return,
        };
        let gateway_id: Arc<str> = uuid_v4(fastrand::u128(..)).into();
        let mut sessions = JoinSet::new();
        let mut renewing = std::pin::pin!(self.renew(&listener));
        // Workers stay until the process is gone: exchanges that drain need them.
        loop {
            tokio::select! {
                pending = listener.accept() => {
                    let Some(pending) = pending else { return };
                    sessions.spawn(session::serve(
                        Arc::clone(&self.runtime),
                        Arc::clone(&gateway_id),
                        pending,
                    ));
                }
                Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
                () = &mut renewing => return,
            }
        }
    }

    async fn bind(&self) -> Arc<Listener> {
        let mut told = false;
        loop {
            let table = self.runtime.snapshot().config.workers.clone();
            let bound = tls(&table, &self.origin)
                .and_then(|tls| Ok(Listener::bind(self.address, &tls, settings(&table))?));
            match bound {
                Ok(listener) => {
                    tracing::info!(address = %self.address, "workers may dial in");
                    return Arc::new(listener);
                }
                Err(error) if told => tracing::debug!(%error, "workers cannot dial in"),
                Err(error) => {
                    tracing::error!(address = %self.address, %error, "workers cannot dial in; trying on");
                    told = true;
                }
            }
            sleep(BIND_AGAIN).await;
        }
    }

    /// Uses new certificate files once the configuration that was checked with them is live.
    async fn renew(&self, listener: &Listener) {
        let mut number = self.runtime.snapshot().number;
        loop {
            sleep(LOOK).await;
            let snapshot = self.runtime.snapshot();
            if snapshot.number == number || snapshot.config.workers.tls.is_none() {
                continue;
            }
            number = snapshot.number;
            let renewed = tls(&snapshot.config.workers, &self.origin)
                .and_then(|tls| Ok(listener.set_tls(&tls)?));
            if let Err(error) = renewed {
                tracing::error!(%error, "the certificate for workers stays the old one");
            }
        }
    }
}

fn settings(table: &WorkersTable) -> Settings {
    let idle = Duration::from_millis(table.silence_timeout_ms);
    Settings {
        idle,
        keep_alive: idle / KEEP_ALIVES,
        ..Settings::default()
    }
}

/// The certificate of the files, or one made now.
///
/// # Errors
/// [`ListenError`].
pub(crate) fn tls(table: &WorkersTable, origin: &Origin) -> Result<ServerTls, ListenError> {
    let Some(files) = &table.tls else {
        return self_signed();
    };
    let read = |path: &std::path::Path| {
        let path = weir_config::resolve(&origin.folder, path);
        std::fs::read(&path).map_err(|source| ListenError::File {
            file: path.display().to_string(),
            source,
        })
    };
    Ok(ServerTls::from_pem(
        &read(&files.cert)?,
        &read(&files.key)?,
    )?)
}

/// For trials: agents take it only when they are told to ask no questions.
fn self_signed() -> Result<ServerTls, ListenError> {
    let made = rcgen::generate_simple_self_signed(["weir".to_owned()])
        .map_err(|error| ListenError::Certificate(error.to_string()))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    Ok(ServerTls::new(vec![made.cert.der().clone()], key))
}
