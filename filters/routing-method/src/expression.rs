//! `x-routing-method` of a request: a method with parameters, an Item of RFC 8941.

use serde_json::{Map, Value};
use weir_sdk::LocalResponse;

use crate::config::Config;
use crate::method::Method;

/// Why an expression is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// It is no item with parameters, or too long.
    MalformedExpression,
    /// No method of this name.
    UnknownMethod,
    /// A method that requests may not choose.
    Unavailable,
    /// No setting of this name.
    UnknownParameter,
    /// A setting of another method.
    NotApplicable,
    /// A value that the setting cannot have.
    InvalidValue,
    /// Settings that do nothing together.
    InertCombination,
}

impl Class {
    /// The code that callers see.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::MalformedExpression => "malformed_expression",
            Self::UnknownMethod => "unknown_method",
            Self::Unavailable => "unavailable",
            Self::UnknownParameter => "unknown_parameter",
            Self::NotApplicable => "not_applicable",
            Self::InvalidValue => "invalid_value",
            Self::InertCombination => "inert_combination",
        }
    }

    /// The answer to the caller.
    pub(crate) fn refusal(self) -> LocalResponse {
        let message = match self {
            Self::MalformedExpression => "`x-routing-method` is not a method with parameters",
            Self::UnknownMethod => "`x-routing-method` names no routing method",
            Self::Unavailable => "`x-routing-method` names a method that cannot be chosen here",
            Self::UnknownParameter => "`x-routing-method` has an unknown parameter",
            Self::NotApplicable => "`x-routing-method` has a parameter of another method",
            Self::InvalidValue => "`x-routing-method` has a parameter with an invalid value",
            Self::InertCombination => "`x-routing-method` has parameters that do nothing together",
        };
        LocalResponse::error(400, "invalid_request_error", self.code(), message)
    }
}

/// The method an expression chooses, and the settings with its parameters in them.
pub(crate) fn apply(expression: &str, base: &Config) -> Result<(Method, Config), Class> {
    let (name, parameters) = parse(expression).ok_or(Class::MalformedExpression)?;
    let method = Method::parse(name).ok_or(Class::UnknownMethod)?;
    let allowed = &base.request_algorithms;
    if !allowed.is_empty() && !allowed.iter().any(|one| Method::parse(one) == Some(method)) {
        return Err(Class::Unavailable);
    }
    let defaults = serde_json::to_value(Config::default()).map_err(|_| Class::InvalidValue)?;
    let mut changes = Map::new();
    for (key, value) in &parameters {
        place(&mut changes, &defaults, method, key, value.clone())?;
    }
    let settings = base
        .changed(&Value::Object(changes))
        .map_err(|_| Class::InvalidValue)?;
    if !settings.errors().is_empty() {
        return Err(Class::InvalidValue);
    }
    if inert(method, &settings, &parameters) {
        return Err(Class::InertCombination);
    }
    Ok((method, settings))
}

/// Puts a parameter where it belongs in the table.
fn place(
    changes: &mut Map<String, Value>,
    defaults: &Value,
    method: Method,
    key: &str,
    value: Value,
) -> Result<(), Class> {
    let knows = |table: &str| {
        defaults
            .get(table)
            .is_some_and(|known| known.get(key).is_some())
            || ALIASES.contains(&(table, key))
    };
    if COMMON.contains(&key) {
        if key == "seed"
            && !matches!(
                method,
                Method::Pulsar | Method::PulsarMultiregion | Method::GroqMultiregion
            )
        {
            return Err(Class::NotApplicable);
        }
        changes.insert(key.to_owned(), value);
        return Ok(());
    }
    match method.table() {
        Some(table) if knows(table) => {
            let below = changes
                .entry(table)
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(below) = below {
                let key = canonical(table, key);
                below.insert(key.to_owned(), value);
            }
            Ok(())
        }
        _ if TABLES.iter().any(|table| knows(table)) => Err(Class::NotApplicable),
        _ => Err(Class::UnknownParameter),
    }
}

