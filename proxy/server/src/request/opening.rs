//! The beginning of a stream, held back until an event says something: until then another backend
//! can still answer in the place of one that fails, even by an error inside a 200.

use serde_json::Value;
use weir_dialect::{EventFacts, SseEvent};

/// Most bytes held; a stream that says so much without saying anything is let through.
const HELD_BYTES_MAX: usize = 64 << 10;

/// Events that wait for one that counts.
#[derive(Default)]
pub(crate) struct Opening {
    events: Vec<SseEvent>,
    bytes: usize,
}

/// What an event does to the opening of its stream.
pub(crate) enum Heard {
    /// Nothing was said yet.
    Nothing,
    /// It says something: the stream has begun.
    Begun,
    /// The backend failed before it said anything.
    Failed(Fault),
}

/// The words of a backend that failed.
pub(crate) struct Fault {
    /// For people.
    pub(crate) message: String,
    /// Another backend may do better: it is not the caller's own fault.
    pub(crate) may_pass: bool,
}

impl Opening {
    /// Looks at the next event.
    pub(crate) fn hear(&self, event: &SseEvent, facts: &EventFacts<'_>) -> Heard {
        if facts.is_error {
            return Heard::Failed(Fault::read(event.data()));
        }
        if says(facts) || self.bytes + event.raw.len() > HELD_BYTES_MAX {
            Heard::Begun
        } else {
            Heard::Nothing
        }
    }

    /// Holds an event back.
    pub(crate) fn hold(&mut self, event: SseEvent) {
        self.bytes += event.raw.len();
        self.events.push(event);
    }

    /// What was held, in order.
    pub(crate) fn release(self) -> Vec<SseEvent> {
        self.events
    }
}

/// Whether an event says something of the answer, or that there is nothing to say.
pub(crate) fn says(facts: &EventFacts<'_>) -> bool {
    !facts.delta.is_empty()
        || facts.hidden_bytes > 0
        || facts.finish
        || facts.terminal
        || facts.usage_only
}

impl Fault {
    /// Reads an error event of any of the APIs: `{"error": {..}}`, or for Responses the members
    /// themselves or those of the failed response.
    pub(crate) fn read(data: &[u8]) -> Self {
        let event: Value = serde_json::from_slice(data).unwrap_or_default();
        let error = ["/response/error", "/error", ""]
            .into_iter()
            .find_map(|place| event.pointer(place)?.as_object());
        let member = |name: &str| error?.get(name);
        let word = |name: &str| member(name).and_then(Value::as_str);
        let plain = event.get("error").and_then(Value::as_str);
        let message = word("message").or(plain);
        let callers = |name: &str| word(name).is_some_and(|word| CALLERS_FAULTS.contains(&word));
        let number = |name: &str| member(name).and_then(Value::as_u64);
        let status = number("code").or(number("status"));
        let client_status = status.is_some_and(|status| matches!(status, 400..=407 | 410..=428));
        Self {
            message: message
                .unwrap_or("the backend reported an error")
                .to_owned(),
            may_pass: !(callers("type") || callers("code") || client_status),
        }
    }
}

/// Error types and codes by which a request would fail anywhere.
const CALLERS_FAULTS: [&str; 9] = [
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "BadRequestError",
    "invalid_prompt",
    "content_filter",
    "context_length_exceeded",
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use bytes::Bytes;
    use weir_dialect::{Api, SseSplitter, event_facts};

    use super::*;

    fn heard(api: Api, text: &str) -> String {
        let mut splitter = SseSplitter::new(1 << 20);
        splitter.push(&Bytes::from(text.to_owned()));
        let event = splitter.next().unwrap().unwrap();
        let facts = event_facts(api, event.name(), event.data());
        match Opening::default().hear(&event, &facts) {
            Heard::Nothing => "nothing".into(),
            Heard::Begun => "begun".into(),
            Heard::Failed(fault) => format!("{} {}", fault.may_pass, fault.message),
        }
    }

    #[test]
    fn what_counts_as_a_beginning() {
        let (chat, responses, messages) = (Api::ChatCompletions, Api::Responses, Api::Messages);
        let table = [
            (
                chat,
                r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
                "nothing",
            ),
            (
                chat,
                r#"data: {"choices":[{"delta":{"content":"a"}}]}"#,
                "begun",
            ),
            (
                chat,
                r#"data: {"choices":[{"delta":{"reasoning_content":"a"}}]}"#,
                "begun",
            ),
            (
                chat,
                r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
                "begun",
            ),
            (
                chat,
                r#"data: {"error":{"message":"busy","type":"server_error"}}"#,
                "true busy",
            ),
            (
                chat,
                r#"data: {"error":{"message":"bad","code":400}}"#,
                "false bad",
            ),
            (
                chat,
                r#"data: {"error":{"message":"slow","code":429}}"#,
                "true slow",
            ),
            (chat, r#"data: {"error":"odd"}"#, "true odd"),
            (
                responses,
                "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{}}",
                "nothing",
            ),
            (
                responses,
                "event: error\ndata: {\"type\":\"error\",\"message\":\"m\",\"code\":\"server_error\"}",
                "true m",
            ),
            (
                responses,
                "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"invalid_prompt\",\"message\":\"no\"}}}",
                "false no",
            ),
            (
                messages,
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1}}}",
                "nothing",
            ),
            (
                messages,
                "event: ping\ndata: {\"type\":\"ping\"}",
                "nothing",
            ),
            (
                messages,
                "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}",
                "begun",
            ),
            (
                messages,
                "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}",
                "true Overloaded",
            ),
        ];
        for (api, event, expected) in table {
            assert_eq!(heard(api, &format!("{event}\n\n")), expected, "{event}");
        }
    }
}
