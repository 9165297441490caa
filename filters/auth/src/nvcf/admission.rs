//! What an admission means for the request at hand.

use weir_sdk::{Decision, Edits, Principal, RequestView, exchange, host};

use super::message::{AuthLlmInvokeResponse, ModelSpec};
use crate::refusal;

/// Whether the answer is an admission: for the function that was asked for, and of an account.
pub(super) fn is_for(answer: &AuthLlmInvokeResponse, routing_key: &str) -> bool {
    answer.routing_key == routing_key && account(answer).is_some()
}

/// Lets the caller in, as far as what the answer says of the model goes.
pub(super) fn decide(answer: &AuthLlmInvokeResponse, request: &RequestView) -> Decision {
    let Some(account) = account(answer) else {
        return refusal::unavailable().into();
    };
    let model = host::name_of(request.model);
    let spec = answer.model_specs.get(&model);
    if let Some(spec) = spec
        && !spec.uris.is_empty()
    {
        let path = exchange::path();
        if !spec.uris.iter().any(|uri| same_path(uri, &path)) {
            return refusal::endpoint_not_supported(&model, &path).into();
        }
    }
    let project = ["projectId", "projectID", "project_id"];
    let project = project.iter().find_map(|name| given(answer, name));
    let tenant = match project {
        Some(project) => [account, "/", project].concat(),
        None => account.to_owned(),
    };
    let subject = match answer.client_auth_subject.as_str() {
        "" => account,
        subject => subject,
    };
    let mut principal = Principal::new(subject, &tenant);
    principal.priority = answer.priority;
    match spec.map(settings) {
        Some(edits) if !edits.attributes.is_empty() => Decision::AllowWith((principal, edits)),
        _ => principal.into(),
    }
}

fn account(answer: &AuthLlmInvokeResponse) -> Option<&str> {
    given(answer, "ncaId")
}

fn given<'a>(answer: &'a AuthLlmInvokeResponse, name: &str) -> Option<&'a str> {
    let value = answer.auth_context.get(name)?.as_str();
    (!value.is_empty()).then_some(value)
}

/// What the control plane says of the model takes the place of what the configuration says.
fn settings(spec: &ModelSpec) -> Edits {
    let settings = [
        ("weir.routing-method", &spec.routing_method),
        ("weir.token-rate-limit", &spec.token_rate_limit),
        ("weir.input-token-rate-limit", &spec.input_token_rate_limit),
        (
            "weir.output-token-rate-limit",
            &spec.output_token_rate_limit,
        ),
    ];
    settings
        .into_iter()
        .fold(Edits::new(), |edits, (name, value)| {
            match value.as_deref().map(str::trim) {
                None | Some("") => edits,
                Some(value) => edits.attribute(name, value),
            }
        })
}

/// As the gateway compares the `uris` of its own models: whatever the case and the slashes around.
fn same_path(uri: &str, path: &str) -> bool {
    let plain = |path: &str| path.trim().trim_matches('/').to_ascii_lowercase();
    plain(uri) == plain(path)
}
