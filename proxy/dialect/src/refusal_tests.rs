//! Every refusal: its code, the member it is about, and its words, which callers may know.

use crate::Api::{self, ChatCompletions, Embeddings, Messages, Responses};
use crate::peek;

/// Body, code, member at fault, and the whole text, or its part behind `...`.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str);

#[track_caller]
fn check(apis: &[Api], table: &[Row<'_>]) {
    for api in apis {
        for (body, code, param, message) in table {
            let error = peek(*api, body.as_bytes()).unwrap_err();
            let got = (error.code(), error.param().unwrap_or_default());
            assert_eq!(got, (*code, *param), "{api:?} {body}");
            let said = error.to_string();
            let as_told = match message.strip_prefix("...") {
                Some(end) => said.ends_with(end),
                None => said == *message,
            };
            assert!(as_told, "{api:?} {body}: {said}");
        }
    }
}

#[test]
fn bodies_that_are_no_request() {
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(128), "]".repeat(128));
    let table = [
        (
            "",
            "invalid_json",
            "",
            "request body is not valid JSON: EOF while parsing a value at line 1 column 0",
        ),
        (
            "{} x",
            "invalid_json",
            "",
            "request body is not valid JSON: trailing characters at line 1 column 4",
        ),
        (
            "{\"a\":\"\u{1}\"}",
            "invalid_json",
            "",
            "...while parsing a string at line 1 column 6",
        ),
        (
            "[]",
            "invalid_json",
            "",
            "request body must be a JSON object",
        ),
        (
            "\"model\"",
            "invalid_json",
            "",
            "request body must be a JSON object",
        ),
        (
            &deep,
            "too_deep",
            "",
            "request body is nested too deeply, use at most 128 levels",
        ),
    ];
    check(&[ChatCompletions, Responses, Embeddings, Messages], &table);
    let error = peek(Responses, b"{\"a\":\"\xff\"}").unwrap_err();
    assert_eq!(error.code(), "invalid_json", "not UTF-8");
}

#[test]
fn models_that_name_nothing() {
    const REQUIRED: &str = "model is required";
    let absent = ["{}", r#"{"model":null}"#, r#"{"model":""}"#];
    let required = absent.map(|body| (body, "missing_model", "model", REQUIRED));
    check(&[ChatCompletions, Embeddings, Messages], &required);
    let required = absent.map(|body| (body, "missing_model", "model", "`model`: is required"));
    check(&[Responses], &required);
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(1025));
    let table = [
        (
            r#"{"model":5}"#,
            "invalid_type",
            "model",
            "`model`: must be a string",
        ),
        (
            r#"{"model":["a"]}"#,
            "invalid_type",
            "model",
            "`model`: must be a string",
        ),
        (
            r#"{"model":"a\nb"}"#,
            "invalid_model",
            "model",
            "...without control characters",
        ),
        (
            &long,
            "invalid_model",
            "model",
            "`model` must be at most 1024 bytes without control characters",
        ),
    ];
    check(&[ChatCompletions, Responses, Embeddings, Messages], &table);
}

