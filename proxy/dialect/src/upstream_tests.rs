//! Tables for the upstream's body, and every order of members against a tree that is edited.

use serde_json::{Value, json};

use super::*;
use crate::{peek, splice};

fn edited(api: Api, body: &str, force_stream: bool) -> String {
    let found = peek(api, body.as_bytes()).unwrap();
    let mut edits = found.upstream_edits(api, body.as_bytes(), force_stream);
    edits.push((found.model_span.clone(), b"\"sim\"".to_vec()));
    let out = splice(body.as_bytes(), &mut edits);
    String::from_utf8(out.to_vec()).unwrap()
}

/// `rest` stands behind the members that must be there.
#[track_caller]
fn check(api: Api, force_stream: bool, table: &[(&str, &str)]) {
    let start = match api {
        Api::Responses => r#""model":"f/sim","input":"hi""#,
        Api::Messages => r#""model":"f/sim","max_tokens":5,"messages":[{}]"#,
        _ => r#""model":"f/sim","messages":[{}]"#,
    };
    for (rest, expected) in table {
        let got = edited(api, &format!("{{{start}{rest}}} "), force_stream);
        let start = start.replace("f/sim", "sim");
        assert_eq!(got, format!("{{{start}{expected}}} "), "{rest}");
    }
}

#[test]
fn chat_streams_ask_for_usage() {
    let table = [
        ("", ""),
        (
            r#","stream_options":{"include_usage":false}"#,
            r#","stream_options":{"include_usage":false}"#,
        ),
        (
            r#","stream":true,"stream_options":{"include_usage":true}"#,
            r#","stream":true,"stream_options":{"include_usage":true}"#,
        ),
        (
            r#","stream":true "#,
            r#","stream":true,"stream_options":{"include_usage":true} "#,
        ),
        (
            r#","stream_options": null,"stream":true"#,
            r#","stream_options": {"include_usage":true},"stream":true"#,
        ),
        (
            r#","stream_options": {"include_usage": false, "a":1},"stream":true"#,
            r#","stream_options": {"include_usage": true, "a":1},"stream":true"#,
        ),
        (
            r#","stream_options":{"a":1, "include_usage":null},"stream":true"#,
            r#","stream_options":{"a":1, "include_usage":true},"stream":true"#,
        ),
        (
            r#","stream_options":{"a":1},"stream":true"#,
            r#","stream_options":{"a":1,"include_usage":true},"stream":true"#,
        ),
        (
            r#","stream_options":{ },"stream":true"#,
            r#","stream_options":{"include_usage":true },"stream":true"#,
        ),
    ];
    check(Api::ChatCompletions, false, &table);
    check(Api::ChatCompletions, true, &table);
}

#[test]
fn chat_tiers_nobody_knows_become_auto() {
    let table = [
        (r#","service_tier":"flex""#, r#","service_tier":"flex""#),
        (
            r#","service_tier":"prior\u0069ty""#,
            r#","service_tier":"prior\u0069ty""#,
        ),
        (r#","service_tier":null"#, r#","service_tier":null"#),
        (
            r#","service_tier":"best","a":1"#,
            r#","service_tier":"auto","a":1"#,
        ),
        (
            r#","service_tier": {"a":1} "#,
            r#","service_tier": "auto" "#,
        ),
        (r#","service_tier":7"#, r#","service_tier":"auto""#),
        (
            r#","stream":true,"service_tier":"Flex""#,
            r#","stream":true,"service_tier":"auto","stream_options":{"include_usage":true}"#,
        ),
    ];
    check(Api::ChatCompletions, false, &table);
}

#[test]
fn responses_stream_when_forced() {
    let table = [
        (r#","stream":true"#, r#","stream":true"#),
        (r#","stream": false ,"a":1"#, r#","stream": true ,"a":1"#),
        (r#","stream":null"#, r#","stream":true"#),
        ("", r#","stream":true"#),
        (r#","text":{} "#, r#","text":{},"stream":true "#),
    ];
    check(Api::Responses, true, &table);
    let same = table.map(|(rest, _)| (rest, rest));
    check(Api::Responses, false, &same);
}

#[test]
fn messages_carry_no_headers() {
    let table = [
        (r#","stream":true"#, r#","stream":true"#),
        (r#","extra_headers":{"x-priority":"0"}"#, ""),
        (
            r#", "extra-headers" : [1] , "a":{"extra-headers":1}"#,
            r#" , "a":{"extra-headers":1}"#,
        ),
        (
            r#","extra_headers":1,"extra-headers":2,"Extra-Headers":3"#,
            "",
        ),
        (r#","extra-headers":1,"a":2,"extra-headers":3"#, r#","a":2"#),
    ];
    check(Api::Messages, true, &table);
    let first = r#"{"extra_headers":{},"extra-headers":{}, "model":"f/sim","max_tokens":5,"messages":[{}]}"#;
    assert_eq!(
        edited(Api::Messages, first, false),
        r#"{"model":"sim","max_tokens":5,"messages":[{}]}"#
    );
}

#[test]
fn every_order_of_members_gives_the_same_tree() {
    let tables: [(Api, &[&str], Value); 3] = [
        (
            Api::ChatCompletions,
            &[
                r#""model" : "f/sim""#,
                r#""messages":[{"role":"user","content":"a,\"}"}]"#,
                r#""stream":true"#,
                r#""service_tier":"gold""#,
                r#""stream_options":{"b":[]}"#,
            ],
            json!({"model": "sim", "messages": [{"role": "user", "content": "a,\"}"}], "stream": true,
                "service_tier": "auto", "stream_options": {"b": [], "include_usage": true}}),
        ),
        (
            Api::Responses,
            &[
                r#""model": "f/sim""#,
                r#""input":"hi""#,
                r#""stream": false"#,
                r#""metadata":{"stream":false}"#,
                r#""top_p":1e0"#,
            ],
            json!({"model": "sim", "input": "hi", "stream": true, "metadata": {"stream": false}, "top_p": 1e0}),
        ),
        (
            Api::Messages,
            &[
                r#""model": "f/sim""#,
                r#""messages" : [ {} ]"#,
                r#""max_tokens":1"#,
                r#""extra_headers":{"a":"}"}"#,
                r#""extra-headers":[]"#,
            ],
            json!({"model": "sim", "messages": [{}], "max_tokens": 1}),
        ),
    ];
    for (api, members, expected) in tables {
        for order in orders(members.len()) {
            for (between, around) in [(",", ""), (" ,\n\t", " "), (", ", "\n")] {
                let members: Vec<&str> = order.iter().map(|index| members[*index]).collect();
                let body = format!(
                    "{around}{{{around}{}{around}}}{around}",
                    members.join(between)
                );
                let got: Value = serde_json::from_str(&edited(api, &body, true))
                    .unwrap_or_else(|error| unreachable!("{body}: {error}"));
                assert_eq!(got, expected, "{body}");
            }
        }
    }
}

/// Every order of `count` things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let shorter = orders(last);
    let places = |order: &Vec<usize>| {
        let insert = |at| {
            let mut longer = order.clone();
            longer.insert(at, last);
            longer
        };
        (0..=last).map(insert).collect::<Vec<_>>()
    };
    shorter.iter().flat_map(places).collect()
}
