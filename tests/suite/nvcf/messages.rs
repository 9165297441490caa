//! 1.10: Anthropic's messages, untranslated.

use http::Request;
use http::header::HeaderValue;
use serde_json::json;
use weir_tests::caller::{Body, post, with_header};

use super::recorder::{json_answer, stream};
use super::row::{Row, call, recorded, refused, row, same, served, walk};

const PATH: &str = "/v1/messages";

#[tokio::test]
async fn what_goes_on() {
    let (gateway, recorder) = recorded(|config| config).await;
    let mut rows = vec![
        served("1.10 a message", call(PATH, ""))
            .saw_path(PATH)
            .saw("/model", "sim")
            .saw("/max_tokens", 9)
            .told("/type", "message")
            .told("/model", "demo/sim"),
        served("1.10 a stream", call(PATH, r#""stream":true"#))
            .saw("/stream", true)
            .saw_no("/stream_options")
            .header("content-type", "text/event-stream")
            .text("event: message_stop\n")
            .no_text("[DONE]"),
        served(
            "1.10 members that carry headers are taken out",
            call(PATH, r#""extra-headers":{"x":"1"},"Extra-Headers":{"y":"2"},"metadata":{"extra-headers":1}"#),
        )
        .saw_no("/extra-headers")
        .saw_no("/Extra-Headers")
        .saw("/metadata/extra-headers", 1),
        served("1.10 the given headers alone go on", dressed())
            .saw_header("anthropic-version", "2023-06-01")
            .saw_header("anthropic-beta", "one, two")
            .saw_header("user-agent", "tester/1")
            .saw_header("tracestate", "a=b")
            .saw_header("baggage", "c=d")
            .saw_header("x-request-id", "mine-1")
            .saw_header("accept", "application/json")
            .saw_header("content-type", "application/json")
            .saw_header("accept-encoding", "identity")
            .saw_no_headers(&["x-stainless-lang", "x-app", "cookie", "authorization", "x-api-key", "referer"]),
    ];
    rows.extend(their_errors());
    walk(&gateway, &recorder, rows).await;
}

fn dressed() -> Request<Body> {
    let headers = [
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "one"),
        ("user-agent", "tester/1"),
        ("tracestate", "a=b"),
        ("baggage", "c=d"),
        ("x-request-id", "mine-1"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip"),
        ("x-stainless-lang", "rust"),
        ("x-app", "cli"),
        ("cookie", "a=b"),
        ("referer", "elsewhere"),
        ("x-api-key", "secret"),
    ];
    let mut request = headers
        .iter()
        .fold(call(PATH, ""), |request, (name, value)| {
            with_header(request, name, Some(value))
        });
    let second = HeaderValue::from_static("two");
    request.headers_mut().append("anthropic-beta", second);
    request
}

/// Status, body and events of the model server are the caller's.
fn their_errors() -> Vec<Row> {
    let said = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let mut rows = Vec::new();
    for (status, line) in [
        (400, "400 Bad Request"),
        (429, "429 Too Many Requests"),
        (529, "529 Overloaded"),
    ] {
        for members in ["", r#""stream":true"#] {
            let name = format!("1.10 {status} of the model server comes through ({members})");
            rows.push(
                row(name, call(PATH, members))
                    .upstream(json_answer(line, said))
                    .status(status)
                    .check(move |done| same("the body", &done.answer.text().as_str(), &said)),
            );
        }
    }
    let events = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"sim\",\"usage\":{\"input_tokens\":1}}}\n\n",
        "event: ping\ndata: {\"type\": \"ping\"}\n\n",
        "event: odd\ndata: {\"type\":\"odd\",  \"x\":1}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    rows.push(
        served(
            "1.10 events come through as they are but for the model",
            call(PATH, r#""stream":true"#),
        )
        .upstream(stream(events))
        .check(move |done| {
            let expected = events.replace(r#""model":"sim""#, r#""model":"demo/sim""#);
            same("the body", &done.answer.text(), &expected)
        }),
    );
    let cut = &events[..events.find("event: message_stop").unwrap_or_default()];
    rows.push(
        row(
            "9 #2 a stream without message_stop",
            call(PATH, r#""stream":true"#),
        )
        .upstream(stream(cut))
        .status(200)
        .events(|events| {
            let last = events.last().ok_or("no events")?;
            same("the last event", &last.name.as_str(), &"error")?;
            let error = last.json();
            same("the type", &error["type"], &json!("error"))?;
            same(
                "the error's type",
                &error["error"]["type"],
                &json!("api_error"),
            )
        }),
    );
    rows
}

#[tokio::test]
async fn what_is_refused() {
    let (gateway, recorder) = recorded(|config| config).await;
    let hi = r#""messages":[{"role":"user","content":"hi"}]"#;
    let positive = "max_tokens must be positive";
    let non_empty = "messages must be a non-empty array";
    let mut rows = Vec::new();
    for (what, body, text) in [
        (
            "no max_tokens",
            format!(r#"{{"model":"demo/sim",{hi}}}"#),
            positive,
        ),
        (
            "max_tokens 0",
            format!(r#"{{"model":"demo/sim","max_tokens":0,{hi}}}"#),
            positive,
        ),
        (
            "max_tokens below 0",
            format!(r#"{{"model":"demo/sim","max_tokens":-1,{hi}}}"#),
            positive,
        ),
        (
            "no messages",
            r#"{"model":"demo/sim","max_tokens":9}"#.to_owned(),
            non_empty,
        ),
        (
            "empty messages",
            r#"{"model":"demo/sim","max_tokens":9,"messages":[]}"#.to_owned(),
            non_empty,
        ),
        (
            "text for messages",
            r#"{"model":"demo/sim","max_tokens":9,"messages":"hi"}"#.to_owned(),
            non_empty,
        ),
        (
            "no model",
            format!(r#"{{"max_tokens":9,{hi}}}"#),
            "model is required",
        ),
        (
            "no slash",
            format!(r#"{{"model":"sim","max_tokens":9,{hi}}}"#),
            "model prefix is required",
        ),
    ] {
        let row = refused(format!("1.10 {what}"), post(PATH, body), 400, "");
        rows.push(row.says(text).told("/error/type", "invalid_request_error"));
    }
    for (what, members) in [
        ("a second max_tokens", r#""max_tokens":1"#),
        ("max_tokens in other letter case", r#""Max_Tokens":1"#),
        ("a second messages", r#""messages":[]"#),
        ("messages in other letter case", r#""MESSAGES":[]"#),
        ("a second stream", r#""stream":true,"stream":false"#),
    ] {
        let row = refused(format!("1.10 {what}"), call(PATH, members), 400, "");
        rows.push(row.told("/error/type", "invalid_request_error"));
    }
    let unknown =
        r#"{"model":"demo/none","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    rows.push(
        refused("1.10 an unknown model", post(PATH, unknown), 404, "")
            .told("/error/type", "not_found_error"),
    );
    rows.push(refused(
        "1.10 count_tokens is not offered",
        post("/v1/messages/count_tokens", unknown),
        404,
        "path_not_found",
    ));
    walk(&gateway, &recorder, rows).await;
}
