//! Rows: a request, what must become of it, and what the model server must have seen of it.

use std::fmt::Debug;

use http::Request;
use serde_json::Value;
use weir_tests::caller::{Answer, Body, Caller, chat_body, post};
use weir_tests::config_text::ConfigText;
use weir_tests::events::Event;
use weir_tests::gateway::Gateway;

use super::recorder::{Recorder, Seen};

/// A request and what is expected of it.
pub(crate) struct Row {
    name: String,
    request: Request<Body>,
    upstream: Option<Vec<u8>>,
    checks: Vec<Check>,
}

type Check = Box<dyn Fn(&Exchanged) -> Result<(), String> + Send>;

/// What became of a row's request.
pub(crate) struct Exchanged {
    pub(crate) answer: Answer,
    /// What the model server got: once, several times or never.
    pub(crate) seen: Vec<Seen>,
}

/// A row without expectations yet; its name begins with the section it is about.
pub(crate) fn row(name: impl Into<String>, request: Request<Body>) -> Row {
    Row {
        name: name.into(),
        request,
        upstream: None,
        checks: Vec::new(),
    }
}

/// A row whose request is answered with 200.
pub(crate) fn served(name: impl Into<String>, request: Request<Body>) -> Row {
    row(name, request).status(200)
}

/// A row whose request is refused by the gateway: in the error shape of the API it calls, with a
/// request id, before anything reaches the model server.
pub(crate) fn refused(
    name: impl Into<String>,
    request: Request<Body>,
    status: u16,
    code: &'static str,
) -> Row {
    let is_messages = request.uri().path() == "/v1/messages";
    let row = row(name, request).status(status).unsent().check(|done| {
        let answer = &done.answer;
        same(
            "content-type",
            &answer.header("content-type"),
            &"application/json",
        )?;
        holds(
            !answer.header("x-request-id").is_empty(),
            "no x-request-id in the answer",
        )?;
        let message = told(answer, "/error/message")?;
        holds(
            message.as_str().is_some_and(|text| text.len() > 8),
            "no message for a person",
        )
    });
    if is_messages {
        // Anthropic's errors have no code: the type and the request id are all there is.
        return row.check(|done| {
            same("type", &told(&done.answer, "/type")?, &"error".into())?;
            let id = done.answer.header("x-request-id");
            same(
                "request_id",
                &told(&done.answer, "/request_id")?,
                &id.into(),
            )
        });
    }
    row.check(move |done| {
        same("code", &done.answer.code().as_str(), &code)?;
        let kind = told(&done.answer, "/error/type")?;
        let kind = kind.as_str().unwrap_or_default();
        holds(
            kind.ends_with("_error"),
            &format!("the error's type is {kind:?}"),
        )?;
        told(&done.answer, "/error/param").map(|_| ())
    })
}

impl Row {
    /// Anything else that must hold.
    pub(crate) fn check(
        mut self,
        check: impl Fn(&Exchanged) -> Result<(), String> + Send + 'static,
    ) -> Self {
        self.checks.push(Box::new(check));
        self
    }

    /// What the model server answers, in the place of its usual answer.
    pub(crate) fn upstream(mut self, answer: impl Into<Vec<u8>>) -> Self {
        self.upstream = Some(answer.into());
        self
    }

    pub(crate) fn status(self, expected: u16) -> Self {
        self.check(move |done| same("status", &done.answer.status, &expected))
    }

    /// The documented text of the error; a remedy may follow it.
    pub(crate) fn says(self, expected: impl Into<String>) -> Self {
        let expected = expected.into();
        self.check(move |done| {
            let message = told(&done.answer, "/error/message")?;
            let message = message.as_str().unwrap_or_default();
            let text = format!("the message is {message:?}, not {expected:?}");
            holds(message.starts_with(&expected), &text)
        })
    }

    /// A member of the answer's JSON.
    pub(crate) fn told(self, pointer: &'static str, expected: impl Into<Value>) -> Self {
        let expected = expected.into();
        self.check(move |done| same(pointer, &told(&done.answer, pointer)?, &expected))
    }

