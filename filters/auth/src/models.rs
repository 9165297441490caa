//! Lists of models that a caller may use.

use weir_sdk::{Endpoint, LocalResponse, RequestView, host};

use crate::refusal;

/// A refusal when the list does not have the model that is asked for. Not for an empty list, which
/// allows everything.
pub(crate) fn forbidden(allowed: &[String], request: &RequestView) -> Option<LocalResponse> {
    if names_no_model(request) {
        return None;
    }
    let function = host::name_of(request.routing_key);
    let model = match request.model {
        0 => String::new(),
        model => host::name_of(model),
    };
    let matches = |pattern: &String| match pattern.split_once('/') {
        Some((of, "*")) => !of.is_empty() && of == function,
        Some((of, name)) => of == function && !model.is_empty() && name == model,
        None => false,
    };
    if allowed.iter().any(matches) {
        return None;
    }
    let mut wanted = function;
    if !model.is_empty() {
        wanted.push('/');
        wanted.push_str(&model);
    }
    Some(refusal::model_not_allowed(&wanted))
}

/// Listings, health and the like. Inference without a model the host could read is not one of
/// them: a restricted key must not get around its list that way.
fn names_no_model(request: &RequestView) -> bool {
    request.endpoint == Endpoint::Other && request.routing_key == 0 && request.model == 0
}

#[cfg(test)]
mod tests {
    use weir_sdk::testing::Exchange;

    use super::*;

    #[test]
    fn models_and_whole_functions() {
        let chat = Endpoint::ChatCompletions;
        let table = [
            ("demo/sim", "demo", "sim", chat, true),
            ("demo/sim", "demo", "other", chat, false),
            ("demo/sim", "other", "sim", chat, false),
            ("demo/*", "demo", "sim", chat, true),
            ("demo/*", "demo", "a/b", chat, true),
            ("demo/*", "demo2", "sim", chat, false),
            ("demo/a/b", "demo", "a/b", chat, true),
            ("demo/a/*", "demo", "a/b", chat, false),
            ("*/*", "demo", "sim", chat, false),
            ("*", "demo", "sim", chat, false),
            ("/*", "", "", chat, false),
            ("/", "", "", chat, false),
            ("demo/sim", "", "", chat, false),
            ("demo/sim", "", "", Endpoint::RawHttp, false),
            ("demo/sim", "", "", Endpoint::Other, true),
        ];
        for (pattern, function, model, endpoint, expected) in table {
            let mut exchange = Exchange::new().model(function, model).endpoint(endpoint);
            let view = exchange.view();
            let refused = exchange.run(|| forbidden(&[pattern.to_owned()], &view));
            assert_eq!(refused.is_none(), expected, "{pattern} {function}/{model}");
        }
    }
}
