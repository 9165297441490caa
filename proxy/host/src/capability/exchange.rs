//! The interface `exchange`: reads of the exchange at hand, as far as the filter was granted.

use http::{HeaderMap, HeaderName};
use weir_pipeline::facts::{self, Facts};
use weir_pipeline::intern::NameId;

use crate::bindings::weir::filter::exchange::{ExchangeMeta, Host};
use crate::bindings::weir::filter::types::{
    Failure, Principal, SessionKey, SessionSource, Transport,
};
use crate::capability::types;
use crate::guest_state::GuestState;

impl Host for GuestState {
    fn meta(&mut self) -> ExchangeMeta {
        let Some(facts) = self.current.as_deref() else {
            return ExchangeMeta {
                id: 0,
                request_id: String::new(),
                transport: Transport::Http1,
                received_unix_ms: 0,
                messages: 0,
                inputs: 0,
            };
        };
        ExchangeMeta {
            id: facts.id,
            request_id: facts.request_id.to_string(),
            transport: match facts.transport {
                facts::Transport::Http1 => Transport::Http1,
                facts::Transport::Http2 => Transport::Http2,
                facts::Transport::Grpc => Transport::Grpc,
                facts::Transport::Websocket => Transport::Websocket,
            },
            received_unix_ms: facts.received_unix_ms,
            messages: facts.messages,
            inputs: facts.inputs,
        }
    }

    fn get_header(&mut self, name: String) -> Option<Vec<u8>> {
        let name = self.readable(&name)?;
        first_value(&self.current.as_deref()?.headers, &name)
    }

    fn header_by_id(&mut self, id: u32) -> Option<Vec<u8>> {
        let at = self.header_slot(id)?;
        let name = self.header_names.get(at)?.1.as_ref()?;
        first_value(&self.current.as_deref()?.headers, name)
    }

    fn header_values(&mut self, name: String) -> Vec<Vec<u8>> {
        let Some(name) = self.readable(&name) else {
            return Vec::new();
        };
        let Some(facts) = self.current.as_deref() else {
            return Vec::new();
        };
        let values = facts.headers.get_all(&name).iter().take(HEADERS_MAX);
        values.map(|value| value.as_bytes().to_vec()).collect()
    }

    fn headers_by_id(&mut self, ids: Vec<u32>) -> Vec<Option<Vec<u8>>> {
        // The answer must have as many elements as the question.
        let answer = |(at, id): (usize, u32)| {
            if at < HEADERS_MAX {
                self.header_by_id(id)
            } else {
                None
            }
        };
        ids.into_iter().enumerate().map(answer).collect()
    }

    fn header_list(&mut self) -> Vec<(String, Vec<u8>)> {
        let Some(facts) = self.current.as_deref() else {
            return Vec::new();
        };
        let readable = facts
            .headers
            .iter()
            .filter(|(name, _)| self.filter.reads(name));
        let pair = |(name, value): (&HeaderName, &http::HeaderValue)| {
            (name.as_str().to_owned(), value.as_bytes().to_vec())
        };
        readable.take(HEADERS_MAX).map(pair).collect()
    }

    fn method(&mut self) -> String {
        self.text(|facts| facts.method.as_str().to_owned())
    }

    fn path(&mut self) -> String {
        self.text(|facts| facts.path.clone())
    }

    fn query(&mut self) -> Option<String> {
        self.current.as_deref()?.query.clone()
    }

    fn peer_addr(&mut self) -> String {
        self.text(|facts| facts.peer.map_or_else(String::new, |peer| peer.to_string()))
    }

    fn tls_sni(&mut self) -> Option<String> {
        self.current.as_deref()?.sni.clone()
    }

    fn session_keys(&mut self) -> Vec<SessionKey> {
        let keys = self
            .current
            .as_deref()
            .map_or(&[][..], |facts| &facts.session_keys);
        keys.iter()
            .take(SESSION_KEYS_MAX)
            .map(session_key)
            .collect()
    }

