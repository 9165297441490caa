//! The bounds and times of a tunnel, and the transport they make.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::{AckFrequencyConfig, IdleTimeout, TransportConfig, VarInt};

use crate::error::Error;

/// Bounds and times of a tunnel; both ends have their own.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From the first packet to the hello (gateway), or to the welcome (agent).
    pub handshake: Duration,
    /// A packet is sent at least this often, so that the other side hears of us.
    pub keep_alive: Duration,
    /// Silence after which the other side counts as gone; the lesser of both ends' counts.
    pub idle: Duration,
    /// Handshakes, and hellos not answered yet, at a gateway. Above half of it a new one must
    /// first show that its address is its own; above it a new one is refused.
    pub pending_max: usize,
    /// Streams at once through one tunnel; the agent's counts.
    pub streams_max: u32,
    /// How long opening a stream may wait for another to end.
    pub open_wait: Duration,
    /// How long a control message may wait to be taken before the tunnel is closed.
    pub control_wait: Duration,
    /// Bytes of one stream that may wait to be read; with the round trip, the bound of its rate.
    pub stream_window_bytes: u32,
    /// Bytes of all streams that may wait to be read: the bound of a tunnel's memory on the
    /// receiving side. Streams that nobody reads hold up the others once they fill it.
    pub connection_window_bytes: u32,
    /// Bytes that may be on the way unacknowledged: the bound on the sending side.
    pub send_window_bytes: u64,
    /// The round trip assumed until the first is measured.
    pub initial_rtt: Duration,
    /// How the rate is found that the path can take.
    pub congestion: Congestion,
}

/// How the rate is found that the path can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Backs off at loss. The steady choice.
    #[default]
    Cubic,
    /// Follows measured rate and round trip; better on long paths with random loss.
    Bbr,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            keep_alive: Duration::from_secs(1),
            idle: Duration::from_secs(4),
            pending_max: 256,
            streams_max: 4096,
            open_wait: Duration::from_secs(1),
            control_wait: Duration::from_secs(10),
            stream_window_bytes: 512 * 1024,
            connection_window_bytes: 256 * 1024 * 1024,
            send_window_bytes: 16 * 1024 * 1024,
            initial_rtt: Duration::from_millis(100),
            congestion: Congestion::Cubic,
        }
    }
}

impl Settings {
    /// The transport of an end that lets the other open `streams` at once.
    pub(crate) fn transport(&self, streams: u32) -> Arc<TransportConfig> {
        // Packets stay those of an Ethernet: with larger ones quinn hands the kernel more than 64 KiB
        // at once, which is dropped as a whole.
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(VarInt::from_u32(self.stream_window_bytes))
            .receive_window(VarInt::from_u32(self.connection_window_bytes))
            .send_window(self.send_window_bytes)
            .initial_rtt(self.initial_rtt)
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(IdleTimeout::try_from(self.idle).ok());
        let mut acknowledgements = AckFrequencyConfig::default();
        acknowledgements.ack_eliciting_threshold(VarInt::from_u32(ACK_PACKETS));
        transport.ack_frequency_config(Some(acknowledgements));
        match self.congestion {
            Congestion::Cubic => {
                let mut cubic = CubicConfig::default();
                // Most prompts fit; a tunnel lives long, so this matters once.
                cubic.initial_window(INITIAL_WINDOW_BYTES);
                transport.congestion_controller_factory(Arc::new(cubic));
            }
            Congestion::Bbr => {
                transport.congestion_controller_factory(Arc::new(BbrConfig::default()));
            }
        }
        Arc::new(transport)
    }
}

/// A UDP socket with room for bursts, as far as the system allows.
pub(crate) fn socket(address: SocketAddr) -> Result<UdpSocket, Error> {
    let socket = UdpSocket::bind(address).map_err(Error::Bind)?;
    let options = socket2::SockRef::from(&socket);
    for sized in [
        options.set_recv_buffer_size(SOCKET_BUFFER_BYTES),
        options.set_send_buffer_size(SOCKET_BUFFER_BYTES),
    ] {
        if let Err(error) = sized {
            tracing::debug!(%error, "the buffers of the UDP socket stay as they are");
        }
    }
    Ok(socket)
}

const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Packets that one acknowledgement may be for; each is a packet of its own to make and to read.
const ACK_PACKETS: u32 = 10;
const INITIAL_WINDOW_BYTES: u64 = 64 * 1024;
