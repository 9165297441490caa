//! 1.5: token and request budgets, and what callers are told of them. The grammar of limits stands in
//! `rate_limit` of weir-config, sums under a crowd in `limits` of the suite.

use http::Request;
use weir_tests::caller::{Body, chat_body, post};

use super::recorder::json_answer;
use super::row::{Row, call_body, holds, recorded, refused, row, same, served, walk};

const MODELS: &str = r#"
[functions.demo.models.week]
cluster = "sim"
upstream_model = "sim"
token_rate_limit = "1000-W"
[functions.demo.models.twin]
cluster = "sim"
token_rate_limit = "1000-W"
[functions.demo.models.minute]
cluster = "sim"
upstream_model = "sim"
token_rate_limit = "1000-M,100000-D"
[functions.demo.models.requests]
cluster = "sim"
request_rate_limit = "2-W"
[functions.demo.models.input]
cluster = "sim"
input_token_rate_limit = "100-W"
[functions.demo.models.output]
cluster = "sim"
output_token_rate_limit = "100-W"
[functions.demo.models.free]
cluster = "sim"
"#;

fn chat(model: &str, members: &str) -> Request<Body> {
    post(
        "/v1/chat/completions",
        chat_body(&format!("demo/{model}"), members),
    )
}

/// A refusal in the documented words.
fn limited(what: &str, request: Request<Body>) -> Row {
    refused(format!("1.5 {what}"), request, 429, "rate_limit_exceeded")
        .says("rate limit exceeded")
        .told("/error/type", "rate_limit_error")
}

/// A completion that reports this many tokens in all.
fn of_tokens(total: u64) -> Vec<u8> {
    let body = weir_tests::upstream::completion("ok").replace(
        r#""completion_tokens":3,"total_tokens":10"#,
        &format!(
            r#""completion_tokens":{},"total_tokens":{total}"#,
            total - 7
        ),
    );
    json_answer("200 OK", &body)
}

/// A header of the answer as a number within bounds.
fn number(row: Row, name: &'static str, min: u64, max: u64) -> Row {
    row.check(move |done| {
        let text = done.answer.header(name);
        let number: u64 = text.parse().map_err(|_| format!("{name} is {text:?}"))?;
        let text = format!("{name} is {number}, not within {min} and {max}");
        holds((min..=max).contains(&number), &text)
    })
}

#[tokio::test]
async fn budgets() {
    let (gateway, recorder) = recorded(|config| config.more(MODELS)).await;
    let mut rows = tokens();
    rows.extend(dimensions());
    rows.extend(told());
    walk(&gateway, &recorder, rows).await;
}

