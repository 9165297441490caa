//! Who calls.

use std::sync::Arc;

use crate::intern::NameId;

/// A caller that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Interned subject for the request view; [`NameId::NONE`] when the table of names is full.
    pub id: NameId,
    /// The key's or token's own name; never the credential.
    pub subject: Arc<str>,
    /// The account that pays; limits are kept per tenant.
    pub tenant: Arc<str>,
    /// The plan the account is on.
    pub plan: Arc<str>,
    /// Scopes granted to the credential.
    pub scopes: Vec<String>,
    /// `function/model` or `function/*` strings this caller may use; empty = all.
    pub models: Vec<String>,
    /// Lower is served first, 0 is the highest; none is not 0.
    pub priority: Option<u32>,
}

impl Principal {
    /// Whether it may call a model, given as `function/model`.
    #[must_use]
    pub fn may_call(&self, model: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix("/*") {
            Some(function) => model
                .strip_prefix(function)
                .is_some_and(|rest| rest.starts_with('/')),
            None => pattern == model,
        };
        self.models.is_empty() || self.models.iter().any(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_whole_functions() {
        let table: [(&[&str], &str, bool); 9] = [
            (&[], "demo/sim", true),
            (&["demo/sim"], "demo/sim", true),
            (&["demo/sim"], "demo/other", false),
            (&["x/y", "demo/*"], "demo/sim", true),
            (&["demo/*"], "demo/a/b", true),
            (&["demo/*"], "demo2/sim", false),
            (&["demo/*"], "demo", false),
            (&["*"], "demo/sim", false),
            (&["/"], "demo/sim", false),
        ];
        for (models, model, expected) in table {
            let principal = Principal {
                id: NameId::NONE,
                subject: "s".into(),
                tenant: "t".into(),
                plan: "p".into(),
                scopes: Vec::new(),
                models: models.iter().map(|model| (*model).to_owned()).collect(),
                priority: None,
            };
            assert_eq!(principal.may_call(model), expected, "{models:?} {model}");
        }
    }
}
