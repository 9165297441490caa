//! 1.11: the list of models, and the paths there are (1.1).

use http::Method;
use weir_tests::caller::{get, post, request, whole};

use super::row::{PATHS, Row, holds, recorded, refused, same, served, walk};

const MORE: &str = r#"
[functions.demo.models."vendor/sim"]
cluster = "sim"
"#;

#[tokio::test]
async fn models() {
    let (gateway, recorder) = recorded(|config| config.more(MORE)).await;
    let mut rows = vec![
        served("1.11 the list", get("/v1/models"))
            .unsent()
            .told("/object", "list")
            .told("/data/0/id", "demo/sim")
            .told("/data/0/object", "model")
            .told("/data/1/id", "demo/vendor/sim")
            .check(|done| {
                let created = &done.answer.json()["data"][0]["created"];
                holds(created.is_u64(), &format!("created is {created}"))
            }),
        served("1.11 the list, with a slash at the end", get("/v1/models/"))
            .unsent()
            .told("/object", "list"),
    ];
    for (path, id) in [
        ("/v1/models/demo/sim", "demo/sim"),
        ("/v1/models/demo%2Fsim", "demo/sim"),
        ("/v1/models/demo%2fsim", "demo/sim"),
        ("/v1/models/demo/vendor/sim", "demo/vendor/sim"),
        ("/v1/models/demo%2Fvendor%2Fsim", "demo/vendor/sim"),
    ] {
        rows.push(
            served(format!("1.11 ids hold slashes: {path}"), get(path))
                .unsent()
                .told("/id", id)
                .told("/object", "model"),
        );
    }
    for id in ["demo/none", "none", "demo"] {
        rows.push(
            refused(
                format!("1.11 no model {id}"),
                get(&format!("/v1/models/{id}")),
                404,
                "model_not_found",
            )
            .says(format!("The model '{id}' does not exist"))
            .told("/error/param", "model")
            .told("/error/type", "invalid_request_error"),
        );
    }
    rows.extend(paths());
    walk(&gateway, &recorder, rows).await;
}

fn paths() -> Vec<Row> {
    let mut rows: Vec<Row> = PATHS
        .map(|path| {
            refused(
                format!("1.1 GET {path}"),
                get(path),
                405,
                "method_not_allowed",
            )
            .header("allow", "POST")
        })
        .into();
    rows.push(
        refused(
            "1.1 DELETE of the models",
            request(Method::DELETE, "/v1/models", whole("")),
            405,
            "method_not_allowed",
        )
        .check(|done| same("allow", &done.answer.header("allow"), &"GET")),
    );
    rows.push(refused("1.1 no /nope", get("/nope"), 404, "path_not_found"));
    // Handlers that NVCF's gateway has and does not register, and what it never had.
    for path in [
        "/v1/rerank",
        "/v1/audio/speech",
        "/v1/completions",
        "/v1/chat",
        "/chat/completions",
        "/v1//chat/completions",
    ] {
        rows.push(refused(
            format!("1.1 no {path}"),
            post(path, "{}"),
            404,
            "path_not_found",
        ));
    }
    rows
}
