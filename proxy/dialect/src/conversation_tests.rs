//! What keeps a conversation's key and what changes it, in tables and over made-up conversations.

use serde_json::{Value, json};

use super::*;
use crate::peek;

fn digest(api: Api, body: &str) -> Option<[u8; 32]> {
    let found = peek(api, body.as_bytes()).unwrap_or_else(|error| unreachable!("{body}: {error}"));
    conversation_digest(api, body.as_bytes(), &found)
}

/// A body around `rest`.
fn body(api: Api, rest: &str) -> String {
    let start = match api {
        Api::Messages => r#""model":"m","max_tokens":1"#,
        _ => r#""model":"m""#,
    };
    format!("{{{start},{rest}}}")
}

/// All of `same` have one key, and none of `others` has it.
#[track_caller]
fn check(api: Api, same: &[&str], others: &[&str]) {
    let key = digest(api, &body(api, same[0]));
    assert!(key.is_some(), "{}", same[0]);
    for rest in same {
        assert_eq!(digest(api, &body(api, rest)), key, "{rest}");
    }
    for rest in others {
        assert_ne!(digest(api, &body(api, rest)), key, "{rest}");
    }
}

#[test]
fn chats_keep_their_key() {
    check(
        Api::ChatCompletions,
        &[
            r#""messages":[{"role":"system","content":"s"},{"role":"user","content":"é\n"}]"#,
            r#" "messages" : [ { "role" : "system", "content":"s" } , {"role":"user","content":"é\n"}, {"role":"assistant","content":"x"}]"#,
            r#""messages":[{"content":"s","role":"system"},{"content":"\u00e9\u000a","role":"user"},{"role":"user","content":"y"}]"#,
            r#""messages":[{"role":"system","content":[{"type":"text","text":"s"}]},{"role":"user","name":"n","content":[{"text":"é\n","type":"text"}]}]"#,
            r#""stream":true,"messages":[{"role":"system","content":"s"},{"role":"user","content":"é\n"}],"tools":[{}]"#,
        ],
        &[
            r#""messages":[{"role":"system","content":"S"},{"role":"user","content":"é\n"}]"#,
            r#""messages":[{"role":"developer","content":"s"},{"role":"user","content":"é\n"}]"#,
            r#""messages":[{"role":"system","content":"s"},{"role":"user","content":"e\n"}]"#,
            r#""messages":[{"role":"user","content":"é\n"}]"#,
            r#""messages":[{"role":"system","content":"sé"},{"role":"user","content":"\n"}]"#,
            r#""messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"é"},{"type":"text","text":"\n"}]}]"#,
            r#""messages":[{"role":"system","content":"s"},{"role":"assistant","content":"a"},{"role":"user","content":"é\n"}]"#,
        ],
    );
    // Nobody asks: the first message alone.
    check(
        Api::ChatCompletions,
        &[
            r#""messages":[{"role":"assistant","content":"a"}]"#,
            r#""messages":[{"role":"assistant","content":"a"},{"role":"tool","content":"b"}]"#,
        ],
        &[
            r#""messages":[{"role":"assistant","content":"b"}]"#,
            r#""messages":[{"role":"assistant","content":null}]"#,
        ],
    );
}

