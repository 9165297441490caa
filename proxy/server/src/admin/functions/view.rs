//! A function as the functions API shows it.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use weir_config::{Config, FunctionTable, ModelTable, VersionTable};

use crate::admin::functions::payload::SETTINGS;
use crate::request::headers::uuid_v4;

/// The account all functions belong to: the gateway has no others.
const ACCOUNT: &str = "weir";

/// All versions of all functions.
pub(crate) fn all(config: &Config) -> Vec<Value> {
    let functions = config.functions.iter();
    functions
        .flat_map(|(id, function)| versions(id, function))
        .collect()
}

/// All versions of a function, oldest first. One that the API has not made has one version.
pub(crate) fn versions(id: &str, function: &FunctionTable) -> Vec<Value> {
    if function.versions.is_empty() {
        return vec![shown(id, function, None)];
    }
    let versions = function.versions.iter();
    versions
        .map(|version| shown(id, function, Some(version)))
        .collect()
}

/// One version of a function, the newest when none is named.
pub(crate) fn version(id: &str, function: &FunctionTable, version: Option<&str>) -> Option<Value> {
    let mut versions = versions(id, function);
    match version {
        None => versions.pop(),
        Some(wanted) => versions
            .into_iter()
            .find(|version| version.get("versionId").and_then(Value::as_str) == Some(wanted)),
    }
}

/// Whether a function has the version.
pub(crate) fn has_version(id: &str, function: &FunctionTable, wanted: &str) -> bool {
    if function.versions.is_empty() {
        return wanted == only_version(id);
    }
    function.versions.iter().any(|version| version.id == wanted)
}

/// The names of the models of a version that the API has made.
pub(crate) fn models_of(version: &VersionTable) -> impl Iterator<Item = &str> {
    let models = version.nvcf.get("models").and_then(Value::as_array);
    models
        .into_iter()
        .flatten()
        .filter_map(|model| model.get("name").and_then(Value::as_str))
}

/// The version id of a function without versions: the same at each look.
fn only_version(id: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(id).into();
    let (random, _) = hash.split_first_chunk().unwrap_or((&[0; 16], &[]));
    uuid_v4(u128::from_be_bytes(*random))
}

fn shown(id: &str, function: &FunctionTable, version: Option<&VersionTable>) -> Value {
    let kept = version.and_then(|version| version.nvcf.as_object());
    let mut members = kept.cloned().unwrap_or_default();
    let version_id = version.map_or_else(|| only_version(id), |version| version.id.clone());
    let models = match members.remove("models") {
        Some(Value::Array(models)) => models,
        _ => function
            .models
            .keys()
            .map(|name| json!({ "name": name }))
            .collect(),
    };
    let models: Vec<Value> = models
        .into_iter()
        .map(|model| shown_model(model, function))
        .collect();
    for (name, default) in [
        ("name", json!(id)),
        ("functionType", json!("LLM")),
        ("inferenceUrl", json!("/")),
    ] {
        members.entry(name).or_insert(default);
    }
    members.insert("id".into(), json!(id));
    members.insert("versionId".into(), json!(version_id));
    members.insert("ncaId".into(), json!(ACCOUNT));
    members.insert("status".into(), json!("ACTIVE"));
    members.insert("models".into(), Value::Array(models));
    if let Some(created_at) = version.and_then(|version| version.created_at.as_ref()) {
        members.insert("createdAt".into(), json!(created_at));
    }
    if let Some(priority) = &function.priority {
        let mut shown = Map::new();
        if let Some(default) = priority.default {
            shown.insert("defaultPriority".into(), json!(default));
        }
        if !priority.per_tenant.is_empty() {
            shown.insert("perAccountPriority".into(), json!(priority.per_tenant));
        }
        let config = json!({ "priority": shown });
        members.insert("llmInvocationConfig".into(), config);
    }
    Value::Object(members)
}

fn shown_model(mut model: Value, function: &FunctionTable) -> Value {
    let name = model.get("name").and_then(Value::as_str);
    let table = name.and_then(|name| function.models.get(name));
    if let (Some(table), Some(members)) = (table, model.as_object_mut()) {
        let config = members.entry("llmConfig").or_insert_with(|| json!({}));
        if let Some(config) = config.as_object_mut() {
            set(config, table);
        }
        members.insert("cluster".into(), json!(table.cluster));
    }
    model
}

fn set(config: &mut Map<String, Value>, table: &ModelTable) {
    config.insert("uris".into(), json!(table.uris));
    let table = serde_json::to_value(table).unwrap_or_default();
    for (member, key, _) in SETTINGS {
        if let Some(value) = table.get(key).filter(|value| !value.is_null()) {
            config.insert(member.into(), value.clone());
        }
    }
}
