//! The formats a caller can speak, told apart by method and path.

use std::borrow::Cow;

/// The format of one exchange, named after the path it arrived on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/messages`
    Messages,
    /// `GET /v1/models` and `GET /v1/models/{id}`
    Models,
    /// A path whose body this gateway does not read. Never returned by [`Api::from_path`].
    #[default]
    Other,
}

impl Api {
    /// The api of a request. `path` comes without its query; one trailing slash is tolerated.
    /// `None` for everything that is not exactly one of ours.
    #[must_use]
    pub fn from_path(method: &str, path: &str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        match (method, path) {
            ("POST", "/v1/chat/completions") => Some(Self::ChatCompletions),
            ("POST", "/v1/responses") => Some(Self::Responses),
            ("POST", "/v1/embeddings") => Some(Self::Embeddings),
            ("POST", "/v1/messages") => Some(Self::Messages),
            ("GET", "/v1/models") => Some(Self::Models),
            ("GET", other) => Self::model_id(other).map(|_| Self::Models),
            _ => None,
        }
    }

    /// The `{id}` of `/v1/models/{id}`, percent-decoded. Ids hold slashes (`demo/sim`), which
    /// some clients escape and some do not. `None` for the list itself and for other paths.
    #[must_use]
    pub fn model_id(path: &str) -> Option<Cow<'_, str>> {
        let id = path.strip_prefix("/v1/models/")?;
        let id = id.strip_suffix('/').unwrap_or(id);
        if id.is_empty() {
            return None;
        }
        percent_decoded(id)
    }

    /// The path to ask an upstream of the same dialect; empty for [`Api::Other`].
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
            Self::Messages => "/v1/messages",
            Self::Models => "/v1/models",
            Self::Other => "",
        }
    }

    /// The name used in config, logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::Models => "models",
            Self::Other => "other",
        }
    }
}

/// `None` when an escape is broken or the result is not UTF-8.
fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn api_of_method_and_path() {
        let table = [
            ("POST", "/v1/chat/completions", Some(Api::ChatCompletions)),
            ("POST", "/v1/chat/completions/", Some(Api::ChatCompletions)),
            ("POST", "/v1/chat/completions//", None),
            ("GET", "/v1/chat/completions", None),
            ("POST", "/V1/chat/completions", None),
            ("POST", "/v1/responses", Some(Api::Responses)),
            ("POST", "/v1/responses/abc", None),
            ("POST", "/v1/embeddings", Some(Api::Embeddings)),
            ("POST", "/v1/messages", Some(Api::Messages)),
            ("POST", "/v1/messages/count_tokens", None),
            ("GET", "/v1/models", Some(Api::Models)),
            ("GET", "/v1/models/", Some(Api::Models)),
            ("GET", "/v1/models/demo/sim", Some(Api::Models)),
            ("POST", "/v1/models", None),
            ("GET", "/", None),
            ("POST", "", None),
        ];
        for (method, path, expected) in table {
            assert_eq!(Api::from_path(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn model_id_of_a_path() {
        let table = [
            ("/v1/models/demo/sim", Some("demo/sim")),
            ("/v1/models/demo%2Fsim/", Some("demo/sim")),
            ("/v1/models/a%zz", None),
            ("/v1/models/a%2", None),
            ("/v1/models/a%ff", None),
            ("/v1/models/", None),
            ("/v1/models", None),
        ];
        for (path, expected) in table {
            assert_eq!(Api::model_id(path).as_deref(), expected, "{path}");
        }
    }
}