#[test]
fn messages_keep_their_key() {
    check(
        Api::Messages,
        &[
            r#""system":"s","messages":[{"role":"user","content":"hi"}]"#,
            r#""messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"x"}],"system":"s""#,
            r#""system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":"hi"}]"#,
            r#""system":"s","messages":[{"role":"user","content":[{"cache_control":{"type":"ephemeral"},"type":"text","text":"hi"}]}]"#,
        ],
        &[
            r#""system":"s2","messages":[{"role":"user","content":"hi"}]"#,
            r#""messages":[{"role":"user","content":"hi"}]"#,
            r#""system":[{"type":"text","text":"s"},{"type":"text","text":"t"}],"messages":[{"role":"user","content":"hi"}]"#,
        ],
    );
    let image = |members: &str, data: char| {
        let data = data.to_string().repeat(3000);
        format!(
            r#""messages":[{{"role":"user","content":[{{"type":"image","source":{{"data":"{data}"{members}}}}}]}}]"#
        )
    };
    check(
        Api::Messages,
        &[
            &image(r#","type":"base64","media_type":"image/png""#, 'A'),
            &image(r#", "media_type":"image/png" ,"type":"base64""#, 'A'),
            &image(
                r#","media_type":"image/png","cache_control":{},"type":"base64""#,
                'A',
            ),
        ],
        &[
            &image(r#","type":"base64","media_type":"image/png""#, 'B'),
            &image(r#","type":"base64","media_type":"image/gif""#, 'A'),
        ],
    );
}

#[test]
fn responses_keep_their_key() {
    check(
        Api::Responses,
        &[
            r#""instructions":"i","input":"hi""#,
            r#""input":[{"role":"user","content":"hi"}],"instructions":"i""#,
            r#""input":[{"type":"message","content":[{"type":"input_text","text":"hi"}],"role":"user"},{"type":"function_call","name":"f"}],"instructions":"i","previous_response_id":null"#,
            r#""instructions":"i","input":"hi","previous_response_id":"","conversation":"""#,
        ],
        &[
            r#""instructions":"j","input":"hi""#,
            r#""input":"hi""#,
            r#""instructions":"i","input":"ho""#,
            r#""instructions":"i","input":[{"role":"developer","content":"hi"}]"#,
        ],
    );
    check(
        Api::Responses,
        &[
            r#""input":[{"type":"function_call","name":"f","arguments":"[1]"}]"#,
            r#""input":[{"name":"f","arguments":"[1]","type":"function_call"},{"type":"x"}]"#,
        ],
        &[
            r#""input":[{"type":"function_call","name":"f","arguments":"[2]"}]"#,
            r#""input":[{"type":"function_call","name":"f","arguments":[1,2]}]"#,
        ],
    );
}

#[test]
fn some_bodies_have_no_key() {
    let table = [
        (Api::Embeddings, r#""input":"hi""#),
        (
            Api::Responses,
            r#""input":"hi","previous_response_id":"r1""#,
        ),
        (Api::Responses, r#""input":"hi","conversation":"c1""#),
        (Api::Responses, r#""instructions":"i""#),
        (Api::Responses, r#""instructions":"i","input":[]"#),
    ];
    for (api, rest) in table {
        assert_eq!(digest(api, &body(api, rest)), None, "{rest}");
    }
}

#[test]
fn only_so_much_of_a_message_counts() {
    let chat = |text: &str| {
        let said = format!(r#""messages":[{{"role":"user","content":"{text}"}}]"#);
        digest(Api::ChatCompletions, &body(Api::ChatCompletions, &said))
    };
    let long = "a".repeat(100_000);
    let end = format!("{}b", "a".repeat(99_999));
    assert_eq!(chat(&long), chat(&end), "the end is not looked at");
    assert_ne!(chat(&long), chat(&long[1..]), "the length is");
    assert_ne!(chat(&long), chat(&format!("b{}", &long[1..])));
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let said = format!(r#""messages":[{{"role":"user","content":[{{"x":{deep}}}]}}]"#);
    check(
        Api::ChatCompletions,
        &[&said],
        &[&said.replace('1', "2"), &said.replace("[[1]]", "[1]")],
    );
    let many = format!("[{}{{}}]", r#"{"a":[1,2,3]},"#.repeat(50_000));
    let said = format!(r#""messages":[{{"role":"user","content":{many}}}]"#);
    check(Api::ChatCompletions, &[&said], &[]);
}

#[test]
fn payloads_are_hashed_without_white_space() {
    let hash = |api, rest: &str| {
        let body = body(api, rest);
        payload_digest(body.as_bytes(), &peek(api, body.as_bytes()).unwrap())
    };
    let of = |text: &str| Some(Sha256::digest(text).into());
    let chat = r#" "messages" : [ {"role" : "user",
        "content":"a b"} ] "#;
    let plain = r#"[{"role":"user","content":"a b"}]"#;
    assert_eq!(hash(Api::ChatCompletions, chat), of(plain));
    assert_eq!(hash(Api::Messages, chat), of(plain));
    assert_eq!(hash(Api::Responses, r#""input": " hi""#), of("\" hi\""));
    assert_eq!(hash(Api::Responses, r#""instructions":"i""#), None);
    assert_eq!(hash(Api::Embeddings, r#""input":"hi""#), None);
}

/// `value` as JSON text, its members in any order and white space anywhere.
fn written(value: &Value, random: &mut fastrand::Rng, out: &mut String) {
    let space = |random: &mut fastrand::Rng, out: &mut String| {
        out.push_str(["", "", " ", "\n\t"][random.usize(..4)]);
    };
    space(random, out);
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            random.shuffle(&mut members);
            out.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                written(value, random, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                written(item, random, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
    space(random, out);
}

/// A text as a string or as parts, with and without a mark for the cache.
fn content(text: &str, kind: &str, random: &mut fastrand::Rng) -> Value {
    match random.u8(..3) {
        0 => json!(text),
        1 => json!([{"type": kind, "text": text}]),
        _ => json!([{"type": kind, "text": text, "cache_control": {"type": "ephemeral"}}]),
    }
}

#[test]
fn a_conversation_keeps_its_key_while_it_grows() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut keys = std::collections::HashSet::new();
    for number in 0..200 {
        for api in [Api::ChatCompletions, Api::Responses, Api::Messages] {
            let system = format!("You are number {number}. \"Ä\"\n");
            let asks = "what? ".repeat(random.usize(1..50));
            let mut known = None;
            for turns in 0..5 {
                let kind = ["text", "input_text"][usize::from(api == Api::Responses)];
                let mut said = Vec::new();
                if api == Api::ChatCompletions {
                    let content = content(&system, kind, &mut random);
                    said.push(json!({"role": "system", "content": content}));
                }
                let first = content(&asks, kind, &mut random);
                said.push(json!({"role": "user", "content": first}));
                for turn in 0..turns {
                    said.push(json!({"role": "assistant", "content": format!("{turn}")}));
                    said.push(json!({"role": "user", "content": format!("more {turn}")}));
                }
                let request = match api {
                    Api::Responses => json!({"model": "m", "instructions": system, "input": said}),
                    Api::Messages => {
                        let system = content(&system, kind, &mut random);
                        json!({"model": "m", "max_tokens": 1, "system": system, "messages": said})
                    }
                    _ => json!({"model": "m", "messages": said}),
                };
                let mut text = String::new();
                written(&request, &mut random, &mut text);
                let key = digest(api, &text);
                assert_eq!(*known.get_or_insert(key), key, "{text}");
            }
            assert!(known.flatten().is_some());
            keys.insert((number, known));
        }
    }
    let distinct: std::collections::HashSet<_> = keys.iter().map(|(_, key)| key).collect();
    assert!(distinct.len() >= 400, "only {} keys", distinct.len());
}
