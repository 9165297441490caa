//! Real provider traffic through the readers: the folder named by `WEIR_CASES`, else skipped.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;
use weir_dialect::{
    Api, SseEvent, SseSplitter, Usage, apply_json_edits, conversation_digest, event_facts, locate,
    payload_digest, peek, response_facts, terminal_response,
};

const EVENT_BYTES_MAX: usize = 4 << 20;

/// Every recorded case of the apis read here; empty, and loudly so, without the folder.
fn cases() -> Vec<(Api, Value)> {
    let Some(folder) = std::env::var_os("WEIR_CASES") else {
        // Not `eprintln!`: the test harness would swallow it.
        let mut stderr = std::io::stderr();
        writeln!(
            stderr,
            "SKIPPED: set WEIR_CASES to a folder of recorded cases"
        )
        .unwrap();
        return Vec::new();
    };
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(Path::new(&folder)).unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap();
        let file: Value = serde_json::from_slice(&text).unwrap();
        for case in file["cases"].as_array().unwrap() {
            let api = match case["provider_api"].as_str().unwrap() {
                "openai.chat" => Api::ChatCompletions,
                "openai.responses" => Api::Responses,
                "anthropic.messages" => Api::Messages,
                _ => continue,
            };
            cases.push((api, case.clone()));
        }
    }
    assert!(!cases.is_empty(), "no case in the folder");
    cases
}

fn same_usage(case: &Value, got: Option<Usage>) {
    let (id, expected) = (&case["id"], &case["semantic"]["usage"]);
    let number = |name: &str| expected[name].as_u64().unwrap_or(0);
    if expected.is_null() {
        assert_eq!(got, None, "{id}");
        return;
    }
    let got = got.unwrap_or_default();
    let input = match expected["input_total"].as_u64() {
        Some(total) => total,
        None => number("input_uncached") + number("cache_read") + number("cache_write"),
    };
    assert_eq!(
        (got.input_tokens, got.output_tokens, got.cached_input_tokens),
        (input, number("output"), number("cache_read")),
        "{id}"
    );
    if expected.get("reasoning").is_some() {
        assert_eq!(got.reasoning_tokens, number("reasoning"), "{id}");
    }
}

fn events(stream: &[u8], size: usize) -> Vec<SseEvent> {
    let mut splitter = SseSplitter::new(EVENT_BYTES_MAX);
    let mut events = Vec::new();
    for chunk in stream.chunks(size) {
        splitter.push(&Bytes::copy_from_slice(chunk));
        while let Some(event) = splitter.next().unwrap() {
            events.push(event);
        }
    }
    events.extend(splitter.finish());
    events
}

#[test]
fn requests_are_read() {
    let mut read = 0;
    for (api, case) in cases() {
        let request = &case["client_request"];
        if request.is_null() {
            continue;
        }
        let body = serde_json::to_vec(request).unwrap();
        let got = peek(api, &body).unwrap();
        assert_eq!(
            &body[got.model_span.clone()],
            request["model"].to_string().as_bytes()
        );
        assert_eq!(got.model, request["model"].as_str().unwrap());
        assert_eq!(got.stream, request["stream"].as_bool().unwrap_or(false));
        assert_eq!(
            got.messages as usize,
            request["messages"].as_array().unwrap().len()
        );
        assert_eq!(
            u64::from(got.max_output_tokens),
            request["max_tokens"].as_u64().unwrap_or(0)
        );
        assert_eq!(
            got.has_tools,
            request["tools"]
                .as_array()
                .is_some_and(|tools| !tools.is_empty())
        );
        assert_eq!(locate(&body, "/model"), Some(got.model_span));
        assert_eq!(apply_json_edits(&body, &[]).unwrap(), body);
        read += 1;
    }
    eprintln!("{read} recorded requests read");
}

