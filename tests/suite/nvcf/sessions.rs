//! 1.9: what keeps a conversation on one backend, as the caller and a router behind are told it.

use http::Request;
use serde_json::{Value, json};
use weir_tests::caller::{Body, post, send, with_header};
use weir_tests::gateway::Gateway;

use super::recorder::Recorder;
use super::row::{Row, call, holds, recorded, refused, same, served, walk};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

const SESSION: &str = "x-multi-turn-session-id";
const CLAUDE: &str = "x-claude-code-session-id";
const AFFINITY: &str = "x-cache-affinity-key";

/// `mt:v1:session:` and the SHA-256 of `p`, `k`, `h` and `c`.
const OF_P: &str = "mt:v1:session:148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940";
const OF_K: &str = "mt:v1:session:8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a";
const OF_H: &str = "mt:v1:session:aaa9402664f1a41f40ebbc52c9993eb66aeb366602958fdfaa283b71e64db123";
const OF_C: &str = "mt:v1:session:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6";

/// The kinds of keys the gateway makes itself.
const PREFIX: &str = "mt:v1:prefix:";
const PAYLOAD: &str = "mt:v1:payload:";

fn with(request: Request<Body>, headers: &[(&str, &str)]) -> Request<Body> {
    headers.iter().fold(request, |request, (name, value)| {
        with_header(request, name, Some(value))
    })
}

/// The caller named its conversation: it is told its own word, the router the hash.
fn named(what: &str, request: Request<Body>, word: &str, key: &'static str) -> Row {
    served(format!("1.9 {what}"), request)
        .header(SESSION, word)
        .saw_header(AFFINITY, key)
}

/// The key is the gateway's own, for the caller as for the router.
fn generated(what: &str, request: Request<Body>, kind: &'static str) -> Row {
    served(format!("1.9 {what}"), request).check(move |done| {
        let told = done.answer.header(SESSION).to_owned();
        let seen = done.seen.first().and_then(|seen| seen.header(AFFINITY));
        same("the key upstream", &seen.unwrap_or_default(), &told)?;
        let digest = told.strip_prefix(kind).unwrap_or_default();
        let is_hex = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        holds(
            is_hex,
            &format!("the key is {told:?}, not of the kind {kind}"),
        )
    })
}

#[tokio::test]
async fn which_word_counts() {
    let (gateway, recorder) = recorded(|config| config.cluster("router_headers = true")).await;
    let mut rows = chat_and_messages();
    rows.extend(responses());
    rows.extend(shapes());
    rows.extend(bad());
    walk(&gateway, &recorder, rows).await;
}

