//! What callers of the functions API send, checked in the order and the words of NVCF's validators.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use weir_config::PriorityTable;

use crate::admin::functions::refusal::Problem;

type Members = Map<String, Value>;

/// A function, or one more version of one.
#[derive(Debug)]
pub(crate) struct NewVersion {
    /// The function id that is wanted.
    pub(crate) id: Option<String>,
    /// The cluster of models that name none.
    pub(crate) cluster: Option<String>,
    /// At least one.
    pub(crate) models: Vec<NewModel>,
    /// Whose calls come first.
    pub(crate) priority: Option<PriorityTable>,
    /// The payload, without what the fields above say.
    pub(crate) kept: Members,
}

/// One model of it.
#[derive(Debug)]
pub(crate) struct NewModel {
    /// Its name.
    pub(crate) name: String,
    /// Its cluster.
    pub(crate) cluster: Option<String>,
    /// The paths it may be called on, at least one.
    pub(crate) uris: Vec<String>,
    /// What may change later.
    pub(crate) settings: Settings,
}

/// What is to change of a function.
#[derive(Debug)]
pub(crate) struct Update {
    /// Settings by model name.
    pub(crate) models: Vec<(String, Settings)>,
    /// Whose calls come first.
    pub(crate) priority: Option<PriorityTable>,
    /// Members of what is kept of each version.
    pub(crate) kept: Members,
}

/// Mutable settings of a model: the key in the config and its value, empty to take it away.
pub(crate) type Settings = Vec<(&'static str, String)>;

/// A mutable setting: member of `llmConfig`, key in the config, check and normal form.
type Setting = (&'static str, &'static str, Check);

/// Of a value of the member of that name of the model of that name.
type Check = fn(member: &str, model: &str, value: &str) -> Result<String, Problem>;

/// The mutable settings.
pub(crate) const SETTINGS: [Setting; 4] = [
    ("routingMethod", "routing_method", routing_method),
    ("tokenRateLimit", "token_rate_limit", rate_limit),
    ("inputTokenRateLimit", "input_token_rate_limit", rate_limit),
    (
        "outputTokenRateLimit",
        "output_token_rate_limit",
        rate_limit,
    ),
];

/// Names of routing methods and their aliases, as the documents write them.
const ROUTING_METHODS: [&str; 8] = [
    "power-of-two",
    "wait-and-widen",
    "round-robin",
    "random",
    "pulsar",
    "pulsar-wait-and-widen",
    "groq-multiregion",
    "pulsar-multiregion",
];
const BODY_FORMATS: [&str; 2] = ["CUSTOM", "PREDICT_V2"];
/// What only the function's own tables say.
const NOT_KEPT: [&str; 3] = ["id", "cluster", "llmInvocationConfig"];
const NAME_CHARS_MAX: usize = 128;
const PRIORITIES_MAX: usize = 64;

impl NewVersion {
    /// Reads a payload.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Problem> {
        let members = object(body)?;
        name(&members)?;
        choices(&members)?;
        port(&members)?;
        let models = models(&members)?;
        let id = text(&members, "id")?.map(uuid).transpose()?;
        let cluster = text(&members, "cluster")?.map(str::to_owned);
        let priority = priority(&members)?;
        Ok(Self {
            id,
            cluster,
            models,
            priority,
            kept: kept(members)?,
        })
    }

    /// What is kept of it about a model's tokenizer.
    pub(crate) fn tokenizer(&self, model: &str) -> Option<&Value> {
        tokenizer(&self.kept, model)
    }
}

/// The tokenizer a kept payload names for a model.
pub(crate) fn tokenizer<'k>(kept: &'k Members, model: &str) -> Option<&'k Value> {
    let models = kept.get("models")?.as_array()?;
    let named = models
        .iter()
        .find(|kept| kept.get("name").and_then(Value::as_str) == Some(model))?;
    named.get("llmConfig")?.get("tokenizer")
}

impl Update {
    /// Reads a payload.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Problem> {
        const MUTABLE: [&str; 5] = [
            "modelUpdates",
            "llmInvocationConfig",
            "tags",
            "description",
            "rateLimit",
        ];
        let members = object(body)?;
        if let Some(fixed) = members.keys().find(|name| !updatable(name, &MUTABLE)) {
            return Err(immutable(fixed, &MUTABLE));
        }
        let models = model_updates(&members)?;
        let priority = priority(&members)?;
        let mut kept = Members::new();
        for name in ["tags", "description", "rateLimit"] {
            if let Some(value) = given(&members, name) {
                kept.insert(name.to_owned(), without_nulls(value)?);
            }
        }
        if models.is_empty() && priority.is_none() && kept.is_empty() {
            let detail = format!(
                "Invalid request: nothing to update; give one of [{}]",
                MUTABLE.join(", ")
            );
            return Err(Problem::invalid(detail));
        }
        Ok(Self {
            models,
            priority,
            kept,
        })
    }
}