fn tokens() -> Vec<Row> {
    let debt = chat("week", r#""max_tokens":1"#);
    vec![
        number(
            limited(
                "more than a whole budget",
                chat("week", r#""max_tokens":2000"#),
            )
            .header("x-ratelimit-limit-tokens", "1000")
            .header("x-should-retry", "false"),
            "x-ratelimit-remaining-tokens",
            1000,
            1000,
        ),
        served("1.5 within the budget", chat("week", r#""max_tokens":900"#)),
        served(
            "1.5 what was not used was given back",
            chat("week", r#""max_tokens":900"#),
        ),
        served("9 #4 one may use more than was estimated", debt).upstream(of_tokens(3_000)),
        number(
            limited(
                "9 #4 and is in debt then: for longer than a window",
                chat("week", r#""max_tokens":1"#),
            )
            .header("x-ratelimit-remaining-tokens", "0")
            .header("x-should-retry", "false"),
            "retry-after",
            604_800,
            3 * 604_800,
        ),
        served(
            "9 #4 another model of the function has a budget of its own",
            chat("twin", r#""max_tokens":900"#),
        ),
        served(
            "1.5 a budget by the minute",
            chat("minute", r#""max_tokens":900"#),
        )
        .upstream(of_tokens(900)),
        number(
            limited(
                "a budget by the minute is worth waiting for",
                chat("minute", r#""max_tokens":900"#),
            )
            .header("x-ratelimit-limit-tokens", "1000")
            .no_headers(&["x-should-retry"])
            .check(|done| {
                let reset = done.answer.header("x-ratelimit-reset-tokens");
                holds(
                    reset.ends_with('s'),
                    &format!("x-ratelimit-reset-tokens is {reset:?}"),
                )
            }),
            "retry-after",
            30,
            60,
        ),
    ]
}

fn dimensions() -> Vec<Row> {
    let long = format!(r#""user":"{}""#, "u".repeat(2_000));
    let embeddings = |model: &str, text: &str| {
        let body = format!(r#"{{"model":"demo/{model}","input":"{text}"}}"#);
        post("/v1/embeddings", body)
    };
    vec![
        served("1.5 the first of two requests", chat("requests", ""))
            .header("x-ratelimit-limit-requests", "2")
            .header("x-ratelimit-remaining-requests", "1"),
        served("1.5 the second", embeddings("requests", "a"))
            .header("x-ratelimit-remaining-requests", "0"),
        limited("the third", chat("requests", r#""max_tokens":1"#))
            .header("x-ratelimit-limit-requests", "2")
            .header("x-ratelimit-remaining-requests", "0")
            .header("x-should-retry", "false"),
        served("1.5 little input", chat("input", r#""max_tokens":5000"#)),
        limited("much input", chat("input", &long)),
        served("1.5 little output", chat("output", r#""max_tokens":50"#)),
        limited("much output", chat("output", r#""max_tokens":5000"#)),
        served(
            "1.5 embeddings have no output",
            embeddings("output", &"e".repeat(4_000)),
        ),
        served(
            "1.5 a model without limits",
            chat("free", r#""max_tokens":50000"#),
        ),
    ]
}

/// Where one stands, in the words of NVCF, OpenAI, the IETF and Anthropic.
fn told() -> Vec<Row> {
    let messages = |model: &str, max_tokens: u64| {
        let body = call_body("/v1/messages", &format!("demo/{model}"), "");
        post(
            "/v1/messages",
            body.replace(
                r#""max_tokens":9"#,
                &format!(r#""max_tokens":{max_tokens}"#),
            ),
        )
    };
    let standing = number(
        served(
            "1.5 every answer says where one stands",
            chat("twin", r#""max_tokens":100"#),
        )
        .header("x-ratelimit-limit-tokens", "1000")
        .check(|done| {
            let policy = done.answer.header("ratelimit-policy");
            holds(
                policy.contains(";q=1000;w=604800"),
                &format!("ratelimit-policy is {policy:?}"),
            )?;
            let state = done.answer.header("ratelimit");
            holds(state.contains(";r="), &format!("ratelimit is {state:?}"))
        }),
        "x-ratelimit-remaining-tokens",
        800,
        1_000,
    );
    let stream = number(
        served(
            "1.5 streams say it too",
            chat("twin", r#""stream":true,"max_tokens":100"#),
        )
        .header("x-ratelimit-limit-tokens", "1000"),
        "x-ratelimit-remaining-tokens",
        800,
        1_000,
    );
    vec![
        standing,
        stream,
        served("1.5 in Anthropic's words", messages("twin", 100)).header("anthropic-ratelimit-tokens-limit", "1000"),
        refused("1.5 a refusal in Anthropic's words", messages("twin", 5_000), 429, "")
            .says("rate limit exceeded")
            .told("/error/type", "rate_limit_error")
            .header("anthropic-ratelimit-tokens-limit", "1000")
            .header("x-should-retry", "false"),
        row("1.5 the model server's own limit is its own", chat("free", ""))
            .upstream("HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 9\r\nx-ratelimit-limit-tokens: 5\r\ncontent-length: 2\r\n\r\n{}")
            .status(429)
            .header("retry-after", "9")
            .check(|done| same("the body", &done.answer.text().as_str(), &"{}")),
    ]
}
