//! The shared vocabulary of `wit/types.wit`, with builders for what a filter returns.

pub use crate::bindings::imports::weir::filter::types::{
    Edits, Endpoint, Failure, Header, HeaderEdit, InternId, JsonEdit, LocalResponse, Outcome,
    Principal, RequestView, SessionKey, SessionSource, Traits, Transport, Usage,
};

impl LocalResponse {
    /// An error that the host words in the dialect of the caller's endpoint.
    ///
    /// `kind` is OpenAI's `error.type` (empty: by status), `code` the stable machine code,
    /// `message` the text for people.
    #[must_use]
    pub fn error(status: u16, kind: &str, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            error_type: kind.to_owned(),
            error_code: code.to_owned(),
            message: message.into(),
            grpc_status: None,
        }
    }

    /// An answer whose body goes out as it is.
    #[must_use]
    pub fn with_body(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut response = Self::error(status, "", "", "");
        response.body = body.into();
        response.header("content-type", content_type)
    }

    /// Adds a header. Part of the `respond` grant; headers of the connection are refused.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The status for gRPC callers; without it the host derives one from the HTTP status.
    #[must_use]
    pub fn grpc_status(mut self, code: u16) -> Self {
        self.grpc_status = Some(code);
        self
    }
}

impl Edits {
    /// No edit yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            headers: Vec::new(),
            json: Vec::new(),
            attributes: Vec::new(),
        }
    }

    /// Replaces all values of a header by this one.
    #[must_use]
    pub fn set_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers
            .push(HeaderEdit::Set((name.to_owned(), value.into())));
        self
    }

    /// Adds a value to a header.
    #[must_use]
    pub fn append_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers
            .push(HeaderEdit::Append((name.to_owned(), value.into())));
        self
    }

    /// Removes all values of a header.
    #[must_use]
    pub fn remove_header(mut self, name: &str) -> Self {
        self.headers.push(HeaderEdit::Remove(name.to_owned()));
        self
    }

    /// Sets the JSON value at an RFC 6901 pointer of the request body; `json` is JSON text.
    #[must_use]
    pub fn set_json(mut self, pointer: &str, json: impl Into<String>) -> Self {
        self.json
            .push(JsonEdit::Set((pointer.to_owned(), json.into())));
        self
    }

    /// Removes the JSON value at an RFC 6901 pointer of the request body.
    #[must_use]
    pub fn remove_json(mut self, pointer: &str) -> Self {
        self.json.push(JsonEdit::Remove(pointer.to_owned()));
        self
    }

    /// Leaves a note for later filters; they read it as `FILTER.NAME`.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: impl Into<String>) -> Self {
        self.attributes.push((name.to_owned(), value.into()));
        self
    }
}

impl Default for Edits {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Edits> for Outcome {
    fn from(edits: Edits) -> Self {
        Self::Edit(edits)
    }
}

impl From<LocalResponse> for Outcome {
    fn from(response: LocalResponse) -> Self {
        Self::Respond(response)
    }
}

impl Principal {
    /// A principal that may call every model, without a priority.
    #[must_use]
    pub fn new(subject: &str, tenant: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            tenant: tenant.to_owned(),
            plan: String::new(),
            scopes: Vec::new(),
            models: Vec::new(),
            priority: None,
        }
    }
}

/// [`RequestView::priority`] when nobody has set one.
pub const NO_PRIORITY: u32 = u32::MAX;
/// [`RequestView::settings`] when there are some, but no number was left for them: nothing may be
/// kept by it. [`PerSettings`](crate::exchange::PerSettings) knows.
pub const UNNUMBERED: InternId = u32::MAX;
