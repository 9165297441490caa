//! What a request asks of the model, parsed from the JSON body of each API.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::tool::Tool;
use crate::words::tokens_of;

/// The API a request is written for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Api {
    ChatCompletions,
    Responses,
    Embeddings,
    Messages,
}

/// One valid request.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// All text of the prompt in order.
    pub(crate) prompt: String,
    pub(crate) prompt_tokens: u64,
    /// The caller's own limit of the answer.
    pub(crate) tokens_max: Option<u32>,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) tool: Option<Tool>,
    pub(crate) embed: Option<Embed>,
}

/// What is particular to an embeddings request.
#[derive(Debug)]
pub(crate) struct Embed {
    /// Hash-relevant text of each input.
    pub(crate) inputs: Vec<String>,
    pub(crate) dimensions: usize,
    pub(crate) base64: bool,
}

impl Ask {
    pub(crate) fn parse(api: Api, body: &[u8]) -> Result<Self, Fault> {
        let raw: Body = serde_json::from_slice(body).map_err(|error| {
            Fault::invalid(format!(
                "We could not parse the JSON body of your request: {error}"
            ))
        })?;
        match api {
            Api::ChatCompletions => raw.chat(),
            Api::Responses => raw.responses(),
            Api::Embeddings => raw.embeddings(),
            Api::Messages => raw.messages(),
        }
    }
}

/// The members of all four bodies; members not used here are accepted and ignored.
#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    messages: Option<Vec<Message>>,
    system: Option<Text>,
    instructions: Option<Text>,
    input: Option<Value>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    max_output_tokens: Option<u32>,
    metadata: Option<Map<String, Value>>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "role")]
    _role: String,
    content: Option<Text>,
}

impl Body {
    fn chat(mut self) -> Result<Ask, Fault> {
        let prompt = self.conversation()?;
        let tokens_max = self.max_completion_tokens.or(self.max_tokens);
        self.ask(prompt, tokens_max)
    }

    fn messages(mut self) -> Result<Ask, Fault> {
        let mut prompt = self.system.take().unwrap_or_default().0;
        prompt.push_str(&self.conversation()?);
        let tokens_max = Some(
            self.max_tokens
                .ok_or_else(|| Fault::missing("max_tokens"))?,
        );
        self.ask(prompt, tokens_max)
    }

    fn responses(mut self) -> Result<Ask, Fault> {
        let input = self.input.take().ok_or_else(|| Fault::missing("input"))?;
        if !input.is_string() && !input.is_array() {
            return Err(Fault::invalid(
                "Invalid type for 'input': expected a string or an array.",
            ));
        }
        let mut prompt = self.instructions.take().unwrap_or_default().0;
        let input = Text::deserialize(input).map_err(|error| Fault::invalid(error.to_string()))?;
        prompt.push_str(&input.0);
        let tokens_max = self.max_output_tokens;
        self.ask(prompt, tokens_max)
    }

    fn embeddings(mut self) -> Result<Ask, Fault> {
        let (inputs, prompt_tokens) =
            embed_inputs(self.input.take().ok_or_else(|| Fault::missing("input"))?)?;
        let base64 = match self.encoding_format.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                return Err(Fault::invalid(format!(
                    "Invalid encoding_format '{other}': use 'float' or 'base64'."
                )));
            }
        };
        let dimensions = self.dimensions.unwrap_or(DIMENSIONS);
        if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            return Err(Fault::invalid(format!(
                "'dimensions' must be between 1 and {DIMENSIONS_MAX}."
            )));
        }
        self.stream = None;
        let mut ask = self.ask(inputs.concat(), None)?;
        ask.prompt_tokens = prompt_tokens;
        ask.embed = Some(Embed {
            inputs,
            dimensions,
            base64,
        });
        Ok(ask)
    }

    fn conversation(&mut self) -> Result<String, Fault> {
        let messages = self
            .messages
            .take()
            .ok_or_else(|| Fault::missing("messages"))?;
        if messages.is_empty() {
            return Err(Fault::invalid(
                "Invalid 'messages': empty array. Expected at least one message.",
            ));
        }
        Ok(messages
            .into_iter()
            .filter_map(|message| message.content)
            .map(|text| text.0)
            .collect())
    }

    fn ask(self, prompt: String, tokens_max: Option<u32>) -> Result<Ask, Fault> {
        let model = self
            .model
            .filter(|model| !model.is_empty())
            .ok_or_else(|| Fault::missing("model"))?;
        let tool = Tool::forced(
            &self.tools.unwrap_or_default(),
            &self.tool_choice.unwrap_or_default(),
        )?;
        Ok(Ask {
            model,
            stream: self.stream.unwrap_or(false),
            include_usage: self
                .stream_options
                .and_then(|options| options.include_usage)
                .unwrap_or(false),
            prompt_tokens: tokens_of(prompt.len()),
            prompt,
            tokens_max,
            metadata: self.metadata.unwrap_or_default(),
            tool,
            embed: None,
        })
    }
}

