//! What an answer says of itself: its id, the model behind it, why it ended. For traces.

use serde::Deserialize;

use crate::Api;
use crate::text::Text;

/// Most reasons kept of one answer: one per choice.
const REASONS_MAX: usize = 16;

/// What an answer says of itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The provider's name for the answer.
    pub id: Option<String>,
    /// The model that answered, in the provider's words.
    pub model: Option<String>,
    /// Why each choice ended, in the provider's words.
    pub finish_reasons: Vec<String>,
}

impl Outcome {
    /// Adds what a later event of the same stream says.
    pub fn absorb(&mut self, later: Self) {
        self.id = self.id.take().or(later.id);
        self.model = self.model.take().or(later.model);
        let room = REASONS_MAX.saturating_sub(self.finish_reasons.len());
        self.finish_reasons
            .extend(later.finish_reasons.into_iter().take(room));
    }
}

/// Reads a whole answer, or one event of a stream; the first events and those that end something
/// say it. Never fails: what is not understood says nothing.
#[must_use]
pub fn outcome(api: Api, data: &[u8]) -> Outcome {
    match api {
        Api::Responses => read::<Responses<'_>>(data).map(Responses::outcome),
        Api::Messages => read::<Messages<'_>>(data).map(Messages::outcome),
        Api::ChatCompletions | Api::Embeddings | Api::Models | Api::Other => {
            read::<Chat<'_>>(data).map(Chat::outcome)
        }
    }
    .unwrap_or_default()
}

fn read<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Option<T> {
    serde_json::from_slice(data).ok()
}

fn owned(Text(text): Text<'_>) -> Option<String> {
    (!text.is_empty()).then(|| text.into_owned())
}

#[derive(Deserialize)]
struct Chat<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    model: Text<'a>,
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    finish_reason: Text<'a>,
}

impl Chat<'_> {
    fn outcome(self) -> Outcome {
        let reasons = self.choices.into_iter();
        Outcome {
            id: owned(self.id),
            model: owned(self.model),
            finish_reasons: reasons
                .filter_map(|choice| owned(choice.finish_reason))
                .take(REASONS_MAX)
                .collect(),
        }
    }
}

/// An answer, or an event that holds one.
#[derive(Deserialize)]
struct Responses<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    model: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
    #[serde(borrow, default)]
    incomplete_details: Option<Details<'a>>,
    #[serde(borrow, default)]
    response: Option<Box<Self>>,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow, default)]
    reason: Text<'a>,
}

impl Responses<'_> {
    fn outcome(self) -> Outcome {
        if let Some(answer) = self.response {
            return answer.outcome();
        }
        let ended = ["completed", "incomplete", "failed", "cancelled"];
        let details = self.incomplete_details;
        let reason = details.and_then(|details| owned(details.reason));
        let status = owned(self.status).filter(|status| ended.contains(&status.as_str()));
        Outcome {
            id: owned(self.id),
            model: owned(self.model),
            finish_reasons: reason.or(status).into_iter().collect(),
        }
    }
}

/// An answer, the event that begins one, or the one that ends it.
#[derive(Deserialize)]
struct Messages<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    model: Text<'a>,
    #[serde(borrow, default)]
    stop_reason: Text<'a>,
    #[serde(borrow, default)]
    message: Option<Box<Self>>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    stop_reason: Text<'a>,
}

impl Messages<'_> {
    fn outcome(self) -> Outcome {
        if let Some(answer) = self.message {
            return answer.outcome();
        }
        let later = self.delta.and_then(|delta| owned(delta.stop_reason));
        let reason = owned(self.stop_reason).or(later);
        Outcome {
            id: owned(self.id),
            model: owned(self.model),
            finish_reasons: reason.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_events_say_the_same() {
        let chat = [
            r#"{"id":"c-1","model":"m","choices":[{"delta":{"content":"a"},"finish_reason":null}]}"#,
            r#"{"id":"c-1","model":"m","choices":[{"delta":{},"finish_reason":"stop"}]}"#,
        ];
        let chats = [r#"{"id":"c-1","model":"m","choices":[{"finish_reason":"stop"}],"usage":{}}"#];
        let responses = [
            r#"{"type":"response.created","response":{"id":"c-1","status":"in_progress","model":"m"}}"#,
            r#"{"type":"response.completed","response":{"id":"c-1","status":"stop","model":"m","incomplete_details":{"reason":"stop"}}}"#,
        ];
        let messages = [
            r#"{"type":"message_start","message":{"id":"c-1","model":"m","stop_reason":null}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"stop","stop_sequence":null}}"#,
        ];
        let message = [r#"{"id":"c-1","type":"message","model":"m","stop_reason":"stop"}"#];
        for (api, events) in [
            (Api::ChatCompletions, &chat[..]),
            (Api::ChatCompletions, &chats),
            (Api::Responses, &responses),
            (Api::Messages, &messages),
            (Api::Messages, &message),
        ] {
            let mut told = Outcome::default();
            for event in events {
                told.absorb(outcome(api, event.as_bytes()));
            }
            let expected = Outcome {
                id: Some("c-1".into()),
                model: Some("m".into()),
                finish_reasons: vec!["stop".into()],
            };
            assert_eq!(told, expected, "{api:?}: {events:?}");
        }
    }

    #[test]
    fn a_status_that_is_an_end_is_a_reason() {
        for (status, expected) in [
            ("completed", &["completed"][..]),
            ("in_progress", &[]),
            ("failed", &["failed"]),
        ] {
            let body = format!(r#"{{"id":"r","status":"{status}"}}"#);
            let told = outcome(Api::Responses, body.as_bytes());
            assert_eq!(told.finish_reasons, expected, "{status}");
        }
        assert_eq!(outcome(Api::Messages, b"[DONE]"), Outcome::default());
    }

    #[test]
    fn reasons_have_a_bound() {
        let choices = vec![r#"{"finish_reason":"stop"}"#; 100].join(",");
        let body = format!(r#"{{"choices":[{choices}]}}"#);
        let mut told = outcome(Api::ChatCompletions, body.as_bytes());
        told.absorb(told.clone());
        assert_eq!(told.finish_reasons.len(), REASONS_MAX);
    }
}
