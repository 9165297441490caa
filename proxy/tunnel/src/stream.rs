//! One stream of data as a connection: bytes both ways, half-close, abort.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use quinn::{ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::code::StreamCode;
use crate::error::{Broken, Undelivered, ended};
use crate::link::StreamCount;

/// A stream through a tunnel; for HTTP it is what a TCP connection is.
///
/// It may be kept for the next request when an answer was read to its end. An end that is read with
/// a request outstanding is an error where the request came too late for the model server, which had
/// closed its connection: then [`crate::is_undelivered`] holds.
///
/// Shutting it down is a half-close: the other side reads the end and may go on sending. Dropping
/// it before both directions have ended aborts it: the other side sees an error at once, and the
/// agent cuts its connection to the model server. Errors of reading and writing tell with
/// [`crate::is_undelivered`] whether the model server can have seen anything.
#[derive(Debug)]
pub struct TunnelStream {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    /// What is left of the preamble; goes out with the first bytes.
    preamble: &'static [u8],
    pub(crate) send_ended: bool,
    pub(crate) recv_ended: bool,
    /// The last bytes went to the other side.
    unanswered: bool,
    /// Waits for what the other side says of them once it has ended.
    stopped: Option<Stopped>,
    _count: StreamCount,
}

/// Comes to the code by which the other side has stopped a direction.
struct Stopped(Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync>>);

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopped")
    }
}

impl TunnelStream {
    pub(crate) fn new(
        (send, recv): (SendStream, RecvStream),
        preamble: &'static [u8],
        count: StreamCount,
    ) -> Self {
        Self {
            send,
            recv,
            preamble,
            send_ended: false,
            recv_ended: false,
            unanswered: false,
            stopped: None,
            _count: count,
        }
    }

    /// Ends both directions with `code`; what was not sent yet is not sent.
    pub(crate) fn end(&mut self, code: StreamCode) {
        // Errors here mean that the direction has ended already.
        if !std::mem::replace(&mut self.send_ended, true) {
            let _ = self.send.reset(code.number());
        }
        if !std::mem::replace(&mut self.recv_ended, true) {
            let _ = self.recv.stop(code.number());
        }
    }

    /// Sends what is left of the preamble.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.preamble.is_empty() {
            let written = ready!(Pin::new(&mut self.send).poll_write(cx, self.preamble));
            let written = written.map_err(|error| self.write_error(error))?;
            self.preamble = self.preamble.get(written..).unwrap_or_default();
        }
        Poll::Ready(Ok(()))
    }

    /// The other side has ended with an answer outstanding. If it says that what was sent last came
    /// too late for the model server, that is an error which tells so; else it is an end.
    fn poll_unanswered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let send = &self.send;
        let stopped = self
            .stopped
            .get_or_insert_with(|| Stopped(Box::pin(send.stopped())));
        let stopped = ready!(stopped.0.as_mut().poll(cx));
        self.unanswered = false;
        self.stopped = None;
        Poll::Ready(match stopped {
            Ok(Some(code)) => match StreamCode::from_number(code) {
                StreamCode::Undelivered(_) => Err(ended(code)),
                _ => Ok(()),
            },
            Ok(None) | Err(StoppedError::ZeroRttRejected) => Ok(()),
            Err(StoppedError::ConnectionLost(error)) => Err(self.lost(error)),
        })
    }

    fn write_error(&mut self, error: WriteError) -> io::Error {
        match error {
            WriteError::Stopped(code) => ended(code),
            WriteError::ConnectionLost(error) => self.lost(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Broken::Used.into_io(),
        }
    }

    fn read_error(&mut self, error: ReadError) -> io::Error {
        self.recv_ended = true;
        match error {
            ReadError::Reset(code) => ended(code),
            ReadError::ConnectionLost(error) => self.lost(error),
            ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Broken::Used.into_io(),
        }
    }

    fn lost(&self, error: quinn::ConnectionError) -> io::Error {
        if self.preamble.is_empty() {
            Broken::Tunnel(error.into()).into_io()
        } else {
            // The other side has not even heard of the stream.
            Undelivered::Closed.into_io()
        }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_begin(cx))?;
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        match ready!(this.recv.poll_read_buf(cx, buffer)) {
            Ok(()) if room > 0 && buffer.filled().len() == before => {
                this.recv_ended = true;
                if this.unanswered && !this.send_ended {
                    return this.poll_unanswered(cx);
                }
                Poll::Ready(Ok(()))
            }
            Ok(()) => {
                this.unanswered = false;
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(this.read_error(error))),
        }
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_begin(cx))?;
        let written = ready!(Pin::new(&mut this.send).poll_write(cx, bytes));
        this.unanswered = true;
        Poll::Ready(written.map_err(|error| this.write_error(error)))
    }

    /// The transport holds nothing back; there is only the preamble to hand on.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_begin(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_begin(cx))?;
        if !std::mem::replace(&mut this.send_ended, true) {
            // An error means that the direction has ended already, as a shutdown wants.
            let _ = this.send.finish();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.end(StreamCode::Aborted);
    }
}
