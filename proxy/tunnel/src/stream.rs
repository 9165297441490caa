//! One stream of data as a connection: bytes both ways, half-close, abort.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use quinn::{ReadError, RecvStream, SendStream, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::code::StreamCode;
use crate::error::{Broken, Undelivered, ended};
use crate::link::StreamCount;

/// A stream through a tunnel; for HTTP it is what a TCP connection is.
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
    _count: StreamCount,
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
            Ok(()) => {
                this.recv_ended |= room > 0 && buffer.filled().len() == before;
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
