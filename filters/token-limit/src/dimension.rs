//! What is counted.

use weir_sdk::state::Unit;
use weir_sdk::{Endpoint, RequestView};

/// A kind of budget: each has limits and accounts of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dimension {
    Requests,
    Total,
    Input,
    Output,
}

impl Dimension {
    /// All, those first that refuse for less.
    pub(crate) const ALL: [Self; 4] = [Self::Requests, Self::Total, Self::Input, Self::Output];

    /// The limit that the configuration gives a model.
    pub(crate) fn attribute(self) -> &'static str {
        match self {
            Self::Requests => "weir.request-rate-limit",
            Self::Total => "weir.token-rate-limit",
            Self::Input => "weir.input-token-rate-limit",
            Self::Output => "weir.output-token-rate-limit",
        }
    }

    /// What a request will probably cost.
    pub(crate) fn estimate(self, request: &RequestView, assumed_output_tokens: u32) -> u64 {
        let input = u64::from(request.est_input_tokens);
        let output = u64::from(match request.max_output_tokens {
            _ if request.endpoint == Endpoint::Embeddings => 0,
            0 => assumed_output_tokens,
            given => given,
        });
        match self {
            Self::Requests => 1,
            Self::Total => input + output,
            Self::Input => input,
            Self::Output => output,
        }
    }

    /// By which the host settles.
    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Requests => Unit::Requests,
            Self::Total => Unit::TotalTokens,
            Self::Input => Unit::InputTokens,
            Self::Output => Unit::OutputTokens,
        }
    }

    /// Name of the limiter: what is counted in one dimension does not count in another.
    pub(crate) fn limiter_name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Total => "total_tokens",
            Self::Input => "input_tokens",
            Self::Output => "output_tokens",
        }
    }

    /// In a message.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Total => "tokens",
            Self::Input => "input tokens",
            Self::Output => "output tokens",
        }
    }
}
