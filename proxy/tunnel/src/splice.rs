//! Joins a stream of the tunnel to a connection of the model server: bytes, half-close and abort.
//!
//! An idle pair holds no buffer. What one side does not take holds up the other: the stream by its
//! window, the socket by the system's.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

use crate::code::StreamCode;
use crate::error::Undelivered;
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

    /// Whether the model server has closed it, or broken it off, with nothing left to read.
    fn has_ended(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let looked = match self {
            Self::Tcp(socket) => SockRef::from(socket).peek(&mut byte),
            Self::Unix(socket) => SockRef::from(socket).peek(&mut byte),
        };
        match looked {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    fn finish(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => SockRef::from(socket).shutdown(Shutdown::Write),
            Self::Unix(socket) => SockRef::from(socket).shutdown(Shutdown::Write),
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
    /// The model server has ended its direction.
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

/// Carries bytes both ways until the model server has ended its direction or one of them breaks.
///
/// The end of the gateway's direction is passed on as a half-close; an abort by the gateway cuts the
/// socket at once; a broken socket resets the stream. Dropping the future does both.
///
/// Over a stream that is kept for more requests, one may come just when the model server closes its
/// connection. What comes after that is not delivered, and the gateway is told so.
pub async fn splice(mut stream: TunnelStream, socket: Socket) -> Spliced {
    let carried = Carried::default();
    let end = both_ways(&mut stream, &socket, &carried).await;
    match end {
        SpliceEnd::Done => {
            // The model server has closed it.
            drop(socket);
            if !carried.gateway_ended.into_inner() {
                refuse_the_rest(&mut stream.recv, carried.unanswered.into_inner()).await;
            }
            stream.send_ended = true;
            stream.recv_ended = true;
        }
        SpliceEnd::Gateway => socket.abort(),
        SpliceEnd::Upstream => stream.end(StreamCode::Broken),
    }
    Spliced {
        sent_bytes: carried.sent.into_inner(),
        received_bytes: carried.received.into_inner(),
        end,
    }
}

/// What has passed so far.
#[derive(Default)]
struct Carried {
    /// Bytes to the model server, and from it.
    sent: AtomicU64,
    received: AtomicU64,
    /// The last bytes went to the model server.
    unanswered: AtomicBool,
    /// The gateway has ended its direction, or was told to.
    gateway_ended: AtomicBool,
}

impl Carried {
    fn has_answered(&self) -> bool {
        self.received.load(Ordering::Relaxed) > 0 && !self.unanswered.load(Ordering::Relaxed)
    }
}

async fn both_ways(stream: &mut TunnelStream, socket: &Socket, carried: &Carried) -> SpliceEnd {
    let mut up = pin!(upwards(&mut stream.recv, socket, carried));
    let mut down = pin!(downwards(&mut stream.send, socket, carried));
    loop {
        let gateway_ended = carried.gateway_ended.load(Ordering::Relaxed);
        let result = tokio::select! {
            result = &mut up, if !gateway_ended => {
                carried.gateway_ended.store(true, Ordering::Relaxed);
                result
            }
            result = &mut down => match result {
                Ok(()) => return SpliceEnd::Done,
                broken => broken,
            }
        };
        if let Err(end) = result {
            return end;
        }
    }
}

/// Says of what the gateway sends to a model server that has gone whether it can have got it: not
/// if that comes only now. Nothing is said to a gateway that sends no more.
async fn refuse_the_rest(stream: &mut RecvStream, unanswered: bool) {
    let code = if unanswered {
        StreamCode::Broken
    } else {
        match stream.read_chunk(1, true).await {
            Ok(Some(_)) => StreamCode::Undelivered(Undelivered::Closed),
            Ok(None) | Err(_) => return,
        }
    };
    // An error means that the direction has ended already.
    let _ = stream.stop(code.number());
}

/// From the gateway to the model server.
async fn upwards(
    stream: &mut RecvStream,
    socket: &Socket,
    carried: &Carried,
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
        if carried.has_answered() && socket.has_ended() {
            let _ = stream.stop(StreamCode::Undelivered(Undelivered::Closed).number());
            return Ok(());
        }
        carried.unanswered.store(true, Ordering::Relaxed);
        let chunks = chunks.get_mut(..filled).unwrap_or_default();
        if let Err(error) = write_all(socket, chunks, &carried.sent).await {
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
    carried: &Carried,
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
                    carried.unanswered.store(false, Ordering::Relaxed);
                    let read = u64::try_from(read).unwrap_or_default();
                    carried.received.fetch_add(read, Ordering::Relaxed);
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