/// A parameter's name in the table, where another one is understood.
fn canonical<'a>(table: &str, key: &'a str) -> &'a str {
    match (table, key) {
        ("power_of_two", "comparator") => "figure",
        ("power_of_two", "sample_count") => "choices",
        (_, "rendezvous_weight") => "weight",
        _ => key,
    }
}

fn inert(method: Method, settings: &Config, parameters: &[(&str, Value)]) -> bool {
    let given = |wanted: &[&str]| parameters.iter().any(|(key, _)| wanted.contains(key));
    let groq = &settings.groq_multiregion;
    match method {
        Method::GroqMultiregion => {
            let of_groups = [
                "cache_affinity_wait_ms",
                "cache_affinity_input_tokens_scale",
                "cache_affinity_virtual_nodes",
                "cache_affinity_ttft_penalty_ms",
            ];
            (groq.cache_affinity_backend_selection_count == 0 && given(&of_groups))
                || (groq.max_queue_time_ceil_ms.is_none() && given(&["slo_ms"]))
        }
        Method::Pulsar => {
            settings.pulsar.compat && given(&["c", "assumed_slots", "ttft_penalty_ms"])
        }
        _ => false,
    }
}

/// Method and parameters; none: it is not well-formed.
fn parse(expression: &str) -> Option<(&str, Vec<(&str, Value)>)> {
    if expression.len() > EXPRESSION_BYTES_MAX || expression.contains(',') {
        return None;
    }
    let mut parts = expression.trim_matches(' ').split(';');
    let name = parts.next().filter(|name| is_token(name))?;
    let mut parameters: Vec<(&str, Value)> = Vec::new();
    for part in parts {
        let (key, value) = match part.trim_start_matches(' ').split_once('=') {
            Some((key, value)) => (key, bare_item(value)?),
            None => (part.trim_start_matches(' '), Value::Bool(true)),
        };
        let known = parameters.iter().any(|(known, _)| *known == key);
        if known || !is_key(key) || parameters.len() >= PARAMETERS_MAX {
            return None;
        }
        parameters.push((key, value));
    }
    Some((name, parameters))
}

/// `[a-z][a-z0-9_]*`.
fn is_key(key: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    key.starts_with(|first: char| first.is_ascii_lowercase()) && key.bytes().all(rest)
}

fn is_token(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*')
        && text.bytes().all(rest)
}

/// A boolean, a number, a string or a token; `true` and `false` as tokens are booleans.
fn bare_item(text: &str) -> Option<Value> {
    match text {
        "?1" | "true" => return Some(Value::Bool(true)),
        "?0" | "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some(quoted) = text.strip_prefix('"') {
        return string(quoted.strip_suffix('"')?).map(Value::String);
    }
    if is_token(text) {
        return Some(Value::String(text.to_owned()));
    }
    number(text)
}

