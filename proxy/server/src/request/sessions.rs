//! What names the conversation a request belongs to: the caller's words for it, else how the
//! conversation began.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use weir_dialect::{Api, Peek, conversation_digest, payload_digest};
use weir_pipeline::facts::{SessionKey, SessionSource};

use crate::request::hexadecimal;

/// A caller's name for the conversation that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_name} is invalid: {why}")]
pub(crate) struct BadSession {
    /// Where it stands, as the caller knows it.
    source_name: &'static str,
    why: &'static str,
}

/// The keys of a request, strongest first, in the order documented for each API; embeddings have
/// none. With `generated` a request that names no conversation gets the key of its beginning, or
/// of all its messages where there is no such beginning.
///
/// # Errors
/// [`BadSession`] for a name of more than 256 bytes or with control characters.
pub(crate) fn session_keys(
    api: Api,
    peek: &Peek,
    headers: &HeaderMap,
    body: &Bytes,
    generated: bool,
) -> Result<Vec<SessionKey>, BadSession> {
    let mut keys = Vec::new();
    if !matches!(api, Api::ChatCompletions | Api::Responses | Api::Messages) {
        return Ok(keys);
    }
    for found in peek.session.iter().filter(|_| api != Api::Messages) {
        let (source, name) = match found.source {
            weir_dialect::SessionSource::PromptCacheKey => (
                SessionSource::PromptCacheKey,
                "session id from prompt_cache_key",
            ),
            weir_dialect::SessionSource::ConversationId => (
                SessionSource::ConversationId,
                "session id from conversation.id",
            ),
        };
        checked(name, found.value.as_bytes())?;
        keys.push(key(source, found.value.clone()));
    }
    let named_by = |header| named(header, headers);
    let mut header = named_by(&SESSION_HEADER)?;
    if header.is_none() && api == Api::Messages {
        header = named_by(&CLAUDE_CODE_HEADER)?;
    }
    keys.extend(header.map(|value| key(SessionSource::SessionHeader, value)));
    if keys.is_empty() && generated {
        keys.extend(beginning(api, peek, body));
    }
    Ok(keys)
}

