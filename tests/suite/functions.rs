//! The functions API: live at once, kept in a file, all or nothing; and its command line.

use std::fs;
use std::process::Command;

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use weir_tests::caller::{self, Answer, Body};
use weir_tests::config_text::{ConfigText, KEY};
use weir_tests::gateway::{self, Gateway};
use weir_tests::simulated::Simulated;

use crate::stage::beside_others;

const PATH: &str = "/v2/nvcf/functions";
const FILE: &str = "functions.toml";

async fn started() -> (Simulated, Gateway) {
    let upstream = Simulated::start().await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).text()).await;
    (upstream, gateway)
}

async fn send(gateway: &Gateway, method: Method, path: &str, body: &Value) -> Answer {
    let body: Body = caller::whole(body.to_string());
    let request = caller::request(method, path, body);
    caller::send(gateway.admin_address(), request).await
}

fn payload(name: &str, config: &Value) -> Value {
    let mut llm = json!({ "uris": ["/v1/chat/completions"] });
    for (member, value) in config.as_object().unwrap() {
        llm[member] = value.clone();
    }
    json!({ "name": name, "containerImage": "nvcr.io/example/server:1", "inferenceUrl": "/",
        "inferencePort": 8000, "functionType": "LLM", "models": [{ "name": "m", "llmConfig": llm }] })
}

