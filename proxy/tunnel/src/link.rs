//! What both ends share of one connection: sending messages, counting streams, closing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prost::Message;
use quinn::Connection;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::code::CloseCode;
use crate::error::{Error, Loss};
use crate::frame::FrameWriter;

/// One connection past its hello. The last one dropped closes it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    writer: Mutex<Writer>,
    streams: Arc<AtomicUsize>,
    control_wait: Duration,
}

struct Writer(FrameWriter);

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Link {
    pub(crate) fn new(connection: Connection, writer: FrameWriter, control_wait: Duration) -> Self {
        Self {
            connection,
            writer: Mutex::new(Writer(writer)),
            streams: Arc::default(),
            control_wait,
        }
    }

    /// Sends one control message; closes the connection when it is not taken in time.
    pub(crate) async fn send<M: Message>(&self, message: &M) -> Result<(), Error> {
        let sent = timeout(self.control_wait, async {
            self.writer.lock().await.0.send(message).await
        });
        let sent = sent.await.unwrap_or(Err(Error::Stalled));
        if matches!(sent, Err(Error::Stalled)) {
            self.close(CloseCode::Stalled, "the control stream is not read");
        }
        match self.connection.close_reason() {
            // Why the connection ended says more than what its end did to this message.
            Some(reason) if sent.is_err() => Err(reason.into()),
            _ => sent,
        }
    }

    /// Closes the connection, unless it has ended: then why it did stays known.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        if self.connection.close_reason().is_some() {
            return;
        }
        let reason = reason.as_bytes();
        let reason = reason.get(..REASON_BYTES_MAX).unwrap_or(reason);
        self.connection.close(code.number(), reason);
    }

    pub(crate) fn loss(&self) -> Option<Loss> {
        self.connection.close_reason().map(Loss::from)
    }

    pub(crate) async fn closed(&self) -> Loss {
        self.connection.closed().await.into()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    pub(crate) fn stream_count(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    pub(crate) fn count_stream(&self) -> StreamCount {
        self.streams.fetch_add(1, Ordering::Relaxed);
        StreamCount(Arc::clone(&self.streams))
    }
}

/// One stream of a link, counted for as long as this is there.
#[derive(Debug)]
pub(crate) struct StreamCount(Arc<AtomicUsize>);

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A reason must fit into one packet.
const REASON_BYTES_MAX: usize = 256;