    /// Something the answer's body holds.
    pub(crate) fn text(self, expected: &'static str) -> Self {
        self.check(move |done| {
            let text = done.answer.text();
            holds(
                text.contains(expected),
                &format!("no {expected:?} in {text}"),
            )
        })
    }

    /// Something the answer's body must not hold.
    pub(crate) fn no_text(self, unwanted: &'static str) -> Self {
        self.check(move |done| {
            let text = done.answer.text();
            holds(
                !text.contains(unwanted),
                &format!("{unwanted:?} is in {text}"),
            )
        })
    }

    /// The events of the answer.
    pub(crate) fn events(
        self,
        check: impl Fn(&[Event]) -> Result<(), String> + Send + 'static,
    ) -> Self {
        self.check(move |done| check(&done.answer.events()))
    }

    /// The last event's data is `[DONE]`, and the model of each chunk before it the caller's.
    pub(crate) fn done_with_model(self, model: &'static str) -> Self {
        self.events(move |events| {
            let (last, chunks) = events.split_last().ok_or("no events")?;
            same("the last event", &last.data.as_str(), &"[DONE]")?;
            holds(!chunks.is_empty(), "no chunks")?;
            chunks.iter().try_for_each(|chunk| {
                same("a chunk's model", &chunk.json()["model"], &model.into())
            })
        })
    }

    /// A header of the answer.
    pub(crate) fn header(self, name: &'static str, expected: &str) -> Self {
        let expected = expected.to_owned();
        self.check(move |done| same(name, done.answer.header(name), &expected))
    }

    /// Headers the answer must not have.
    pub(crate) fn no_headers(self, names: &'static [&'static str]) -> Self {
        self.check(move |done| {
            names.iter().try_for_each(|name| {
                holds(
                    done.answer.headers.get(*name).is_none(),
                    &format!("the answer has {name}: {}", done.answer.header(name)),
                )
            })
        })
    }

    /// Nothing reached the model server.
    pub(crate) fn unsent(self) -> Self {
        self.check(|done| match done.seen.as_slice() {
            [] => Ok(()),
            seen => Err(format!("the model server got {} requests", seen.len())),
        })
    }

    /// What must hold of the one request the model server got.
    pub(crate) fn seen(self, check: impl Fn(&Seen) -> Result<(), String> + Send + 'static) -> Self {
        self.check(move |done| match done.seen.as_slice() {
            [seen] => check(seen),
            seen => Err(format!("the model server got {} requests", seen.len())),
        })
    }

    /// The path the model server was asked on.
    pub(crate) fn saw_path(self, expected: &'static str) -> Self {
        self.seen(move |seen| same("path", &seen.path(), &expected))
    }

    /// A member of the body the model server got.
    pub(crate) fn saw(self, pointer: &'static str, expected: impl Into<Value>) -> Self {
        let expected = expected.into();
        self.seen(move |seen| {
            let body = seen.json();
            let found = body.pointer(pointer);
            let text = format!("{pointer} is {found:?} upstream, not {expected}");
            holds(found == Some(&expected), &text)
        })
    }

    /// A member the body upstream must not have.
    pub(crate) fn saw_no(self, pointer: &'static str) -> Self {
        self.seen(move |seen| {
            let body = seen.json();
            let found = body.pointer(pointer);
            holds(found.is_none(), &format!("{pointer} is {found:?} upstream"))
        })
    }

    /// A header the model server got.
    pub(crate) fn saw_header(self, name: &'static str, expected: &'static str) -> Self {
        self.seen(move |seen| {
            same(
                &format!("{name} upstream"),
                &seen.header(name).as_deref(),
                &Some(expected),
            )
        })
    }

    /// Headers the model server must not get.
    pub(crate) fn saw_no_headers(self, names: &'static [&'static str]) -> Self {
        self.seen(move |seen| {
            names.iter().try_for_each(|name| match seen.header(name) {
                None => Ok(()),
                Some(value) => Err(format!("{name}: {value} upstream")),
            })
        })
    }
}