/// At most 15 digits, or 12 and 3 behind a point.
fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let all = |part: &str, most: usize| {
        (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    match digits.split_once('.') {
        None if all(digits, 15) => text.parse::<i64>().ok().map(Value::from),
        Some((whole, part)) if all(whole, 12) && all(part, 3) => {
            text.parse::<f64>().ok().map(Value::from)
        }
        _ => None,
    }
}

/// Printable ASCII in which only quote and backslash are escaped.
fn string(inner: &str) -> Option<String> {
    let mut out = String::with_capacity(inner.len());
    let mut escaped = false;
    for character in inner.chars() {
        match character {
            '"' | '\\' if escaped => {
                out.push(character);
                escaped = false;
            }
            _ if escaped => return None,
            '\\' => escaped = true,
            '"' => return None,
            ' '..='~' => out.push(character),
            _ => return None,
        }
    }
    (!escaped).then_some(out)
}

/// Settings of every method.
const COMMON: [&str; 5] = [
    "seed",
    "require_cache_affinity_key",
    "require_input_tokens",
    "max_input_work_seconds",
    "last_cluster_affinity",
];
const TABLES: [&str; 4] = [
    "power_of_two",
    "groq_multiregion",
    "pulsar",
    "pulsar_multiregion",
];
/// Names that tables understand beside those they are written with.
const ALIASES: [(&str, &str); 4] = [
    ("power_of_two", "comparator"),
    ("power_of_two", "sample_count"),
    ("pulsar", "rendezvous_weight"),
    ("pulsar_multiregion", "rendezvous_weight"),
];
pub(crate) const EXPRESSION_BYTES_MAX: usize = 1024;
const PARAMETERS_MAX: usize = 32;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn class(expression: &str) -> Option<&'static str> {
        let base = Config {
            request_algorithms: vec![
                "power-of-two".into(),
                "pulsar".into(),
                "groq_multiregion".into(),
            ],
            ..Config::default()
        };
        apply(expression, &base).err().map(Class::code)
    }

    #[test]
    fn expressions_choose_method_and_settings() {
        let (method, settings) = apply(
            r#"pulsar;seed="a b";consider_kv_free_tokens=true; c=2.5;weight=configured"#,
            &Config::default(),
        )
        .unwrap();
        assert_eq!((method, settings.seed.as_str()), (Method::Pulsar, "a b"));
        assert!(settings.pulsar.consider_kv_free_tokens);
        assert!((settings.pulsar.c - 2.5).abs() < 1e-9);
        assert_eq!(settings.pulsar.weight, crate::config::Weight::Configured);
        let (_, settings) = apply(
            "power-of-n;sample_count=7;comparator=queue-time",
            &Config::default(),
        )
        .unwrap();
        assert_eq!(settings.power_of_two.choices, 7);
        assert_eq!(
            settings.power_of_two.figure,
            crate::config::Compared::QueueTime
        );
        let (_, settings) = apply(
            "pulsar;rendezvous_weight=last-mean-input-tps",
            &Config::default(),
        )
        .unwrap();
        assert_eq!(settings.pulsar.weight, crate::config::Weight::InputTps);
    }

    #[test]
    fn errors_have_a_class() {
        let long = format!("pulsar;seed=\"{}\"", "x".repeat(1_024));
        let many: String = (0..33).fold("pulsar".to_owned(), |text, n| format!("{text};k{n}=1"));
        let table = [
            ("pulsar", None),
            ("pulsar;compat", None),
            ("pulsar;compat=?1", None),
            ("", Some("malformed_expression")),
            ("pulsar;seed=a,b", Some("malformed_expression")),
            ("pulsar;seed=a;seed=b", Some("malformed_expression")),
            ("pulsar;Seed=a", Some("malformed_expression")),
            ("pulsar;seed=\"a;b\"", Some("malformed_expression")),
            ("pulsar;c=1.", Some("malformed_expression")),
            ("pulsar;;c=1", Some("malformed_expression")),
            (&long, Some("malformed_expression")),
            (&many, Some("malformed_expression")),
            ("luck", Some("unknown_method")),
            ("random", Some("unavailable")),
            ("pulsar;colour=red", Some("unknown_parameter")),
            ("pulsar;ttft_bucket_size_ms=2", Some("not_applicable")),
            ("power_of_two;seed=a", Some("not_applicable")),
            ("pulsar;c=0.5", Some("invalid_value")),
            ("pulsar;c=\"two\"", Some("invalid_value")),
            ("power_of_two;sample_count=65", Some("invalid_value")),
            (
                "groq_multiregion;cache_affinity_wait_ms=5",
                Some("inert_combination"),
            ),
            (
                "groq_multiregion;cache_affinity_wait_ms=5;cache_affinity_backend_selection_count=2",
                None,
            ),
            ("groq_multiregion;slo_ms=5", Some("inert_combination")),
            ("pulsar;compat;c=2", Some("inert_combination")),
        ];
        for (expression, expected) in table {
            assert_eq!(class(expression), expected, "{expression}");
        }
    }
}
