//! 1.6: chat completions.

use weir_tests::caller::{chat, with_header};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::Gateway;
use weir_tests::upstream::{chat_event, delta, refusing};

use super::recorder::{Recorder, chat_events, json_answer, stream};
use super::row::{Row, holds, recorded, refused, row, same, served, walk};

const TOOLS: &str = r#"{"id":"c-1","object":"chat.completion","created":1,"model":"sim","system_fingerprint":"fp","service_tier":"flex","choices":[{"index":0,"message":{"role":"assistant","content":null,"reasoning_content":"so","tool_calls":[{"id":"t-1","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"},{"index":1,"message":{"role":"assistant","content":"b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;

#[tokio::test]
async fn one_answer() {
    let (gateway, recorder) = recorded(|config| config).await;
    let rows = vec![
        served(
            "1.6 departs: what is asked for at once is asked for at once",
            chat(""),
        )
        .saw_path("/v1/chat/completions")
        .saw_no("/stream")
        .saw_no("/stream_options")
        .told("/object", "chat.completion")
        .told("/choices/0/message/content", "ok")
        .told("/choices/0/finish_reason", "stop")
        .told("/usage/total_tokens", 10)
        .header("content-type", "application/json"),
        served(
            "1.6 whatever a completion holds comes through",
            chat(r#""n":2"#),
        )
        .upstream(json_answer("200 OK", TOOLS))
        .check(|done| {
            let expected = TOOLS.replace(r#""model":"sim""#, r#""model":"demo/sim""#);
            same("the body", &done.answer.text(), &expected)
        }),
        served(
            "1.6 an unknown service_tier becomes auto",
            chat(r#""service_tier":"best""#),
        )
        .saw("/service_tier", "auto"),
        served(
            "1.6 a known service_tier stays",
            chat(r#""service_tier":"flex""#),
        )
        .saw("/service_tier", "flex"),
        served(
            "1.6 members nobody here knows go on",
            chat(r#""top_k":5,"guided":{"a":[1]}"#),
        )
        .saw("/top_k", 5)
        .saw("/guided/a/0", 1),
    ];
    walk(&gateway, &recorder, rows).await;
}

#[tokio::test]
async fn a_stream() {
    let (gateway, recorder) = recorded(|config| config).await;
    let rows = vec![
        served(
            "1.6 a stream: chunks, then [DONE]",
            chat(r#""stream":true"#),
        )
        .saw("/stream", true)
        .done_with_model("demo/sim")
        .events(|events| same("the number of events", &events.len(), &4))
        .header("content-type", "text/event-stream"),
        served("9 #3 usage is always asked for", chat(r#""stream":true"#))
            .saw("/stream_options/include_usage", true),
        served(
            "9 #3 usage nobody asked for is not shown",
            chat(r#""stream":true"#),
        )
        .no_text("usage")
        .no_text(r#""choices":[]"#),
        served(
            "9 #3 usage that is refused is asked for all the same",
            chat(r#""stream":true,"stream_options":{"include_usage":false,"x":1}"#),
        )
        .saw("/stream_options/include_usage", true)
        .saw("/stream_options/x", 1)
        .no_text("usage"),
        served(
            "1.6 usage that is asked for is shown",
            chat(r#""stream":true,"stream_options":{"include_usage":true}"#),
        )
        .text(r#""usage":{"prompt_tokens":7"#)
        .text(r#""choices":[]"#),
        served(
            "1.6 usage in the last chunk with a choice",
            chat(r#""stream":true"#),
        )
        .upstream(stream(&usage_beside_the_end()))
        .done_with_model("demo/sim")
        .text(r#""finish_reason":"stop""#)
        .no_text(r#""prompt_tokens""#),
        served(
            "1.6 an unknown service_tier becomes auto",
            chat(r#""stream":true,"service_tier":"best""#),
        )
        .saw("/service_tier", "auto"),
        served(
            "1.6 comments, names and CRLF of the model server",
            chat(r#""stream":true"#),
        )
        .upstream(stream(&format!(
            ": thinking\n\n{}",
            chat_events().replace('\n', "\r\n")
        )))
        .done_with_model("demo/sim"),
    ];
    walk(&gateway, &recorder, rows).await;
}

fn usage_beside_the_end() -> String {
    let end = chat_event(
        r#"{"index":0,"delta":{},"finish_reason":"stop"}"#,
        r#","usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}"#,
    );
    format!("{}{end}data: [DONE]\n\n", delta("a"))
}

/// 9 #2: whatever ends a stream early, the caller is told, and is not told that all is done.
#[tokio::test]
async fn a_stream_that_ends_early() {
    let (gateway, recorder) = recorded(|config| config).await;
    let broken = |name: &'static str, events: String, code: &'static str| {
        row(name, chat(r#""stream":true"#))
            .upstream(stream(&events))
            .status(200)
            .events(move |events| {
                let last = events.last().ok_or("no events")?.json();
                same("the code", &last["error"]["code"], &code.into())?;
                let kind = &last["error"]["type"];
                same("the type", kind, &"server_error".into())
            })
            .no_text("[DONE]")
    };
    let own =
        r#"{"error":{"message":"out of memory","type":"server_error","param":null,"code":null}}"#;
    let rows = vec![
        broken(
            "9 #2 a stream without an end",
            delta("a"),
            "upstream_disconnected",
        ),
        broken(
            "9 #2 a stream cut within an event",
            format!("{}data: {{\"id", delta("a")),
            "upstream_disconnected",
        )
        .text("\"a\"")
        .no_text("data: {\"id\n"),
        broken(
            "9 #2 an end of the stream without [DONE]",
            delta("a") + &chat_event(r#"{"index":0,"delta":{},"finish_reason":null}"#, ""),
            "upstream_disconnected",
        ),
        row(
            "9 #2 the model server's own error is the end",
            chat(r#""stream":true"#),
        )
        .upstream(stream(&format!("{}data: {own}\n\n", delta("a"))))
        .status(200)
        .text("out of memory")
        .no_text("[DONE]")
        .no_text("upstream_disconnected"),
    ];
    walk(&gateway, &recorder, rows).await;
}

#[tokio::test]
async fn errors_of_the_model_server() {
    let (gateway, recorder) = recorded(|config| config.cluster("retries = 0")).await;
    let said = r#"{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
    let mut rows = Vec::new();
    for members in ["", r#""stream":true"#] {
        for (status, line) in [
            (400, "400 Bad Request"),
            (404, "404 Not Found"),
            (409, "409 Conflict"),
            (422, "422 Unprocessable Entity"),
            (429, "429 Too Many Requests"),
            (500, "500 Internal Server Error"),
        ] {
            let name = format!("1.6 {status} of the model server comes through ({members})");
            let row = row(name, chat(members)).upstream(json_answer(line, said));
            rows.push(row.status(status).check(move |done| {
                same("the body", &done.answer.text().as_str(), &said)?;
                let kind = done.answer.header("content-type");
                same("content-type", &kind, &"application/json")
            }));
        }
    }
    let plain =
        b"HTTP/1.1 418 I'm a teapot\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nshort";
    rows.push(
        row("1.6 an error that is no JSON", chat(""))
            .upstream(plain.as_slice())
            .status(418)
            .text("short"),
    );
    walk(&gateway, &recorder, rows).await;
}

#[tokio::test]
async fn a_model_server_that_cannot_be_reached() {
    let nobody = refusing();
    let gateway = Gateway::start(&ConfigText::new(&[nobody]).text()).await;
    let recorder = Recorder::start().await;
    let unreachable = |name: &'static str, members: &str| -> Row {
        refused(name, chat(members), 502, "upstream_unreachable").check(move |done| {
            let text = done.answer.text();
            let address = nobody.port().to_string();
            holds(!text.contains(&address), &format!("an address in {text}"))
        })
    };
    let rows = vec![
        unreachable("1.6 departs: transport errors have a fixed text", ""),
        unreachable("1.6 the same before a stream", r#""stream":true"#),
        refused(
            "9 #8 and the request id",
            with_header(chat(""), "x-request-id", Some("mine-9")),
            502,
            "upstream_unreachable",
        )
        .header("x-request-id", "mine-9"),
    ];
    walk(&gateway, &recorder, rows).await;
}
