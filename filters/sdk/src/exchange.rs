//! Reads of the exchange that the current phase call is about.
//!
//! Nothing is copied until asked for. Outside a phase call, and without the grant, everything is
//! absent.

use std::cell::RefCell;

pub use crate::bindings::imports::weir::filter::exchange::ExchangeMeta;
use crate::raw::exchange as raw;
use crate::raw::host;
use crate::types::{Failure, InternId, Principal, RequestView, SessionKey, UNNUMBERED};

/// A header's name known to the host: reading by it sends no string.
///
/// Make it in [`Filter::new`](crate::Filter::new) and keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(InternId);

impl Header {
    /// Asks the host for the id of a name; case does not matter.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(host::header_id(name))
    }

    /// First value of it in the request. Needs the `read_headers` grant. 0.25 to 0.29 µs.
    #[must_use]
    pub fn value(self) -> Option<Vec<u8>> {
        raw::header_by_id(self.0)
    }
}

/// First values of several headers in one crossing.
#[must_use]
pub fn headers(of: &[Header]) -> Vec<Option<Vec<u8>>> {
    let ids: Vec<InternId> = of.iter().map(|header| header.0).collect();
    raw::headers_by_id(&ids)
}

/// First value of a request header by name: 0.30 to 0.35 µs. See [`Header`] for names known in
/// advance.
#[must_use]
pub fn header(name: &str) -> Option<Vec<u8>> {
    raw::get_header(name)
}

/// All values of a request header.
#[must_use]
pub fn header_values(name: &str) -> Vec<Vec<u8>> {
    raw::header_values(name)
}

/// All readable request headers. 5.4 to 7.8 µs for 20: dearer than [`Header`] below about 12.
#[must_use]
pub fn header_list() -> Vec<(String, Vec<u8>)> {
    raw::header_list()
}

/// Rarer facts: id, request id, transport, time of arrival, number of messages and inputs.
#[must_use]
pub fn meta() -> ExchangeMeta {
    raw::meta()
}

/// Method of the request.
#[must_use]
pub fn method() -> String {
    raw::method()
}

/// Path of the request, without the query.
#[must_use]
pub fn path() -> String {
    raw::path()
}

/// Query of the request, without the `?`.
#[must_use]
pub fn query() -> Option<String> {
    raw::query()
}

/// Address of the caller, `IP:PORT`.
#[must_use]
pub fn peer_addr() -> String {
    raw::peer_addr()
}

/// Server name of the TLS handshake.
#[must_use]
pub fn tls_sni() -> Option<String> {
    raw::tls_sni()
}

/// Candidates for a session key found in the request, strongest first. About 0.5 µs.
///
/// The value of an input hash is already a SHA-256 in hexadecimal.
#[must_use]
pub fn session_keys() -> Vec<SessionKey> {
    raw::session_keys()
}

/// A scalar or subtree of the request body as JSON text, by RFC 6901 pointer. Needs `read_body`.
#[must_use]
pub fn json(pointer: &str) -> Option<String> {
    raw::json(pointer)
}

/// A window of the raw request body. Needs `read_body`.
///
/// # Errors
/// [`Failure::Denied`] without the grant.
pub fn body(offset: u32, max: u32) -> Result<Vec<u8>, Failure> {
    raw::body(offset, max)
}

/// What the configuration says of the request's model (`weir.routing-method`,
/// `weir.token-rate-limit`, `weir.input-token-rate-limit`, `weir.output-token-rate-limit`,
/// `weir.request-rate-limit`), or a note `FILTER.NAME` of an earlier filter. About 0.3 µs: see
/// [`PerSettings`] for the former.
#[must_use]
pub fn attribute(name: &str) -> Option<String> {
    raw::attribute(name)
}

/// What a filter derives from one attribute of the configuration, such as `weir.routing-method`,
/// kept by [`RequestView::settings`]: the host is asked once per
/// distinct setting and instance, and never for models of which the configuration says nothing.
pub struct PerSettings<T> {
    attribute: &'static str,
    /// By id, ascending.
    entries: RefCell<Vec<(InternId, T)>>,
}

impl<T: Clone> PerSettings<T> {
    /// Nothing derived yet. Not for notes of other filters: those are not settings.
    #[must_use]
    pub const fn new(attribute: &'static str) -> Self {
        Self {
            attribute,
            entries: RefCell::new(Vec::new()),
        }
    }

