//! Server-sent events of an answer, read the slow and obvious way.

use serde_json::Value;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The `event:` field; empty without one.
    pub name: String,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
}

impl Event {
    /// The data as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }
}

/// The events of a body, in order. What is not ended by an empty line is left out, as a caller
/// would leave it out.
pub fn sse(body: &str) -> Vec<Event> {
    let body = body.replace("\r\n", "\n");
    let mut blocks: Vec<&str> = body.split("\n\n").collect();
    // Nothing, or an event that never ended.
    blocks.pop();
    let event = |block: &str| {
        let field = |name: &str| {
            let lines = block.lines().filter_map(move |line| {
                let value = line.strip_prefix(name)?.strip_prefix(':')?;
                Some(value.strip_prefix(' ').unwrap_or(value).to_owned())
            });
            lines.collect::<Vec<_>>()
        };
        Event {
            name: field("event").join(""),
            data: field("data").join("\n"),
        }
    };
    let with_data = |event: &Event| !event.data.is_empty();
    blocks.into_iter().map(event).filter(with_data).collect()
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn events_end_with_an_empty_line() {
        let events =
            sse("data: {\"a\":1}\n\n: comment\n\nevent: x\r\ndata: 1\r\ndata:2\r\n\r\ndata: lost");
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].json()["a"], 1);
        assert_eq!(
            (events[1].name.as_str(), events[1].data.as_str()),
            ("x", "1\n2")
        );
    }
}
