//! The agent's end: dials a gateway, sends heartbeats, takes the streams that the gateway opens.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, TokioRuntime};
use tokio::time::timeout;

use crate::code::{CloseCode, StreamCode};
use crate::error::{Error, Loss, Undelivered};
use crate::frame::{FrameReader, FrameWriter, MESSAGE_BYTES_MAX};
use crate::link::Link;
use crate::preamble;
use crate::settings::{Settings, socket};
use crate::stream::TunnelStream;
use crate::tls::Trust;
use crate::wire::{
    AgentSays, Draining, GatewaySays, Heartbeat, Hello, Observed, Peers, ToAgent, ToGateway,
    Welcome,
};

/// A tunnel that a gateway has welcomed.
pub struct Connected {
    /// What the gateway said.
    pub welcome: Welcome,
    /// The handle to send and to close with.
    pub link: AgentLink,
    /// The streams the gateway opens.
    pub arrivals: Arrivals,
    /// What the gateway tells.
    pub notices: Notices,
}

/// Dials `gateway` from a socket of its own and says `hello`. `server_name` is the name its
/// certificate must have, whatever the address.
///
/// # Errors
/// [`Error::Refused`] with the gateway's reason, [`Error::Slow`] when there is no answer in time,
/// [`Error::Lost`] when QUIC or TLS fails, and those of a socket or settings that do not work.
pub async fn connect(
    gateway: SocketAddr,
    server_name: &str,
    trust: &Trust,
    hello: Hello,
    settings: &Settings,
) -> Result<Connected, Error> {
    let mut config = ClientConfig::new(trust.config()?);
    config.transport_config(settings.transport(settings.streams_max));
    let any: SocketAddr = if gateway.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket(any)?, runtime)
        .map_err(Error::Bind)?;
    let connecting = endpoint
        .connect_with(config, gateway, server_name)
        .map_err(Error::Dial)?;
    let (oldest, newest) = (hello.oldest_version, hello.version);
    let greeting = async {
        let connection = connecting.await?;
        greet(connection, hello).await
    };
    let (connection, welcome, reader, writer) = timeout(settings.handshake, greeting)
        .await
        .map_err(|_| Error::Slow(settings.handshake))??;
    if !(oldest..=newest).contains(&welcome.version) {
        connection.close(
            CloseCode::Protocol.number(),
            b"a version the agent does not speak",
        );
        return Err(Error::Version(welcome.version));
    }
    let link = Arc::new(Link::new(connection, writer, settings.control_wait));
    Ok(Connected {
        welcome,
        arrivals: Arrivals {
            link: Arc::clone(&link),
            preamble_wait: settings.handshake,
        },
        notices: Notices {
            reader,
            link: Arc::clone(&link),
        },
        link: AgentLink { link, endpoint },
    })
}

async fn greet(
    connection: Connection,
    hello: Hello,
) -> Result<(Connection, Welcome, FrameReader, FrameWriter), Error> {
    let (send, recv) = connection.open_bi().await?;
    let (mut reader, mut writer) = (
        FrameReader::new(recv, MESSAGE_BYTES_MAX),
        FrameWriter::new(send),
    );
    writer.send(&says(AgentSays::Hello(hello))).await?;
    match reader.next::<ToAgent>().await?.and_then(|m| m.body) {
        Some(GatewaySays::Welcome(welcome)) => Ok((connection, welcome, reader, writer)),
        Some(GatewaySays::Refused(refused)) => {
            connection.close(CloseCode::Refused.number(), b"");
            Err(Error::Refused(refused))
        }
        _ => {
            connection.close(CloseCode::Protocol.number(), b"expected a welcome");
            Err(Error::Unexpected("a welcome or a refusal"))
        }
    }
}

/// The agent's handle of a tunnel. Clones are the same tunnel.
#[derive(Clone, Debug)]
pub struct AgentLink {
    link: Arc<Link>,
    endpoint: Endpoint,
}

impl AgentLink {
    /// Sends the whole state of the worker.
    ///
    /// # Errors
    /// [`Error::Lost`] when the tunnel has ended, or ends because the gateway does not read;
    /// [`Error::TooLarge`] for too many models.
    pub async fn send_heartbeat(&self, heartbeat: Heartbeat) -> Result<(), Error> {
        self.link.send(&says(AgentSays::Heartbeat(heartbeat))).await
    }

    /// Says that the worker takes nothing new.
    ///
    /// # Errors
    /// As [`AgentLink::send_heartbeat`].
    pub async fn send_draining(&self, draining: Draining) -> Result<(), Error> {
        self.link.send(&says(AgentSays::Draining(draining))).await
    }