    /// The derived value; `derive` runs with the attribute when these settings are new ones.
    ///
    /// # Errors
    /// Those of `derive`, which then runs again the next time.
    pub fn of<E>(
        &self,
        request: &RequestView,
        derive: impl FnOnce(Option<String>) -> Result<T, E>,
    ) -> Result<T, E> {
        let id = request.settings;
        let place = |entries: &[(InternId, T)]| entries.binary_search_by_key(&id, |entry| entry.0);
        if let Ok(at) = place(&self.entries.borrow())
            && let Some((_, value)) = self.entries.borrow().get(at)
        {
            return Ok(value.clone());
        }
        let text = if id == 0 {
            None
        } else {
            attribute(self.attribute)
        };
        let value = derive(text)?;
        if id == UNNUMBERED {
            return Ok(value);
        }
        let mut entries = self.entries.borrow_mut();
        if entries.len() >= SETTINGS_MAX {
            entries.clear();
        }
        if let Err(at) = place(&entries) {
            entries.insert(at, (id, value.clone()));
        }
        Ok(value)
    }
}

/// Settings remembered by one [`PerSettings`]; beyond it starts over.
const SETTINGS_MAX: usize = 1024;

/// Who `authorize` let in; absent before and in that phase.
#[must_use]
pub fn principal() -> Option<Principal> {
    raw::caller()
}

/// Status of the upstream's answer, in response phases.
#[must_use]
pub fn response_status() -> Option<u16> {
    raw::response_status()
}

/// First value of a header of the upstream's answer, in response phases.
#[must_use]
pub fn response_header(name: &str) -> Option<Vec<u8>> {
    raw::response_header(name)
}

/// This filter's private bytes of this exchange; empty when never set.
#[must_use]
pub fn scratch() -> Vec<u8> {
    raw::scratch()
}

/// Keeps private bytes for later phases of this exchange, whichever instance serves them.
///
/// # Errors
/// [`Failure::TooLarge`] beyond `limits.scratch_bytes` (4 KiB by default).
pub fn set_scratch(value: &[u8]) -> Result<(), Failure> {
    raw::set_scratch(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::PerSettings;
    use crate::testing::Exchange;

    #[test]
    fn settings_are_derived_once_each() {
        let lengths = PerSettings::new("weir.routing-method");
        let derived = std::cell::Cell::new(0);
        let length = |exchange: &mut Exchange| {
            let view = exchange.view();
            exchange.run(|| {
                lengths.of(&view, |text| {
                    derived.set(derived.get() + 1);
                    text.map(|text| text.len()).ok_or("none")
                })
            })
        };
        let mut exchange = Exchange::new();
        // What could not be derived is tried again.
        assert_eq!((length(&mut exchange), derived.get()), (Err("none"), 1));
        assert_eq!((length(&mut exchange), derived.get()), (Err("none"), 2));
        for (name, expected, calls) in [
            ("random", 6, 3),
            ("random", 6, 3),
            ("a", 1, 4),
            ("random", 6, 4),
        ] {
            exchange.set_attribute("weir.routing-method", name);
            assert_eq!(
                (length(&mut exchange), derived.get()),
                (Ok(expected), calls),
                "{name}"
            );
        }
        // Other settings of the model are other settings.
        exchange.set_attribute("weir.token-rate-limit", "1-S");
        assert_eq!((length(&mut exchange), derived.get()), (Ok(6), 5));
    }

    #[test]
    fn no_setting_is_no_host_call() {
        let cache = PerSettings::new("weir.routing-method");
        let mut exchange = Exchange::new().attribute("weir.routing-method", "random");
        let mut view = exchange.view();
        view.settings = 0;
        let found = exchange.run(|| cache.of(&view, Ok::<_, ()>));
        assert_eq!(found, Ok(None));
    }

    #[test]
    fn settings_without_a_number_are_asked_for_each_time() {
        let cache = PerSettings::new("weir.routing-method");
        let mut exchange = Exchange::new();
        for name in ["random", "other"] {
            exchange.set_attribute("weir.routing-method", name);
            let mut view = exchange.view();
            view.settings = crate::UNNUMBERED;
            let found = exchange.run(|| cache.of(&view, Ok::<_, ()>));
            assert_eq!(found, Ok(Some(name.to_owned())));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let cache = PerSettings::new("weir.routing-method");
        let mut view = Exchange::new().view();
        for id in 0..=u32::try_from(super::SETTINGS_MAX).unwrap() {
            view.settings = id;
            assert_eq!(cache.of(&view, |_| Ok::<_, ()>(id)), Ok(id));
        }
        assert_eq!(cache.entries.borrow().len(), 1);
    }
}
