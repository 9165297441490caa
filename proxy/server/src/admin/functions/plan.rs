//! What a request of the functions API changes in the files, worked out from what they say now.

use serde_json::Value;
use toml_edit::{Array, Item, TableLike};
use weir_config::{Config, FunctionTable, Sources, VersionTable};

use crate::admin::functions::document::{self, Document};
use crate::admin::functions::payload::{NewModel, NewVersion, Settings, Update, tokenizer};
use crate::admin::functions::refusal::Problem;
use crate::admin::functions::view;
use crate::reload::Change;

/// The function a change is about, and one of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// Its id as the config has it.
    pub(crate) id: String,
    /// None: the newest.
    pub(crate) version: Option<String>,
}

/// A change and what it is about.
pub(crate) type Planned = Result<(Change, Subject), Problem>;

/// What a new version is called and when it is made.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    /// The id of a new function that asks for none.
    pub(crate) function_id: String,
    /// The id of the version.
    pub(crate) version_id: String,
    /// Now, as RFC 3339 writes it.
    pub(crate) created_at: String,
}

/// A new function with its first version.
pub(crate) fn create(
    sources: &Sources,
    config: &Config,
    new: &NewVersion,
    stamp: &Stamp,
) -> Planned {
    let id = new.id.as_ref().unwrap_or(&stamp.function_id);
    if let Some((id, _)) = find(config, id) {
        return Err(Problem::exists(id));
    }
    let mut document = functions_file(sources)?;
    let function = document.function(id).ok_or_else(|| layout(sources))?;
    for model in &new.models {
        add_model(function, config, new, model)?;
    }
    finish(sources, document, id, new, stamp)
}

/// One more version of a function that the API has made.
pub(crate) fn add_version(
    sources: &Sources,
    config: &Config,
    id: &str,
    new: &NewVersion,
    stamp: &Stamp,
) -> Planned {
    let (id, function) = find(config, id).ok_or_else(|| Problem::no_function(id))?;
    if new.id.as_deref().is_some_and(|wanted| wanted != normal(id)) {
        return Err(Problem::invalid(format!(
            "Invalid request: 'id' of a version of function '{id}' must be that of the function, or absent"
        )));
    }
    for model in &new.models {
        same_as_before(id, function, new, model)?;
    }
    let mut document = functions_file(sources)?;
    if !document.has(id) {
        return Err(in_config(sources, id));
    }
    let table = document.function(id).ok_or_else(|| layout(sources))?;
    for model in &new.models {
        match model_table(table, &model.name) {
            Some(known) if function.models.contains_key(&model.name) => {
                apply(known, &model.settings)
            }
            _ => add_model(table, config, new, model)?,
        }
    }
    finish(sources, document, id, new, stamp)
}

/// Changes the mutable fields of a function, for all its versions.
pub(crate) fn update(
    sources: &Sources,
    config: &Config,
    id: &str,
    version: Option<&str>,
    update: &Update,
) -> Planned {
    let (id, function) = wanted(config, id, version)?;
    if let Some((name, _)) = update
        .models
        .iter()
        .find(|(name, _)| !function.models.contains_key(name))
    {
        return Err(Problem::no_model(id, name));
    }
    let mut document = functions_file(sources)?;
    let by_hand = !document.has(id);
    if by_hand {
        if !update.kept.is_empty() {
            return Err(in_config(sources, id));
        }
        document = config_file(sources)?;
    }
    let table = document.function(id).ok_or_else(|| layout(sources))?;
    for (name, settings) in &update.models {
        let model = model_table(table, name).ok_or_else(|| layout(sources))?;
        apply(model, settings);
    }
    if let Some(priority) = &update.priority {
        document::set_priority(table, priority);
    }
    if !update.kept.is_empty() {
        if function.versions.is_empty() {
            return Err(in_config(sources, id));
        }
        keep(table, version, &update.kept).ok_or_else(|| layout(sources))?;
    }
    let text = document.text();
    let change = if by_hand {
        Change::Config(text)
    } else {
        Change::Functions(text)
    };
    Ok((change, subject(id, version)))
}

