//! The scalars of a request that every phase call carries by value.

use weir_dialect::Api;

use crate::intern::{Interner, NameId};

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
    /// Lower is served first.
    pub priority: i16,
    /// Milliseconds left, 0 = no deadline.
    pub deadline_ms: u32,
    /// What the config says of the model, see [`settings`]; [`NameId::NONE`] = nothing.
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
            priority: 0,
            deadline_ms: 0,
            settings: NameId::NONE,
        }
    }
}

/// The id of what the config says of a model. Equal ids mean equal settings, so that a filter may
/// keep by it what it derived from them. `None` when there is no room for another name:
/// [`NameId::NONE`] would tell filters that the model has no settings.
#[must_use]
pub fn settings(
    routing_method: Option<&str>,
    token_rate_limit: Option<&str>,
    interner: &Interner,
) -> Option<NameId> {
    if routing_method.is_none() && token_rate_limit.is_none() {
        return Some(NameId::NONE);
    }
    // Quoted: no two pairs are written alike.
    let id = interner.intern(&format!("{routing_method:?} {token_rate_limit:?}"));
    (id != NameId::NONE).then_some(id)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::intern::NAMES_MAX;

    #[test]
    fn equal_settings_have_equal_ids() {
        let names = Interner::new();
        let table = [
            (None, None),
            (Some("random"), None),
            (None, Some("random")),
            (Some(""), None),
            (Some("a"), Some("b")),
            (Some("a\" Some(\"b"), None),
        ];
        let ids = table.map(|(method, limit)| settings(method, limit, &names));
        assert_eq!(ids[0], Some(NameId::NONE));
        for (at, (method, limit)) in table.into_iter().enumerate() {
            assert_eq!(settings(method, limit, &names), ids[at]);
            assert!(!ids[..at].contains(&ids[at]), "{method:?} {limit:?}");
        }
    }

    #[test]
    fn a_full_table_is_not_taken_for_no_settings() {
        let names = Interner::new();
        let known = settings(Some("random"), None, &names);
        for n in 0..NAMES_MAX {
            names.intern(&format!("n{n}"));
        }
        assert_eq!(settings(Some("other"), None, &names), None);
        assert_eq!(settings(Some("random"), None, &names), known);
        assert_eq!(settings(None, None, &names), Some(NameId::NONE));
    }
}
