//! A stretch of bad network for UDP: delays and drops what passes, and can be cut.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Time one way.
    pub delay: Duration,
    /// Packets lost of a thousand, each way.
    pub loss_permille: u64,
}

/// Passes packets between whoever sends to it and one target.
pub struct Relay {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
    _passing: JoinSet<()>,
}

impl Relay {
    /// On a free port of this address.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn start(own: Ipv4Addr, target: SocketAddr, path: Path) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind((own, 0)).await?);
        let address = socket.local_addr()?;
        let (cut, dropped) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let line = Line {
            path,
            cut: Arc::clone(&cut),
            dropped: Arc::clone(&dropped),
        };
        let mut passing = JoinSet::new();
        passing.spawn(outwards(own, socket, target, line));
        Ok(Self {
            address,
            cut,
            dropped,
            _passing: passing,
        })
    }

    /// Where to send.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops everything from now on, or no longer.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    /// Packets that were lost so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Line {
    path: Path,
    cut: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
}

impl Line {
    /// Sends a packet later, or never. Packets of one line may overtake each other by little, as on
    /// any network.
    fn carry(
        &self,
        on: &mut JoinSet<()>,
        socket: &Arc<UdpSocket>,
        packet: Vec<u8>,
        to: SocketAddr,
    ) {
        while on.try_join_next().is_some() {}
        let lost = self.cut.load(Ordering::Relaxed)
            || fastrand::u64(0..1_000) < self.path.loss_permille
            || on.len() >= UNDER_WAY_MAX;
        if lost {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (socket, delay) = (Arc::clone(socket), self.path.delay);
        on.spawn(async move {
            tokio::time::sleep(delay).await;
            // A packet that cannot be sent is one more that is lost.
            _ = socket.send_to(&packet, to).await;
        });
    }
}

/// From senders to the target, with a socket of its own for each sender.
async fn outwards(own: Ipv4Addr, socket: Arc<UdpSocket>, target: SocketAddr, line: Line) {
    let mut back = JoinSet::new();
    let mut under_way = JoinSet::new();
    let senders: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>> = Mutex::default();
    let mut buffer = vec![0_u8; PACKET_BYTES_MAX];
    loop {
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let mut senders = senders.lock().await;
        let near = match senders.get(&sender) {
            Some(known) => Arc::clone(known),
            None => {
                let Ok(fresh) = UdpSocket::bind((own, 0)).await else {
                    continue;
                };
                let fresh = Arc::new(fresh);
                senders.insert(sender, Arc::clone(&fresh));
                back.spawn(backwards(
                    Arc::clone(&fresh),
                    Arc::clone(&socket),
                    sender,
                    line.clone(),
                ));
                fresh
            }
        };
        let packet = buffer.get(..length).unwrap_or_default().to_vec();
        line.carry(&mut under_way, &near, packet, target);
    }
}

/// From the target to one sender.
async fn backwards(near: Arc<UdpSocket>, socket: Arc<UdpSocket>, sender: SocketAddr, line: Line) {
    let mut under_way = JoinSet::new();
    let mut buffer = vec![0_u8; PACKET_BYTES_MAX];
    loop {
        let Ok((length, _)) = near.recv_from(&mut buffer).await else {
            continue;
        };
        let packet = buffer.get(..length).unwrap_or_default().to_vec();
        line.carry(&mut under_way, &socket, packet, sender);
    }
}

const PACKET_BYTES_MAX: usize = 65_536;
/// Packets on their way one way; more are lost, as in any queue.
const UNDER_WAY_MAX: usize = 4_096;
