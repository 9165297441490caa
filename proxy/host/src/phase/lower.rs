//! Facts as the guest sees them.

use weir_dialect::{Api, Usage};
use weir_pipeline::facts::Facts;
use weir_pipeline::view;

use crate::bindings::weir::filter::types::{self, Endpoint, RequestView, Traits};

/// The view of an exchange; of no exchange at all, an empty one.
pub(super) fn view_of(facts: Option<&Facts>) -> RequestView {
    match facts {
        Some(facts) => view(&facts.view),
        None => view(&view::RequestView::new(Api::Other)),
    }
}

pub(super) fn view(from: &view::RequestView) -> RequestView {
    RequestView {
        endpoint: endpoint(from.api),
        traits: traits(from.traits),
        routing_key: from.routing_key.0,
        model: from.model.0,
        principal: from.principal.0,
        session_hash: from.session_hash,
        est_input_tokens: from.est_input_tokens,
        max_output_tokens: from.max_output_tokens,
        body_bytes: from.body_bytes,
        attempt: from.attempt,
        priority: from.priority.unwrap_or(PRIORITY_NONE),
        deadline_ms: from.deadline_ms,
        settings: from.settings.0,
    }
}

/// In the place of no priority: the view is flat. As a priority it is the lowest there is.
const PRIORITY_NONE: u32 = u32::MAX;

fn endpoint(api: Api) -> Endpoint {
    match api {
        Api::ChatCompletions => Endpoint::ChatCompletions,
        Api::Responses => Endpoint::Responses,
        Api::Embeddings => Endpoint::Embeddings,
        Api::Messages => Endpoint::Messages,
        Api::Models | Api::Other => Endpoint::Other,
    }
}

fn traits(from: view::Traits) -> Traits {
    let table = [
        (from.streaming, Traits::STREAMING),
        (from.has_tools, Traits::HAS_TOOLS),
        (from.has_images, Traits::HAS_IMAGES),
        (from.has_audio, Traits::HAS_AUDIO),
        (from.json_mode, Traits::JSON_MODE),
        (from.logprobs, Traits::LOGPROBS),
        (from.retry_attempt, Traits::RETRY_ATTEMPT),
    ];
    table
        .into_iter()
        .filter(|(on, _)| *on)
        .fold(Traits::empty(), |all, (_, one)| all | one)
}

pub(super) fn usage(from: Usage) -> types::Usage {
    types::Usage {
        input_tokens: from.input_tokens,
        output_tokens: from.output_tokens,
        cached_input_tokens: from.cached_input_tokens,
        reasoning_tokens: from.reasoning_tokens,
        reported: from.reported,
    }
}