/// `functionId` and `versionId` are in the path as well; clients repeat them.
fn updatable(name: &str, mutable: &[&str]) -> bool {
    mutable.contains(&name) || matches!(name, "functionId" | "versionId")
}

fn immutable(name: &str, mutable: &[&str]) -> Problem {
    Problem::invalid(format!(
        "Invalid request: '{name}' is immutable; only [{}] can be updated",
        mutable.join(", ")
    ))
}

fn model_updates(members: &Members) -> Result<Vec<(String, Settings)>, Problem> {
    let mut updates: Vec<(String, Settings)> = Vec::new();
    for update in list(members, "modelUpdates")? {
        let update = as_object(update, "modelUpdates[]")?;
        let model = text(update, "modelName")?.filter(|name| !name.trim().is_empty());
        let Some(model) = model else {
            return Err(Problem::invalid(
                "Invalid request: 'modelName' is required in 'modelUpdates'",
            ));
        };
        if updates.iter().any(|(name, _)| name == model) {
            return Err(Problem::invalid(format!(
                "Invalid request: model '{model}' is twice in 'modelUpdates'"
            )));
        }
        let none = Members::new();
        let config = match given(update, "llmConfig") {
            Some(config) => as_object(config, "llmConfig")?,
            None => &none,
        };
        let mutable = SETTINGS.map(|(member, ..)| member);
        for (name, value) in config.iter().filter(|(_, value)| !value.is_null()) {
            if !mutable.contains(&name.as_str()) {
                return Err(Problem::invalid(format!(
                    "Invalid request: 'llmConfig.{name}' for model '{model}' is immutable; only [{}] can be updated",
                    mutable.join(", ")
                )));
            }
            if !value.is_string() {
                return Err(wrong_type(&format!("llmConfig.{name}"), "a string"));
            }
        }
        let settings = settings(model, config)?;
        if settings.is_empty() {
            return Err(Problem::invalid(format!(
                "Invalid request: nothing to update for model '{model}'; give one of [{}]",
                mutable.join(", ")
            )));
        }
        updates.push((model.to_owned(), settings));
    }
    Ok(updates)
}

fn object(body: &[u8]) -> Result<Members, Problem> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Problem::json("the body is not a JSON object")),
        Err(error) => Err(Problem::json(format!("the body is not JSON: {error}"))),
    }
}

fn name(members: &Members) -> Result<(), Problem> {
    let name = text(members, "name")?.unwrap_or_default();
    if name.trim().is_empty() {
        return Err(Problem::invalid(
            "Invalid request: 'name' is required and must not be empty",
        ));
    }
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if first && chars.all(plain) && name.len() <= NAME_CHARS_MAX {
        return Ok(());
    }
    Err(Problem::invalid(format!(
        "Invalid request: 'name' must be 1 to {NAME_CHARS_MAX} letters, digits, '-' and '_', the first a letter or digit"
    )))
}

fn choices(members: &Members) -> Result<(), Problem> {
    let kind = text(members, "functionType")?;
    if let Some(kind) = kind.filter(|kind| *kind != "LLM") {
        return Err(Problem::invalid(format!(
            "Invalid request: 'functionType' '{kind}' is not supported; all functions and their versions are of type LLM"
        )));
    }
    let format = text(members, "apiBodyFormat")?;
    if let Some(format) = format.filter(|format| !BODY_FORMATS.contains(format)) {
        return Err(Problem::invalid(format!(
            "Invalid request: 'apiBodyFormat' '{format}' is not supported; supported values are [{}]",
            BODY_FORMATS.join(", ")
        )));
    }
    for name in ["inferenceUrl", "containerImage", "description"] {
        text(members, name)?;
    }
    for name in ["tags", "secrets"] {
        list(members, name)?;
    }
    Ok(())
}

fn port(members: &Members) -> Result<(), Problem> {
    let port = given(members, "inferencePort");
    let good = |port: &Value| {
        port.as_u64()
            .is_some_and(|port| (1..=65_535).contains(&port))
    };
    if port.is_none_or(good) {
        Ok(())
    } else {
        Err(wrong_type("inferencePort", "a port from 1 to 65535"))
    }
}

