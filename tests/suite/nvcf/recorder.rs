//! A model server that keeps what it was asked, and answers as usual or as a row says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use weir_tests::upstream::{
    Connection, LAST_CHUNK, RawRequest, STREAM_HEAD, Upstream, answer, chat_event, chunk,
    completion, delta,
};

/// The model server of a table. One request at a time: tables walk their rows in order.
pub(crate) struct Recorder {
    upstream: Upstream,
    seen: Arc<Mutex<Vec<Seen>>>,
    next: Arc<Mutex<Option<Vec<u8>>>>,
}

/// A request as the model server got it.
pub(crate) struct Seen {
    head: String,
    body: Vec<u8>,
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let next = Arc::new(Mutex::new(None));
        let (keeps, scripted) = (Arc::clone(&seen), Arc::clone(&next));
        let upstream = Upstream::scripted(move |mut connection: Connection| {
            let (keeps, scripted) = (Arc::clone(&keeps), Arc::clone(&scripted));
            async move {
                while let Ok(RawRequest { head, body }) = connection.request().await {
                    let seen = Seen { head, body };
                    let scripted = scripted.lock().unwrap().clone();
                    let answer = scripted.unwrap_or_else(|| usual(&seen));
                    keeps.lock().unwrap().push(seen);
                    connection.send(answer).await;
                }
            }
        })
        .await;
        Self {
            upstream,
            seen,
            next,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.upstream.address()
    }

    /// What it answers from now on; `None`: as usual. Needs a length or chunks: connections stay
    /// open.
    pub(crate) fn answer_with(&self, answer: Option<Vec<u8>>) {
        *self.next.lock().unwrap() = answer;
    }

    /// What it got since it was asked last.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Seen {
    /// Path and query.
    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// A header; the values of a repeated one are joined by `, `.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let fields = self.head.lines().skip(1).filter_map(|line| {
            let (field, value) = line.split_once(':')?;
            field
                .eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        });
        let values: Vec<_> = fields.collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// A whole answer of the path asked for, of the model asked for, as a stream when one is asked for.
fn usual(seen: &Seen) -> Vec<u8> {
    let body = seen.json();
    let model = body["model"].as_str().unwrap_or_default();
    let path = seen.path().split('?').next().unwrap_or_default();
    if body["stream"] == true {
        let events = match path {
            "/v1/responses" => responses_events("completed"),
            "/v1/messages" => messages_events(),
            _ => chat_events(),
        };
        return stream(&of_model(&events, model));
    }
    let json = match path {
        "/v1/responses" => terminal("completed").to_string(),
        "/v1/embeddings" => EMBEDDINGS.to_owned(),
        "/v1/messages" => MESSAGE.to_owned(),
        _ => completion("ok"),
    };
    answer("200 OK", "application/json", &of_model(&json, model)).into_bytes()
}

fn of_model(text: &str, model: &str) -> String {
    text.replace(r#""model":"sim""#, &format!(r#""model":"{model}""#))
}

/// An event stream with these events.
pub(crate) fn stream(events: &str) -> Vec<u8> {
    let mut bytes = STREAM_HEAD.as_bytes().to_vec();
    if !events.is_empty() {
        bytes.extend_from_slice(&chunk(events));
    }
    bytes.extend_from_slice(LAST_CHUNK.as_bytes());
    bytes
}

/// A JSON answer.
pub(crate) fn json_answer(status: &str, body: &str) -> Vec<u8> {
    answer(status, "application/json", body).into_bytes()
}

/// A chat stream with usage in a chunk of its own.
pub(crate) fn chat_events() -> String {
    let stop = chat_event(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#, "");
    let usage = r#","usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}"#;
    [
        &delta("o"),
        &delta("k"),
        &stop,
        &chat_event("", usage),
        "data: [DONE]\n\n",
    ]
    .concat()
}

/// A stream of a response that ends in `response.STATUS`; without an end when it is empty.
pub(crate) fn responses_events(status: &str) -> String {
    let event = |kind: &str, mut event: Value| {
        event["type"] = json!(kind);
        format!("event: {kind}\ndata: {event}\n\n")
    };
    let delta = json!({"item_id": "m-1", "output_index": 0, "content_index": 0, "delta": "ok", "sequence_number": 1});
    let mut events = event(
        "response.created",
        json!({"response": terminal("in_progress"), "sequence_number": 0}),
    );
    events += &event("response.output_text.delta", delta);
    if !status.is_empty() {
        let end = json!({"response": terminal(status), "sequence_number": 2});
        events += &event(&format!("response.{status}"), end);
    }
    events
}

/// The `response` object of a terminal event.
pub(crate) fn terminal(status: &str) -> Value {
    json!({
        "id": "resp-1", "object": "response", "created_at": 1, "status": status, "model": "sim",
        "output": [{"id": "m-1", "type": "message", "role": "assistant",
            "content": [{"type": "output_text", "text": "ok", "annotations": []}]}],
        "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10},
    })
}

fn messages_events() -> String {
    [
        r#"{"type":"message_start","message":{"id":"msg-1","type":"message","role":"assistant","model":"sim","content":[],"usage":{"input_tokens":7,"output_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"ok"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":3}}"#,
        r#"{"type":"message_stop"}"#,
    ]
    .map(|data| {
        let kind = data.split('"').nth(3).unwrap_or_default();
        format!("event: {kind}\ndata: {data}\n\n")
    })
    .concat()
}

const EMBEDDINGS: &str = r#"{"object":"list","model":"sim","data":[{"object":"embedding","index":0,"embedding":[0.5,-0.5]}],"usage":{"prompt_tokens":5,"total_tokens":5}}"#;
const MESSAGE: &str = r#"{"id":"msg-1","type":"message","role":"assistant","model":"sim","content":[{"type":"text","text":"ok"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":7,"output_tokens":3}}"#;