/// Whether two things are the same, in words.
pub(crate) fn same<T: PartialEq + Debug + ?Sized>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), String> {
    holds(
        found == expected,
        &format!("{what} is {found:?}, not {expected:?}"),
    )
}

/// Whether something holds; what is wrong when it does not.
pub(crate) fn holds(holds: bool, otherwise: &str) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => Err(otherwise.to_owned()),
    }
}

fn told(answer: &Answer, pointer: &str) -> Result<Value, String> {
    let body: Value =
        serde_json::from_slice(&answer.body).map_err(|error| format!("{error} in the body"))?;
    let found = body.pointer(pointer).cloned();
    found.ok_or_else(|| format!("no {pointer} in the body"))
}

/// A gateway before a recorder, with more in its config.
pub(crate) async fn recorded(change: impl FnOnce(ConfigText) -> ConfigText) -> (Gateway, Recorder) {
    let recorder = Recorder::start().await;
    let config = change(ConfigText::new(&[recorder.address()]).as_shipped());
    (Gateway::start(&config.text()).await, recorder)
}

/// Walks the rows in order, each over a connection of its own.
///
/// # Panics
/// When rows fail; the message tells of all of them.
pub(crate) async fn walk(gateway: &Gateway, recorder: &Recorder, rows: Vec<Row>) {
    walk_over(false, gateway, recorder, rows).await;
}

/// The same over HTTP/2.
///
/// # Panics
/// As [`walk`].
pub(crate) async fn walk_http2(gateway: &Gateway, recorder: &Recorder, rows: Vec<Row>) {
    walk_over(true, gateway, recorder, rows).await;
}

async fn walk_over(http2: bool, gateway: &Gateway, recorder: &Recorder, rows: Vec<Row>) {
    let total = rows.len();
    let mut failures = Vec::new();
    for row in rows {
        recorder.answer_with(row.upstream);
        recorder.take();
        // What an exchange has used is settled after its answer.
        gateway
            .wait_for("the row before to be settled", async |gateway| {
                gateway.metric("weir_requests_active", &[]).await == 0.0
            })
            .await;
        let answer = async {
            let mut caller = match http2 {
                true => Caller::http2(gateway.address()).await?,
                false => Caller::http1(gateway.address()).await?,
            };
            caller.ask(row.request).await
        };
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => {
                failures.push(format!("{}: no answer: {error}", row.name));
                continue;
            }
        };
        let seen = recorder.take();
        let done = Exchanged { answer, seen };
        let failed: Vec<_> = row
            .checks
            .iter()
            .filter_map(|check| check(&done).err())
            .collect();
        if !failed.is_empty() {
            let text: String = done.answer.text().chars().take(300).collect();
            let failed = failed.join("; ");
            failures.push(format!(
                "{}: {failed}\n      answered {} {text}",
                row.name, done.answer.status
            ));
        }
    }
    let list = failures.join("\n  ");
    let count = failures.len();
    assert!(count == 0, "{count} of {total} rows fail:\n  {list}\n");
}

/// A chat completion of a model.
pub(crate) fn chat_of(model: &str) -> Request<Body> {
    post("/v1/chat/completions", chat_body(model, ""))
}

/// A request of one of the four APIs for `demo/sim`, with further members of its body.
pub(crate) fn call(path: &str, members: &str) -> Request<Body> {
    post(path, call_body(path, "demo/sim", members))
}

/// The body of [`call`] for a model.
pub(crate) fn call_body(path: &str, model: &str, members: &str) -> String {
    let content = match path {
        "/v1/responses" | "/v1/embeddings" => r#""input":"hi""#,
        "/v1/messages" => r#""max_tokens":9,"messages":[{"role":"user","content":"hi"}]"#,
        _ => r#""messages":[{"role":"user","content":"hi"}]"#,
    };
    let comma = if members.is_empty() { "" } else { "," };
    format!(r#"{{"model":"{model}",{content}{comma}{members}}}"#)
}

/// The paths that take a model.
pub(crate) const PATHS: [&str; 4] = [
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
];
