//! The answer of OpenAI's Responses, whole and as a stream.

use serde_json::Value;

use crate::script::{Delta, PromptUsage, Reply, Script};
use crate::tool::Tool;
use crate::words::text;

pub(crate) fn unary(reply: &Reply) -> String {
    let status = final_status(reply);
    response(
        reply,
        status,
        &item(reply, status),
        &usage_json(reply.usage, reply.tokens),
    )
}

pub(crate) fn script(reply: &Reply) -> Script {
    let begun = format!(
        r#""response":{}"#,
        response(reply, "in_progress", "", "null")
    );
    let Told {
        mut opening,
        delta,
        after,
        closing,
    } = match &reply.tool {
        None => told_text(reply),
        Some(tool) => told_call(reply, tool),
    };
    opening.splice(
        0..0,
        [
            ("response.created", begun.clone()),
            ("response.in_progress", begun),
        ],
    );
    let tokens = reply.streamed_tokens();
    let deltas_from = opening.len() as u64;
    let closing = if reply.error_event.is_some() {
        failure(reply)
    } else {
        let status = final_status(reply);
        let whole = response(
            reply,
            status,
            &item(reply, status),
            &usage_json(reply.usage, reply.tokens),
        );
        let last = match status {
            "incomplete" => "response.incomplete",
            _ => "response.completed",
        };
        let mut closing = closing;
        closing.push((last, format!(r#""response":{whole}"#)));
        closing
    };
    Script {
        roll: reply.roll,
        opening: numbered(0, opening),
        tokens,
        delta: Delta {
            before: delta,
            after,
            sequence: Some(deltas_from),
            end: "}\n\n",
        },
        closing: numbered(deltas_from + u64::from(tokens), closing),
    }
}

/// The events of one output item, around the deltas: kinds, and members but for the number.
struct Told {
    opening: Vec<(&'static str, String)>,
    delta: String,
    after: String,
    closing: Vec<(&'static str, String)>,
}

fn told_text(reply: &Reply) -> Told {
    let roll = reply.roll;
    let place = format!(r#""item_id":"msg_{roll:016x}","output_index":0,"content_index":0"#);
    let text = text(roll, reply.tokens);
    let empty_item = format!(
        r#""output_index":0,"item":{{"id":"msg_{roll:016x}","type":"message","status":"in_progress","role":"assistant","content":[]}}"#
    );
    Told {
        opening: vec![
            ("response.output_item.added", empty_item),
            (
                "response.content_part.added",
                format!(r#"{place},"part":{}"#, part("")),
            ),
        ],
        delta: delta("response.output_text.delta", &place),
        after: r#"","logprobs":[],"sequence_number":"#.to_owned(),
        closing: vec![
            (
                "response.output_text.done",
                format!(r#"{place},"text":"{text}","logprobs":[]"#),
            ),
            (
                "response.content_part.done",
                format!(r#"{place},"part":{}"#, part(&text)),
            ),
            item_done(reply),
        ],
    }
}

fn told_call(reply: &Reply, tool: &Tool) -> Told {
    let roll = reply.roll;
    let place = format!(r#""item_id":"fc_{roll:016x}","output_index":0"#);
    let piece = |text: &str| {
        let text = Value::from(text);
        (
            "response.function_call_arguments.delta",
            format!(r#"{place},"delta":{text}"#),
        )
    };
    let arguments = Value::from(tool.arguments(roll, reply.tokens));
    let begun = call(roll, tool, "in_progress", "\"\"");
    Told {
        opening: vec![
            (
                "response.output_item.added",
                format!(r#""output_index":0,"item":{begun}"#),
            ),
            piece(&tool.opening()),
        ],
        delta: delta("response.function_call_arguments.delta", &place),
        after: r#"","sequence_number":"#.to_owned(),
        closing: vec![
            piece(Tool::CLOSING),
            (
                "response.function_call_arguments.done",
                format!(
                    r#"{place},"name":{},"arguments":{arguments}"#,
                    tool.name_json
                ),
            ),
            item_done(reply),
        ],
    }
}

/// The beginning of an event up to its text.
fn delta(kind: &str, place: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",{place},\"delta\":\"")
}

fn item_done(reply: &Reply) -> (&'static str, String) {
    let done = item(reply, final_status(reply));
    (
        "response.output_item.done",
        format!(r#""output_index":0,"item":{done}"#),
    )
}

fn failure(reply: &Reply) -> Vec<(&'static str, String)> {
    let error = r#""error":{"type":"server_error","code":"server_error","message":"The server had an error.","param":null}"#;
    let failed = response(reply, "failed", "", "null");
    vec![
        ("error", error.to_owned()),
        ("response.failed", format!(r#""response":{failed}"#)),
    ]
}

fn numbered(first: u64, events: Vec<(&'static str, String)>) -> Vec<String> {
    let event = |(number, (kind, members)): (u64, (&str, String))| {
        format!(
            "event: {kind}\ndata: {{\"type\":\"{kind}\",{members},\"sequence_number\":{number}}}\n\n"
        )
    };
    (first..).zip(events).map(event).collect()
}

fn final_status(reply: &Reply) -> &'static str {
    if reply.truncated {
        "incomplete"
    } else {
        "completed"
    }
}

fn part(text: &str) -> String {
    format!(r#"{{"type":"output_text","text":"{text}","annotations":[],"logprobs":[]}}"#)
}

/// The one item of the output.
fn item(reply: &Reply, status: &str) -> String {
    let roll = reply.roll;
    if let Some(tool) = &reply.tool {
        let arguments = Value::from(tool.arguments(roll, reply.tokens)).to_string();
        return call(roll, tool, status, &arguments);
    }
    let part = part(&text(roll, reply.tokens));
    format!(
        r#"{{"id":"msg_{roll:016x}","type":"message","status":"{status}","role":"assistant","content":[{part}]}}"#
    )
}

fn call(roll: u64, tool: &Tool, status: &str, arguments_json: &str) -> String {
    let name = &tool.name_json;
    format!(
        r#"{{"id":"fc_{roll:016x}","type":"function_call","status":"{status}","call_id":"call_{roll:016x}","name":{name},"arguments":{arguments_json}}}"#
    )
}

fn response(reply: &Reply, status: &str, output: &str, usage: &str) -> String {
    let Reply {
        roll,
        model_json,
        created,
        ..
    } = reply;
    let details = match status {
        "incomplete" => r#"{"reason":"max_output_tokens"}"#,
        _ => "null",
    };
    let error = match status {
        "failed" => r#"{"code":"server_error","message":"The server had an error."}"#,
        _ => "null",
    };
    format!(
        concat!(
            r#"{{"id":"resp_{:016x}","object":"response","created_at":{},"status":"{}","background":false,"error":{},"#,
            r#""incomplete_details":{},"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"model":{},"#,
            r#""output":[{}],"parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,"#,
            r#""prompt_cache_retention":null,"reasoning":{{"effort":null,"summary":null}},"safety_identifier":null,"#,
            r#""service_tier":"default","store":false,"temperature":1.0,"#,
            r#""text":{{"format":{{"type":"text"}},"verbosity":"medium"}},"tool_choice":"auto","tools":[],"#,
            r#""top_logprobs":0,"top_p":1.0,"truncation":"disabled","usage":{},"user":null,"metadata":{{}}}}"#
        ),
        roll, created, status, error, details, model_json, output, usage
    )
}

fn usage_json(usage: Option<PromptUsage>, output: u32) -> String {
    let Some(PromptUsage { prompt, cached }) = usage else {
        return "null".to_owned();
    };
    let total = prompt + u64::from(output);
    format!(
        concat!(
            r#"{{"input_tokens":{},"input_tokens_details":{{"cached_tokens":{}}},"output_tokens":{},"#,
            r#""output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{}}}"#
        ),
        prompt, cached, output, total
    )
}
