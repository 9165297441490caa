//! The answer of Anthropic's Messages, whole and as a stream.

use crate::script::{Delta, PromptUsage, Reply, Script};
use crate::words::text;

pub(crate) fn unary(reply: &Reply) -> String {
    let Reply {
        roll,
        model_json,
        tokens,
        ..
    } = reply;
    let usage = usage_member(reply.usage, *tokens);
    let (reason, text) = (stop_reason(reply), text(*roll, *tokens));
    format!(
        concat!(
            r#"{{"id":"msg_{:016x}","type":"message","role":"assistant","model":{},"#,
            r#""content":[{{"type":"text","text":"{}"}}],"stop_reason":"{}","stop_sequence":null{}}}"#
        ),
        roll, model_json, text, reason, usage
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
        let usage = reply.usage.map_or_else(String::new, |_| {
            format!(r#","usage":{{"output_tokens":{tokens}}}"#)
        });
        let reason = stop_reason(reply);
        vec![
            event("content_block_stop", r#","index":0"#),
            event(
                "message_delta",
                &format!(r#","delta":{{"stop_reason":"{reason}","stop_sequence":null}}{usage}"#),
            ),
            event("message_stop", ""),
        ]
    };
    Script {
        roll: *roll,
        opening: vec![
            start,
            event("content_block_start", r#","index":0,"content_block":{"type":"text","text":""}"#),
            event("ping", ""),
        ],
        tokens: reply.streamed_tokens(),
        delta: Delta {
            before: concat!(
                "event: content_block_delta\n",
                r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""#
            )
            .to_owned(),
            after: concat!(r#""}}"#, "\n\n"),
            sequence: None,
            end: "",
        },
        closing,
    }
}

fn event(kind: &str, members: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{members}}}\n\n")
}

fn stop_reason(reply: &Reply) -> &'static str {
    if reply.truncated {
        "max_tokens"
    } else {
        "end_turn"
    }
}

/// Anthropic counts cached tokens apart from `input_tokens`.
fn usage_member(usage: Option<PromptUsage>, output: u32) -> String {
    let Some(PromptUsage { prompt, cached }) = usage else {
        return String::new();
    };
    let fresh = prompt.saturating_sub(cached);
    format!(
        concat!(
            r#","usage":{{"input_tokens":{},"cache_creation_input_tokens":0,"cache_read_input_tokens":{},"#,
            r#""output_tokens":{},"service_tier":"standard"}}"#
        ),
        fresh, cached, output
    )
}

const ERROR: &str = concat!(
    "event: error\n",
    r#"data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
    "\n\n"
);
