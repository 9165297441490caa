//! Everything that alone knows providers' JSON and SSE: pure functions over bytes, no I/O, no clock.

pub use api::Api;
pub use conversation::{conversation_digest, payload_digest};
pub use edit::{EditError, JsonEdit, apply_json_edits, locate, quote, splice};
pub use event::{EventFacts, ResponseFacts, event_facts, response_facts, terminal_response};
pub use fault::{Fault, openai_type, render_fault, render_fault_event};
pub use model::{ModelError, normal_routing_key, split_model};
pub use models::{model_object, models_list};
pub use outcome::{Outcome, outcome};
pub use peek::{Peek, SessionKey, SessionSource, peek};
pub use refusal::PeekError;
pub use sse::{SseError, SseEvent, SseSplitter, encode_event};
pub use usage::Usage;

mod api;
mod bounds;
mod canonical;
mod conversation;
mod edit;
mod embedding;
mod event;
mod fault;
mod measure;
mod members;
mod model;
mod models;
mod outcome;
mod peek;
mod reader;
mod refusal;
mod scan;
mod sse;
mod text;
mod upstream;
mod usage;
