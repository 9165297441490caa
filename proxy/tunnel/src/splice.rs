//! Joins a stream of the tunnel to a connection of the model server: bytes, half-close and abort.
//!
//! An idle pair holds no buffer. What one side does not take holds up the other: the stream by its
//! window, the socket by the system's.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use tokio::net::{TcpStream, UnixStream};

use crate::code::StreamCode;
use crate::stream::TunnelStream;

/// A connection of the model server.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Socket {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.readable().await,
            Self::Unix(socket) => socket.readable().await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.writable().await,
            Self::Unix(socket) => socket.writable().await,
        }
    }

    fn try_read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read_buf(buffer),
            Self::Unix(socket) => socket.try_read_buf(buffer),
        }
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write_vectored(slices),
            Self::Unix(socket) => socket.try_write_vectored(slices),
        }
    }

    fn finish(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket2::SockRef::from(socket).shutdown(Shutdown::Write),
            Self::Unix(socket) => socket2::SockRef::from(socket).shutdown(Shutdown::Write),
        }
    }

    /// Cuts the connection, so that the model server hears of it even while it only writes.
    fn abort(self) {
        if let Self::Tcp(socket) = &self
            && let Err(error) = socket.set_zero_linger()
        {
            tracing::debug!(%error, "the connection is closed instead of reset");
        }
    }
}

/// What a splice carried and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spliced {
    /// Bytes to the model server.
    pub sent_bytes: u64,
    /// Bytes from it.
    pub received_bytes: u64,
    /// How it ended.
    pub end: SpliceEnd,
}

/// How a splice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpliceEnd {
    /// Both directions came to their end.
    Done,
    /// The gateway aborted the stream, or the tunnel was lost.
    Gateway,
    /// The model server's connection broke.
    Upstream,
}

impl SpliceEnd {
    /// The end as logs and metrics name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Gateway => "aborted",
            Self::Upstream => "broken",
        }
    }
}

/// Carries bytes both ways until both directions have ended or one of them breaks.
///
/// The end of one direction is passed on as a half-close. An abort by the gateway cuts the socket
/// at once; a broken socket resets the stream. Dropping the future does both.
pub async fn splice(mut stream: TunnelStream, socket: Socket) -> Spliced {
    let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = both_ways(&mut stream, &socket, &sent, &received).await;
    match end {
        SpliceEnd::Done => {
            stream.send_ended = true;
            stream.recv_ended = true;
        }
        SpliceEnd::Gateway => socket.abort(),
        SpliceEnd::Upstream => stream.end(StreamCode::Broken),
    }
    Spliced {
        sent_bytes: sent.into_inner(),
        received_bytes: received.into_inner(),
        end,
    }
}

async fn both_ways(
    stream: &mut TunnelStream,
    socket: &Socket,
    sent: &AtomicU64,
    received: &AtomicU64,
) -> SpliceEnd {
    let mut up = pin!(upwards(&mut stream.recv, socket, sent));
    let mut down = pin!(downwards(&mut stream.send, socket, received));
    let (mut up_ended, mut down_ended) = (false, false);
    while !(up_ended && down_ended) {
        // Whoever has read the answer to its end may drop the rest of its own direction.
        let (result, answered) = tokio::select! {
            result = &mut up, if !up_ended => {
                up_ended = true;
                (result, down_ended)
            }
            result = &mut down, if !down_ended => {
                down_ended = true;
                (result, false)
            }
        };
        match result {
            Ok(()) => {}
            Err(SpliceEnd::Gateway) if answered => return SpliceEnd::Done,
            Err(end) => return end,
        }
    }
    SpliceEnd::Done
}

/// From the gateway to the model server.
async fn upwards(
    stream: &mut RecvStream,
    socket: &Socket,
    count: &AtomicU64,
) -> Result<(), SpliceEnd> {
    loop {
        let mut chunks: [Bytes; CHUNKS] = Default::default();
        let read = stream.read_chunks(&mut chunks).await;
        let filled = match read {
            Ok(Some(filled)) => filled,
            Ok(None) => {
                // A socket that is closed already has nothing left to end.
                if let Err(error) = socket.finish() {
                    tracing::trace!(%error, "half-close of a closed socket");
                }
                return Ok(());
            }
            Err(ReadError::Reset(_) | ReadError::ConnectionLost(_)) => {
                return Err(SpliceEnd::Gateway);
            }
            Err(_) => return Err(SpliceEnd::Upstream),
        };
        let chunks = chunks.get_mut(..filled).unwrap_or_default();
        if let Err(error) = write_all(socket, chunks, count).await {
            // The server takes no more, but may have answered before: that is read to its end.
            tracing::trace!(%error, "the model server takes no more of a request");
            let _ = stream.stop(StreamCode::Broken.number());
            return Ok(());
        }
    }
}

async fn write_all(socket: &Socket, chunks: &mut [Bytes], count: &AtomicU64) -> io::Result<()> {
    let mut first = 0;
    while let Some(rest) = chunks.get_mut(first..).filter(|rest| !rest.is_empty()) {
        let mut slices = [IoSlice::new(&[]); CHUNKS];
        for (slice, chunk) in slices.iter_mut().zip(rest.iter()) {
            *slice = IoSlice::new(chunk);
        }
        let slices = slices.get(..rest.len()).unwrap_or_default();
        let mut written = match socket.try_write(slices) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.writable().await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        count.fetch_add(
            u64::try_from(written).unwrap_or_default(),
            Ordering::Relaxed,
        );
        for chunk in rest {
            let taken = written.min(chunk.len());
            chunk.advance(taken);
            written -= taken;
            if !chunk.is_empty() {
                break;
            }
            first += 1;
        }
    }
    Ok(())
}

/// From the model server to the gateway.
async fn downwards(
    stream: &mut SendStream,
    socket: &Socket,
    count: &AtomicU64,
) -> Result<(), SpliceEnd> {
    let mut stopped = pin!(stream.stopped());
    loop {
        tokio::select! {
            ready = socket.readable() => ready.map_err(|_| SpliceEnd::Upstream)?,
            _ = &mut stopped => return Err(SpliceEnd::Gateway),
        }
        // Made only now, so that a connection that waits holds none.
        let mut buffer = Vec::with_capacity(READ_BYTES);
        loop {
            match socket.try_read(&mut buffer) {
                Ok(0) => {
                    let _ = stream.finish();
                    return Ok(());
                }
                Ok(read) => {
                    count.fetch_add(u64::try_from(read).unwrap_or_default(), Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(SpliceEnd::Upstream),
            }
            match stream.write_all(&buffer).await {
                Ok(()) => buffer.clear(),
                Err(WriteError::ClosedStream | WriteError::ZeroRttRejected) => {
                    return Err(SpliceEnd::Upstream);
                }
                Err(WriteError::Stopped(_) | WriteError::ConnectionLost(_)) => {
                    return Err(SpliceEnd::Gateway);
                }
            }
        }
    }
}

/// Pieces written to the socket at once; each is at most a packet.
const CHUNKS: usize = 16;

/// Bytes read from the socket at once.
const READ_BYTES: usize = 16 * 1024;