async fn chat(gateway: &Gateway, model: &str) -> Answer {
    let body = caller::chat_body(model, r#""max_tokens":4"#);
    caller::send(
        gateway.address(),
        caller::post("/v1/chat/completions", body),
    )
    .await
}

fn id_of(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let function = &answer.json()["function"];
    let text = |name: &str| function[name].as_str().unwrap().to_owned();
    (text("id"), text("versionId"))
}

#[tokio::test]
async fn a_function_lives_from_its_answer_to_its_end() {
    let _guard = beside_others().await;
    let (_upstream, gateway) = started().await;
    let made = send(&gateway, Method::POST, PATH, &payload("f", &json!({}))).await;
    let (id, version) = id_of(&made);
    assert_eq!(made.json()["function"]["status"], "ACTIVE");
    let model = format!("{id}/m");
    let answer = chat(&gateway, &model).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shouted = format!("{}/m", id.to_ascii_uppercase());
    assert_eq!(chat(&gateway, &shouted).await.status, 200);
    // Later reads say the same, and the file says it.
    for path in [
        format!("{PATH}/{id}"),
        format!("{PATH}/{id}/versions/{version}"),
    ] {
        assert_eq!(gateway.admin_json(&path).await, made.json(), "{path}");
    }
    let listed = gateway.admin_json(PATH).await;
    let names: Vec<&Value> = listed["functions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| &f["name"])
        .collect();
    assert!(
        names.contains(&&json!("f")) && names.contains(&&json!("demo")),
        "{listed}"
    );
    let ids = gateway.admin_json(&format!("{PATH}/ids")).await;
    assert_eq!(ids["functionIds"].as_array().unwrap().len(), 2, "{ids}");
    let text = fs::read_to_string(gateway.folder().join(FILE)).unwrap();
    assert!(
        text.contains(&id) && text.starts_with("# Functions made"),
        "{text}"
    );
    // A budget of one token holds from the answer on; without it calls pass again.
    let update = |limit: &str| json!({ "modelUpdates": [{ "modelName": "m", "llmConfig": { "tokenRateLimit": limit } }] });
    let function = format!("{PATH}/{id}");
    let updated = send(&gateway, Method::PUT, &function, &update("1-W")).await;
    assert_eq!(
        updated.json()["function"]["models"][0]["llmConfig"]["tokenRateLimit"],
        "1-W"
    );
    assert_eq!(chat(&gateway, &model).await.code(), "rate_limit_exceeded");
    let one = format!("{function}/versions/{version}");
    assert_eq!(
        send(&gateway, Method::PUT, &one, &update("")).await.status,
        200
    );
    assert_eq!(chat(&gateway, &model).await.status, 200);
    let gone = send(&gateway, Method::DELETE, &one, &Value::Null).await;
    assert_eq!((gone.status, gone.body.len()), (204, 0), "{}", gone.text());
    let answer = chat(&gateway, &model).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (404, "model_not_found")
    );
    let text = fs::read_to_string(gateway.folder().join(FILE)).unwrap();
    assert!(!text.contains(&id), "{text}");
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one table")]
async fn refusals_are_problems_with_codes() {
    let _guard = beside_others().await;
    let (_upstream, gateway) = started().await;
    let good = payload("f", &json!({}));
    let (id, _) = id_of(&send(&gateway, Method::POST, PATH, &good).await);
    let mut same = good.clone();
    same["id"] = json!(id);
    let one = format!("{PATH}/{id}");
    let tags = json!({ "tags": [] });
    for (method, path, body, status, code) in [
        (Method::POST, PATH, json!([]), 400, "invalid_json"),
        (Method::POST, PATH, json!({}), 400, "invalid_function"),
        (Method::POST, PATH, same, 409, "function_exists"),
        (
            Method::POST,
            PATH,
            payload("f", &json!({ "tokenRateLimit": "9007199254740992-S" })),
            422,
            "config_rejected",
        ),
        (
            Method::PUT,
            &one,
            json!({ "models": [] }),
            400,
            "invalid_function",
        ),
        (
            Method::PUT,
            &one,
            json!({ "modelUpdates": [{ "modelName": "x", "llmConfig": { "tokenRateLimit": "1-S" } }] }),
            404,
            "model_not_found",
        ),
        (
            Method::PUT,
            &format!("{one}/versions/x"),
            tags.clone(),
            404,
            "function_not_found",
        ),
        (
            Method::PUT,
            &format!("{PATH}/x"),
            tags.clone(),
            404,
            "function_not_found",
        ),
        (
            Method::PUT,
            &format!("{PATH}/demo"),
            tags.clone(),
            409,
            "function_in_config",
        ),
        (
            Method::DELETE,
            &format!("{PATH}/demo"),
            Value::Null,
            409,
            "function_in_config",
        ),
        (
            Method::GET,
            &format!("{PATH}/x"),
            Value::Null,
            404,
            "function_not_found",
        ),
        (Method::PATCH, &one, tags.clone(), 405, "method_not_allowed"),
        (
            Method::GET,
            &format!("{one}/x"),
            Value::Null,
            404,
            "path_not_found",
        ),
    ] {
        let answer = send(&gateway, method.clone(), path, &body).await;
        let said = answer.json();
        assert_eq!(
            (answer.status, said["code"].as_str()),
            (status, Some(code)),
            "{method} {path} {body}: {said}"
        );
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(said["status"], json!(status));
        assert_eq!(said["instance"], json!(path));
        assert!(
            said["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty()),
            "{said}"
        );
    }
    let post = caller::post(PATH, good.to_string());
    let answer = caller::send(
        gateway.admin_address(),
        caller::with_header(post, "content-type", Some("text/plain")),
    )
    .await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (415, Some("unsupported_media_type"))
    );
}

#[tokio::test]
async fn a_rejected_change_leaves_everything_as_it_was() {
    let _guard = beside_others().await;
    let (_upstream, gateway) = started().await;
    let (id, _) = id_of(&send(&gateway, Method::POST, PATH, &payload("f", &json!({}))).await);
    let file = gateway.folder().join(FILE);
    let before = fs::read_to_string(&file).unwrap();
    let number = gateway.config_number().await;
    let update = json!({ "modelUpdates": [{ "modelName": "m", "llmConfig": { "tokenRateLimit": "9007199254740992-S" } }] });
    let answer = send(&gateway, Method::PUT, &format!("{PATH}/{id}"), &update).await;
    let said = answer.json();
    assert_eq!(
        (answer.status, said["code"].as_str()),
        (422, Some("config_rejected")),
        "{said}"
    );
    let error = said["errors"][0].as_str().unwrap();
    assert!(
        error.contains(FILE) && error.contains("`9007199254740992-S` is too large"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    assert_eq!(gateway.config_number().await, number);
    assert_eq!(chat(&gateway, &format!("{id}/m")).await.status, 200);
    let files: Vec<_> = fs::read_dir(gateway.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(files.len(), 2, "nothing is left beside them: {files:?}");
    // A file that is wrong by hand is told of, not written over.
    fs::write(&file, "[functions.f]\ncluster = 1\n").unwrap();
    let answer = send(&gateway, Method::POST, PATH, &payload("g", &json!({}))).await;
    assert_eq!(
        answer.json()["code"],
        "config_rejected",
        "{}",
        answer.text()
    );
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "[functions.f]\ncluster = 1\n"
    );
}

#[tokio::test]
async fn what_was_rolled_back_does_not_come_back_with_an_edit() {
    let _guard = beside_others().await;
    let (_upstream, gateway) = started().await;
    gateway.edit(|text| format!("{text}\n[limits]\nbody_max_bytes = 77777\n"));
    gateway
        .wait_for("the edit", async |gateway| {
            gateway.config_number().await == 2
        })
        .await;
    assert_eq!(gateway.admin_post("/config/rollback", "").await.status, 200);
    let answer = send(&gateway, Method::POST, PATH, &payload("f", &json!({}))).await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (409, Some("config_rolled_back"))
    );
    assert_eq!(gateway.admin_post("/reload", "").await.status, 200);
    let answer = send(&gateway, Method::POST, PATH, &payload("f", &json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn functions_made_at_once_are_all_kept() {
    let _guard = beside_others().await;
    let (_upstream, gateway) = started().await;
    let mut posts = JoinSet::new();
    for number in 0..20 {
        let admin = gateway.admin_address();
        let body = payload(&format!("f{number}"), &json!({})).to_string();
        posts.spawn(async move { caller::send(admin, caller::post(PATH, body)).await });
    }
    let answers = posts.join_all().await;
    let ids: Vec<String> = answers.iter().map(|answer| id_of(answer).0).collect();
    let text = fs::read_to_string(gateway.folder().join(FILE)).unwrap();
    for id in &ids {
        assert!(text.contains(id), "{id} in:\n{text}");
        assert_eq!(chat(&gateway, &format!("{id}/m")).await.status, 200);
    }
    let listed = gateway.admin_json(&format!("{PATH}/ids")).await;
    assert_eq!(listed["functionIds"].as_array().unwrap().len(), 21);
}

#[tokio::test]
async fn hand_written_files_keep_their_comments() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let config = ConfigText::new(&[upstream.address()])
        .model("routing_method = 'random'   # why")
        .text();
    let gateway = Gateway::start(&config).await;
    let by_hand = "# Mine.\n[functions.hand.models.m] # here\ncluster = 'sim'\n";
    gateway.replace(FILE, by_hand);
    gateway
        .wait_for("hand/m", async |gateway| {
            chat(gateway, "hand/m").await.status == 200
        })
        .await;
    let before = fs::read_to_string(gateway.config_file()).unwrap();
    let update = json!({ "modelUpdates": [{ "modelName": "sim", "llmConfig": { "routingMethod": "power-of-two" } }] });
    let answer = send(&gateway, Method::PUT, &format!("{PATH}/demo"), &update).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let after = fs::read_to_string(gateway.config_file()).unwrap();
    assert_eq!(after, before.replace("'random'", "\"power_of_two\""));
    assert_eq!(
        fs::read_to_string(gateway.folder().join(FILE)).unwrap(),
        by_hand
    );
    let (id, _) = id_of(&send(&gateway, Method::POST, PATH, &payload("f", &json!({}))).await);
    let text = fs::read_to_string(gateway.folder().join(FILE)).unwrap();
    assert!(text.starts_with(by_hand) && text.contains(&id), "{text}");
}

#[tokio::test]
async fn errors_of_the_functions_file_name_it() {
    let _guard = beside_others().await;
    let (_upstream, gateway) = started().await;
    gateway.replace(FILE, "[functions.f.models.m]\ncluster = \"none\"\n");
    let config = gateway.config_file();
    let (code, text) = crate::stage::weir(&["check", "--config", config.to_str().unwrap()]);
    assert!(
        code == 1
            && text.contains(
                "functions.toml:2:11: functions.f.models.m.cluster: no cluster named `none`"
            ),
        "{code} {text}"
    );
    let says = async |gateway: &Gateway| {
        let config = gateway.admin_json("/config").await;
        config["rejected"]
            .to_string()
            .contains("functions.toml:2:11")
    };
    gateway.wait_for("the refusal", says).await;
    assert_eq!(
        chat(&gateway, "demo/sim").await.status,
        200,
        "the last good one serves"
    );
    gateway.replace(FILE, "[functions.f.models.m]\ncluster = \"sim\"\n");
    gateway
        .wait_for("f/m", async |gateway| {
            chat(gateway, "f/m").await.status == 200
        })
        .await;
}

#[tokio::test]
async fn the_function_says_whose_calls_come_first() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let key = "[[key_tables.demo.keys]]\nid = \"own\"\nkey = \"own-key\"\ntenant = \"demo\"\npriority = 9\n\
        [[key_tables.demo.keys]]\nid = \"other\"\nkey = \"other-key\"\ntenant = \"other\"\n";
    let config = ConfigText::new(&[upstream.address()])
        .cluster("router_headers = true")
        .more(key);
    let gateway = Gateway::start(&config.text()).await;
    let (id, _) = id_of(&send(&gateway, Method::POST, PATH, &payload("f", &json!({}))).await);
    let path = format!("{PATH}/{id}");
    let priority = |priority: Value| json!({ "llmInvocationConfig": { "priority": priority } });
    let both = priority(
        json!({ "defaultPriority": 4_294_967_295_u32, "perAccountPriority": { "demo": 0 } }),
    );
    for (change, expected) in [
        (&both, [json!("0"), json!("9"), json!("4294967295")]),
        (
            &priority(json!({ "defaultPriority": 5 })),
            [json!("5"), json!("9"), json!("5")],
        ),
        (&priority(json!({})), [Value::Null, json!("9"), Value::Null]),
    ] {
        let changed = send(&gateway, Method::PUT, &path, change).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        for (key, expected) in [KEY, "own-key", "other-key"].into_iter().zip(expected) {
            let body = caller::chat_body(&format!("{id}/m"), "");
            let request = caller::post("/v1/chat/completions", body);
            let bearer = format!("Bearer {key}");
            let request = caller::with_header(request, "authorization", Some(&bearer));
            assert_eq!(caller::send(gateway.address(), request).await.status, 200);
            let seen = upstream.last_request().await;
            assert_eq!(seen["headers"]["x-priority"], expected, "{key}: {change}");
        }
    }
}

/// `weir function ...` for a gateway: exit code, standard output, standard error.
async fn function(gateway: &Gateway, arguments: &[&str]) -> (i32, String, String) {
    let admin = format!("http://{}", gateway.admin_address());
    let mut command = Command::new(gateway::binary());
    command
        .arg("function")
        .args(arguments)
        .args(["--admin", &admin]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test]
async fn the_command_line_does_what_nvcfs_does() {
    let _guard = beside_others().await;
    let (_upstream, gateway) = started().await;
    let spec = "name=m,uris=/v1/chat/completions|/v1/responses,routingMethod=round_robin,tokenRateLimit=100000-S,5000000-M";
    let (code, out, err) = function(
        &gateway,
        &[
            "create",
            "--name",
            "sample",
            "--image",
            "nvcr.io/example/server:1",
            "--inference-url",
            "/",
            "--inference-port",
            "8000",
            "--function-type",
            "LLM",
            "--llm-model",
            spec,
            "--llm-default-priority",
            "5",
            "--llm-per-account-priority",
            "acme:1",
            "--output",
            "json",
        ],
    )
    .await;
    assert_eq!(code, 0, "{out}{err}");
    let made: Value = serde_json::from_str(&out).unwrap();
    let id = made["function"]["id"].as_str().unwrap().to_owned();
    let config = &made["function"]["models"][0]["llmConfig"];
    assert_eq!(config["tokenRateLimit"], "100000-S,5000000-M");
    assert_eq!(
        made["function"]["llmInvocationConfig"]["priority"],
        json!({ "defaultPriority": 5, "perAccountPriority": { "acme": 1 } })
    );
    assert_eq!(chat(&gateway, &format!("{id}/m")).await.status, 200);
    let (code, out, err) = function(&gateway, &["list"]).await;
    assert!(
        code == 0 && out.starts_with("ID ") && out.contains(&id) && out.contains("sample"),
        "{out}{err}"
    );
    let (code, _, err) = function(
        &gateway,
        &[
            "update",
            "--function-id",
            &id,
            "--llm-model-update",
            "name=m,routingMethod=power_of_two,tokenRateLimit=1-W",
        ],
    )
    .await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        chat(&gateway, &format!("{id}/m")).await.code(),
        "rate_limit_exceeded"
    );
    let (code, out, err) =
        function(&gateway, &["get", "--function-id", &id, "--output", "json"]).await;
    assert!(code == 0 && out.contains("power_of_two"), "{out}{err}");
    let payload_file = gateway.folder().join("payload.json");
    fs::write(&payload_file, payload("from-file", &json!({})).to_string()).unwrap();
    let (code, out, err) = function(
        &gateway,
        &[
            "create",
            "--file",
            payload_file.to_str().unwrap(),
            "--cluster",
            "sim",
        ],
    )
    .await;
    assert!(code == 0 && out.contains("from-file"), "{out}{err}");
    let (code, out, err) = function(&gateway, &["delete", "--function-id", &id]).await;
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    let (code, _, err) = function(&gateway, &["get", "--function-id", &id]).await;
    assert!(
        code == 1 && err.starts_with("function_not_found (404): "),
        "{code} {err}"
    );
    let (code, _, err) = function(
        &gateway,
        &["create", "--name", "x", "--llm-model", "uris=/a"],
    )
    .await;
    assert!(
        code == 2 && err.contains("has no name=MODEL"),
        "{code} {err}"
    );
}

#[test]
fn a_gateway_that_is_not_there_is_named() {
    let (code, text) = crate::stage::weir(&["function", "list", "--admin", "http://127.0.0.1:1"]);
    assert!(
        code == 2 && text.contains("no gateway answers at http://127.0.0.1:1"),
        "{code} {text}"
    );
    let (code, text) = crate::stage::weir(&["function", "list", "--admin", "ftp://x"]);
    assert!(
        code == 2 && text.contains("write http://HOST:PORT"),
        "{code} {text}"
    );
}
