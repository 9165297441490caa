//! The messages of `llm_gateway.LlmGateway/AuthLlmInvocation`.

use std::collections::BTreeMap;

/// Whether a credential may call a function.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AuthLlmInvokeRequest {
    #[prost(string, tag = "1")]
    pub(super) client_authorization_token: String,
    /// The function id.
    #[prost(string, tag = "2")]
    pub(super) routing_key: String,
}

/// It may; a refusal is a status.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AuthLlmInvokeResponse {
    #[prost(string, tag = "1")]
    pub(super) routing_key: String,
    #[prost(string, tag = "2")]
    pub(super) client_auth_subject: String,
    /// `ncaId`, and one of `projectId`, `projectID` and `project_id`.
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) auth_context: BTreeMap<String, String>,
    /// By model name.
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) model_specs: BTreeMap<String, ModelSpec>,
    /// 0 is the highest; absent is not 0.
    #[prost(uint32, optional, tag = "5")]
    pub(super) priority: Option<u32>,
}

/// What the control plane says of a model. Number 3, a tokenizer, is not read.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelSpec {
    /// Paths it answers on; empty: all.
    #[prost(string, repeated, tag = "1")]
    pub(super) uris: Vec<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) token_rate_limit: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) routing_method: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(super) input_token_rate_limit: Option<String>,
    #[prost(string, optional, tag = "6")]
    pub(super) output_token_rate_limit: Option<String>,
}