/// Inputs of an embeddings request and their tokens: a text, texts, token ids, or lists of those.
fn embed_inputs(input: Value) -> Result<(Vec<String>, u64), Fault> {
    let list = match input {
        Value::String(text) => vec![Value::String(text)],
        Value::Array(list) if list.first().is_some_and(Value::is_number) => {
            vec![Value::Array(list)]
        }
        Value::Array(list) if (1..=EMBED_INPUTS_MAX).contains(&list.len()) => list,
        _ => {
            return Err(Fault::invalid(format!(
                "'input' must be a string or an array of 1 to {EMBED_INPUTS_MAX}."
            )));
        }
    };
    let mut tokens = 0;
    let mut inputs = Vec::with_capacity(list.len());
    for item in list {
        match item {
            Value::String(text) => {
                tokens += tokens_of(text.len());
                inputs.push(text);
            }
            Value::Array(ids) if !ids.is_empty() && ids.iter().all(Value::is_u64) => {
                tokens += ids.len() as u64;
                inputs.push(Value::Array(ids).to_string());
            }
            _ => {
                return Err(Fault::invalid(
                    "Each 'input' must be a string or a list of token ids.",
                ));
            }
        }
    }
    Ok((inputs, tokens))
}

/// The text inside content of any shape: a string, parts, nested parts.
#[derive(Debug, Default)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a string or an array of content parts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Text, E> {
        Ok(Text(text))
    }

    fn visit_unit<E: Error>(self) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Text, A::Error> {
        let mut text = String::new();
        while let Some(part) = parts.next_element::<Text>()? {
            text.push_str(&part.0);
        }
        Ok(Text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Text, A::Error> {
        let mut text = String::new();
        while let Some(name) = members.next_key::<String>()? {
            match name.as_str() {
                "text" | "content" | "output" | "arguments" => {
                    text.push_str(&members.next_value::<Text>()?.0)
                }
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Text(text))
    }
}

const DIMENSIONS: usize = 256;
const DIMENSIONS_MAX: usize = 4096;
const EMBED_INPUTS_MAX: usize = 2048;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn prompts_of_each_api() {
        let table = [
            (
                Api::ChatCompletions,
                r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#,
                "hello",
            ),
            (
                Api::ChatCompletions,
                r#"{"model":"m","messages":[{"role":"system","content":"a"},{"role":"assistant","content":null},
                    {"role":"user","content":[{"type":"text","text":"b"},{"type":"image_url","image_url":{"url":"x"}}]}]}"#,
                "ab",
            ),
            (
                Api::Responses,
                r#"{"model":"m","instructions":"i","input":"x"}"#,
                "ix",
            ),
            (
                Api::Responses,
                r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"y"}]}]}"#,
                "y",
            ),
            (
                Api::Messages,
                r#"{"model":"m","max_tokens":5,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":"u"}]}"#,
                "su",
            ),
            (Api::Embeddings, r#"{"model":"m","input":["p","q"]}"#, "pq"),
        ];
        for (api, body, prompt) in table {
            assert_eq!(
                Ask::parse(api, body.as_bytes()).unwrap().prompt,
                prompt,
                "{body}"
            );
        }
    }

    #[test]
    fn bad_bodies_are_refused() {
        let table = [
            (Api::ChatCompletions, "{"),
            (Api::ChatCompletions, "[]x"),
            (
                Api::ChatCompletions,
                r#"{"messages":[{"role":"user","content":"x"}]}"#,
            ),
            (Api::ChatCompletions, r#"{"model":"m"}"#),
            (Api::ChatCompletions, r#"{"model":"m","messages":[]}"#),
            (Api::ChatCompletions, r#"{"model":"m","messages":"x"}"#),
            (
                Api::ChatCompletions,
                r#"{"model":"m","messages":[{"content":"x"}]}"#,
            ),
            (
                Api::ChatCompletions,
                r#"{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":-1}"#,
            ),
            (Api::Responses, r#"{"model":"m"}"#),
            (Api::Responses, r#"{"model":"m","input":3}"#),
            (
                Api::Messages,
                r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
            ),
            (Api::Embeddings, r#"{"model":"m","input":[]}"#),
            (Api::Embeddings, r#"{"model":"m","input":[{}]}"#),
            (
                Api::Embeddings,
                r#"{"model":"m","input":"x","encoding_format":"hex"}"#,
            ),
            (
                Api::Embeddings,
                r#"{"model":"m","input":"x","dimensions":0}"#,
            ),
        ];
        for (api, body) in table {
            let fault = Ask::parse(api, body.as_bytes()).unwrap_err();
            assert_eq!(fault.status, http::StatusCode::BAD_REQUEST, "{body}");
        }
    }

    #[test]
    fn token_ids_count_as_tokens() {
        for (input, inputs, tokens) in [
            ("[1,2,3]", 1, 3),
            ("[[1,2],[3]]", 2, 3),
            (r#""abcde""#, 1, 2),
        ] {
            let body = format!(r#"{{"model":"m","input":{input}}}"#);
            let ask = Ask::parse(Api::Embeddings, body.as_bytes()).unwrap();
            assert_eq!(
                (ask.embed.unwrap().inputs.len(), ask.prompt_tokens),
                (inputs, tokens),
                "{input}"
            );
        }
    }
}
