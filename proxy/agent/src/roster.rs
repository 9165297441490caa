//! Which gateways there are: those of the settings, and those that other gateways announce.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::flags::split_address;

/// The gateways as the tasks share them.
pub(crate) struct Roster {
    state: Mutex<State>,
    /// Moves with every change.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    configured: BTreeSet<String>,
    /// By the gateway that announces: set semantics, the last word counts.
    announced: BTreeMap<String, BTreeSet<String>>,
    /// The tunnel that each gateway has: one, by however many addresses it is known.
    claims: BTreeMap<String, Claim>,
}

struct Claim {
    address: String,
    epoch: u64,
}

impl Roster {
    pub(crate) fn new(configured: &[String]) -> Self {
        let state = State {
            configured: configured.iter().cloned().collect(),
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        }
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Addresses to be dialled.
    pub(crate) fn wanted(&self) -> BTreeSet<String> {
        self.state.lock().wanted()
    }

    pub(crate) fn is_wanted(&self, address: &str) -> bool {
        self.wanted().contains(address)
    }

    /// Takes in all that `gateway` announces. What is no address is passed over.
    pub(crate) fn announce(&self, gateway: &str, peers: Vec<String>) {
        let good = peers
            .into_iter()
            .filter(|peer| split_address(peer).is_some());
        let peers: BTreeSet<String> = good.take(PEERS_MAX).collect();
        let before = self
            .state
            .lock()
            .announced
            .insert(gateway.to_owned(), peers.clone());
        if before.as_ref() != Some(&peers) {
            self.tell();
        }
    }

    /// Forgets what `gateway` announced.
    pub(crate) fn forget(&self, gateway: &str) {
        if self.state.lock().announced.remove(gateway).is_some() {
            self.tell();
        }
    }

    /// Takes `gateway` for the tunnel by `address`. Of two the newer counts, as it does for the
    /// gateway; false for the older.
    pub(crate) fn claim(&self, gateway: &str, address: &str, epoch: u64) -> bool {
        let mut state = self.state.lock();
        if state
            .claims
            .get(gateway)
            .is_some_and(|claim| claim.epoch > epoch)
        {
            return false;
        }
        let claim = Claim {
            address: address.to_owned(),
            epoch,
        };
        state.claims.insert(gateway.to_owned(), claim);
        drop(state);
        self.tell();
        true
    }

    /// Gives `gateway` free again, unless a newer tunnel has taken it.
    pub(crate) fn release(&self, gateway: &str, epoch: u64) {
        let mut state = self.state.lock();
        if state
            .claims
            .get(gateway)
            .is_some_and(|claim| claim.epoch == epoch)
        {
            state.claims.remove(gateway);
        }
        drop(state);
        self.tell();
    }

    pub(crate) fn is_connected(&self, gateway: &str) -> bool {
        self.state.lock().claims.contains_key(gateway)
    }

    /// The gateways with a tunnel, and by which address.
    pub(crate) fn connected(&self) -> BTreeMap<String, String> {
        let state = self.state.lock();
        let claims = state.claims.iter();
        claims
            .map(|(gateway, claim)| (gateway.clone(), claim.address.clone()))
            .collect()
    }

    fn tell(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }
}

impl State {
    fn wanted(&self) -> BTreeSet<String> {
        let mut wanted = self.configured.clone();
        for peer in self.announced.values().flatten() {
            if wanted.len() >= PEERS_MAX {
                break;
            }
            wanted.insert(peer.clone());
        }
        wanted
    }
}

/// Gateways dialled beside those of the settings, and announced by one.
const PEERS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(addresses: &[&str]) -> Vec<String> {
        addresses
            .iter()
            .map(|address| (*address).to_owned())
            .collect()
    }

    #[test]
    fn announcements_are_united_and_replaced() {
        let roster = Roster::new(&list(&["a:1"]));
        roster.announce("A", list(&["b:1", "c:1", "nonsense"]));
        roster.announce("B", list(&["a:1", "c:1"]));
        let wanted: Vec<_> = roster.wanted().into_iter().collect();
        assert_eq!(wanted, ["a:1", "b:1", "c:1"]);
        roster.announce("A", list(&["b:1"]));
        assert!(roster.is_wanted("c:1"), "B still announces it");
        roster.forget("B");
        assert!(!roster.is_wanted("c:1"));
        roster.announce("A", Vec::new());
        assert!(roster.is_wanted("a:1"), "it is in the settings");
        assert_eq!(roster.wanted().len(), 1);
    }

    #[test]
    fn a_gateway_has_one_tunnel_whatever_its_addresses() {
        let roster = Roster::new(&list(&["a:1", "b:1"]));
        assert!(roster.claim("A", "a:1", 5));
        assert!(!roster.claim("A", "b:1", 4), "older");
        assert!(roster.claim("A", "b:1", 6), "newer");
        assert!(roster.claim("B", "c:1", 1));
        assert_eq!(roster.connected().len(), 2);
        roster.release("A", 5);
        assert!(roster.is_connected("A"), "the newer stays");
        roster.release("A", 6);
        assert!(!roster.is_connected("A"));
    }

    #[test]
    fn there_is_a_bound_to_what_is_announced() {
        let roster = Roster::new(&list(&["a:1"]));
        let many = (1..2000).map(|n| format!("h{n}:1")).collect();
        roster.announce("A", many);
        assert_eq!(roster.wanted().len(), PEERS_MAX);
    }
}
