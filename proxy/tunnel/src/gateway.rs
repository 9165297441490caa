//! The gateway's end: accepts tunnels, opens streams through them, hears heartbeats.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::code::CloseCode;
use crate::error::{Error, Loss, Undelivered};
use crate::frame::{FrameReader, FrameWriter, HELLO_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::link::Link;
use crate::preamble;
use crate::settings::{Settings, socket};
use crate::stream::TunnelStream;
use crate::tls::ServerTls;
use crate::wire::{
    AgentSays, Draining, GatewaySays, Heartbeat, Hello, Observed, Peers, RefusalCode, Refused,
    ToAgent, ToGateway, VERSION, VERSION_MIN, Welcome, agreed_version, is_worker_id,
};

/// A UDP address on which agents dial in.
pub struct Listener {
    endpoint: Endpoint,
    settings: Settings,
    pending: Arc<Semaphore>,
    /// Handshakes on their way; they are driven by [`Listener::accept`] and end with the listener.
    handshakes: Mutex<JoinSet<Result<Pending, Error>>>,
}

impl Listener {
    /// Binds `address`; port 0 picks a free one. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Bind`] when the address is taken, [`Error::Tls`] when the certificate does not work.
    pub fn bind(address: SocketAddr, tls: &ServerTls, settings: Settings) -> Result<Self, Error> {
        let config = server_config(tls, &settings)?;
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(config),
            socket(address)?,
            Arc::new(TokioRuntime),
        );
        Ok(Self {
            endpoint: endpoint.map_err(Error::Bind)?,
            pending: Arc::new(Semaphore::new(settings.pending_max)),
            settings,
            handshakes: Mutex::default(),
        })
    }

    /// The address bound, with the real port.
    ///
    /// # Errors
    /// [`Error::Bind`] when the system does not say.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.endpoint.local_addr().map_err(Error::Bind)
    }

    /// Uses `tls` for all handshakes from now on; tunnels that are there stay.
    ///
    /// # Errors
    /// [`Error::Tls`] when the certificate does not work; the one before is kept.
    pub fn set_tls(&self, tls: &ServerTls) -> Result<(), Error> {
        let config = server_config(tls, &self.settings)?;
        self.endpoint.set_server_config(Some(config));
        Ok(())
    }

    /// The next agent that has said its hello; `None` when the listener is closed. One task calls
    /// this in a loop. Dropping the future loses nothing, but handshakes proceed only within it.
    pub async fn accept(&self) -> Option<Pending> {
        let mut handshakes = self.handshakes.lock().await;
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => self.begin(&mut handshakes, incoming?),
                Some(done) = handshakes.join_next(), if !handshakes.is_empty() => match done {
                    Ok(Ok(pending)) => return Some(pending),
                    Ok(Err(error)) => tracing::debug!(%error, "an agent's handshake failed"),
                    Err(error) => tracing::warn!(%error, "an agent's handshake was cut"),
                },
            }
        }
    }

    fn begin(&self, handshakes: &mut JoinSet<Result<Pending, Error>>, incoming: Incoming) {
        let Ok(permit) = Arc::clone(&self.pending).try_acquire_owned() else {
            tracing::debug!(peer = %incoming.remote_address(), "too many handshakes: refused");
            incoming.refuse();
            return;
        };
        let busy = self.pending.available_permits() < self.settings.pending_max / 2;
        if busy && incoming.may_retry() {
            // Forged addresses never come back with the token that this sends them.
            if let Err(error) = incoming.retry() {
                tracing::debug!(%error, "cannot ask for a proof of the address");
            }
            return;
        }
        handshakes.spawn(greet(incoming, permit, self.settings.clone()));
    }

    /// Closes all tunnels and waits, at most a second, until the other ends know.
    pub async fn close(&self, code: CloseCode, reason: &str) {
        self.endpoint.close(code.number(), reason.as_bytes());
        let _ = timeout(CLOSE_WAIT, self.endpoint.wait_idle()).await;
    }
}

