//! Names of backends and where they point: looked up when a config names them, and again and again
//! while it is live, off the request path.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::runtime::Runtime;

/// How often is looked whose turn it is.
const TICK: Duration = Duration::from_millis(100);
/// Lookups under way: each may keep a thread for as long as the resolver takes to give up.
const LOOKUPS_MAX: usize = 32;

/// Every name that a living configuration uses.
#[derive(Default)]
pub(crate) struct Names {
    known: Mutex<HashMap<Box<str>, Weak<Name>>>,
}

/// One `host:port` and where it points. Never nowhere: a lookup that fails leaves it as it was.
pub(crate) struct Name {
    text: Box<str>,
    addresses: ArcSwap<Vec<SocketAddr>>,
    /// Counts the changes.
    version: AtomicU64,
    /// Why the last lookup failed, if it did.
    fault: Mutex<Option<String>>,
}

impl Names {
    /// A name, looked up now unless it is known and `kept_fresh` in the background.
    ///
    /// # Errors
    /// What the resolver says of a name that is not known yet, and never has been.
    pub(crate) fn get(&self, text: &str, kept_fresh: bool) -> Result<Arc<Name>, String> {
        let known = self.known.lock().get(text).and_then(Weak::upgrade);
        match known {
            Some(name) if kept_fresh => Ok(name),
            Some(name) => {
                name.learn(look_up(text));
                Ok(name)
            }
            None => {
                let addresses = look_up(text)?;
                let name = Arc::new(Name::new(text, addresses));
                let mut known = self.known.lock();
                known.retain(|_, name| name.strong_count() > 0);
                known.insert(text.into(), Arc::downgrade(&name));
                Ok(name)
            }
        }
    }
}

impl Name {
    fn new(text: &str, addresses: Vec<SocketAddr>) -> Self {
        Self {
            text: text.into(),
            addresses: ArcSwap::from_pointee(addresses),
            version: AtomicU64::new(0),
            fault: Mutex::new(None),
        }
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Where it points, in order: at least one.
    pub(crate) fn addresses(&self) -> Arc<Vec<SocketAddr>> {
        self.addresses.load_full()
    }

    /// Another number is another set of addresses. Ask before [`Self::addresses`].
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Why the last lookup failed, if it did.
    pub(crate) fn fault(&self) -> Option<String> {
        self.fault.lock().clone()
    }

    /// Takes what a lookup has found; whether the name points elsewhere now.
    fn learn(&self, found: Result<Vec<SocketAddr>, String>) -> bool {
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(message) => {
                let before = self.fault.lock().replace(message.clone());
                if before.is_none() {
                    tracing::warn!(name = %self.text, error = message, "the name cannot be looked up: its last addresses stay");
                }
                return false;
            }
        };
        if self.fault.lock().take().is_some() {
            tracing::info!(name = %self.text, "the name can be looked up again");
        }
        if **self.addresses.load() == addresses {
            return false;
        }
        tracing::info!(name = %self.text, ?addresses, "the name points elsewhere");
        self.addresses.store(Arc::new(addresses));
        self.version.fetch_add(1, Ordering::Release);
        true
    }
}

