//! 1.2: the model string, the routing key, and the paths a model answers on.

use serde_json::{Value, json};
use weir_tests::caller::{chat, post};

use super::row::{
    PATHS, Row, call, call_body, chat_of, holds, recorded, refused, same, served, walk,
};

const MODELS: &str = r#"
[functions.demo.models."vendor/sim"]
cluster = "sim"
[functions.Demo2.models.sim]
cluster = "sim"
[functions.3f2504e0-4f89-11d3-9a0c-0305e82c3301.models.sim]
cluster = "sim"
[functions.3F25-not-a-uuid.models.sim]
cluster = "sim"
[functions.demo.models.picky]
cluster = "sim"
uris = ["/v1/Embeddings/"]
[functions.demo.models.open]
cluster = "sim"
uris = []
"#;

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn the_model_string() {
    let (gateway, recorder) = recorded(|config| config.more(MODELS)).await;
    let rows = found().into_iter().chain(not_found()).chain(bad());
    walk(&gateway, &recorder, rows.collect()).await;
}

fn found() -> Vec<Row> {
    vec![
        served("1.2 split at the first slash", chat_of("demo/sim"))
            .saw("/model", "sim")
            .told("/model", "demo/sim"),
        served(
            "1.2 the routed model may hold slashes",
            chat_of("demo/vendor/sim"),
        )
        .saw("/model", "vendor/sim")
        .told("/model", "demo/vendor/sim"),
        served(
            "1.2 a UUID routing key is lower-cased",
            chat_of("3F2504E0-4F89-11D3-9A0C-0305E82C3301/sim"),
        )
        .saw("/model", "sim")
        .told("/model", "3F2504E0-4F89-11D3-9A0C-0305E82C3301/sim"),
        served(
            "1.2 any other routing key stays as it is",
            chat_of("Demo2/sim"),
        )
        .saw("/model", "sim"),
        served(
            "1.2 a routing key that only begins as a UUID stays as it is",
            chat_of("3F25-not-a-uuid/sim"),
        ),
        served("1.2 an escaped slash is a slash", chat_of(r"demo\/sim"))
            .saw("/model", "sim")
            .told("/model", "demo/sim"),
    ]
}

fn not_found() -> Vec<Row> {
    let cases = [
        ("an unknown model", "demo/none"),
        ("an unknown function", "none/sim"),
        ("another letter case of a key that is no UUID", "DEMO2/sim"),
        ("another letter case of a model", "demo/SIM"),
    ];
    let row = |(what, model): (&str, &'static str)| {
        let name = format!("1.2 departs: {what} is 404, as OpenAI says it");
        refused(name, chat_of(model), 404, "model_not_found")
            .told("/error/param", "model")
            .told("/error/type", "invalid_request_error")
            .says(format!("The model '{model}' does not exist"))
    };
    cases.map(row).into()
}

