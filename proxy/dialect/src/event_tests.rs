//! Tables for stream events and whole answers.

use super::*;

fn usage(input: u64, output: u64, cached: u64, reasoning: u64) -> Option<Usage> {
    Some(Usage {
        input_tokens: input,
        output_tokens: output,
        cached_input_tokens: cached,
        reasoning_tokens: reasoning,
        reported: true,
    })
}

/// Compares everything but the span, which it turns into the text it covers.
fn check(api: Api, name: &str, data: &str, expected: &EventFacts<'_>, model: Option<&str>) {
    let mut got = event_facts(api, name, data.as_bytes());
    assert_eq!(
        got.model_span.take().map(|span| &data[span]),
        model,
        "{name} {data}"
    );
    assert_eq!(&got, expected, "{name} {data}");
}

fn text(delta: &str) -> EventFacts<'_> {
    EventFacts {
        delta: Cow::Borrowed(delta),
        ..EventFacts::default()
    }
}

#[test]
fn chat_chunks() {
    let none = EventFacts::default;
    let table = [
        (
            r#"{"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}],"usage":null}"#,
            text("Hi"),
            Some("\"m\""),
        ),
        (
            r#"{"choices":[{"delta":{"content":"a\n"}},{"delta":{"content":"b"}}]}"#,
            text("a\nb"),
            None,
        ),
        (
            r#"{"choices":[{"delta":{"content":[{"type":"text","text":"a"},{"type":"thinking","thinking":[{"text":"no"}]},{"text":"b"}]}}]}"#,
            text("ab"),
            None,
        ),
        (
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            EventFacts {
                finish: true,
                ..none()
            },
            None,
        ),
        (
            r#"{"choices":[{"delta":{"reasoning_content":"abc","reasoning":"abc","content":null}}]}"#,
            EventFacts {
                hidden_bytes: 3,
                ..none()
            },
            None,
        ),
        (
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}}]}"#,
            EventFacts {
                hidden_bytes: 2,
                ..none()
            },
            None,
        ),
        (
            r#"{"model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":3}}}"#,
            EventFacts {
                usage: usage(5, 7, 2, 3),
                usage_only: true,
                ..none()
            },
            Some("\"m\""),
        ),
        (
            r#"{"choices":[{"delta":{},"finish_reason":"length"}],"x_groq":{"usage":{"prompt_tokens":5,"completion_tokens":7}}}"#,
            EventFacts {
                usage: usage(5, 7, 0, 0),
                finish: true,
                ..none()
            },
            None,
        ),
        (r#"{"choices":[],"prompt_filter_results":[]}"#, none(), None),
        (
            r#"{"error":{"message":"x"}}"#,
            EventFacts {
                is_error: true,
                ..none()
            },
            None,
        ),
        (
            "[DONE]",
            EventFacts {
                terminal: true,
                ..none()
            },
            None,
        ),
        (
            " [DONE] ",
            EventFacts {
                terminal: true,
                ..none()
            },
            None,
        ),
        (r#"{"model":5,"choices":null}"#, none(), None),
        (r#"{"choices":[{"delta":{"content":5}}]}"#, none(), None),
        ("", none(), None),
        ("nonsense", none(), None),
        ("[]", none(), None),
        (r#"{"choices":{"a":1}}"#, none(), None),
    ];
    for (data, expected, model) in table {
        check(Api::ChatCompletions, "", data, &expected, model);
    }
}

#[test]
fn plain_text_is_borrowed() {
    let data = br#"{"choices":[{"delta":{"content":"plain"}}]}"#;
    assert!(matches!(
        event_facts(Api::ChatCompletions, "", data).delta,
        Cow::Borrowed("plain")
    ));
}

#[test]
fn responses_events() {
    let none = EventFacts::default;
    let done = |name: &str| {
        format!(
            r#"{{"type":"{name}","response":{{"id":"r","model":"m","output":[{{"x":1}}],"usage":{{"input_tokens":9,"output_tokens":4,"input_tokens_details":{{"cached_tokens":1}},"output_tokens_details":{{"reasoning_tokens":2}}}}}}}}"#
        )
    };
    let ended = || EventFacts {
        finish: true,
        terminal: true,
        usage: usage(9, 4, 1, 2),
        ..none()
    };
    let (completed, incomplete, failed) = (
        done("response.completed"),
        done("response.incomplete"),
        done("response.failed"),
    );
    let table = [
        (
            "response.created",
            r#"{"type":"response.created","response":{"model":"m","usage":null}}"#,
            none(),
            Some("\"m\""),
        ),
        (
            "response.output_text.delta",
            r#"{"type":"response.output_text.delta","delta":"Hi"}"#,
            text("Hi"),
            None,
        ),
        (
            "",
            r#"{"delta":"Hi","type":"response.output_text.delta"}"#,
            text("Hi"),
            None,
        ),
        (
            "response.function_call_arguments.delta",
            r#"{"delta":"{}"}"#,
            EventFacts {
                hidden_bytes: 2,
                ..none()
            },
            None,
        ),
        (
            "response.output_item.done",
            r#"{"delta":"no"}"#,
            none(),
            None,
        ),
        ("response.completed", &completed, ended(), Some("\"m\"")),
        ("", &incomplete, ended(), Some("\"m\"")),
        (
            "response.failed",
            &failed,
            EventFacts {
                is_error: true,
                ..ended()
            },
            Some("\"m\""),
        ),
        (
            "error",
            r#"{"type":"error","code":"x","message":"text"}"#,
            EventFacts {
                is_error: true,
                ..none()
            },
            None,
        ),
        (
            "",
            r#"{"type":"response.future_thing","delta":{"a":1}}"#,
            none(),
            None,
        ),
        ("", "[DONE]", none(), None),
    ];
    for (name, data, expected, model) in table {
        check(Api::Responses, name, data, &expected, model);
    }
}

#[test]
fn the_last_event_of_responses_holds_the_answer() {
    let kinds = [
        ("response.completed", true),
        ("response.incomplete", true),
        ("response.failed", true),
        ("response.created", false),
        ("response.in_progress", false),
        ("response.queued", false),
        ("response.output_item.done", false),
        ("response.cancelled", false),
        ("error", false),
    ];
    let answer = r#"{ "id":"r", "usage":{"input_tokens":3,"output_tokens":4}, "o":["}"] }"#;
    for (kind, ends) in kinds {
        let told = format!(r#"{{"sequence_number":7,"response": {answer} ,"type":"{kind}"}}"#);
        let untold = format!(r#"{{"response":{answer}}}"#);
        for (name, data) in [(kind, &told), ("", &told), (kind, &untold)] {
            let facts = event_facts(Api::Responses, name, data.as_bytes());
            assert_eq!(facts.terminal, ends, "{name} {data}");
            assert_eq!(facts.is_error, matches!(kind, "error" | "response.failed"));
            if ends {
                assert_eq!(facts.usage, usage(3, 4, 0, 0), "{name} {data}");
            }
        }
        let span = terminal_response(told.as_bytes());
        assert_eq!(
            span.map(|span| &told[span]),
            ends.then_some(answer),
            "{kind}"
        );
        let span = terminal_response(untold.as_bytes());
        assert_eq!(span.map(|span| &untold[span]), Some(answer), "{kind}");
    }
    for data in [
        r#"{"type":"response.completed"}"#,
        r#"{"type":"response.completed","response":null}"#,
        r#"{"type":"response.completed","response":"r"}"#,
        r#"{"type":"response.completed","response":{}"#,
        r#"[{"response":{}}]"#,
        "[DONE]",
        "",
    ] {
        assert_eq!(terminal_response(data.as_bytes()), None, "{data}");
    }
}

#[test]
fn messages_events() {
    let none = EventFacts::default;
    let table = [
        (
            "message_start",
            r#"{"type":"message_start","message":{"model":"m","usage":{"input_tokens":3,"cache_read_input_tokens":4,"cache_creation_input_tokens":5,"output_tokens":1}}}"#,
            EventFacts {
                usage: usage(12, 1, 4, 0),
                ..none()
            },
            Some("\"m\""),
        ),
        (
            "content_block_delta",
            r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}"#,
            text("Hi"),
            None,
        ),
        (
            "",
            r#"{"delta":{"text":"Hi"},"type":"content_block_delta"}"#,
            text("Hi"),
            None,
        ),
        (
            "content_block_delta",
            r#"{"delta":{"thinking":"abc"}}"#,
            EventFacts {
                hidden_bytes: 3,
                ..none()
            },
            None,
        ),
        (
            "content_block_delta",
            r#"{"delta":{"partial_json":"{\""}}"#,
            EventFacts {
                hidden_bytes: 2,
                ..none()
            },
            None,
        ),
        (
            "message_delta",
            r#"{"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":8}}"#,
            EventFacts {
                finish: true,
                usage: usage(0, 8, 0, 0),
                ..none()
            },
            None,
        ),
        (
            "message_delta",
            r#"{"delta":{"stop_reason":null}}"#,
            none(),
            None,
        ),
        (
            "message_stop",
            r#"{"type":"message_stop"}"#,
            EventFacts {
                terminal: true,
                ..none()
            },
            None,
        ),
        (
            "",
            r#"{"type":"message_stop"}"#,
            EventFacts {
                terminal: true,
                ..none()
            },
            None,
        ),
        ("ping", r#"{"type":"ping"}"#, none(), None),
        (
            "error",
            r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#,
            EventFacts {
                is_error: true,
                ..none()
            },
            None,
        ),
    ];
    for (name, data, expected, model) in table {
        check(Api::Messages, name, data, &expected, model);
    }
}

#[test]
fn whole_answers() {
    let table = [
        (
            Api::ChatCompletions,
            r#"{"model":"m","choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":5,"completion_tokens":7}}"#,
            usage(5, 7, 0, 0),
            Some("\"m\""),
        ),
        (
            Api::Embeddings,
            r#"{"data":[{"embedding":[0.5]}],"model":"m","usage":{"prompt_tokens":5,"total_tokens":5}}"#,
            usage(5, 0, 0, 0),
            Some("\"m\""),
        ),
        (
            Api::Responses,
            r#"{"usage":{"input_tokens":5,"output_tokens":7},"model": "m"}"#,
            usage(5, 7, 0, 0),
            Some("\"m\""),
        ),
        (
            Api::Messages,
            r#"{"model":"m","usage":{"input_tokens":5,"output_tokens":7,"cache_read_input_tokens":1}}"#,
            usage(6, 7, 1, 0),
            Some("\"m\""),
        ),
        (
            Api::ChatCompletions,
            r#"{"model":null,"usage":null}"#,
            None,
            None,
        ),
        (
            Api::ChatCompletions,
            r#"{"choices":[{"model":"x","usage":{"prompt_tokens":1}}],"usage":{"prompt_tokens":3,"completion_tokens":4},"model":"\"usage\":{}"}"#,
            usage(3, 4, 0, 0),
            Some(r#""\"usage\":{}""#),
        ),
        (
            Api::ChatCompletions,
            r#"{"model":"m","usage":{"prompt_tokens":1"#,
            None,
            Some("\"m\""),
        ),
        (Api::ChatCompletions, "<html>", None, None),
    ];
    for (api, body, expected, model) in table {
        let got = response_facts(api, body.as_bytes());
        assert_eq!(
            (got.usage, got.model_span.map(|span| &body[span])),
            (expected, model),
            "{body}"
        );
    }
}
