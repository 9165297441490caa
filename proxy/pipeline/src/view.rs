//! The scalars of a request that every phase call carries by value.

use weir_dialect::Api;

use crate::intern::NameId;

/// Facts about the request that are either true or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// The caller asked for a stream.
    pub streaming: bool,
    /// Tools or functions are declared.
    pub has_tools: bool,
    /// At least one image part.
    pub has_images: bool,
    /// At least one audio part.
    pub has_audio: bool,
    /// A JSON response format was asked for.
    pub json_mode: bool,
    /// Log probabilities were asked for.
    pub logprobs: bool,
    /// A second or later try of an upstream.
    pub retry_attempt: bool,
}

/// The request as the gateway understood it, parsed once for the whole chain.
#[derive(Clone, Copy, Debug)]
pub struct RequestView {
    /// What the caller speaks.
    pub api: Api,
    /// See [`Traits`].
    pub traits: Traits,
    /// Function id, the part of the model string before the first `/`.
    pub routing_key: NameId,
    /// Model name behind it.
    pub model: NameId,
    /// Subject let in by `authorize`; [`NameId::NONE`] = anonymous.
    pub principal: NameId,
    /// 53-bit hash of the strongest session key, 0 = none.
    pub session_hash: u64,
    /// Estimated input tokens.
    pub est_input_tokens: u32,
    /// Output tokens the caller allows at most, 0 = not given.
    pub max_output_tokens: u32,
    /// Length of the request body in bytes.
    pub body_bytes: u32,
    /// 0 for the first try of an upstream.
    pub attempt: u16,
    /// Lower is served first, 0 is the highest; none when nobody has set it.
    pub priority: Option<u32>,
    /// Milliseconds left, 0 = no deadline.
    pub deadline_ms: u32,
    /// What the config says of the model, see [`ModelSettings::id`]; [`NameId::NONE`] = nothing,
    /// [`NameId::UNNUMBERED`] = something that has no id.
    ///
    /// [`ModelSettings::id`]: crate::settings::ModelSettings::id
    pub settings: NameId,
}

impl RequestView {
    /// A view of a request of which nothing but the API is known yet.
    #[must_use]
    pub fn new(api: Api) -> Self {
        Self {
            api,
            traits: Traits::default(),
            routing_key: NameId::NONE,
            model: NameId::NONE,
            principal: NameId::NONE,
            session_hash: 0,
            est_input_tokens: 0,
            max_output_tokens: 0,
            body_bytes: 0,
            attempt: 0,
            priority: None,
            deadline_ms: 0,
            settings: NameId::NONE,
        }
    }
}
