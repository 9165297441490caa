//! The answer of Anthropic's Messages, whole and as a stream.

use serde_json::Value;

use crate::script::{Delta, PromptUsage, Reply, Script};
use crate::tool::Tool;
use crate::words::text;

pub(crate) fn unary(reply: &Reply) -> String {
    let Reply {
        roll,
        model_json,
        tokens,
        ..
    } = reply;
    let usage = usage_member(reply.usage, *tokens);
    let reason = stop_reason(reply);
    let block = match &reply.tool {
        None => format!(r#"{{"type":"text","text":"{}"}}"#, text(*roll, *tokens)),
        Some(tool) => tool_use(*roll, tool, &tool.arguments(*roll, *tokens)),
    };
    format!(
        concat!(
            r#"{{"id":"msg_{:016x}","type":"message","role":"assistant","model":{},"#,
            r#""content":[{}],"stop_reason":"{}","stop_sequence":null{}}}"#
        ),
        roll, model_json, block, reason, usage
    )
}

pub(crate) fn script(reply: &Reply) -> Script {
    let Reply {
        roll,
        model_json,
        tokens,
        ..
    } = reply;
    let start = format!(
        concat!(
            "event: message_start\n",
            r#"data: {{"type":"message_start","message":{{"id":"msg_{:016x}","type":"message","role":"assistant","#,
            r#""model":{},"content":[],"stop_reason":null,"stop_sequence":null{}}}}}"#,
            "\n\n"
        ),
        roll,
        model_json,
        usage_member(reply.usage, 1)
    );
    let closing = if reply.error_event.is_some() {
        vec![ERROR.to_owned()]
    } else {
        let usage = reply.usage.map_or_else(String::new, |usage| {
            format!(r#","usage":{{{},"output_tokens":{tokens}}}"#, input(usage))
        });
        let reason = stop_reason(reply);
        let end_of_call = reply.tool.as_ref().map(|_| partial_json(Tool::CLOSING));
        let mut closing: Vec<String> = end_of_call.into_iter().collect();
        closing.extend([
            event("content_block_stop", r#","index":0"#),
            event(
                "message_delta",
                &format!(r#","delta":{{"stop_reason":"{reason}","stop_sequence":null}}{usage}"#),
            ),
            event("message_stop", ""),
        ]);
        closing
    };
    let block = match &reply.tool {
        None => r#"{"type":"text","text":""}"#.to_owned(),
        Some(tool) => tool_use(*roll, tool, "{}"),
    };
    let mut opening = vec![
        start,
        event(
            "content_block_start",
            &format!(r#","index":0,"content_block":{block}"#),
        ),
        event("ping", ""),
    ];
    opening.extend(
        reply
            .tool
            .as_ref()
            .map(|tool| partial_json(&tool.opening())),
    );
    let delta = match &reply.tool {
        None => r#"{"type":"text_delta","text":""#,
        Some(_) => r#"{"type":"input_json_delta","partial_json":""#,
    };
    Script {
        roll: *roll,
        opening,
        tokens: reply.streamed_tokens(),
        delta: Delta {
            before: format!("{DELTA}{delta}"),
            after: concat!(r#""}}"#, "\n\n").to_owned(),
            sequence: None,
            end: "",
        },
        closing,
    }
}

/// An event with a piece of a tool's input.
fn partial_json(text: &str) -> String {
    let text = Value::from(text);
    format!("{DELTA}{{\"type\":\"input_json_delta\",\"partial_json\":{text}}}}}\n\n")
}

fn tool_use(roll: u64, tool: &Tool, input: &str) -> String {
    let name = &tool.name_json;
    format!(r#"{{"type":"tool_use","id":"toolu_{roll:016x}","name":{name},"input":{input}}}"#)
}

fn event(kind: &str, members: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{members}}}\n\n")
}

fn stop_reason(reply: &Reply) -> &'static str {
    match (&reply.tool, reply.truncated) {
        (_, true) => "max_tokens",
        (Some(_), false) => "tool_use",
        (None, false) => "end_turn",
    }
}

fn usage_member(usage: Option<PromptUsage>, output: u32) -> String {
    let Some(usage) = usage else {
        return String::new();
    };
    format!(
        concat!(
            r#","usage":{{{},"cache_creation":{{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0}},"#,
            r#""output_tokens":{},"service_tier":"standard"}}"#
        ),
        input(usage),
        output
    )
}

/// Anthropic counts cached tokens apart from `input_tokens`.
fn input(PromptUsage { prompt, cached }: PromptUsage) -> String {
    let fresh = prompt.saturating_sub(cached);
    format!(
        r#""input_tokens":{fresh},"cache_creation_input_tokens":0,"cache_read_input_tokens":{cached}"#
    )
}

const DELTA: &str = concat!(
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":"#
);

const ERROR: &str = concat!(
    "event: error\n",
    r#"data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
    "\n\n"
);