/// From the first packet to the hello.
async fn greet(
    incoming: Incoming,
    permit: OwnedSemaphorePermit,
    settings: Settings,
) -> Result<Pending, Error> {
    let accepted = async { Ok::<_, Error>(incoming.accept()?.await?) };
    let connection = timeout(settings.handshake, accepted)
        .await
        .map_err(|_| Error::Slow(settings.handshake))??;
    let hello = timeout(settings.handshake, hear(&connection)).await;
    let heard = hello.unwrap_or(Err(Error::Slow(settings.handshake)));
    let (hello, reader, writer) = match heard {
        Ok(heard) => heard,
        Err(error) => {
            let code = match error {
                Error::Slow(_) => CloseCode::Slow,
                _ => CloseCode::Protocol,
            };
            connection.close(code.number(), error.to_string().as_bytes());
            return Err(error);
        }
    };
    let refusal = refusal(&hello);
    let mut pending = Pending {
        hello,
        version: VERSION,
        connection,
        reader,
        writer,
        settings,
        _permit: permit,
    };
    match refusal {
        Some(refusal) => {
            pending.refuse(refusal.clone()).await;
            Err(Error::Refused(refusal))
        }
        None => {
            pending.version = agreed_version(&pending.hello).unwrap_or(VERSION);
            Ok(pending)
        }
    }
}

async fn hear(connection: &Connection) -> Result<(Hello, FrameReader, FrameWriter), Error> {
    let (send, recv) = connection.accept_bi().await?;
    let mut reader = FrameReader::new(recv, HELLO_BYTES_MAX);
    match reader.next::<ToGateway>().await? {
        Some(ToGateway {
            body: Some(AgentSays::Hello(hello)),
        }) => Ok((hello, reader, FrameWriter::new(send))),
        _ => Err(Error::Unexpected("a hello")),
    }
}

/// What the wire itself has against a hello.
fn refusal(hello: &Hello) -> Option<Refused> {
    if agreed_version(hello).is_none() {
        let message = format!(
            "the agent speaks versions {} to {} of the wire, the gateway {VERSION_MIN} to {VERSION}: \
             update the older",
            hello.oldest_version, hello.version
        );
        return Some(Refused::new(RefusalCode::UnsupportedVersion, message));
    }
    (!is_worker_id(&hello.worker_id)).then(|| {
        let message = "a worker id is 1 to 256 printable ASCII characters without spaces";
        Refused::new(RefusalCode::InvalidWorkerId, message)
    })
}

/// An agent that has said its hello and waits for the answer. Dropping it closes the connection.
pub struct Pending {
    hello: Hello,
    version: u32,
    connection: Connection,
    reader: FrameReader,
    writer: FrameWriter,
    settings: Settings,
    _permit: OwnedSemaphorePermit,
}

impl Pending {
    /// Who the agent says it is. Nothing of it is proven.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Where it dials from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Accepts the worker. The version in `welcome` is set here. An agent that has a tunnel to
    /// this gateway already, by another address, is refused instead.
    ///
    /// # Errors
    /// [`Error::Lost`] when the agent has gone, [`Error::Slow`] when it does not take the answer,
    /// [`Error::Refused`] when it has a tunnel already.
    pub async fn welcome(self, welcome: Welcome) -> Result<(Tunnel, Events), Error> {
        if self.hello.connected_gateways.contains(&welcome.gateway_id) {
            let message = "the agent has a tunnel to this gateway already, by another address";
            let refused = Refused {
                gateway_id: welcome.gateway_id,
                ..Refused::new(RefusalCode::AlreadyConnected, message)
            };
            self.refuse(refused.clone()).await;
            return Err(Error::Refused(refused));
        }
        let welcome = Welcome {
            version: self.version,
            ..welcome
        };
        let mut writer = self.writer;
        let wait = self.settings.handshake;
        timeout(wait, writer.send(&says(GatewaySays::Welcome(welcome))))
            .await
            .map_err(|_| Error::Slow(wait))??;
        let link = Link::new(self.connection, writer, self.settings.control_wait);
        let tunnel = Tunnel {
            link: Arc::new(link),
            open_wait: self.settings.open_wait,
        };
        let mut reader = self.reader;
        reader.allow(MESSAGE_BYTES_MAX);
        let events = Events {
            reader,
            link: Arc::clone(&tunnel.link),
        };
        Ok((tunnel, events))
    }

    /// Refuses the worker and closes the connection, once the agent has the answer or the time
    /// for the handshake is over.
    pub async fn refuse(mut self, refused: Refused) {
        let text = refused.message.clone();
        let told = async {
            self.writer
                .send(&says(GatewaySays::Refused(refused)))
                .await?;
            self.writer.finish().await
        };
        let _ = timeout(self.settings.handshake, told).await;
        let reason = text
            .as_bytes()
            .get(..text.len().min(256))
            .unwrap_or_default();
        self.connection.close(CloseCode::Refused.number(), reason);
    }
}

