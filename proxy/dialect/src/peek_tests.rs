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
fn odd_but_valid_bodies_pass() {
    for rest in [
        r#","stream":null,"max_tokens":null,"stream_options":null,"prompt_cache_key":null"#,
        r#","x":1e999,"y":"\ud800","users":["a"],"user":"u","\ud800":1"#,
        r#","max_output_tokens":"x","input":{},"temperature":9,"metadata":{"Model":1},"metadata":{}"#,
        r#","tools":[],"functions":[],"logprobs":false,"top_logprobs":0,"response_format":{"type":"text"}"#,
    ] {
        let got = peek(Api::ChatCompletions, chat(rest).as_bytes()).unwrap();
        assert!(
            !got.stream && !got.has_tools && !got.json_mode && !got.logprobs,
            "{rest}"
        );
        assert_eq!((got.max_output_tokens, got.session.len()), (0, 0), "{rest}");
    }
    for huge in ["99999999999999999999", "1e30", "1e999"] {
        let body = chat(&format!(",\"max_tokens\":{huge}"));
        let got = peek(Api::ChatCompletions, body.as_bytes()).unwrap();
        assert_eq!(got.max_output_tokens, u32::MAX, "{huge}");
    }
    for rest in [
        r#","temperature":2,"top_p":1e0,"max_tool_calls":1e2,"top_logprobs":0"#,
        r#","temperature":-0,"top_p":0.0,"max_tool_calls":1,"top_logprobs":20.0"#,
        r#","service_tier":"default","truncation":"disabled","input":[]"#,
        r#","service_tier":"fl\u0065x","truncation":"auto","input":[{},{"role":"user"}]"#,
        r#","temperature":null,"top_p":null,"max_tool_calls":null,"top_logprobs":null,"input":null"#,
        r#","service_tier":null,"truncation":null,"stream":null,"max_output_tokens":null"#,
        r#","metadata":{"temperature":"hot"},"messages":5,"Messages":5"#,
    ] {
        let body = format!(r#"{{"model":"m"{rest}}}"#);
        let got = peek(Api::Responses, body.as_bytes());
        assert!(got.is_ok(), "{rest}: {got:?}");
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn each_api_reads_its_own_members() {
    // (api, body, messages, inputs, output max, session values)
    type Row = (Api, &'static str, u32, u32, u32, &'static [&'static str]);
    let table: [Row; 11] = [
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
            Api::Messages,
            r#"{"model":"m","messages":[{}],"max_tokens":5e0,"prompt_cache_key":"p"}"#,
            1,
            0,
            5,
            &[],
        ),
        (
            Api::Responses,
            r#"{"model":"m","input":[{},{}],"max_output_tokens":1e1}"#,
            0,
            2,
            10,
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

    let body = r#"{"model":"m","max_tokens":1,"system":"12345678","messages":[{"role":"user","content":"1234"}],"tools":[{"name":"f"}]}"#;
    let got = peek(Api::Messages, body.as_bytes()).unwrap();
    assert_eq!(
        got.est_input_tokens as usize,
        (8 + 4 + r#"[{"name":"f"}]"#.len()) / 4 + 550
    );
    let got = peek(
        Api::Messages,
        br#"{"model":"m","max_tokens":1,"messages":[{}]}"#,
    )
    .unwrap();
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
