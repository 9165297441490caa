//! 1.8: embeddings.

use weir_tests::caller::post;

use super::row::{Row, recorded, refused, served, walk};

const PATH: &str = "/v1/embeddings";

fn of(input: &str) -> String {
    format!(r#"{{"model":"demo/sim","input":{input}}}"#)
}

#[tokio::test]
async fn what_may_be_embedded() {
    let (gateway, recorder) = recorded(|config| config).await;
    let many = |count: usize| format!("[{}]", vec![r#""a""#; count].join(","));
    let rows = vec![
        served("1.8 a string", post(PATH, of(r#""a""#)))
            .saw_path(PATH)
            .saw("/input", "a")
            .told("/object", "list")
            .told("/model", "demo/sim"),
        served("1.8 an array of strings", post(PATH, of(r#"["a","b"]"#))).saw("/input/1", "b"),
        served("1.8 2048 of them", post(PATH, of(&many(2048)))),
        served(
            "1.8 departs: a list of token ids, as OpenAI",
            post(PATH, of("[1,2,3]")),
        )
        .saw("/input/2", 3),
        served(
            "1.8 departs: lists of token ids, as OpenAI",
            post(PATH, of("[[1,2],[3]]")),
        )
        .saw("/input/1/0", 3),
        served(
            "1.8 everything but the model goes on as it came",
            post(
                PATH,
                r#"{"model":"demo/sim","input":"a","encoding_format":"base64","dimensions":8}"#,
            ),
        )
        .saw("/encoding_format", "base64")
        .saw("/dimensions", 8),
        served("1.9 no stickiness", post(PATH, of(r#""a""#)))
            .no_headers(&["x-multi-turn-session-id"]),
        bad(
            "more than 2048",
            &many(2049),
            "too_many_inputs",
            "'input' array is too large, must be less than 2048 elements",
        ),
        bad(
            "an empty array",
            "[]",
            "empty_input",
            "'input' array must not be empty",
        ),
        bad(
            "an empty string among others",
            r#"["a","","b"]"#,
            "empty_input",
            "'input.1' must not be empty",
        ),
        bad(
            "an empty list of token ids among others",
            "[[1],[]]",
            "empty_input",
            "'input.1' must not be empty",
        ),
        bad("an empty string", r#""""#, "empty_input", "'input"),
        wrong("a number", "5"),
        wrong("an object", "{}"),
        wrong("a boolean", "true"),
        wrong("null", "null"),
        wrong("an array of objects", "[{}]"),
        wrong("a mixture", r#"["a",1]"#),
        refused(
            "1.8 no input",
            post(PATH, r#"{"model":"demo/sim"}"#),
            400,
            "invalid_type",
        )
        .says("`input`: Must be either a string or an array of string")
        .told("/error/param", "input"),
    ];
    walk(&gateway, &recorder, rows).await;
}

fn bad(what: &str, input: &str, code: &'static str, text: &'static str) -> Row {
    refused(format!("1.8 {what}"), post(PATH, of(input)), 400, code)
        .says(text)
        .told("/error/param", "input")
        .told("/error/type", "invalid_request_error")
}

fn wrong(what: &str, input: &str) -> Row {
    bad(
        what,
        input,
        "invalid_type",
        "`input`: Must be either a string or an array of string",
    )
}