    fn json(&mut self, pointer: String) -> Option<String> {
        if !self.filter.grants.read_body || pointer.len() > POINTER_BYTES_MAX {
            return None;
        }
        let body = &self.current.as_deref()?.body;
        let found = body.get(weir_dialect::locate(body, &pointer)?)?;
        if found.len() > JSON_BYTES_MAX {
            return None;
        }
        std::str::from_utf8(found).ok().map(str::to_owned)
    }

    fn body(&mut self, offset: u32, max: u32) -> Result<Vec<u8>, Failure> {
        if !self.filter.grants.read_body {
            return Err(Failure::Denied);
        }
        let body = &self.current.as_deref().ok_or(Failure::NotFound)?.body;
        let rest = body.get(offset as usize..).unwrap_or_default();
        let window = rest.len().min(max as usize).min(BODY_WINDOW_BYTES_MAX);
        Ok(rest.get(..window).unwrap_or_default().to_vec())
    }

    fn attribute(&mut self, name: String) -> Option<String> {
        self.current
            .as_deref()?
            .attribute(&name)
            .map(|value| value.to_string())
    }

    fn caller(&mut self) -> Option<Principal> {
        self.current
            .as_deref()?
            .principal
            .as_deref()
            .map(types::principal)
    }

    fn response_status(&mut self) -> Option<u16> {
        Some(self.current.as_deref()?.response.as_ref()?.status.as_u16())
    }

    fn response_header(&mut self, name: String) -> Option<Vec<u8>> {
        let name = self.readable(&name)?;
        first_value(&self.current.as_deref()?.response.as_ref()?.headers, &name)
    }

    fn scratch(&mut self) -> Vec<u8> {
        let facts = self.current.as_deref();
        facts.map_or_else(Vec::new, |facts| {
            facts.scratch_of(&self.filter.name).to_vec()
        })
    }

    fn set_scratch(&mut self, value: Vec<u8>) -> Result<(), Failure> {
        if value.len() > self.filter.limits.scratch_bytes as usize {
            return Err(Failure::TooLarge);
        }
        let facts = self.current.as_deref_mut().ok_or(Failure::NotFound)?;
        facts.set_scratch(&self.filter.name, value);
        Ok(())
    }
}

impl GuestState {
    fn text(&self, read: impl Fn(&Facts) -> String) -> String {
        self.current.as_deref().map_or_else(String::new, read)
    }

    /// The name parsed, if the filter may read such headers.
    fn readable(&self, name: &str) -> Option<HeaderName> {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        self.filter.reads(&name).then_some(name)
    }

    /// Where in `header_names` an id is. A filter has few names and asks for them again and
    /// again: looking through a short list is cheaper than any lookup of the text.
    fn header_slot(&mut self, id: u32) -> Option<usize> {
        if let Some(at) = self.header_names.iter().position(|(known, _)| *known == id) {
            return Some(at);
        }
        let name = self.services.interner.name(NameId(id))?;
        if self.header_names.len() >= HEADER_NAMES_MAX {
            // More names than any filter should need: the list is begun anew.
            self.header_names.clear();
        }
        self.header_names.push((id, self.readable(&name)));
        Some(self.header_names.len() - 1)
    }
}

fn first_value(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    headers.get(name).map(|value| value.as_bytes().to_vec())
}

fn session_key(key: &facts::SessionKey) -> SessionKey {
    SessionKey {
        source: match key.source {
            facts::SessionSource::PromptCacheKey => SessionSource::PromptCacheKey,
            facts::SessionSource::ConversationId => SessionSource::ConversationId,
            facts::SessionSource::SessionHeader => SessionSource::SessionHeader,
            facts::SessionSource::PrefixChain => SessionSource::PrefixChain,
            facts::SessionSource::InputHash => SessionSource::InputHash,
        },
        value: key.value.clone(),
        hash: key.hash,
    }
}

/// Most headers, or values of one, in an answer.
const HEADERS_MAX: usize = 256;
/// Most header names remembered by id.
const HEADER_NAMES_MAX: usize = 64;
const SESSION_KEYS_MAX: usize = 16;
/// Longest subtree that `json` copies out.
const JSON_BYTES_MAX: usize = 4 << 20;
const BODY_WINDOW_BYTES_MAX: usize = 1 << 20;
const POINTER_BYTES_MAX: usize = 4096;