    /// The round trip to the gateway, smoothed.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.link.connection.rtt()
    }

    /// Streams that are open.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.link.stream_count()
    }

    /// Closes the tunnel and waits, at most a second, until the gateway knows. Streams break.
    pub async fn close(&self, code: CloseCode, reason: &str) {
        self.link.close(code, reason);
        let _ = timeout(CLOSE_WAIT, self.endpoint.wait_idle()).await;
    }

    /// Waits for the end of the tunnel and says why.
    pub async fn closed(&self) -> Loss {
        self.link.closed().await
    }
}

/// The streams that a gateway opens.
pub struct Arrivals {
    link: Arc<Link>,
    preamble_wait: Duration,
}

impl Arrivals {
    /// The next stream; `None` when the tunnel has ended. The future may be dropped.
    pub async fn next(&mut self) -> Option<Arrival> {
        let pair = self.link.connection.accept_bi().await.ok()?;
        Some(Arrival {
            stream: TunnelStream::new(pair, &[], self.link.count_stream()),
            preamble_wait: self.preamble_wait,
        })
    }
}

/// A stream that was opened and not looked at yet. Dropping it aborts it.
pub struct Arrival {
    stream: TunnelStream,
    preamble_wait: Duration,
}

impl Arrival {
    /// Reads what kind of stream it is; one of an unknown kind is refused. Whatever follows is for
    /// the model server.
    ///
    /// # Errors
    /// [`Error::Undelivered`] when the kind is not known, [`Error::Slow`] when the preamble does
    /// not come, [`Error::Unexpected`] when the stream ends within it.
    pub async fn accept(mut self) -> Result<Accepted, Error> {
        let read = preamble::read(&mut self.stream.recv);
        match timeout(self.preamble_wait, read).await {
            Ok(Ok(())) => Ok(Accepted(self.stream)),
            Ok(Err(code)) => {
                self.stream.end(code);
                Err(match code {
                    StreamCode::Undelivered(reason) => reason.into(),
                    _ => Error::Unexpected("a preamble"),
                })
            }
            Err(_) => Err(Error::Slow(self.preamble_wait)),
        }
    }

    /// Ends the stream and says that nothing was delivered.
    pub fn refuse(mut self, reason: Undelivered) {
        self.stream.end(StreamCode::Undelivered(reason));
    }
}

/// A stream for the model server, of which nothing was delivered yet.
#[derive(Debug)]
pub struct Accepted(TunnelStream);

impl Accepted {
    /// The bytes. From here on a failure counts as one after delivery.
    #[must_use]
    pub fn into_stream(self) -> TunnelStream {
        self.0
    }

    /// Ends the stream and says that nothing was delivered.
    pub fn refuse(mut self, reason: Undelivered) {
        self.0.end(StreamCode::Undelivered(reason));
    }

    /// Waits until the gateway gives the stream up; to be raced against connecting.
    pub async fn abandoned(&mut self) {
        let _ = self.0.send.stopped().await;
    }
}

/// What the gateway tells the agent.
pub struct Notices {
    reader: FrameReader,
    link: Arc<Link>,
}

/// One thing that the gateway tells, or the end.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// All other gateways.
    Peers(Vec<String>),
    /// What it sees of this worker.
    Observed(Observed),
    /// It ends soon.
    Draining(Draining),
    /// It takes the worker no longer; the end follows.
    Refused(crate::wire::Refused),
    /// The tunnel has ended.
    Closed(Loss),
}

impl Notices {
    /// The next notice; after [`Notice::Closed`] it is that again. The future may be dropped.
    /// What is not the protocol closes the tunnel.
    pub async fn next(&mut self) -> Notice {
        loop {
            let message = match self.reader.next::<ToAgent>().await {
                Ok(Some(message)) => message,
                Ok(None) => return self.end("the control stream ended").await,
                Err(error) => return self.end(&error.to_string()).await,
            };
            match message.body {
                Some(GatewaySays::Peers(Peers { peers })) => return Notice::Peers(peers),
                Some(GatewaySays::Observed(observed)) => return Notice::Observed(observed),
                Some(GatewaySays::Draining(draining)) => return Notice::Draining(draining),
                Some(GatewaySays::Refused(refused)) => return Notice::Refused(refused),
                Some(GatewaySays::Welcome(_)) => return self.end("a second welcome").await,
                // Something of a newer version.
                None => {}
            }
        }
    }

    async fn end(&self, reason: &str) -> Notice {
        self.link.close(CloseCode::Protocol, reason);
        Notice::Closed(self.link.closed().await)
    }
}

fn says(body: AgentSays) -> ToGateway {
    ToGateway { body: Some(body) }
}

/// How long the gateway may take to hear that the tunnel is closed.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