fn models(members: &Members) -> Result<Vec<NewModel>, Problem> {
    let given_models = list(members, "models")?;
    if given_models.is_empty() {
        return Err(Problem::invalid(
            "Invalid request: 'models' is required and must not be empty",
        ));
    }
    let mut names = BTreeSet::new();
    let mut models = Vec::new();
    for model in given_models {
        let model = as_object(model, "models[]")?;
        let name = text(model, "name")?.unwrap_or_default();
        if name.trim().is_empty() {
            return Err(Problem::invalid(
                "Invalid request: 'name' is required in 'models'",
            ));
        }
        if !names.insert(name) {
            return Err(Problem::invalid(format!(
                "Invalid request: model '{name}' is twice in 'models'"
            )));
        }
        let Some(config) = given(model, "llmConfig") else {
            return Err(Problem::invalid(format!(
                "Invalid request: 'llmConfig' is required for model '{name}'"
            )));
        };
        let config = as_object(config, "llmConfig")?;
        text(config, "tokenizer")?;
        models.push(NewModel {
            name: name.to_owned(),
            cluster: text(model, "cluster")?.map(str::to_owned),
            uris: uris(name, config)?,
            settings: settings(name, config)?,
        });
    }
    Ok(models)
}

fn uris(model: &str, config: &Members) -> Result<Vec<String>, Problem> {
    let uri = |uri: &Value| {
        let uri = uri.as_str().map(str::trim).filter(|uri| !uri.is_empty())?;
        // Callers' paths are compared without regard to it.
        Some(format!("/{}", uri.trim_start_matches('/')))
    };
    let uris: Option<Vec<String>> = list(config, "uris")?.iter().map(uri).collect();
    uris.filter(|uris| !uris.is_empty()).ok_or_else(|| {
        Problem::invalid(format!(
            "Invalid request: 'llmConfig.uris' for model '{model}' is required and must not be empty"
        ))
    })
}

fn settings(model: &str, config: &Members) -> Result<Settings, Problem> {
    let mut settings = Settings::new();
    for (member, key, check) in SETTINGS {
        let Some(value) = text(config, member)? else {
            continue;
        };
        let value = if value.trim().is_empty() {
            String::new()
        } else {
            check(member, model, value)?
        };
        settings.push((key, value));
    }
    Ok(settings)
}

fn routing_method(member: &str, model: &str, given: &str) -> Result<String, Problem> {
    let method = given.trim().to_ascii_lowercase().replace('_', "-");
    if ROUTING_METHODS.contains(&method.as_str()) {
        return Ok(method.replace('-', "_"));
    }
    Err(Problem::invalid(format!(
        "Invalid request: 'llmConfig.{member}' for model '{model}' is invalid; supported values are [{}]",
        ROUTING_METHODS.join(", ")
    )))
}

/// `^(?!.*-([SMHDW]).*-\1)[1-9]\d*-[SMHDW](,\s*[1-9]\d*-[SMHDW])*$`, stricter than the config is.
fn rate_limit(member: &str, model: &str, given: &str) -> Result<String, Problem> {
    let mut parts = given.split(',');
    let first = parts.next().map(unit);
    let others = parts.map(|part| unit(part.trim_start_matches(WHITE)));
    let units: Option<Vec<&str>> = first.into_iter().chain(others).collect();
    let distinct = |units: &Vec<&str>| units.iter().collect::<BTreeSet<_>>().len() == units.len();
    if units.as_ref().is_some_and(distinct) {
        return Ok(given.to_owned());
    }
    Err(Problem::invalid(format!(
        "Invalid request: 'llmConfig.{member}' for model '{model}' is invalid; expected comma-separated '<positiveInteger>-<unit>' entries with unit in [S, M, H, D, W] (for example '100000-S' or '10-M,5-S')"
    )))
}

/// The unit of a window that is one.
fn unit(window: &str) -> Option<&str> {
    let (budget, unit) = window.split_once('-')?;
    let digits = budget.bytes().all(|b| b.is_ascii_digit());
    let good = digits && !budget.starts_with('0') && budget.parse::<u64>().is_ok();
    (good && matches!(unit, "S" | "M" | "H" | "D" | "W")).then_some(unit)
}

/// What `\s` of a regular expression is.
const WHITE: [char; 6] = [' ', '\t', '\n', '\u{b}', '\u{c}', '\r'];

