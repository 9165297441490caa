//! A session with a backend, and what becomes of it.

use std::io;
use std::net::SocketAddr;

use pingora::connectors::http::Connector;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v1::client::HttpSession as Http1Session;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::l4::virt::VirtualSocketStream;
use pingora::{Error, ErrorType};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::members::{Target, Way};
use crate::snapshot::Upstream;
use crate::upstream::joined::JoinedWrites;
use crate::workers::dial;
use crate::workers::seat::STREAM_IDLE;

/// A session ready for a request.
pub(crate) struct Link {
    /// The session.
    pub(crate) session: HttpSession,
    /// Whether its connection has served before: the backend may close it just now.
    pub(crate) reused: bool,
}

/// Which connections will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// An idle one if there is one.
    Any,
    /// A new one: an idle one has just turned out to be dead, and so may the others be.
    New,
}

/// Takes an idle connection or opens one, within `connect_timeout_ms`.
pub(crate) async fn connect(
    connector: &Connector,
    upstream: &Upstream,
    target: &Target,
    wanted: Wanted,
) -> pingora::Result<Link> {
    if !target.plain {
        let (session, reused) = match wanted {
            Wanted::Any => Box::pin(connector.get_http_session(&target.peer)).await?,
            Wanted::New => {
                let mut peer = target.peer.clone();
                // A group of its own has no idle connections.
                peer.group_key = fastrand::u64(1..);
                Box::pin(connector.get_http_session(&peer)).await?
            }
        };
        return Ok(Link { session, reused });
    }
    let idle = || match &target.way {
        Way::Tcp(_, idle) => idle.take(upstream.idle_timeout),
        Way::Tunnel(seat) => seat.link.idle.take(upstream.idle_timeout.min(STREAM_IDLE)),
    };
    if wanted == Wanted::Any
        && let Some(stream) = idle()
    {
        return Ok(Link {
            session: HttpSession::H1(Http1Session::new(stream)),
            reused: true,
        });
    }
    // Boxed, as above: an exchange that finds an idle connection carries no room for opening one.
    Box::pin(open(upstream, target)).await
}

/// Opens a plaintext connection.
async fn open(upstream: &Upstream, target: &Target) -> pingora::Result<Link> {
    let stream = match &target.way {
        Way::Tcp(address, _) => tcp(upstream, *address).await?,
        Way::Tunnel(seat) => dial::open(&seat.link.tunnel).await?,
    };
    Ok(Link {
        session: HttpSession::H1(Http1Session::new(Box::new(stream))),
        reused: false,
    })
}

async fn tcp(upstream: &Upstream, address: SocketAddr) -> pingora::Result<L4Stream> {
    let connected = match timeout(upstream.connect_timeout, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                    ErrorType::ConnectNoRoute
                }
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, format!("connecting to {address}"), error).into_up()
        })?,
        Err(_) => {
            return Err(Error::explain(
                ErrorType::ConnectTimedout,
                format!("connecting to {address}"),
            )
            .into_up());
        }
    };
    connected
        .set_nodelay(true)
        .map_err(|error| Error::because(ErrorType::SocketError, "setting nodelay", error))?;
    let joined = VirtualSocketStream::new(Box::new(JoinedWrites::new(connected)));
    Ok(L4Stream::from(joined))
}

/// Keeps the connection for the next request when the answer was read to its end and the backend
/// does not close it.
pub(crate) async fn release(
    connector: &Connector,
    upstream: &Upstream,
    target: &Target,
    session: HttpSession,
) {
    match session {
        HttpSession::H1(mut session) if target.plain => {
            session.respect_keepalive();
            if let Some(stream) = session.reuse().await {
                match &target.way {
                    Way::Tcp(_, idle) => idle.keep(stream),
                    Way::Tunnel(seat) => seat.link.keep(stream),
                }
            }
        }
        session => {
            connector
                .release_http_session(session, &target.peer, Some(upstream.idle_timeout))
                .await
        }
    }
}
