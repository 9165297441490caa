//! The socket side: accepts connections and serves HTTP/1.1 and h2c on the same port.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::engine::Engine;
use crate::hardware::Hardware;
use crate::settings::Settings;
use crate::websocket;

/// A bound model server which is not serving yet.
pub struct Simulator {
    listener: TcpListener,
    address: SocketAddr,
    engine: Arc<Engine>,
}

impl Simulator {
    /// Binds `address`; port 0 picks a free one, see [`Simulator::local_addr`].
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        Self::with_listener(TcpListener::bind(address).await?, settings)
    }

    /// Takes over a listener bound by the caller. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When the listener cannot be made non-blocking or registered with the runtime.
    pub fn from_listener(listener: std::net::TcpListener, settings: Settings) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::with_listener(TcpListener::from_std(listener)?, settings)
    }

    fn with_listener(listener: TcpListener, settings: Settings) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let engine = Arc::new(Engine::new(settings, Hardware::default()));
        Ok(Self {
            listener,
            address,
            engine,
        })
    }

    /// Puts this machine under it; without one it has the default.
    #[must_use]
    pub fn with_hardware(self, hardware: Hardware) -> Self {
        let settings = self.engine.settings.clone();
        Self {
            engine: Arc::new(Engine::new(settings, hardware)),
            ..self
        }
    }

    /// The address bound, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes or the returned future is dropped; both cut the open
    /// connections, so a gateway in front drains first.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve_connection(stream, Arc::clone(&self.engine)));
                    }
                    Err(error) => {
                        // Out of descriptors: accept would fail again at once, so give others time.
                        tracing::warn!(%error, "simulator cannot accept");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, engine: Arc<Engine>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "simulator connection lost before its first request");
        return;
    }
    let upgrade = Arc::new(websocket::Pending::default());
    let service = {
        let upgrade = Arc::clone(&upgrade);
        service_fn(move |request| {
            let engine = Arc::clone(&engine);
            let upgrade = Arc::clone(&upgrade);
            async move { Ok::<_, Infallible>(engine.answer(request, &upgrade).await) }
        })
    };
    let served = auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "simulator connection ended early");
        return;
    }
    // Runs here and not in a task of its own, so that shutdown ends it with its connection.
    if let Some(upgrade) = upgrade.take() {
        websocket::echo(upgrade).await;
    }
}

const ACCEPT_RETRY: Duration = Duration::from_millis(50);