/// Takes a version of a function that the API has made away, or all of it.
pub(crate) fn delete(
    sources: &Sources,
    config: &Config,
    id: &str,
    version: Option<&str>,
) -> Planned {
    let (id, function) = wanted(config, id, version)?;
    let mut document = functions_file(sources)?;
    if !document.has(id) {
        return Err(in_config(sources, id));
    }
    let staying = |other: &&VersionTable| Some(other.id.as_str()) != version;
    let rest: Vec<&VersionTable> = function.versions.iter().filter(staying).collect();
    if version.is_none() || rest.is_empty() {
        document.remove(id);
        return Ok((Change::Functions(document.text()), subject(id, version)));
    }
    let table = document.function(id).ok_or_else(|| layout(sources))?;
    let gone = function.versions.iter().filter(|other| !staying(other));
    for model in gone.flat_map(view::models_of) {
        let used = rest
            .iter()
            .any(|other| view::models_of(other).any(|name| name == model));
        if let Some(models) = document::table_in(table, "models", true).filter(|_| !used) {
            models.remove(model);
        }
    }
    if let Some(versions) = document::versions(table) {
        versions.retain(|other| other.get("id").and_then(Item::as_str) != version);
    }
    Ok((Change::Functions(document.text()), subject(id, version)))
}

/// A function by its id, whose letters may be of any case when it is a UUID.
pub(crate) fn find<'c>(config: &'c Config, id: &str) -> Option<(&'c str, &'c FunctionTable)> {
    let wanted = normal(id);
    let mut functions = config.functions.iter();
    functions
        .find(|(known, _)| normal(known) == wanted)
        .map(|(known, function)| (known.as_str(), function))
}

fn normal(id: &str) -> String {
    weir_dialect::normal_routing_key(id).into_owned()
}

fn wanted<'c>(
    config: &'c Config,
    id: &str,
    version: Option<&str>,
) -> Result<(&'c str, &'c FunctionTable), Problem> {
    let (id, function) = find(config, id).ok_or_else(|| Problem::no_function(id))?;
    match version.filter(|version| !view::has_version(id, function, version)) {
        Some(missing) => Err(Problem::no_version(id, missing)),
        None => Ok((id, function)),
    }
}

fn subject(id: &str, version: Option<&str>) -> Subject {
    Subject {
        id: id.to_owned(),
        version: version.map(str::to_owned),
    }
}

/// Models of one name are called alike in all versions.
fn same_as_before(
    id: &str,
    function: &FunctionTable,
    new: &NewVersion,
    model: &NewModel,
) -> Result<(), Problem> {
    let name = &model.name;
    let Some(known) = function.models.get(name) else {
        return Ok(());
    };
    let differs = |field: &str, version: &str| {
        Problem::invalid(format!(
            "Function id '{id}', version '{version}': 'llmConfig.{field}' for model '{name}' must match existing versions"
        ))
    };
    let having = |version: &&VersionTable| view::models_of(version).any(|other| other == name);
    let newest = function.versions.iter().rev().find(having);
    let version = newest.map_or("", |version| version.id.as_str());
    if known.uris != model.uris {
        return Err(differs("uris", version));
    }
    let wanted = model.cluster.as_ref().or(new.cluster.as_ref());
    if wanted.is_some_and(|wanted| *wanted != known.cluster) {
        return Err(Problem::invalid(format!(
            "Function id '{id}', version '{version}': 'cluster' for model '{name}' must match existing versions"
        )));
    }
    let before = newest
        .and_then(|version| version.nvcf.as_object())
        .and_then(|kept| tokenizer(kept, name));
    if newest.is_some() && before != new.tokenizer(name) {
        return Err(differs("tokenizer", version));
    }
    Ok(())
}

