//! A connection through a worker's tunnel, as pingora takes connections.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weir_tunnel::TunnelStream;
use weir_tunnel::gateway::Tunnel;

/// Opens connections through one tunnel for pingora's connector; the address is not looked at.
#[derive(Clone)]
pub(crate) struct TunnelDial(pub(crate) Tunnel);

impl std::fmt::Debug for TunnelDial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TunnelDial({})", self.0.address())
    }
}

#[async_trait]
impl Connect for TunnelDial {
    async fn connect(&self, _address: &SocketAddr) -> pingora::Result<Stream> {
        open(&self.0).await
    }
}

/// A new connection to the model server behind the tunnel. Nothing is waited for: whether the
/// worker reaches it shows when an answer is read.
pub(crate) async fn open(tunnel: &Tunnel) -> pingora::Result<Stream> {
    let stream = tunnel.open().await.map_err(|error| {
        Error::because(ErrorType::ConnectError, "opening a tunnel's stream", error).into_up()
    })?;
    let socket = VirtualSocketStream::new(Box::new(TunnelSocket(stream)));
    Ok(Stream::from(socket))
}

/// A tunnel's stream where pingora expects a socket.
#[derive(Debug)]
struct TunnelSocket(TunnelStream);

impl AsyncRead for TunnelSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TunnelSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

impl VirtualSocket for TunnelSocket {
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        // QUIC has neither Nagle's algorithm nor keep-alives for a single stream.
        Ok(())
    }
}