fn bad() -> Vec<Row> {
    let hi = r#""messages":[{"role":"user","content":"hi"}]"#;
    let cases = [
        (
            "no model",
            format!("{{{hi}}}"),
            "missing_model",
            "model is required",
        ),
        (
            "an empty model",
            format!(r#"{{"model":"",{hi}}}"#),
            "missing_model",
            "model is required",
        ),
        (
            "a null for the model",
            format!(r#"{{"model":null,{hi}}}"#),
            "missing_model",
            "model is required",
        ),
        (
            "a number for the model",
            format!(r#"{{"model":5,{hi}}}"#),
            "invalid_type",
            "`model`: must be a string",
        ),
        (
            "no slash",
            format!(r#"{{"model":"sim",{hi}}}"#),
            "invalid_model",
            "model prefix is required",
        ),
        (
            "nothing before the slash",
            format!(r#"{{"model":"/sim",{hi}}}"#),
            "invalid_model",
            "routing key is required before model",
        ),
        (
            "nothing behind the slash",
            format!(r#"{{"model":"demo/",{hi}}}"#),
            "invalid_model",
            "model suffix is required after routing key",
        ),
        (
            "no messages",
            r#"{"model":"demo/sim"}"#.to_owned(),
            "missing_messages",
            "messages is required",
        ),
        (
            "empty messages",
            r#"{"model":"demo/sim","messages":[]}"#.to_owned(),
            "missing_messages",
            "messages is required",
        ),
    ];
    let row = |(what, body, code, text): (&str, String, &'static str, &str)| {
        let param = text.trim_start_matches('`').split([' ', '`']).next();
        let param = param.filter(|word| *word == "messages").unwrap_or("model");
        refused(format!("1.2 {what}"), post(CHAT, body), 400, code)
            .says(text)
            .told("/error/param", param)
    };
    cases.map(row).into()
}

#[tokio::test]
async fn the_name_is_the_callers_on_the_way_back() {
    let (gateway, recorder) = recorded(|config| config).await;
    let mut rows: Vec<Row> = PATHS
        .map(|path| {
            served(
                format!("1.2 {path}: the model in the answer"),
                call(path, ""),
            )
            .saw_path(path)
            .saw("/model", "sim")
            .told("/model", "demo/sim")
        })
        .into();
    for path in ["/v1/responses", "/v1/messages"] {
        let row = served(
            format!("1.2 {path}: the model in the events"),
            call(path, r#""stream":true"#),
        );
        rows.push(
            row.saw("/model", "sim")
                .text(r#""model":"demo/sim""#)
                .no_text(r#""model":"sim""#),
        );
    }
    rows.push(
        served(
            "1.2 chat: the model in each chunk",
            chat(r#""stream":true"#),
        )
        .saw("/model", "sim")
        .done_with_model("demo/sim"),
    );
    let body = "{ \"messages\" : [ {\"role\":\"user\",\"content\":\"a\\u00e9\"} ],\n \"model\":\"demo/sim\" , \"x\":1.0 }";
    rows.push(
        served("1.2 nothing but the model is edited", post(CHAT, body))
            .seen(move |seen| same("the body", &seen.text(), &body.replace("demo/sim", "sim"))),
    );
    walk(&gateway, &recorder, rows).await;
}

#[tokio::test]
async fn the_paths_a_model_answers_on() {
    let (gateway, recorder) = recorded(|config| config.more(MODELS)).await;
    let asked = |path, model| post(path, call_body(path, model, ""));
    let mut rows: Vec<Row> = PATHS
        .into_iter()
        .filter(|path| *path != "/v1/embeddings")
        .map(|path| {
            refused(
                format!("1.2 departs: `uris` counts on {path} too"),
                asked(path, "demo/picky"),
                400,
                "endpoint_not_supported",
            )
            .says(format!(r#"model "demo/picky" does not support {path}"#))
        })
        .collect();
    rows.push(served(
        "1.2 a slash at the end and letter case do not matter in `uris`",
        asked("/v1/embeddings", "demo/picky"),
    ));
    for path in PATHS {
        rows.push(served(
            format!("1.2 without `uris` {path} is allowed"),
            asked(path, "demo/sim"),
        ));
        rows.push(served(
            format!("1.2 with empty `uris` {path} is allowed"),
            asked(path, "demo/open"),
        ));
    }
    walk(&gateway, &recorder, rows).await;
}

/// What decides admission must mean the same to every reader of the body.
#[tokio::test]
async fn members_that_decide_admission() {
    let (gateway, recorder) = recorded(|config| config).await;
    let mut rows = Vec::new();
    for path in PATHS {
        for (what, members, param) in [
            ("a second model", r#""model":"demo/x""#, "model"),
            (
                "a second model in disguise",
                r#""m\u006fdel":"demo/x""#,
                "model",
            ),
            (
                "a model in other letter case",
                r#""Model":"demo/x""#,
                "model",
            ),
            (
                "a second stream",
                r#""stream":false,"stream":true"#,
                "stream",
            ),
        ] {
            if path == "/v1/embeddings" && param == "stream" {
                continue;
            }
            let row = refused(
                format!("1.10 {path}: {what}"),
                call(path, members),
                400,
                "duplicate_member",
            );
            rows.push(match path {
                "/v1/messages" => row.told("/error/type", "invalid_request_error"),
                _ => row.told("/error/param", param),
            });
        }
        let what = "what is not admission's may stand twice";
        rows.push(
            served(format!("1.2 {path}: {what}"), call(path, r#""x":1,"x":2"#)).seen(|seen| {
                holds(
                    seen.text().contains(r#""x":1,"x":2"#),
                    &format!("the body is {}", seen.text()),
                )
            }),
        );
    }
    let cases = [
        ("text for stream", r#""stream":"yes""#, "stream"),
        (
            "text for max_tokens",
            r#""max_tokens":"many""#,
            "max_tokens",
        ),
        (
            "a number for stream_options",
            r#""stream":true,"stream_options":5"#,
            "stream_options",
        ),
    ];
    for (what, members, param) in cases {
        let row = refused(format!("1.2 {what}"), chat(members), 400, "invalid_type");
        rows.push(row.told("/error/param", param));
    }
    let bodies: [(&str, &str); 5] = [
        ("nothing", ""),
        ("half a value", "{"),
        ("two values", "{} {}"),
        ("an array", "[]"),
        ("a form", "model=demo%2Fsim"),
    ];
    for (what, body) in bodies {
        for path in PATHS {
            let name = format!("1.2 {path}: {what} for a body");
            rows.push(refused(name, post(path, body), 400, "invalid_json"));
        }
    }
    let deep = format!(
        r#"{{"model":"demo/sim","x":{}{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    rows.push(refused(
        "9 #16 a body nested too deeply",
        post(CHAT, deep),
        400,
        "too_deep",
    ));
    let null: Value = json!(null);
    rows.push(
        served(
            "1.2 null is as if not given",
            chat(r#""stream":null,"max_tokens":null"#),
        )
        .saw("/stream", null),
    );
    walk(&gateway, &recorder, rows).await;
}