/// The id in a header; empty is absent.
fn named(header: &'static HeaderName, headers: &HeaderMap) -> Result<Option<String>, BadSession> {
    let Some(value) = headers.get(header) else {
        return Ok(None);
    };
    let value = value.as_bytes().trim_ascii();
    checked(header.as_str(), value)?;
    let text = std::str::from_utf8(value).map_err(|_| BadSession {
        source_name: header.as_str(),
        why: "it must be UTF-8",
    })?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn checked(source_name: &'static str, value: &[u8]) -> Result<(), BadSession> {
    let why = if value.len() > SESSION_ID_MAX {
        "it must be at most 256 bytes long"
    } else if value.iter().any(|byte| *byte < 0x20 || *byte == 0x7f) {
        "it must not hold control characters"
    } else {
        return Ok(());
    };
    Err(BadSession { source_name, why })
}

fn beginning(api: Api, peek: &Peek, body: &[u8]) -> Option<SessionKey> {
    let chain = conversation_digest(api, body, peek).map(|hash| (SessionSource::PrefixChain, hash));
    let (source, hash) = chain
        .or_else(|| payload_digest(body, peek).map(|hash| (SessionSource::InputHash, hash)))?;
    let mut text = String::with_capacity(hash.len() * 2);
    hexadecimal::push(&mut text, &hash);
    Some(key(source, text))
}

fn key(source: SessionSource, value: String) -> SessionKey {
    let hash = weir_host::hash53(value.as_bytes());
    SessionKey {
        source,
        value,
        hash,
    }
}

/// Header that names the conversation.
static SESSION_HEADER: HeaderName = HeaderName::from_static("x-multi-turn-session-id");
/// What Claude Code sends with its calls of the Messages API.
static CLAUDE_CODE_HEADER: HeaderName = HeaderName::from_static("x-claude-code-session-id");
/// Longest session id, in bytes (the documented limit of NVCF's gateway).
const SESSION_ID_MAX: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use weir_dialect::peek;

    use super::*;

    const CHAT: &str = r#"{"model":"f/m","messages":[{"role":"user","content":"a"}]"#;
    const ANTHROPIC: &str =
        r#"{"model":"f/m","max_tokens":1,"messages":[{"role":"user","content":"a"}]"#;
    const RESPONSES: &str = r#"{"model":"f/m","input":"a""#;

    fn keys(
        api: Api,
        body: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Vec<(SessionSource, String)>, String> {
        let body = Bytes::from(format!("{body}}}"));
        let peek = peek(api, &body).unwrap();
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        match session_keys(api, &peek, &headers, &body, true) {
            Ok(keys) => Ok(keys
                .into_iter()
                .map(|key| (key.source, key.value))
                .collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_documented_order() {
        use SessionSource::{ConversationId, PromptCacheKey, SessionHeader};
        let header = [("x-multi-turn-session-id", " h ")];
        let claude = [("x-claude-code-session-id", "c")];
        let both = [header[0], claude[0]];
        let chat_key = format!(r#"{CHAT},"prompt_cache_key":"p""#);
        let responses_key =
            format!(r#"{RESPONSES},"conversation":{{"id":"k"}},"prompt_cache_key":"p""#);
        let messages_key = format!(r#"{ANTHROPIC},"prompt_cache_key":"p""#);
        let table: [(Api, &str, &[_], &[_]); 6] = [
            (
                Api::ChatCompletions,
                &chat_key,
                &both,
                &[(PromptCacheKey, "p"), (SessionHeader, "h")],
            ),
            (Api::ChatCompletions, CHAT, &header, &[(SessionHeader, "h")]),
            (
                Api::Responses,
                &responses_key,
                &header,
                &[
                    (PromptCacheKey, "p"),
                    (ConversationId, "k"),
                    (SessionHeader, "h"),
                ],
            ),
            (Api::Messages, ANTHROPIC, &claude, &[(SessionHeader, "c")]),
            (Api::Messages, &messages_key, &both, &[(SessionHeader, "h")]),
            (
                Api::Embeddings,
                r#"{"model":"f/m","input":"a""#,
                &header,
                &[],
            ),
        ];
        for (api, body, headers, expected) in table {
            let found = keys(api, body, headers).unwrap();
            let found: Vec<_> = found
                .iter()
                .map(|(source, value)| (*source, value.as_str()))
                .collect();
            assert_eq!(found, expected, "{api:?} {body}");
        }
    }

    #[test]
    fn a_conversation_without_a_name_is_known_by_its_beginning() {
        let first = keys(Api::ChatCompletions, CHAT, &[]).unwrap();
        let later = r#"{"model":"f/m","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]"#;
        assert_eq!(first[0].0, SessionSource::PrefixChain);
        assert_eq!(first[0].1.len(), 64);
        assert_eq!(first, keys(Api::ChatCompletions, later, &[]).unwrap());
        let tail = format!(r#"{RESPONSES},"previous_response_id":"r""#);
        assert_eq!(
            keys(Api::Responses, &tail, &[]).unwrap()[0].0,
            SessionSource::InputHash
        );
    }

    #[test]
    fn names_that_cannot_be_ones_are_told() {
        let long = "x".repeat(257);
        let long_key = format!(r#"{CHAT},"prompt_cache_key":"{long}""#);
        type Row<'a> = (&'a str, &'a [(&'static str, &'a str)], &'a str);
        let table: [Row<'_>; 4] = [
            (
                CHAT,
                &[("x-multi-turn-session-id", &long)],
                "x-multi-turn-session-id is invalid: it must be at most 256 bytes long",
            ),
            (
                CHAT,
                &[("x-multi-turn-session-id", "a\tb")],
                "x-multi-turn-session-id is invalid: it must not hold control characters",
            ),
            (
                &long_key,
                &[],
                "session id from prompt_cache_key is invalid: it must be at most 256 bytes long",
            ),
            (CHAT, &[("x-multi-turn-session-id", "  ")], ""),
        ];
        for (body, headers, expected) in table {
            let found = keys(Api::ChatCompletions, body, headers);
            assert_eq!(found.err().unwrap_or_default(), expected, "{body}");
        }
    }
}
