//! Flags made into the payloads of the functions API.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::cli::function::spec;

/// What is told about a new function or version. Flags come over what the file says.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateFlags {
    /// A JSON file with the payload, or with what the flags do not say
    #[arg(long, value_name = "FILE", alias = "input-file")]
    file: Option<PathBuf>,
    /// Its name
    #[arg(long)]
    name: Option<String>,
    /// The container image; kept, not run
    #[arg(long)]
    image: Option<String>,
    /// The path below which the container answers; kept
    #[arg(long)]
    inference_url: Option<String>,
    /// The port on which the container answers; kept
    #[arg(long)]
    inference_port: Option<u16>,
    /// LLM
    #[arg(long)]
    function_type: Option<String>,
    /// CUSTOM or PREDICT_V2; kept
    #[arg(long)]
    api_body_format: Option<String>,
    /// A text about it
    #[arg(long)]
    description: Option<String>,
    /// Tags, separated by commas
    #[arg(long, value_delimiter = ',')]
    tags: Vec<String>,
    /// A model: `name=M,uris=/v1/chat/completions|/v1/responses,routingMethod=R,tokenRateLimit=L`
    #[arg(long, value_name = "SPEC", value_parser = spec::model)]
    llm_model: Vec<Value>,
    /// The cluster of models that name none
    #[arg(long)]
    cluster: Option<String>,
    /// The function id to be given, a UUID
    #[arg(long, value_name = "UUID")]
    id: Option<String>,
    #[command(flatten)]
    priority: PriorityFlags,
}

/// What is to change. Flags come over what the file says.
#[derive(Debug, clap::Args)]
pub(crate) struct UpdateFlags {
    /// A JSON file with the payload, or with what the flags do not say
    #[arg(long, value_name = "FILE", alias = "input-file")]
    file: Option<PathBuf>,
    /// New settings of a model: `name=M,routingMethod=R,tokenRateLimit=L`; an empty one is taken away
    #[arg(long, value_name = "SPEC", value_parser = spec::update)]
    llm_model_update: Vec<Value>,
    /// Tags, separated by commas
    #[arg(long, value_delimiter = ',')]
    tags: Vec<String>,
    /// A text about it
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    priority: PriorityFlags,
}

/// Whose calls come first.
#[derive(Debug, clap::Args)]
struct PriorityFlags {
    /// Priority of calls, lower first
    #[arg(long, value_name = "N")]
    llm_default_priority: Option<u32>,
    /// Priority of an account's calls
    #[arg(long, value_name = "ACCOUNT:N", value_parser = account)]
    llm_per_account_priority: Vec<(String, u32)>,
}

impl CreateFlags {
    /// The payload.
    ///
    /// # Errors
    /// When the file cannot be read as JSON.
    pub(crate) fn payload(self) -> Result<Value, String> {
        let mut payload = from_file(self.file.as_deref())?;
        for (name, value) in [
            ("name", self.name),
            ("containerImage", self.image),
            ("inferenceUrl", self.inference_url),
            ("functionType", self.function_type),
            ("apiBodyFormat", self.api_body_format),
            ("description", self.description),
            ("cluster", self.cluster),
            ("id", self.id),
        ] {
            set(&mut payload, name, value.map(Value::from));
        }
        set(
            &mut payload,
            "inferencePort",
            self.inference_port.map(Value::from),
        );
        set(&mut payload, "tags", some(self.tags));
        set(&mut payload, "models", some(self.llm_model));
        set(&mut payload, "llmInvocationConfig", self.priority.payload());
        Ok(Value::Object(payload))
    }
}

impl UpdateFlags {
    /// The payload.
    ///
    /// # Errors
    /// When the file cannot be read as JSON.
    pub(crate) fn payload(self) -> Result<Value, String> {
        let mut payload = from_file(self.file.as_deref())?;
        set(&mut payload, "modelUpdates", some(self.llm_model_update));
        set(&mut payload, "tags", some(self.tags));
        set(
            &mut payload,
            "description",
            self.description.map(Value::from),
        );
        set(&mut payload, "llmInvocationConfig", self.priority.payload());
        Ok(Value::Object(payload))
    }
}

impl PriorityFlags {
    fn payload(self) -> Option<Value> {
        let mut priority = Map::new();
        set(
            &mut priority,
            "defaultPriority",
            self.llm_default_priority.map(Value::from),
        );
        if !self.llm_per_account_priority.is_empty() {
            let accounts: Map<String, Value> = self
                .llm_per_account_priority
                .into_iter()
                .map(|(account, priority)| (account, Value::from(priority)))
                .collect();
            priority.insert("perAccountPriority".into(), Value::Object(accounts));
        }
        (!priority.is_empty()).then(|| json!({ "priority": priority }))
    }
}

fn account(text: &str) -> Result<(String, u32), String> {
    let pair = text.rsplit_once(':');
    let pair = pair.and_then(|(account, number)| Some((account.to_owned(), number.parse().ok()?)));
    pair.filter(|(account, _)| !account.is_empty())
        .ok_or_else(|| format!("write ACCOUNT:N with N from 0 to {}", u32::MAX))
}

fn some<T: Into<Value>>(values: Vec<T>) -> Option<Value> {
    (!values.is_empty()).then(|| values.into_iter().map(Into::into).collect())
}

fn set(payload: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        payload.insert(name.to_owned(), value);
    }
}

fn from_file(file: Option<&Path>) -> Result<Map<String, Value>, String> {
    let Some(file) = file else {
        return Ok(Map::new());
    };
    let text = fs::read_to_string(file)
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    serde_json::from_str(&text)
        .map_err(|error| format!("{} is not a JSON object: {error}", file.display()))
}
