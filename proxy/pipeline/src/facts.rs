//! Everything about one exchange that a filter may read during a phase call.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use weir_routing::{CandidateSet, Demand, Session};

use crate::attributes::Attributes;
use crate::ledger::Ledger;
use crate::principal::Principal;
use crate::settings::ModelSettings;
use crate::verdict::Affinity;
use crate::view::RequestView;

/// How the caller's bytes came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.x.
    Http1,
    /// HTTP/2, by ALPN or prior knowledge.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// An HTTP/1.1 upgrade.
    Websocket,
}

/// Where a session key was found, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionSource {
    /// Body member `prompt_cache_key`.
    PromptCacheKey,
    /// Body member `conversation.id`.
    ConversationId,
    /// Header `x-multi-turn-session-id`.
    SessionHeader,
    /// SHA-256 of how the conversation began, in hexadecimal.
    PrefixChain,
    /// SHA-256 of the messages or input, in hexadecimal.
    InputHash,
}

/// A candidate for what keeps a conversation together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionKey {
    /// Where it was found.
    pub source: SessionSource,
    /// The value as found; of the last two sources the hash.
    pub value: String,
    /// 53-bit xxh3 of the value.
    pub hash: u64,
}

/// The upstream's answer so far.
#[derive(Clone, Debug)]
pub struct ResponseFacts {
    /// Its status.
    pub status: StatusCode,
    /// Its headers as they will go to the caller; response phases edit these.
    pub headers: HeaderMap,
}

/// One exchange as filters see it. Moved into a filter's store for a phase call and back.
pub struct Facts {
    /// Number of the exchange in this process.
    pub id: u64,
    /// The id in logs and in `x-request-id`.
    pub request_id: Arc<str>,
    /// How the bytes came in.
    pub transport: Transport,
    /// Milliseconds since the Unix epoch at which the request head was read.
    pub received_unix_ms: u64,
    /// The scalars passed by value.
    pub view: RequestView,
    /// Method of the request.
    pub method: Method,
    /// Path, without the query.
    pub path: String,
    /// Query, without the `?`.
    pub query: Option<String>,
    /// Request headers as they will go upstream; request phases edit these.
    pub headers: HeaderMap,
    /// Those that filters have set: they go upstream whatever they are.
    pub edited_headers: Vec<HeaderName>,
    /// The caller's address.
    pub peer: Option<SocketAddr>,
    /// Server name asked for in the TLS handshake.
    pub sni: Option<String>,
    /// The buffered body; empty for pass-through routes.
    pub body: Bytes,
    /// Whether a filter has edited the body: places found in it before are not the places now.
    pub body_edited: bool,
    /// Number of messages (chat) in the body.
    pub messages: u32,
    /// Number of inputs (embeddings) in the body.
    pub inputs: u32,
    /// Session key candidates, strongest first.
    pub session_keys: Vec<SessionKey>,
    /// Who was let in.
    pub principal: Option<Arc<Principal>>,
    /// Text of `view.routing_key`.
    pub routing_key: Arc<str>,
    /// Text of `view.model`.
    pub model: Arc<str>,
    /// What the config says of the model: the attributes `weir.*`. `view.settings` is their id.
    pub settings: Option<Arc<ModelSettings>>,
    /// What filters left for each other.
    pub attributes: Attributes,
    /// Private bytes per filter name.
    pub scratch: Vec<(Arc<str>, Vec<u8>)>,
    /// The backends to choose from; present in the route phase only.
    pub candidates: Option<CandidateSet>,
    /// What keeps the conversation together, if anything does; set before the route phase.
    pub affinity: Option<Arc<Affinity>>,
    /// Who served the conversation last; set before the route phase.
    pub session: Session,
    /// Positions already tried.
    pub excluded: Vec<u32>,
    /// The upstream's answer; present in response phases only.
    pub response: Option<ResponseFacts>,
    /// What must be settled when the exchange ends.
    pub ledger: Arc<Ledger>,
    /// Nanoseconds spent in filters so far.
    pub filter_ns: u64,
}

impl Facts {
    /// The private bytes of one filter.
    #[must_use]
    pub fn scratch_of(&self, filter: &str) -> &[u8] {
        self.scratch
            .iter()
            .find(|(name, _)| &**name == filter)
            .map_or(&[], |(_, bytes)| bytes.as_slice())
    }

    /// Replaces the private bytes of one filter; the caller checks the size.
    pub fn set_scratch(&mut self, filter: &Arc<str>, bytes: Vec<u8>) {
        match self.scratch.iter_mut().find(|(name, _)| name == filter) {
            Some(entry) => entry.1 = bytes,
            None => self.scratch.push((filter.clone(), bytes)),
        }
    }

    /// What the exchange asks of whoever serves it.
    #[must_use]
    pub fn demand(&self) -> Demand {
        Demand {
            input_tokens: u64::from(self.view.est_input_tokens),
            priority: self.view.priority.unwrap_or(u32::MAX),
        }
    }

    /// An attribute, the gateway's own (`weir.*`) or a filter's.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Arc<str>> {
        let setting = self
            .settings
            .as_ref()
            .and_then(|settings| settings.get(name));
        setting.or_else(|| self.attributes.find(name))
    }
}
