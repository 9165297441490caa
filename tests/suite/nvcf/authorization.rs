//! 1.3: who may call, by key tables. Tokens and the authorization service, with its table of statuses,
//! stand in `auth` of the suite.

use http::Request;
use weir_tests::caller::{Body, chat, get, post, with_header};

use super::row::{PATHS, Row, call, chat_of, recorded, refused, row, served, walk};

const KEYS: &str = r#"
[[key_tables.demo.keys]]
id = "narrow"
key = "narrow-key"
models = ["demo/other"]
[functions.demo.models.other]
cluster = "sim"
"#;

fn with_key(request: Request<Body>, value: Option<&str>) -> Request<Body> {
    with_header(request, "authorization", value)
}

#[tokio::test]
async fn who_may_call() {
    let (gateway, recorder) = recorded(|config| config.more(KEYS)).await;
    let mut rows = strangers();
    rows.extend(narrow());
    walk(&gateway, &recorder, rows).await;
}

fn strangers() -> Vec<Row> {
    let mut rows = Vec::new();
    for path in PATHS {
        rows.push(
            refused(
                format!("1.3 {path}: no authorization"),
                with_key(call(path, ""), None),
                401,
                "missing_api_key",
            )
            .says("bearer authorization is required")
            .told("/error/type", "authentication_error")
            .header("www-authenticate", "Bearer"),
        );
        rows.push(
            refused(
                format!("1.3 {path}: a key nobody has"),
                with_key(call(path, ""), Some("Bearer nobody")),
                401,
                "invalid_api_key",
            )
            .told("/error/type", "authentication_error")
            .no_text("nobody"),
        );
    }
    for (what, value) in [
        ("another scheme", "Basic eDp5"),
        ("a bare key", "weir-demo-key"),
        ("a scheme alone", "Bearer"),
        ("an empty key", "Bearer "),
    ] {
        let name = format!("1.3 {what} is no bearer authorization");
        let request = with_key(chat(""), Some(value));
        rows.push(refused(name, request, 401, "missing_api_key"));
    }
    rows.push(served(
        "1.3 departs: the scheme in any letter case, as RFC 9110 has it",
        with_key(chat(""), Some("bearer weir-demo-key")),
    ));
    // A stranger learns nothing of what there is, nor what is wrong with its request.
    for (what, request) in [
        ("a bad body", post("/v1/chat/completions", "{")),
        ("an unknown model", chat_of("demo/none")),
        ("a list of models", get("/v1/models")),
        ("one model", get("/v1/models/demo/sim")),
    ] {
        let name = format!("1.1 authorization comes before {what}");
        rows.push(refused(
            name,
            with_key(request, None),
            401,
            "missing_api_key",
        ));
    }
    rows
}

fn narrow() -> Vec<Row> {
    let narrow = |request| with_key(request, Some("Bearer narrow-key"));
    vec![
        served(
            "1.3 a key with a list of models: one of them",
            narrow(chat_of("demo/other")),
        ),
        refused(
            "1.3 a key with a list of models: another",
            narrow(chat_of("demo/sim")),
            403,
            "model_not_allowed",
        )
        .told("/error/type", "permission_error"),
        row(
            "1.11 a list holds what the key may call",
            narrow(get("/v1/models")),
        )
        .status(200)
        .told("/data/0/id", "demo/other")
        .no_text("demo/sim"),
        refused(
            "1.11 a model the key may not call is none",
            narrow(get("/v1/models/demo/sim")),
            404,
            "model_not_found",
        ),
    ]
}
