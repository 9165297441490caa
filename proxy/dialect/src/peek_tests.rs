//! Tables for reading request bodies.

use super::*;

fn chat(rest: &str) -> String {
    format!(r#"{{"model":"demo/sim","messages":[{{"role":"user","content":"hi"}}]{rest}}}"#)
}

#[test]
fn whole_chat_request() {
    let body = chat(
        r#", "stream": true, "stream_options":{"include_usage":false},"max_tokens":7,"max_completion_tokens":9,
        "tools":[{"type":"function"}],"response_format":{"type":"json_schema"},"logprobs":true,"prompt_cache_key":"k","user":"u""#,
    );
    let got = peek(Api::ChatCompletions, body.as_bytes()).unwrap();
    assert_eq!(&body[got.model_span.clone()], "\"demo/sim\"");
    assert_eq!(
        &body[got.stream_options_span.clone().unwrap()],
        "{\"include_usage\":false}"
    );
    assert_eq!(
        &body[got.input_span.clone().unwrap()],
        r#"[{"role":"user","content":"hi"}]"#
    );
    assert_eq!(
        (
            got.stream,
            got.include_usage,
            got.messages,
            got.max_output_tokens
        ),
        (true, Some(false), 1, 9)
    );
    assert!(got.has_tools && got.json_mode && got.logprobs && !got.has_images && !got.has_audio);
    let key = SessionKey {
        source: SessionSource::PromptCacheKey,
        value: "k".into(),
    };
    assert_eq!((got.session, got.n_members), (vec![key], 11));
    assert_eq!(got.est_input_tokens as usize, body.len() / 4);
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn refusals_speak_to_the_caller() {
    let deep = chat(&format!(",\"x\":{}{}", "[".repeat(128), "]".repeat(128)));
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(1025));
    // (body, code, param, message)
    let table: [(&str, &str, Option<&str>, &str); 33] = [
        (
            "",
            "invalid_json",
            None,
            "request body is not valid JSON: EOF while parsing a value at line 1 column 0",
        ),
        (
            "{} x",
            "invalid_json",
            None,
            "request body is not valid JSON: trailing characters at line 1 column 4",
        ),
        ("{\"a\":\"\u{1}\"}", "invalid_json", None, "not valid JSON"),
        (
            "[]",
            "invalid_json",
            None,
            "request body must be a JSON object",
        ),
        (
            "\"model\"",
            "invalid_json",
            None,
            "request body must be a JSON object",
        ),
        (&deep, "too_deep", None, "at most 128 levels"),
        ("{}", "missing_model", Some("model"), "model is required"),
        (
            r#"{"model":null}"#,
            "missing_model",
            Some("model"),
            "model is required",
        ),
        (
            r#"{"model":""}"#,
            "missing_model",
            Some("model"),
            "model is required",
        ),
        (
            r#"{"model":5}"#,
            "invalid_type",
            Some("model"),
            "`model` must be a string",
        ),
        (
            r#"{"model":["a"]}"#,
            "invalid_type",
            Some("model"),
            "`model` must be a string",
        ),
        (
            r#"{"model":"a\nb"}"#,
            "invalid_model",
            Some("model"),
            "control characters",
        ),
        (&long, "invalid_model", Some("model"), "1024 bytes"),
        (
            r#"{"model":"m"}"#,
            "missing_messages",
            Some("messages"),
            "messages is required",
        ),
        (
            r#"{"model":"m","messages":null}"#,
            "missing_messages",
            Some("messages"),
            "messages is required",
        ),
        (
            r#"{"model":"m","messages":[]}"#,
            "missing_messages",
            Some("messages"),
            "messages is required",
        ),
        (
            r#"{"model":"m","messages":"hi"}"#,
            "invalid_type",
            Some("messages"),
            "must be an array",
        ),
        (
            r#"{"model":"m","stream":"true"}"#,
            "invalid_type",
            Some("stream"),
            "must be a boolean",
        ),
        (
            r#"{"model":"m","stream":1}"#,
            "invalid_type",
            Some("stream"),
            "must be a boolean",
        ),
        (
            r#"{"max_tokens":"5"}"#,
            "invalid_type",
            Some("max_tokens"),
            "non-negative integer",
        ),
        (
            r#"{"max_tokens":-5}"#,
            "invalid_type",
            Some("max_tokens"),
            "non-negative integer",
        ),
        (
            r#"{"max_output_tokens":1.5}"#,
            "invalid_type",
            Some("max_output_tokens"),
            "non-negative integer",
        ),
        (
            r#"{"max_completion_tokens":[]}"#,
            "invalid_type",
            Some("max_completion_tokens"),
            "non-negative integer",
        ),
        (
            r#"{"stream_options":true}"#,
            "invalid_type",
            Some("stream_options"),
            "an object",
        ),
        (
            r#"{"stream_options":{"include_usage":1}}"#,
            "invalid_type",
            Some("stream_options.include_usage"),
            "boolean",
        ),
        (
            r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
            "duplicate_member",
            Some("stream_options.include_usage"),
            "more than once",
        ),
        (
            r#"{"prompt_cache_key":5}"#,
            "invalid_type",
            Some("prompt_cache_key"),
            "a string",
        ),
        (
            r#"{"input":{}}"#,
            "invalid_type",
            Some("input"),
            "a string or an array",
        ),
        (
            r#"{"model":"a","model":"b"}"#,
            "duplicate_member",
            Some("model"),
            "`model` is given more than once",
        ),
        (
            r#"{"model":"a","\u006dodel":"b"}"#,
            "duplicate_member",
            Some("model"),
            "more than once",
        ),
        (
            r#"{"model":"a","Model":"b"}"#,
            "duplicate_member",
            Some("model"),
            "letter case",
        ),
        (
            "{\"\u{17f}tream\":true}",
            "duplicate_member",
            Some("stream"),
            "letter case",
        ),
        (
            "{\"max_to\u{212a}ens\":1}",
            "duplicate_member",
            Some("max_tokens"),
            "letter case",
        ),
    ];
    for (body, code, param, message) in table {
        let error = peek(Api::ChatCompletions, body.as_bytes()).unwrap_err();
        assert_eq!((error.code(), error.param()), (code, param), "{body}");
        assert!(error.to_string().contains(message), "{body}: {error}");
    }
    assert_eq!(
        peek(Api::Responses, b"{\"a\":\"\xff\"}")
            .unwrap_err()
            .code(),
        "invalid_json"
    );
}

#[test]
fn odd_but_valid_bodies_pass() {
    for rest in [
        r#","stream":null,"max_tokens":null,"stream_options":null,"prompt_cache_key":null"#,
        r#","x":1e999,"y":"\ud800","users":["a"],"user":"u""#,
        r#","tools":[],"functions":[],"logprobs":false,"top_logprobs":0,"response_format":{"type":"text"}"#,
    ] {
        let got = peek(Api::ChatCompletions, chat(rest).as_bytes()).unwrap();
        assert!(
            !got.stream && !got.has_tools && !got.json_mode && !got.logprobs,
            "{rest}"
        );
        assert_eq!((got.max_output_tokens, got.session.len()), (0, 0), "{rest}");
    }
    let huge = peek(
        Api::ChatCompletions,
        chat(",\"max_tokens\":99999999999999999999").as_bytes(),
    )
    .unwrap();
    assert_eq!(huge.max_output_tokens, u32::MAX);
}

#[test]
fn each_api_reads_its_own_members() {
    // (api, body, messages, inputs, output max, session values)
    type Row = (Api, &'static str, u32, u32, u32, &'static [&'static str]);
    let table: [Row; 10] = [
        (
            Api::Embeddings,
            r#"{"model":"m","input":"one"}"#,
            0,
            1,
            0,
            &[],
        ),
        (
            Api::Embeddings,
            r#"{"model":"m","input":["a","b","c"]}"#,
            0,
            3,
            0,
            &[],
        ),
        (
            Api::Embeddings,
            r#"{"model":"m","input":[ 1,2,3]}"#,
            0,
            1,
            0,
            &[],
        ),
        (
            Api::Embeddings,
            r#"{"model":"m","input":[[1],[2,3]]}"#,
            0,
            2,
            0,
            &[],
        ),
        (Api::Embeddings, r#"{"model":"m","input":[]}"#, 0, 0, 0, &[]),
        (
            Api::Responses,
            r#"{"model":"m","input":"x","max_output_tokens":8,"max_tokens":5}"#,
            0,
            1,
            8,
            &[],
        ),
        (
            Api::Responses,
            r#"{"conversation":{"id":"c1"},"model":"m","prompt_cache_key":"p"}"#,
            0,
            0,
            0,
            &["p", "c1"],
        ),
        (
            Api::Responses,
            r#"{"conversation":"c2","model":"m","prompt_cache_key":""}"#,
            0,
            0,
            0,
            &["c2"],
        ),
        (
            Api::Messages,
            r#"{"model":"m","messages":[{}],"max_tokens":5,"conversation":"c"}"#,
            1,
            0,
            5,
            &[],
        ),
        (
            Api::ChatCompletions,
            r#"{"model":"m","messages":[{},{}],"max_tokens":5}"#,
            2,
            0,
            5,
            &[],
        ),
    ];
    for (api, body, messages, inputs, max, session) in table {
        let got = peek(api, body.as_bytes()).unwrap();
        assert_eq!(
            (got.messages, got.inputs, got.max_output_tokens),
            (messages, inputs, max),
            "{body}"
        );
        let values: Vec<&str> = got.session.iter().map(|key| key.value.as_str()).collect();
        assert_eq!(values, session, "{body}");
    }
}

#[test]
fn estimates_leave_out_inline_images() {
    let image = "A".repeat(40_000);
    let part =
        format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{image}"}}}}"#);
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{part}]}}]}}"#);
    let got = peek(Api::ChatCompletions, body.as_bytes()).unwrap();
    assert!(got.has_images);
    assert_eq!(
        got.est_input_tokens as usize,
        (body.len() - image.len() - 22) / 4 + 765
    );

    let body = r#"{"model":"m","system":"12345678","messages":[{"role":"user","content":"1234"}],"tools":[{"name":"f"}]}"#;
    let got = peek(Api::Messages, body.as_bytes()).unwrap();
    assert_eq!(
        got.est_input_tokens as usize,
        (8 + 4 + r#"[{"name":"f"}]"#.len()) / 4 + 550
    );
    let got = peek(Api::Messages, br#"{"model":"m","messages":[{}]}"#).unwrap();
    assert_eq!(got.est_input_tokens, 1, "never zero");
}

#[test]
fn audio_and_json_are_seen() {
    let body = r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"QQ"}}]}],"text":{"format":{"type":"json_object"}}}"#;
    let got = peek(Api::Responses, body.as_bytes()).unwrap();
    assert!(got.has_audio && got.json_mode);
    assert!(
        peek(
            Api::ChatCompletions,
            chat(r#","modalities":["text","audio"]"#).as_bytes()
        )
        .unwrap()
        .has_audio
    );
}