/// Looks the names of the live configuration up, each every `dns.refresh_ms`, until the process ends.
pub(crate) async fn refresh(runtime: Arc<Runtime>) {
    let mut due: HashMap<Box<str>, Instant> = HashMap::new();
    let mut lookups = JoinSet::<(Arc<Name>, bool)>::new();
    // Of which an answer is still to come.
    let mut asked_for: HashSet<Box<str>> = HashSet::new();
    loop {
        sleep(TICK).await;
        let snapshot = runtime.snapshot();
        let mut changed = false;
        while let Some(done) = lookups.try_join_next() {
            if let Ok((name, is_new)) = done {
                asked_for.remove(name.text());
                changed |= is_new;
            }
        }
        if changed {
            // Whoever waits for a backend hears of it now, not when somebody else asks.
            for upstream in snapshot.all_upstreams() {
                upstream.members(&runtime);
            }
        }
        let every = Duration::from_millis(snapshot.config.dns.refresh_ms);
        if every.is_zero() {
            continue;
        }
        let upstreams = snapshot.upstreams.values();
        let names: BTreeMap<&str, &Arc<Name>> = upstreams
            .flat_map(|upstream| upstream.membership.names())
            .map(|name| (name.text(), name))
            .collect();
        due.retain(|text, _| names.contains_key(&**text));
        let now = Instant::now();
        let mut late = Vec::new();
        for text in names.keys() {
            // Those the configuration has brought were looked up for it.
            let at = *due.entry((*text).into()).or_insert(now + every);
            if at <= now && !asked_for.contains(*text) {
                late.push((at, *text));
            }
        }
        // Who has waited longest comes first, so that names whose server is slow keep nobody else back.
        late.sort_unstable();
        late.truncate(LOOKUPS_MAX.saturating_sub(lookups.len()));
        for (_, text) in late {
            if let Some(name) = names.get(text) {
                due.insert(text.into(), now + every);
                asked_for.insert(text.into());
                lookups.spawn(look_up_again(Arc::clone(&runtime), Arc::clone(name)));
            }
        }
    }
}

async fn look_up_again(runtime: Arc<Runtime>, name: Arc<Name>) -> (Arc<Name>, bool) {
    let text = name.text.clone();
    let found = tokio::task::spawn_blocking(move || look_up(&text)).await;
    let found = found.unwrap_or_else(|error| Err(error.to_string()));
    runtime.metrics.looked_up(found.is_ok());
    let changed = name.learn(found);
    (name, changed)
}

/// Asks the system's resolver, as every other program on the machine does: files, then name servers,
/// in the order and with the search domains that the machine is set up for. Blocks.
fn look_up(text: &str) -> Result<Vec<SocketAddr>, String> {
    let found = text
        .to_socket_addrs()
        .map_err(|error| format!("`{text}` does not resolve: {error}"))?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    // Name servers rotate them.
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(format!("`{text}` resolves to no address"));
    }
    Ok(addresses)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests {
    use super::*;

    /// A name that points to these.
    pub(crate) fn pointing(text: &str, addresses: &[&str]) -> Arc<Name> {
        Arc::new(Name::new(text, parsed(addresses)))
    }

    /// Makes a name point to others.
    pub(crate) fn point(name: &Name, addresses: &[&str]) {
        name.learn(Ok(parsed(addresses)));
    }

    fn parsed(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_lookup_that_fails_changes_nothing() {
        let name = pointing("a:1", &["10.0.0.1:1"]);
        assert!(!name.learn(Err("no".into())));
        assert_eq!((name.version(), name.fault()), (0, Some("no".into())));
        assert_eq!(*name.addresses(), parsed(&["10.0.0.1:1"]));
        assert!(!name.learn(Ok(parsed(&["10.0.0.1:1"]))));
        assert_eq!((name.version(), name.fault()), (0, None));
        assert!(name.learn(Ok(parsed(&["10.0.0.2:1"]))));
        assert_eq!(name.version(), 1);
    }

    #[test]
    fn names_are_known_as_long_as_they_are_used() {
        let names = Names::default();
        let one = names.get("localhost:80", true).unwrap();
        assert!(Arc::ptr_eq(&one, &names.get("localhost:80", true).unwrap()));
        assert!(Arc::ptr_eq(
            &one,
            &names.get("localhost:80", false).unwrap()
        ));
        assert!(one.addresses().iter().all(|at| at.ip().is_loopback()));
        let other = names.get("localhost:81", true).unwrap();
        drop(one);
        let nowhere = names.get("nowhere.invalid:80", true);
        assert!(nowhere.is_err_and(|message| message.contains("`nowhere.invalid:80`")));
        names.get("localhost:82", true).unwrap();
        assert_eq!(names.known.lock().len(), 2, "one is forgotten");
        drop(other);
    }
}