#[test]
fn conversations_keep_their_key() {
    let mut turns = 0;
    for (api, case) in cases() {
        let Some(messages) = case["client_request"]["messages"].as_array() else {
            continue;
        };
        let key = |request: &Value, pretty: bool| {
            let body = match pretty {
                true => serde_json::to_vec_pretty(request).unwrap(),
                false => serde_json::to_vec(request).unwrap(),
            };
            let found = peek(api, &body).unwrap();
            let payload = payload_digest(&body, &found);
            (conversation_digest(api, &body, &found), payload)
        };
        let whole = key(&case["client_request"], false);
        assert!(whole.0.is_some() && whole.1.is_some(), "{}", case["id"]);
        assert_eq!(key(&case["client_request"], true), whole, "{}", case["id"]);
        let first = messages
            .iter()
            .position(|message| message["role"] == "user");
        for length in first.unwrap() + 1..messages.len() {
            let mut earlier = case["client_request"].clone();
            earlier["messages"].as_array_mut().unwrap().truncate(length);
            let earlier = key(&earlier, true);
            assert_eq!(earlier.0, whole.0, "{} after {length}", case["id"]);
            assert_ne!(earlier.1, whole.1, "{} after {length}", case["id"]);
            turns += 1;
        }
    }
    eprintln!("{turns} earlier turns of recorded conversations read");
}

#[test]
fn streams_say_what_was_recorded() {
    let mut read = 0;
    for (api, case) in cases() {
        let Some(stream) = case["upstream_response"]["sse"].as_str() else {
            continue;
        };
        for size in [1, 7, 64, stream.len()] {
            let events = events(stream.as_bytes(), size);
            let raw: Vec<u8> = events.iter().flat_map(|event| event.raw.to_vec()).collect();
            assert!(
                raw == stream.as_bytes(),
                "{} by {size} is not byte for byte",
                case["id"]
            );
            let mut usage: Option<Usage> = None;
            let mut text = String::new();
            let mut answers = 0;
            for event in &events {
                let facts = event_facts(api, event.name(), event.data());
                if event.name() == "message_start" {
                    // A recording of several answers in a row counts the usage of the last.
                    answers += 1;
                    usage = None;
                }
                text.push_str(&facts.delta);
                if api == Api::Responses {
                    let answer = terminal_response(event.data());
                    assert_eq!(answer.is_some(), facts.terminal, "{}", case["id"]);
                    let answer = answer.map(|span| response_facts(api, &event.data()[span]));
                    let told = answer.map_or(facts.usage, |answer| answer.usage);
                    assert_eq!(told, facts.usage, "{}", case["id"]);
                }
                if let Some(later) = facts.usage {
                    usage.get_or_insert_default().absorb(later);
                }
                if let Some(span) = facts.model_span {
                    assert!(
                        serde_json::from_slice::<String>(&event.data()[span]).is_ok(),
                        "{}",
                        case["id"]
                    );
                }
            }
            same_usage(&case, usage);
            // It also mixes their texts by block, which no reader of one stream does; recordings of
            // responses leave deltas out.
            if answers < 2 && api != Api::Responses {
                let expected = case["semantic"]["text"].as_str().unwrap_or("");
                assert_eq!(text, expected, "{}", case["id"]);
            }
        }
        read += 1;
    }
    eprintln!("{read} recorded streams read");
}

#[test]
fn whole_answers_say_what_was_recorded() {
    let mut read = 0;
    for (api, case) in cases() {
        let answer = &case["upstream_response"];
        if answer.get("sse").is_some() {
            continue;
        }
        let body = serde_json::to_vec(answer).unwrap();
        let facts = response_facts(api, &body);
        same_usage(&case, facts.usage);
        if let Some(model) = answer["model"].as_str() {
            let span = facts.model_span.unwrap();
            assert_eq!(
                serde_json::from_slice::<String>(&body[span]).unwrap(),
                model,
                "{}",
                case["id"]
            );
        }
        read += 1;
    }
    eprintln!("{read} recorded answers read");
}
