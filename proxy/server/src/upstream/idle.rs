//! Idle plaintext HTTP/1.1 connections to one backend, or streams through its tunnel.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use parking_lot::Mutex;
use pingora::protocols::Stream;
use tokio::io::AsyncReadExt;
use tokio::time::{Duration, Instant};

/// Most idle connections kept to one backend.
const IDLE_MAX: usize = 1024;

/// A stack: the one used last is used next, so that those that are not needed grow old and are
/// closed.
#[derive(Default)]
pub(crate) struct IdleLinks {
    links: Mutex<Vec<(Stream, Instant)>>,
}

impl IdleLinks {
    /// A connection that was alive when it was looked at.
    pub(super) fn take(&self, idle_timeout: Duration) -> Option<Stream> {
        loop {
            let (mut link, since) = self.links.lock().pop()?;
            if since.elapsed() < idle_timeout && quiet(&mut link) {
                return Some(link);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(crate) fn keep(&self, link: Stream) {
        let mut links = self.links.lock();
        if links.len() < IDLE_MAX {
            links.push((link, Instant::now()));
        }
    }

    /// Closes those that are old or that the backend has closed.
    pub(crate) fn sweep(&self, idle_timeout: Duration) {
        let mut links = self.links.lock();
        links.retain_mut(|(link, since)| since.elapsed() < idle_timeout && quiet(link));
        if links.is_empty() {
            links.shrink_to(0);
        }
    }
}

/// Those of every address: connections outlive the configuration that opened them.
#[derive(Default)]
pub(crate) struct IdleByAddress(Mutex<HashMap<SocketAddr, Weak<IdleLinks>>>);

impl IdleByAddress {
    /// Those of an address; nobody's any more once nobody holds them.
    pub(crate) fn of(&self, address: SocketAddr) -> Arc<IdleLinks> {
        let mut all = self.0.lock();
        if let Some(known) = all.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, links| links.strong_count() > 0);
        let links = Arc::<IdleLinks>::default();
        all.insert(address, Arc::downgrade(&links));
        links
    }
}

/// Nothing has come from a backend that has nothing to say: neither its end nor stray bytes.
fn quiet(link: &mut Stream) -> bool {
    let mut byte = [0_u8; 1];
    link.read(&mut byte).now_or_never().is_none()
}
