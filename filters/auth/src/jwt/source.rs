//! Where the keys of the issuer come from: a key set of the configuration, or a URL.

use std::cell::RefCell;
use std::rc::Rc;

use weir_sdk::http_client::{self, Request};
use weir_sdk::state::{Scope, Store};
use weir_sdk::{Failure, secrets};

use super::keys::Keys;
use crate::config::JwtTable;

/// Keys, and what they were read of: reading a set costs more than comparing its text.
pub(super) struct Source {
    from: From,
    read: RefCell<Option<(Tag, Rc<Keys>)>>,
}

#[derive(PartialEq)]
enum Tag {
    Text(String),
    Version(u64),
}

enum From {
    Set(String),
    Url(Url),
}

/// Keys that are fetched: by `tick` from time to time, by a request only when there are none or its
/// token is signed by one that is not there. What was fetched last is in a store that all instances
/// share.
struct Url {
    cluster: String,
    path: String,
    insecure: bool,
    store: Store,
    /// In the store: the set.
    kept: String,
    /// In the store: that it was asked for a moment ago.
    asked: String,
    refresh_ms: u64,
    kept_ms: u32,
}

impl Source {
    pub(super) fn new(table: &JwtTable) -> Result<Self, String> {
        let from = match (&table.key_set, &table.cluster) {
            (Some(name), _) => From::Set(name.clone()),
            (None, Some(cluster)) => From::Url(Url::new(cluster, table)?),
            (None, None) => return Err("jwt has no keys".to_owned()),
        };
        Ok(Self {
            from,
            read: RefCell::new(None),
        })
    }

    /// The keys as they are known now; none when they cannot be had.
    pub(super) fn keys(&self) -> Option<Rc<Keys>> {
        match &self.from {
            From::Set(name) => {
                let Some(text) = secrets::key_set(name) else {
                    weir_sdk::error!("key set `{name}` cannot be read: is it granted?");
                    return None;
                };
                self.remembered(Tag::Text(text), |tag| match tag {
                    Tag::Text(text) => Keys::read(text),
                    Tag::Version(_) => None,
                })
            }
            From::Url(url) => self.kept(url).or_else(|| self.asked(url)),
        }
    }

    /// Keys that are newer than those, because they do not have the one that is looked for.
    pub(super) fn newer_than(&self, known: &Rc<Keys>) -> Option<Rc<Keys>> {
        match &self.from {
            // As the file says now.
            From::Set(_) => None,
            From::Url(url) => {
                // Another instance may have fetched them.
                let kept = self.kept(url).filter(|kept| !Rc::ptr_eq(kept, known));
                kept.or_else(|| self.asked(url))
            }
        }
    }

    /// Fetches what is old.
    pub(super) fn tick(&self) {
        if let From::Url(url) = &self.from
            && url.is_old()
        {
            _ = url.fetch();
        }
    }

    fn kept(&self, url: &Url) -> Option<Rc<Keys>> {
        let kept = url.store.get(&url.kept).ok()??;
        self.remembered(Tag::Version(kept.version), |_| {
            let (_, text) = kept.value.split_first_chunk::<8>()?;
            Keys::read(std::str::from_utf8(text).ok()?)
        })
    }

    /// Fetches at most once in five seconds, whatever callers present.
    fn asked(&self, url: &Url) -> Option<Rc<Keys>> {
        let begun = url
            .store
            .compare_and_swap(&url.asked, 0, ASKING, Some(PAUSE_MS));
        let fetched = match begun {
            Ok(_) => {
                let fetched = url.fetch();
                // Those who come now must not wait for an answer that has come.
                _ = url.store.set(&url.asked, ASKED, Some(PAUSE_MS));
                fetched
            }
            Err(_) => match url.store.get(&url.asked) {
                // Shares the request under way.
                Ok(Some(asked)) if asked.value == ASKING => url.fetch(),
                _ => return None,
            },
        };
        fetched.ok().and_then(|()| self.kept(url))
    }

    fn remembered(&self, tag: Tag, read: impl FnOnce(&Tag) -> Option<Keys>) -> Option<Rc<Keys>> {
        if let Some((known, keys)) = &*self.read.borrow()
            && *known == tag
        {
            return Some(Rc::clone(keys));
        }
        let keys = Rc::new(read(&tag)?);
        *self.read.borrow_mut() = Some((tag, Rc::clone(&keys)));
        Some(keys)
    }
}

impl Url {
    fn new(cluster: &str, table: &JwtTable) -> Result<Self, String> {
        let store = Store::open("keys", Scope::Local)
            .map_err(|failure| format!("fetched keys need the grant `stores`: {failure:?}"))?;
        // Keys of another place are other keys.
        let place = [cluster, " ", &table.path].concat();
        let seconds = table.refresh_seconds.saturating_add(table.stale_seconds);
        Ok(Self {
            cluster: cluster.to_owned(),
            path: table.path.clone(),
            insecure: table.insecure,
            store,
            kept: ["set ", &place].concat(),
            asked: ["asked ", &place].concat(),
            refresh_ms: u64::from(table.refresh_seconds) * 1_000,
            kept_ms: seconds.saturating_mul(1_000),
        })
    }

    fn is_old(&self) -> bool {
        let kept = self.store.get(&self.kept).ok().flatten();
        let fetched = kept.and_then(|kept| {
            let (at, _) = kept.value.split_first_chunk::<8>()?;
            Some(u64::from_le_bytes(*at))
        });
        fetched.is_none_or(|at| crate::clock_ms().saturating_sub(at) >= self.refresh_ms)
    }

    /// Keeps what the issuer says now. What it said before goes on counting when it says nothing,
    /// or nothing that makes sense.
    fn fetch(&self) -> Result<(), ()> {
        let mut request = Request::get(&self.path)
            .timeout_ms(FETCH_MS)
            .share(self.kept.as_str());
        request.tls_only = !self.insecure;
        let (cluster, path) = (&self.cluster, &self.path);
        let answer = http_client::send(cluster, &request).map_err(|failure| match failure {
            Failure::Denied => weir_sdk::error!(
                "keys cannot be fetched from cluster `{cluster}`: it is not granted, or has no tls while jwt.insecure is false"
            ),
            failure => {
                weir_sdk::warn!("keys cannot be fetched from {path} of cluster `{cluster}`: {failure:?}");
            }
        })?;
        let text = std::str::from_utf8(&answer.body).unwrap_or_default();
        if answer.status != 200 || Keys::read(text).is_none() {
            weir_sdk::warn!(
                "{path} of cluster `{cluster}` is no key set: status {}, {} bytes",
                answer.status,
                answer.body.len()
            );
            return Err(());
        }
        let value = [&crate::clock_ms().to_le_bytes(), text.as_bytes()].concat();
        let kept = self.store.set(&self.kept, &value, Some(self.kept_ms));
        kept.map(drop).map_err(|failure| {
            weir_sdk::error!("fetched keys cannot be kept: {failure:?}");
        })
    }
}

const ASKING: &[u8] = b"asking";
const ASKED: &[u8] = b"asked";
/// Between two fetches for the sake of requests.
const PAUSE_MS: u32 = 5_000;
const FETCH_MS: u32 = 2_000;
