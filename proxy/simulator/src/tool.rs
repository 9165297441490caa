//! The tool a request makes the model call, and the arguments that are made up for it.

use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::words::text;

/// A call which the request leaves no way around. A request that leaves the choice to the model
/// gets text, so that a conversation with tools comes to an end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tool {
    /// As a JSON string with its quotes.
    pub(crate) name_json: String,
    /// The argument that gets the words.
    argument: String,
}

impl Tool {
    /// Reads `tools` and `tool_choice` of all APIs, whose shapes do not collide.
    pub(crate) fn forced(tools: &[Value], choice: &Value) -> Result<Option<Self>, Fault> {
        let wanted = match choice {
            Value::String(word) if word == "required" => None,
            Value::Object(choice) => match (kind(choice), name(choice)) {
                ("any", _) => None,
                ("function" | "tool", Some(name)) => Some(name),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        let mut declared = tools.iter().filter_map(Value::as_object);
        let tool = declared
            .find(|tool| name(tool).is_some_and(|name| wanted.is_none_or(|wanted| wanted == name)));
        let Some(tool) = tool else {
            return Err(Fault::invalid(
                "'tool_choice' asks for a tool that is not in 'tools'.",
            ));
        };
        Ok(Some(Self {
            name_json: Value::from(name(tool).unwrap_or_default()).to_string(),
            argument: argument(parameters(tool)).unwrap_or("text").to_owned(),
        }))
    }

    /// What stands before the words in the arguments.
    pub(crate) fn opening(&self) -> String {
        format!("{{{}:\"", Value::from(self.argument.as_str()))
    }

    /// What stands behind them.
    pub(crate) const CLOSING: &str = "\"}";

    /// The arguments, a JSON object. A limit that ends the answer never ends it inside of them.
    pub(crate) fn arguments(&self, roll: u64, tokens: u32) -> String {
        format!("{}{}{}", self.opening(), text(roll, tokens), Self::CLOSING)
    }
}

fn kind(value: &Map<String, Value>) -> &str {
    value
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The name of a tool or of a choice; Chat Completions puts both one level down.
fn name(value: &Map<String, Value>) -> Option<&str> {
    within(value).get("name")?.as_str()
}

fn within(value: &Map<String, Value>) -> &Map<String, Value> {
    value
        .get("function")
        .and_then(Value::as_object)
        .unwrap_or(value)
}

fn parameters(tool: &Map<String, Value>) -> Option<&Value> {
    within(tool)
        .get("parameters")
        .or_else(|| tool.get("input_schema"))
}

/// The first required argument that is a string, else any that is.
fn argument(schema: Option<&Value>) -> Option<&str> {
    let schema = schema?.as_object()?;
    let properties = schema.get("properties")?.as_object()?;
    let is_text = |name: &str| {
        let declared = properties.get(name).and_then(Value::as_object);
        declared.is_some_and(|declared| kind(declared) == "string")
    };
    let required = schema.get("required").and_then(Value::as_array);
    let mut required = required.into_iter().flatten().filter_map(Value::as_str);
    required.find(|name| is_text(name)).or_else(|| {
        properties
            .keys()
            .map(String::as_str)
            .find(|name| is_text(name))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn forced(tools: &Value, choice: &Value) -> Option<(String, String)> {
        let tool = Tool::forced(tools.as_array().unwrap(), choice).unwrap()?;
        Some((tool.name_json.clone(), tool.opening()))
    }

    #[test]
    fn choices_of_each_api() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}, "city": {"type": "string"}}});
        let chat = json!([
            {"type": "function", "function": {"name": "f", "parameters": {}}},
            {"type": "function", "function": {"name": "g", "parameters": schema}}
        ]);
        let responses = json!([{"type": "web_search"}, {"type": "function", "name": "g", "parameters": schema}]);
        let messages = json!([{"name": "g", "input_schema": schema}]);
        let first = Some(("\"f\"".to_owned(), "{\"text\":\"".to_owned()));
        let named = Some(("\"g\"".to_owned(), "{\"city\":\"".to_owned()));
        let table = [
            (&chat, json!("required"), &first),
            (
                &chat,
                json!({"type": "function", "function": {"name": "g"}}),
                &named,
            ),
            (&chat, json!("auto"), &None),
            (&chat, Value::Null, &None),
            (&responses, json!("required"), &named),
            (&responses, json!({"type": "function", "name": "g"}), &named),
            (&messages, json!({"type": "any"}), &named),
            (&messages, json!({"type": "tool", "name": "g"}), &named),
            (&messages, json!({"type": "auto"}), &None),
            (&messages, json!({"type": "none"}), &None),
        ];
        for (tools, choice, expected) in table {
            assert_eq!(&forced(tools, &choice), expected, "{choice}");
        }
        let missing = Tool::forced(&[], &json!("required")).unwrap_err();
        assert_eq!(missing.status, http::StatusCode::BAD_REQUEST);
    }

    #[test]
    fn arguments_are_json() {
        let tool = Tool {
            name_json: "\"f\"".to_owned(),
            argument: "a \"b\"".to_owned(),
        };
        let arguments: Value = serde_json::from_str(&tool.arguments(7, 3)).unwrap();
        assert_eq!(arguments, json!({"a \"b\"": text(7, 3)}));
    }
}