#[test]
fn usage_is_asked_for_by_one_edit() {
    let table = [
        ("", None),
        (
            r#","stream":true,"stream_options":{"include_usage":true}"#,
            None,
        ),
        (
            r#","stream":true"#,
            Some(r#","stream":true,"stream_options":{"include_usage":true}"#),
        ),
        (
            r#","stream":true,"stream_options":null"#,
            Some(r#","stream":true,"stream_options":{"include_usage":true}"#),
        ),
        (
            r#","stream_options": {"include_usage": false, "a":1},"stream":true"#,
            Some(r#","stream_options": {"include_usage": true, "a":1},"stream":true"#),
        ),
        (
            r#","stream_options":{"a":1},"stream":true"#,
            Some(r#","stream_options":{"a":1,"include_usage":true},"stream":true"#),
        ),
        (
            r#","stream_options":{},"stream":true"#,
            Some(r#","stream_options":{"include_usage":true},"stream":true"#),
        ),
    ];
    for (rest, expected) in table {
        let body = chat(rest);
        let edit = peek(Api::ChatCompletions, body.as_bytes())
            .unwrap()
            .include_usage_edit(body.as_bytes());
        let got = edit.map(|edit| crate::splice(body.as_bytes(), &mut [edit]));
        assert_eq!(
            got.as_deref(),
            expected.map(chat).as_deref().map(str::as_bytes),
            "{rest}"
        );
    }
}

#[test]
fn every_prefix_is_refused_without_panic() {
    let body =
        chat(r#","stream_options":{"include_usage":false},"input":["a\"b",{"type":"image"}]"#);
    for cut in 0..body.len() {
        assert_eq!(
            peek(Api::ChatCompletions, &body.as_bytes()[..cut])
                .unwrap_err()
                .code(),
            "invalid_json"
        );
    }
}