/// A worker's tunnel, at the gateway. Clones are the same tunnel; it is closed when the last of
/// them, its [`Events`] and its streams are dropped.
#[derive(Clone, Debug)]
pub struct Tunnel {
    link: Arc<Link>,
    open_wait: Duration,
}

impl Tunnel {
    /// Opens a connection to the model server. Takes no round trip: whether the agent can connect
    /// shows when the answer is read.
    ///
    /// # Errors
    /// [`Error::Undelivered`] when the tunnel has ended or has as many streams as it may.
    pub async fn open(&self) -> Result<TunnelStream, Error> {
        let opened = timeout(self.open_wait, self.link.connection.open_bi()).await;
        let pair = opened
            .map_err(|_| Undelivered::NoStream)?
            .map_err(|_| Undelivered::Closed)?;
        let count = self.link.count_stream();
        Ok(TunnelStream::new(pair, &preamble::CONNECTION, count))
    }

    /// The round trip to the agent, smoothed.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.link.connection.rtt()
    }

    /// Where the agent is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.link.address()
    }

    /// Streams that are open.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.link.stream_count()
    }

    /// Closes the tunnel at once; its streams break.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.link.close(code, reason);
    }

    /// Whether the tunnel has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.link.loss().is_some()
    }

    /// Waits for the end of the tunnel and says why.
    pub async fn closed(&self) -> Loss {
        self.link.closed().await
    }

    /// Tells the agent what this gateway sees of its worker.
    ///
    /// # Errors
    /// [`Error::Lost`] when the tunnel has ended, or ends because the agent does not read;
    /// [`Error::TooLarge`] for too many models.
    pub async fn send_observed(&self, observed: Observed) -> Result<(), Error> {
        self.link.send(&says(GatewaySays::Observed(observed))).await
    }

    /// Tells the agent all other gateways.
    ///
    /// # Errors
    /// As [`Tunnel::send_observed`].
    pub async fn send_peers(&self, peers: Vec<String>) -> Result<(), Error> {
        self.link
            .send(&says(GatewaySays::Peers(Peers { peers })))
            .await
    }

    /// Tells the agent that this gateway ends soon.
    ///
    /// # Errors
    /// As [`Tunnel::send_observed`].
    pub async fn send_draining(&self, draining: Draining) -> Result<(), Error> {
        self.link.send(&says(GatewaySays::Draining(draining))).await
    }
}

/// What the agent tells the gateway.
pub struct Events {
    reader: FrameReader,
    link: Arc<Link>,
}

/// One thing that the agent tells, or the end.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The whole state of the worker.
    Heartbeat(Heartbeat),
    /// The worker takes nothing new.
    Draining(Draining),
    /// The tunnel has ended.
    Closed(Loss),
}

impl Events {
    /// The next event; after [`Event::Closed`] it is that again. The future may be dropped.
    /// What is not the protocol closes the tunnel.
    pub async fn next(&mut self) -> Event {
        loop {
            let message = match self.reader.next::<ToGateway>().await {
                Ok(Some(message)) => message,
                Ok(None) => return self.end("the control stream ended").await,
                Err(error) => return self.end(&error.to_string()).await,
            };
            match message.body {
                Some(AgentSays::Heartbeat(heartbeat)) => return Event::Heartbeat(heartbeat),
                Some(AgentSays::Draining(draining)) => return Event::Draining(draining),
                Some(AgentSays::Hello(_)) => return self.end("a second hello").await,
                // Something of a newer version.
                None => {}
            }
        }
    }

    async fn end(&self, reason: &str) -> Event {
        self.link.close(CloseCode::Protocol, reason);
        Event::Closed(self.link.closed().await)
    }
}

fn says(body: GatewaySays) -> ToAgent {
    ToAgent { body: Some(body) }
}

fn server_config(tls: &ServerTls, settings: &Settings) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::with_crypto(tls.config()?);
    // An agent opens its control stream and nothing else.
    config.transport_config(settings.transport(1));
    config.max_incoming(settings.pending_max);
    Ok(config)
}

/// How long the other ends may take to hear that the listener closes.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
