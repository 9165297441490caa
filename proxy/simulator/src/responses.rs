//! The answer of OpenAI's Responses, whole and as a stream.

use crate::script::{Delta, PromptUsage, Reply, Script};
use crate::words::text;

pub(crate) fn unary(reply: &Reply) -> String {
    let output = item(
        reply.roll,
        final_status(reply),
        &text(reply.roll, reply.tokens),
    );
    response(
        reply,
        final_status(reply),
        &output,
        &usage_json(reply.usage, reply.tokens),
    )
}

pub(crate) fn script(reply: &Reply) -> Script {
    let roll = reply.roll;
    let tokens = reply.streamed_tokens();
    let begun = response(reply, "in_progress", "", "null");
    let place = format!(r#""item_id":"msg_{roll:016x}","output_index":0,"content_index":0"#);
    let empty_item = format!(
        r#""output_index":0,"item":{{"id":"msg_{roll:016x}","type":"message","status":"in_progress","role":"assistant","content":[]}}"#
    );
    let opening = vec![
        event("response.created", 0, &format!(r#""response":{begun}"#)),
        event("response.in_progress", 1, &format!(r#""response":{begun}"#)),
        event("response.output_item.added", 2, &empty_item),
        event(
            "response.content_part.added",
            3,
            &format!(r#"{place},"part":{}"#, part("")),
        ),
    ];
    let deltas_from = opening.len() as u64;
    let next = deltas_from + u64::from(tokens);
    let closing = if reply.error_event.is_some() {
        vec![event(
            "error",
            next,
            r#""code":"server_error","message":"The server had an error.","param":null"#,
        )]
    } else {
        let text = text(roll, reply.tokens);
        let status = final_status(reply);
        let done = item(roll, status, &text);
        let whole = response(reply, status, &done, &usage_json(reply.usage, reply.tokens));
        vec![
            event(
                "response.output_text.done",
                next,
                &format!(r#"{place},"text":"{text}","logprobs":[]"#),
            ),
            event(
                "response.content_part.done",
                next + 1,
                &format!(r#"{place},"part":{}"#, part(&text)),
            ),
            event(
                "response.output_item.done",
                next + 2,
                &format!(r#""output_index":0,"item":{done}"#),
            ),
            event(
                &format!("response.{status}"),
                next + 3,
                &format!(r#""response":{whole}"#),
            ),
        ]
    };
    Script {
        roll,
        opening,
        tokens,
        delta: Delta {
            before: format!(
                "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",{place},\"delta\":\""
            ),
            after: r#"","logprobs":[],"sequence_number":"#,
            sequence: Some(deltas_from),
            end: "}\n\n",
        },
        closing,
    }
}

fn event(kind: &str, sequence: u64, members: &str) -> String {
    format!(
        "event: {kind}\ndata: {{\"type\":\"{kind}\",{members},\"sequence_number\":{sequence}}}\n\n"
    )
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

fn item(roll: u64, status: &str, text: &str) -> String {
    format!(
        r#"{{"id":"msg_{roll:016x}","type":"message","status":"{status}","role":"assistant","content":[{}]}}"#,
        part(text)
    )
}

fn response(reply: &Reply, status: &str, output: &str, usage: &str) -> String {
    let Reply {
        roll,
        model_json,
        created,
        ..
    } = reply;
    let details = if status == "incomplete" {
        r#"{"reason":"max_output_tokens"}"#
    } else {
        "null"
    };
    format!(
        concat!(
            r#"{{"id":"resp_{:016x}","object":"response","created_at":{},"status":"{}","background":false,"error":null,"#,
            r#""incomplete_details":{},"instructions":null,"max_output_tokens":null,"metadata":{{}},"model":{},"#,
            r#""output":[{}],"parallel_tool_calls":true,"previous_response_id":null,"#,
            r#""reasoning":{{"effort":null,"summary":null}},"store":false,"temperature":1.0,"#,
            r#""text":{{"format":{{"type":"text"}}}},"tool_choice":"auto","tools":[],"top_p":1.0,"#,
            r#""truncation":"disabled","usage":{}}}"#
        ),
        roll, created, status, details, model_json, output, usage
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
