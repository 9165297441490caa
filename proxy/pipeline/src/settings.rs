//! What the config says of a model: the attributes `weir.*` that filters read, and one id of them all.

use std::sync::Arc;

use crate::intern::{Interner, NameId};

/// The settings of one model, each an attribute. An exchange for which one is to be another gets
/// settings of its own, see [`ModelSettings::with`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelSettings {
    /// `weir.routing-method`.
    pub routing_method: Option<Arc<str>>,
    /// `weir.token-rate-limit`: input and output tokens together.
    pub token_rate_limit: Option<Arc<str>>,
    /// `weir.input-token-rate-limit`.
    pub input_token_rate_limit: Option<Arc<str>>,
    /// `weir.output-token-rate-limit`.
    pub output_token_rate_limit: Option<Arc<str>>,
    /// `weir.request-rate-limit`.
    pub request_rate_limit: Option<Arc<str>>,
}

impl ModelSettings {
    /// The value of an attribute; `None` also for names that are no settings.
    #[must_use]
    pub fn get(&self, attribute: &str) -> Option<&Arc<str>> {
        match attribute {
            "weir.routing-method" => self.routing_method.as_ref(),
            "weir.token-rate-limit" => self.token_rate_limit.as_ref(),
            "weir.input-token-rate-limit" => self.input_token_rate_limit.as_ref(),
            "weir.output-token-rate-limit" => self.output_token_rate_limit.as_ref(),
            "weir.request-rate-limit" => self.request_rate_limit.as_ref(),
            _ => None,
        }
    }

    /// These settings with one of them set; `None` when the attribute is no setting.
    #[must_use]
    pub fn with(&self, attribute: &str, value: &str) -> Option<Self> {
        let mut changed = self.clone();
        let place = match attribute {
            "weir.routing-method" => &mut changed.routing_method,
            "weir.token-rate-limit" => &mut changed.token_rate_limit,
            "weir.input-token-rate-limit" => &mut changed.input_token_rate_limit,
            "weir.output-token-rate-limit" => &mut changed.output_token_rate_limit,
            "weir.request-rate-limit" => &mut changed.request_rate_limit,
            _ => return None,
        };
        *place = Some(Arc::from(value));
        Some(changed)
    }

    /// What every view of an exchange with these settings carries. Equal ids mean equal settings,
    /// so that a filter may keep by it what it derived from them; [`NameId::NONE`] when nothing is
    /// set. `None` when there is no room for another name: that must not be taken for no settings.
    #[must_use]
    pub fn id(&self, interner: &Interner) -> Option<NameId> {
        if *self == Self::default() {
            return Some(NameId::NONE);
        }
        let id = interner.intern(&self.written());
        (id != NameId::NONE).then_some(id)
    }

    /// The same for settings that a filter has changed: [`NameId::UNNUMBERED`] when there is no room
    /// for another name.
    #[must_use]
    pub fn changed_id(&self, interner: &Interner) -> NameId {
        if *self == Self::default() {
            return NameId::NONE;
        }
        match interner.intern_foreign(&self.written()) {
            NameId::NONE => NameId::UNNUMBERED,
            id => id,
        }
    }

    /// Quoted: no two are written alike.
    fn written(&self) -> String {
        format!("{self:?}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::intern::NAMES_MAX;

    fn settings(values: &[(&str, &str)]) -> ModelSettings {
        values
            .iter()
            .fold(ModelSettings::default(), |settings, (name, value)| {
                settings.with(name, value).unwrap()
            })
    }

    #[test]
    fn one_is_changed_and_the_others_stay() {
        let limited = settings(&[("weir.token-rate-limit", "1-S")]);
        let both = limited.with("weir.routing-method", "random").unwrap();
        let higher = both.with("weir.token-rate-limit", "9-S").unwrap();
        let of = |settings: &ModelSettings, name: &str| settings.get(name).map(ToString::to_string);
        assert_eq!(of(&higher, "weir.token-rate-limit").as_deref(), Some("9-S"));
        assert_eq!(
            of(&higher, "weir.routing-method").as_deref(),
            Some("random")
        );
        assert_eq!(of(&both, "weir.token-rate-limit").as_deref(), Some("1-S"));
        assert_eq!(of(&both, "weir.request-rate-limit"), None);
        assert_eq!(of(&both, "weir.unknown"), None);
        assert_eq!(both.with("weir.unknown", "x"), None);
        assert_eq!(both.with("routing_method", "x"), None);
    }

    #[test]
    fn equal_settings_have_equal_ids() {
        let names = Interner::new();
        let table: [&[(&str, &str)]; 7] = [
            &[],
            &[("weir.routing-method", "random")],
            &[("weir.token-rate-limit", "random")],
            &[("weir.request-rate-limit", "random")],
            &[("weir.routing-method", "")],
            &[("weir.routing-method", "a"), ("weir.token-rate-limit", "b")],
            &[("weir.routing-method", "a\"), Some(\"b")],
        ];
        let ids = table.map(|values| settings(values).id(&names));
        assert_eq!(ids[0], Some(NameId::NONE));
        for (at, values) in table.into_iter().enumerate() {
            assert_eq!(settings(values).id(&names), ids[at]);
            assert!(!ids[..at].contains(&ids[at]), "{values:?}");
        }
    }

    #[test]
    fn a_full_table_is_not_taken_for_no_settings() {
        let names = Interner::new();
        let known = settings(&[("weir.routing-method", "random")]);
        let id = known.id(&names);
        for n in 0..NAMES_MAX {
            names.intern(&format!("n{n}"));
        }
        let other = settings(&[("weir.routing-method", "other")]);
        assert_eq!(other.id(&names), None);
        assert_eq!(other.changed_id(&names), NameId::UNNUMBERED);
        assert_eq!(known.changed_id(&names), id.unwrap());
        assert_eq!(known.id(&names), id);
        assert_eq!(ModelSettings::default().id(&names), Some(NameId::NONE));
    }
}