fn add_model(
    function: &mut dyn TableLike,
    config: &Config,
    new: &NewVersion,
    model: &NewModel,
) -> Result<(), Problem> {
    let cluster = cluster(config, new, model)?;
    let table = document::table_in(function, "models", true)
        .and_then(|models| document::table_in(models, &model.name, false));
    let Some(table) = table else {
        return Ok(());
    };
    document::set(table, "cluster", cluster);
    document::set(table, "uris", model.uris.iter().collect::<Array>());
    apply(table, &model.settings);
    Ok(())
}

/// The model's cluster, else the function's, else the API's, else the only one there is.
fn cluster<'c>(
    config: &'c Config,
    new: &'c NewVersion,
    model: &'c NewModel,
) -> Result<&'c str, Problem> {
    let named = [&model.cluster, &new.cluster, &config.functions_api.cluster];
    let named = named.into_iter().flatten().next();
    let only = || {
        config
            .clusters
            .keys()
            .next()
            .filter(|_| config.clusters.len() == 1)
    };
    let chosen = named.or_else(only);
    let known: Vec<&str> = config.clusters.keys().map(String::as_str).collect();
    match chosen {
        Some(cluster) if config.clusters.contains_key(cluster) => Ok(cluster),
        Some(cluster) => Err(Problem::invalid(format!(
            "Invalid request: no cluster '{cluster}' for model '{}'; there are [{}]",
            model.name,
            known.join(", ")
        ))),
        None => Err(Problem::invalid(format!(
            "Invalid request: 'cluster' is required for model '{}', one of [{}]: give it for the function or the model, or set `[functions_api] cluster` in the config",
            model.name,
            known.join(", ")
        ))),
    }
}

fn apply(model: &mut dyn TableLike, settings: &Settings) {
    for (key, text) in settings {
        document::set_or_remove(model, key, text);
    }
}

fn model_table<'t>(function: &'t mut dyn TableLike, name: &str) -> Option<&'t mut dyn TableLike> {
    let models = function.get_mut("models")?.as_table_like_mut()?;
    models.get_mut(name)?.as_table_like_mut()
}

/// Priority and version, last.
fn finish(
    sources: &Sources,
    mut document: Document,
    id: &str,
    new: &NewVersion,
    stamp: &Stamp,
) -> Planned {
    let table = document.function(id).ok_or_else(|| layout(sources))?;
    if let Some(priority) = &new.priority {
        document::set_priority(table, priority);
    }
    let version = document::version(&stamp.version_id, &stamp.created_at, &new.kept);
    document::versions(table)
        .ok_or_else(|| layout(sources))?
        .push(version);
    Ok((
        Change::Functions(document.text()),
        subject(id, Some(&stamp.version_id)),
    ))
}

/// Sets members of what is kept of one version, or of all.
fn keep(
    function: &mut dyn TableLike,
    version: Option<&str>,
    members: &serde_json::Map<String, Value>,
) -> Option<()> {
    for table in document::versions(function)?.iter_mut() {
        if version.is_some() && table.get("id").and_then(Item::as_str) != version {
            continue;
        }
        let nvcf = document::table_in(table, "nvcf", false)?;
        for (name, member) in members {
            document::set(nvcf, name, document::value(member)?);
        }
    }
    Some(())
}

fn functions_file(sources: &Sources) -> Result<Document, Problem> {
    let file = sources.functions_file.display().to_string();
    Document::read(sources.functions.as_deref(), &file)
}

fn config_file(sources: &Sources) -> Result<Document, Problem> {
    let file = sources.file.display().to_string();
    Document::read(Some(&sources.text), &file)
}

fn in_config(sources: &Sources, id: &str) -> Problem {
    Problem::in_config(id, &sources.file.display().to_string())
}

/// The tables are there, but not in a form that can be added to.
fn layout(sources: &Sources) -> Problem {
    Problem::layout(&sources.functions_file.display().to_string())
}