#[test]
fn chat_completions() {
    const REQUIRED: &str = "messages is required";
    const COUNT: &str = "must be a non-negative integer";
    let options = "stream_options.include_usage";
    let text = |member: &str, reason: &str| format!("`{member}`: {reason}");
    let count = |member| text(member, COUNT);
    let table = [
        (r#"{"model":"m"}"#, "missing_messages", "messages", REQUIRED),
        (
            r#"{"model":"m","messages":null}"#,
            "missing_messages",
            "messages",
            REQUIRED,
        ),
        (
            r#"{"model":"m","messages":[]}"#,
            "missing_messages",
            "messages",
            REQUIRED,
        ),
        (
            r#"{"model":"m","messages":"hi"}"#,
            "invalid_type",
            "messages",
            &text("messages", "must be an array"),
        ),
        (
            r#"{"stream":"true"}"#,
            "invalid_type",
            "stream",
            &text("stream", "must be a boolean"),
        ),
        (
            r#"{"max_tokens":"5"}"#,
            "invalid_type",
            "max_tokens",
            &count("max_tokens"),
        ),
        (
            r#"{"max_tokens":-5}"#,
            "invalid_type",
            "max_tokens",
            &count("max_tokens"),
        ),
        (
            r#"{"max_completion_tokens":1.5}"#,
            "invalid_type",
            "max_completion_tokens",
            &count("max_completion_tokens"),
        ),
        (
            r#"{"stream_options":true}"#,
            "invalid_type",
            "stream_options",
            &text("stream_options", "must be an object"),
        ),
        (
            r#"{"stream_options":{"include_usage":1}}"#,
            "invalid_type",
            options,
            &text(options, "must be a boolean"),
        ),
        (
            r#"{"stream_options":{"include_usage":null,"include_usage":false}}"#,
            "duplicate_member",
            options,
            "`stream_options.include_usage` is given more than once",
        ),
        (
            r#"{"stream_options":{"a":1,"Include_Usage":false}}"#,
            "duplicate_member",
            options,
            "...in other letter case, write it exactly as `stream_options.include_usage`",
        ),
        (
            r#"{"prompt_cache_key":5}"#,
            "invalid_type",
            "prompt_cache_key",
            &text("prompt_cache_key", "must be a string"),
        ),
    ];
    check(&[ChatCompletions], &table);
}

#[test]
fn responses() {
    let of = |member: &'static str, value: &str, code: &'static str, reason: &str| {
        let body = format!(r#"{{"model":"m","{member}":{value}}}"#);
        (body, code, member, format!("`{member}`: {reason}"))
    };
    let mut rows = Vec::new();
    for value in ["5", "{}", "true", r#"["a"]"#, "[{},null]"] {
        let reason = "must be string or array of input items";
        rows.push(of("input", value, "invalid_type", reason));
    }
    let bounds = [
        ("temperature", "-0.1", "2.01", "must be between 0 and 2"),
        ("top_p", "-1e-9", "1.1", "must be between 0 and 1"),
        ("max_tool_calls", "0", "101", "must be between 1 and 100"),
        ("top_logprobs", "-1", "2.1e1", "must be between 0 and 20"),
    ];
    for (member, under, over, reason) in bounds {
        rows.push(of(member, under, "invalid_value", reason));
        rows.push(of(member, over, "invalid_value", reason));
        rows.push(of(member, "1e999", "invalid_value", reason));
        rows.push(of(member, "\"1\"", "invalid_type", "must be a number"));
    }
    for member in ["max_tool_calls", "top_logprobs"] {
        rows.push(of(member, "1.5", "invalid_type", "must be an integer"));
    }
    for value in ["\"priority\"", "\"\"", "\"Auto\"", "1"] {
        let reason = "must be one of: auto, default, flex";
        rows.push(of("service_tier", value, "invalid_value", reason));
        let reason = "must be one of: auto, disabled";
        rows.push(of("truncation", value, "invalid_value", reason));
    }
    let count = "must be a non-negative integer";
    rows.push(of("max_output_tokens", "-1", "invalid_type", count));
    rows.push(of("stream", "1", "invalid_type", "must be a boolean"));
    let table: Vec<Row<'_>> = rows
        .iter()
        .map(|(body, code, member, text)| (body.as_str(), *code, *member, text.as_str()))
        .collect();
    check(&[Responses], &table);
}

#[test]
fn embeddings() {
    const WRONG: &str = "`input`: Must be either a string or an array of string";
    let many = format!(r#"{{"model":"m","input":[{}"a"]}}"#, "\"a\",".repeat(2048));
    let table = [
        (r#"{"model":"m"}"#, "invalid_type", WRONG),
        (r#"{"model":"m","input":null}"#, "invalid_type", WRONG),
        (r#"{"model":"m","input":{}}"#, "invalid_type", WRONG),
        (r#"{"model":"m","input":["a",1]}"#, "invalid_type", WRONG),
        (
            r#"{"model":"m","input":[]}"#,
            "empty_input",
            "'input' array must not be empty",
        ),
        (
            r#"{"model":"m","input":["a",""]}"#,
            "empty_input",
            "'input.1' must not be empty",
        ),
        (
            &many,
            "too_many_inputs",
            "'input' array is too large, must be less than 2048 elements",
        ),
    ];
    let table = table.map(|(body, code, message)| (body, code, "input", message));
    check(&[Embeddings], &table);
}

#[test]
fn messages() {
    const POSITIVE: &str = "max_tokens must be positive";
    const NON_EMPTY: &str = "messages must be a non-empty array";
    let limits = ["", r#","max_tokens":null"#, r#","max_tokens":0"#]
        .into_iter()
        .chain([r#","max_tokens":-0.5"#, r#","max_tokens":0e5"#]);
    for limit in limits {
        let body = format!(r#"{{"model":"m","messages":[{{}}]{limit}}}"#);
        check(
            &[Messages],
            &[(&body, "invalid_value", "max_tokens", POSITIVE)],
        );
    }
    for given in ["", r#","messages":null"#, r#","messages":[]"#]
        .into_iter()
        .chain([r#","messages":"hi""#, r#","messages":{"a":1}"#])
    {
        let body = format!(r#"{{"model":"m","max_tokens":1{given}}}"#);
        check(
            &[Messages],
            &[(&body, "missing_messages", "messages", NON_EMPTY)],
        );
    }
    let body = r#"{"max_tokens":1.5}"#;
    let text = "`max_tokens`: must be a non-negative integer";
    check(&[Messages], &[(body, "invalid_type", "max_tokens", text)]);
}

#[test]
fn members_given_twice_or_in_disguise() {
    let apis: [(Api, &[&str]); 4] = [
        (
            ChatCompletions,
            &[
                "messages",
                "stream_options",
                "max_completion_tokens",
                "service_tier",
            ],
        ),
        (
            Responses,
            &[
                "input",
                "temperature",
                "max_tool_calls",
                "service_tier",
                "conversation",
            ],
        ),
        (Embeddings, &["input", "user"]),
        (Messages, &["messages", "max_tokens", "system", "tools"]),
    ];
    for (api, members) in apis {
        for member in members.iter().chain(&["model", "stream"]) {
            let (first, rest) = member.split_at(1);
            let escaped = format!("\\u00{:02x}{rest}", first.as_bytes().first().unwrap());
            let twice = format!("`{member}` is given more than once");
            let cased =
                format!("`{member}` is given in other letter case, write it exactly as `{member}`");
            for (name, text) in [
                (*member, &twice),
                (&escaped, &twice),
                (&member.to_uppercase(), &cased),
                (&member.replacen('s', "\u{17f}", 1), &cased),
                (&member.replacen('k', "\u{212a}", 1), &cased),
            ] {
                if name == *member && text == &cased {
                    continue;
                }
                let body = format!(r#"{{"{member}":null,"{name}":null}}"#);
                check(&[api], &[(&body, "duplicate_member", member, text)]);
            }
        }
    }
}
