//! What a token says, and whether it counts here and now.

use serde_json::Value;
use weir_sdk::Principal;

use super::fault::Fault;
use crate::config::{ClaimsTable, JwtTable};

/// Whether the token is of the issuer; nothing of it is verified.
pub(super) fn is_of(issuer: &str, claims: &Value) -> bool {
    claims.get("iss").and_then(Value::as_str) == Some(issuer)
}

/// Checks the times and the audience, and gives the second from which it will no longer count.
pub(super) fn valid_until(claims: &Value, table: &JwtTable, now: u64) -> Result<u64, Fault> {
    let leeway = u64::from(table.leeway_seconds);
    let expires = time(claims, "exp")?;
    let expires = expires.ok_or_else(|| Fault::invalid("has no `exp`"))?;
    if expires.saturating_add(leeway) <= now {
        return Err(Fault::Expired);
    }
    for name in ["nbf", "iat"] {
        if time(claims, name)?.is_some_and(|begins| begins > now.saturating_add(leeway)) {
            return Err(Fault::invalid("is not valid yet"));
        }
    }
    if !is_for(&table.audience.0, claims.get("aud")) {
        return Err(Fault::invalid("is for another audience"));
    }
    Ok(expires)
}

/// A token with an audience is only for that audience (RFC 7519, 4.1.3), and so one that names any
/// is not for a gateway which has no name.
fn is_for(wanted: &[String], audience: Option<&Value>) -> bool {
    let is_wanted = |name: &Value| {
        name.as_str()
            .is_some_and(|name| wanted.iter().any(|wanted| wanted == name))
    };
    match audience {
        None => wanted.is_empty(),
        Some(Value::Array(names)) => names.iter().any(is_wanted),
        Some(name) => is_wanted(name),
    }
}

/// A claim that is a number of seconds since 1970 (RFC 7519, 2), fractions cut off.
fn time(claims: &Value, name: &str) -> Result<Option<u64>, Fault> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let fraction = || value.as_f64().filter(|seconds| *seconds >= 0.0);
    // A float beyond the range becomes the largest number there is.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "meant"
    )]
    let seconds = value.as_u64().or_else(|| fraction().map(|it| it as u64));
    let wrong = || Fault::invalid("has a time that is no number");
    seconds.map(Some).ok_or_else(wrong)
}

/// Who the token says it is of.
pub(super) fn principal(claims: &Value, table: &ClaimsTable) -> Result<Principal, Fault> {
    let subject = named(claims, &table.subject)?;
    let tenant = match &table.tenant {
        Some(name) => named(claims, name)?,
        None => subject.clone(),
    };
    let plan = match &table.plan {
        Some(name) => find(claims, name).and_then(text),
        None => None,
    };
    let priority = match table.priority.as_ref().and_then(|name| find(claims, name)) {
        Some(value) => Some(
            value
                .as_u64()
                .and_then(|priority| u32::try_from(priority).ok())
                .ok_or_else(|| Fault::invalid("has a priority that is no number"))?,
        ),
        None => None,
    };
    let mut principal = Principal::new(&subject, &tenant);
    principal.plan = plan.unwrap_or_else(|| "default".to_owned());
    principal.priority = priority;
    principal.scopes = find(claims, &table.scopes).map(texts).unwrap_or_default();
    if let Some(value) = table.models.as_ref().and_then(|name| find(claims, name)) {
        principal.models = texts(value);
        if principal.models.is_empty() {
            // To a principal an empty list is every model; a token that lists none means none.
            principal.models.push(NO_MODEL.to_owned());
        }
    }
    let long = |text: &String| text.len() > TEXT_BYTES_MAX;
    let texts = [&principal.subject, &principal.tenant, &principal.plan];
    if texts.into_iter().any(long) || principal.models.len() > MODELS_MAX {
        return Err(Fault::invalid("says more than is kept"));
    }
    Ok(principal)
}

/// A claim that must be there and not be empty.
fn named(claims: &Value, name: &str) -> Result<String, Fault> {
    let found = find(claims, name).and_then(text);
    found
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Fault::Invalid(["has no `", name, "`"].concat().into()))
}

fn find<'c>(claims: &'c Value, name: &str) -> Option<&'c Value> {
    if name.starts_with('/') {
        claims.pointer(name)
    } else {
        claims.get(name)
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A list, or words separated by spaces as in `scope` (RFC 8693, 4.2).
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().filter_map(text).collect(),
        Value::String(words) => words.split_whitespace().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// A pattern that no model has: functions have names.
const NO_MODEL: &str = "/";
/// What the host takes.
const TEXT_BYTES_MAX: usize = 1_024;
const MODELS_MAX: usize = 1_024;