fn chat_and_messages() -> Vec<Row> {
    let both = [(SESSION, "h"), (CLAUDE, "c")];
    let key = r#""prompt_cache_key":"p""#;
    vec![
        named(
            "chat: prompt_cache_key before the header",
            with(call(CHAT, key), &both),
            "p",
            OF_P,
        ),
        named("chat: the header", with(call(CHAT, ""), &both), "h", OF_H),
        generated(
            "chat: Claude Code's header is for messages",
            with(call(CHAT, ""), &both[1..]),
            PREFIX,
        ),
        generated("chat: nothing", call(CHAT, ""), PREFIX),
        generated(
            "chat: an empty prompt_cache_key is none",
            call(CHAT, r#""prompt_cache_key":"""#),
            PREFIX,
        ),
        generated(
            "chat: an empty header is none",
            with(call(CHAT, ""), &[(SESSION, "  ")]),
            PREFIX,
        ),
        named(
            "messages: the header before Claude Code's",
            with(call(MESSAGES, ""), &both),
            "h",
            OF_H,
        ),
        named(
            "messages: Claude Code's header",
            with(call(MESSAGES, ""), &both[1..]),
            "c",
            OF_C,
        ),
        named(
            "messages: prompt_cache_key is not theirs",
            with(call(MESSAGES, key), &both),
            "h",
            OF_H,
        ),
        generated("messages: nothing", call(MESSAGES, ""), PREFIX),
        served(
            "1.9 embeddings have no sessions",
            with(call("/v1/embeddings", ""), &both),
        )
        .no_headers(&[SESSION])
        .saw_no_headers(&[AFFINITY]),
        named(
            "a stream is told too",
            with(call(CHAT, r#""stream":true"#), &both),
            "h",
            OF_H,
        ),
    ]
}

fn responses() -> Vec<Row> {
    let header = [(SESSION, "h")];
    let of = |members: &str| with(call(RESPONSES, members), &header);
    let conversation = r#""conversation":{"id":"k"}"#;
    let all = format!(r#""prompt_cache_key":"p",{conversation}"#);
    let previous = r#""previous_response_id":"resp-0""#;
    vec![
        named("responses: prompt_cache_key first", of(&all), "p", OF_P),
        named(
            "responses: conversation.id before the header",
            of(conversation),
            "k",
            OF_K,
        ),
        named(
            "responses: a conversation by its id alone",
            of(r#""conversation":"k""#),
            "k",
            OF_K,
        ),
        named("responses: the header", of(""), "h", OF_H),
        named(
            "responses: previous_response_id changes nothing",
            of(previous),
            "h",
            OF_H,
        ),
        generated("responses: nothing", call(RESPONSES, ""), PREFIX),
        generated(
            "responses: the tail of a conversation kept elsewhere",
            call(RESPONSES, previous),
            PAYLOAD,
        ),
    ]
}

fn shapes() -> Vec<Row> {
    let key = "mt:v1:prefix:148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940";
    let longest = "x".repeat(256);
    vec![
        named(
            "a key sent back in the header is taken as it is",
            with(call(CHAT, ""), &[(SESSION, key)]),
            key,
            key,
        ),
        named(
            "so is one of the documented gateway",
            with(call(CHAT, ""), &[(SESSION, OF_P)]),
            OF_P,
            OF_P,
        ),
        named(
            "in the body a key is a word like others",
            call(CHAT, &format!(r#""prompt_cache_key":"{key}""#)),
            key,
            "mt:v1:session:a09249d5c17b853ac9fee4a1770174d0655852f7f96eff81cbfcf457f7724eca",
        ),
        named(
            "the header is trimmed",
            with(call(CHAT, ""), &[(SESSION, "  h  ")]),
            "h",
            OF_H,
        ),
        served(
            "1.9 256 bytes are enough",
            with(call(CHAT, ""), &[(SESSION, &longest)]),
        )
        .header(SESSION, &longest),
    ]
}

fn bad() -> Vec<Row> {
    let long = "x".repeat(257);
    let in_body = |path: &str, value: &str| call(path, &format!(r#""prompt_cache_key":"{value}""#));
    let header = |path: &str, name: &str, value: &str| with(call(path, ""), &[(name, value)]);
    let conversation = call(RESPONSES, &format!(r#""conversation":{{"id":"{long}"}}"#));
    [
        (
            "a header that is too long",
            header(CHAT, SESSION, &long),
            "x-multi-turn-session-id is invalid:",
        ),
        (
            "a header with a control byte",
            header(RESPONSES, SESSION, "a\tb"),
            "x-multi-turn-session-id is invalid:",
        ),
        (
            "Claude Code's header that is too long",
            header(MESSAGES, CLAUDE, &long),
            "x-claude-code-session-id is invalid:",
        ),
        (
            "a prompt_cache_key that is too long",
            in_body(CHAT, &long),
            "session id from prompt_cache_key is invalid:",
        ),
        (
            "a prompt_cache_key with a control byte",
            in_body(RESPONSES, r"a\nb"),
            "session id from prompt_cache_key is invalid:",
        ),
        (
            "a prompt_cache_key with DEL",
            in_body(CHAT, r"a\u007f"),
            "session id from prompt_cache_key is invalid:",
        ),
        (
            "a conversation.id that is too long",
            conversation,
            "session id from conversation.id is invalid:",
        ),
    ]
    .map(|(what, request, text)| {
        refused(format!("1.9 {what}"), request, 400, "invalid_session_id").says(text)
    })
    .into()
}

/// Makes a body of a conversation.
type ToBody<'a> = &'a dyn Fn(&[Value]) -> Value;

/// Asks and returns the session the caller was told.
async fn told(gateway: &Gateway, path: &str, body: &Value) -> String {
    let answer = send(gateway.address(), post(path, body.to_string())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header(SESSION).to_owned()
}

/// 9 #11: a key of the whole payload would differ at every turn. The one of a conversation's
/// beginning does not, and differs where conversations do.
#[tokio::test]
async fn a_conversation_keeps_its_key() {
    let (gateway, _recorder): (Gateway, Recorder) = recorded(|config| config).await;
    let say = |role: &str, text: &str| json!({"role": role, "content": text});
    let begun = [say("system", "Be brief."), say("user", "Hello")];
    let later = [
        &begun[..],
        &[say("assistant", "Hi!"), say("user", "And now?")],
    ]
    .concat();
    let longer = [
        &later[..],
        &[say("assistant", "Nothing."), say("user", "Well.")],
    ]
    .concat();
    let other_system = [say("system", "Be long."), say("user", "Hello")];
    let other_user = [say("system", "Be brief."), say("user", "Goodbye")];
    let chat = |messages: &[Value]| json!({"model": "demo/sim", "messages": messages});
    let input = |messages: &[Value]| json!({"model": "demo/sim", "input": messages});
    let anthropic = |messages: &[Value]| json!({"model": "demo/sim", "max_tokens": 9, "system": messages[0]["content"], "messages": messages[1..]});
    let apis: [(&str, ToBody); 3] = [(CHAT, &chat), (RESPONSES, &input), (MESSAGES, &anthropic)];
    for (path, body) in apis {
        let first = told(&gateway, path, &body(&begun)).await;
        assert!(first.starts_with(PREFIX), "{path}: {first}");
        for turn in [&later, &longer] {
            assert_eq!(
                told(&gateway, path, &body(turn)).await,
                first,
                "{path}: a later turn"
            );
        }
        for other in [&other_system, &other_user] {
            assert_ne!(
                told(&gateway, path, &body(other)).await,
                first,
                "{path}: another conversation"
            );
        }
    }
}