fn priority(members: &Members) -> Result<Option<PriorityTable>, Problem> {
    let Some(config) = given(members, "llmInvocationConfig") else {
        return Ok(None);
    };
    let config = as_object(config, "llmInvocationConfig")?;
    let none = Members::new();
    let priority = match given(config, "priority") {
        Some(priority) => as_object(priority, "priority")?,
        None => &none,
    };
    let number = |name: &str, value: &Value| {
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| wrong_type(name, &format!("an integer from 0 to {}", u32::MAX)))
    };
    let default = given(priority, "defaultPriority")
        .map(|value| number("defaultPriority", value))
        .transpose()?;
    let accounts = match given(priority, "perAccountPriority") {
        Some(accounts) => as_object(accounts, "perAccountPriority")?,
        None => &none,
    };
    if accounts.len() > PRIORITIES_MAX {
        return Err(Problem::invalid(format!(
            "Invalid request: 'perAccountPriority' has {} entries, at most {PRIORITIES_MAX} are allowed",
            accounts.len()
        )));
    }
    if default.is_none() && !accounts.is_empty() {
        return Err(Problem::invalid(
            "Invalid request: 'perAccountPriority' needs a 'defaultPriority'",
        ));
    }
    let per_tenant: Result<BTreeMap<String, u32>, Problem> = accounts
        .iter()
        .map(|(account, value)| Ok((account.clone(), number("perAccountPriority", value)?)))
        .collect();
    Ok(Some(PriorityTable {
        default,
        per_tenant: per_tenant?,
    }))
}

/// The payload as it is kept.
fn kept(members: Members) -> Result<Members, Problem> {
    let mut kept = Members::new();
    for (name, value) in members {
        let value = match name.as_str() {
            name if NOT_KEPT.contains(&name) => continue,
            "models" => models_kept(value),
            "secrets" => secrets_kept(&value),
            _ => value,
        };
        if !value.is_null() {
            kept.insert(name, without_nulls(&value)?);
        }
    }
    Ok(kept)
}

fn models_kept(mut models: Value) -> Value {
    for model in models.as_array_mut().into_iter().flatten() {
        let Some(model) = model.as_object_mut() else {
            continue;
        };
        model.remove("cluster");
        let Some(Value::Object(config)) = model.get_mut("llmConfig") else {
            continue;
        };
        config.remove("uris");
        for (member, ..) in SETTINGS {
            config.remove(member);
        }
        config.retain(|_, value| !value.is_null());
        if config.is_empty() {
            model.remove("llmConfig");
        }
    }
    models
}

/// Names only, as NVCF shows them: nothing here could use the values, and they would lie in a file.
fn secrets_kept(secrets: &Value) -> Value {
    let names = secrets
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|secret| {
            secret
                .get("name")
                .or(Some(secret))
                .filter(|n| n.is_string())
        });
    Value::Array(names.cloned().collect())
}

/// TOML has no null, and no integer beyond 63 bits.
fn without_nulls(value: &Value) -> Result<Value, Problem> {
    match value {
        Value::Number(number) if number.is_u64() && number.as_i64().is_none() => {
            let detail = format!("Invalid request: {number} is larger than {}", i64::MAX);
            Err(Problem::invalid(detail))
        }
        Value::Array(values) => {
            let values = values.iter().filter(|value| !value.is_null());
            values
                .map(without_nulls)
                .collect::<Result<Vec<_>, _>>()
                .map(Value::from)
        }
        Value::Object(members) => {
            let members = members.iter().filter(|(_, value)| !value.is_null());
            let members: Result<Members, Problem> = members
                .map(|(name, value)| Ok((name.clone(), without_nulls(value)?)))
                .collect();
            members.map(Value::from)
        }
        other => Ok(other.clone()),
    }
}

fn uuid(text: &str) -> Result<String, Problem> {
    let form = |(place, byte): (usize, u8)| match place {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    if text.len() == 36 && text.bytes().enumerate().all(form) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Problem::invalid(format!(
            "Invalid request: 'id' '{text}' is not a UUID"
        )))
    }
}

/// A member that is there and not null.
fn given<'m>(members: &'m Members, name: &str) -> Option<&'m Value> {
    members.get(name).filter(|value| !value.is_null())
}

fn text<'m>(members: &'m Members, name: &str) -> Result<Option<&'m str>, Problem> {
    match given(members, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong_type(name, "a string")),
    }
}

fn list<'m>(members: &'m Members, name: &str) -> Result<&'m [Value], Problem> {
    match given(members, name) {
        None => Ok(&[]),
        Some(Value::Array(values)) => Ok(values),
        Some(_) => Err(wrong_type(name, "an array")),
    }
}

fn as_object<'m>(value: &'m Value, name: &str) -> Result<&'m Members, Problem> {
    value
        .as_object()
        .ok_or_else(|| wrong_type(name, "an object"))
}

fn wrong_type(name: &str, wanted: &str) -> Problem {
    Problem::invalid(format!("Invalid request: '{name}' must be {wanted}"))
}
