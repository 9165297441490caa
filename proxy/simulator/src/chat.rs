//! The answer of Chat Completions, whole and as a stream.

use serde_json::Value;

use crate::script::{Delta, PromptUsage, Reply, Script};
use crate::tool::Tool;
use crate::words::text;

pub(crate) fn unary(reply: &Reply) -> String {
    let Reply {
        roll,
        model_json,
        created,
        tokens,
        ..
    } = reply;
    let usage = reply.usage.map_or_else(String::new, |usage| {
        format!(r#","usage":{}"#, usage_json(usage, *tokens))
    });
    let content = match &reply.tool {
        None => format!(r#""content":"{}","refusal":null"#, text(*roll, *tokens)),
        Some(tool) => format!(
            r#""content":null,"tool_calls":[{{"id":"call_{roll:016x}","type":"function","function":{{"name":{},"arguments":{}}}}}],"refusal":null"#,
            tool.name_json,
            Value::from(tool.arguments(*roll, *tokens))
        ),
    };
    format!(
        concat!(
            r#"{{"id":"chatcmpl-{roll:016x}","object":"chat.completion","created":{created},"model":{model},"#,
            r#""choices":[{{"index":0,"message":{{"role":"assistant",{content},"annotations":[]}},"#,
            r#""logprobs":null,"finish_reason":"{finish}"}}]{usage},"service_tier":"default","system_fingerprint":"fp_sim"}}"#
        ),
        roll = roll,
        created = created,
        model = model_json,
        content = content,
        finish = finish_reason(reply),
        usage = usage,
    )
}

pub(crate) fn script(reply: &Reply) -> Script {
    let Reply {
        roll,
        model_json,
        created,
        ..
    } = reply;
    let chunk = format!(
        concat!(
            r#"data: {{"id":"chatcmpl-{:016x}","object":"chat.completion.chunk","created":{},"model":{},"#,
            r#""service_tier":"default","system_fingerprint":"fp_sim","choices":["#
        ),
        roll, created, model_json
    );
    let asked_usage = reply.usage.filter(|_| reply.include_usage);
    let end = if asked_usage.is_some() {
        concat!(r#"],"usage":null}"#, "\n\n")
    } else {
        "]}\n\n"
    };
    let event = |delta: &str, reason: &str| {
        format!(
            r#"{chunk}{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}{end}"#
        )
    };
    let (opening, before, after, end_of_call) = match &reply.tool {
        None => {
            let role = r#"{"role":"assistant","content":"","refusal":null}"#;
            let before = format!(r#"{chunk}{{"index":0,"delta":{{"content":""#);
            (vec![event(role, "null")], before, r#""}"#, None)
        }
        Some(tool) => {
            let call = format!(
                r#"{{"role":"assistant","content":null,"tool_calls":[{{"index":0,"id":"call_{roll:016x}","type":"function","function":{{"name":{},"arguments":""}}}}],"refusal":null}}"#,
                tool.name_json
            );
            let piece = |text: &str| {
                let text = Value::from(text);
                event(
                    &format!(
                        r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":{text}}}}}]}}"#
                    ),
                    "null",
                )
            };
            let before = format!(
                r#"{chunk}{{"index":0,"delta":{{"tool_calls":[{{"index":0,"function":{{"arguments":""#
            );
            let opening = vec![event(&call, "null"), piece(&tool.opening())];
            (opening, before, r#""}}]}"#, Some(piece(Tool::CLOSING)))
        }
    };
    let after = format!(r#"{after},"logprobs":null,"finish_reason":null}}{end}"#);
    let closing = if reply.error_event.is_some() {
        vec![ERROR.to_owned()]
    } else {
        let finish = finish_reason(reply);
        let mut closing: Vec<String> = end_of_call.into_iter().collect();
        closing.push(event("{}", &format!("\"{finish}\"")));
        if let Some(usage) = asked_usage {
            closing.push(format!(
                "{chunk}],\"usage\":{}}}\n\n",
                usage_json(usage, reply.tokens)
            ));
        }
        closing.push("data: [DONE]\n\n".to_owned());
        closing
    };
    Script {
        roll: *roll,
        opening,
        tokens: reply.streamed_tokens(),
        delta: Delta {
            before,
            after,
            sequence: None,
            end: "",
        },
        closing,
    }
}

fn finish_reason(reply: &Reply) -> &'static str {
    match (&reply.tool, reply.truncated) {
        (_, true) => "length",
        (Some(_), false) => "tool_calls",
        (None, false) => "stop",
    }
}

fn usage_json(usage: PromptUsage, completion: u32) -> String {
    let PromptUsage { prompt, cached } = usage;
    let total = prompt + u64::from(completion);
    format!(
        concat!(
            r#"{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},"#,
            r#""prompt_tokens_details":{{"cached_tokens":{},"audio_tokens":0}},"#,
            r#""completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"#,
            r#""accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#
        ),
        prompt, completion, total, cached
    )
}

const ERROR: &str = concat!(
    r#"data: {"error":{"message":"The server had an error while processing your request.","type":"server_error","#,
    r#""param":null,"code":null}}"#,
    "\n\n"
);
