//! Tables of payloads: what is refused and why, and what becomes of the files.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests, which are tables"
)]

use std::path::PathBuf;

use serde_json::{Value, json};
use weir_config::Sources;

use crate::admin::functions::payload::{NewVersion, Update};
use crate::admin::functions::plan::{self, Planned, Stamp};
use crate::admin::functions::view;
use crate::reload::Change;

const MAIN: &str = r#"# by hand
[[listeners]]
name = "main"
listen = "127.0.0.1:0"
[clusters.a]
endpoints = ["127.0.0.1:1"]
[pipelines.default]
filters = []

[functions.own] # mine
[functions.own.models.m]
cluster = "a"   # where
  routing_method   =  'random' # why
"#;

/// A payload that is good, with members merged into it.
fn payload(change: &Value) -> Vec<u8> {
    let mut payload = json!({
        "name": "f",
        "models": [{ "name": "m", "llmConfig": { "uris": ["/v1/chat/completions"] } }],
    });
    merge(&mut payload, change);
    serde_json::to_vec(&payload).unwrap()
}

fn merge(to: &mut Value, from: &Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (name, value) in from {
                merge(to.entry(name).or_insert(Value::Null), value);
            }
        }
        (to, from) => to.clone_from(from),
    }
}

fn llm(config: Value) -> Value {
    let mut whole = json!({ "uris": ["/v1/responses"] });
    merge(&mut whole, &config);
    json!({ "models": [{ "name": "m", "llmConfig": whole }] })
}

fn detail(result: Result<impl std::fmt::Debug, super::refusal::Problem>) -> String {
    result.unwrap_err().detail().to_owned()
}

#[test]
fn bad_functions_are_refused_in_nvcfs_words() {
    let method = "Invalid request: 'llmConfig.routingMethod' for model 'm' is invalid; supported values are [power-of-two, wait-and-widen, round-robin, random, pulsar, pulsar-wait-and-widen, groq-multiregion, pulsar-multiregion]";
    let limit = "Invalid request: 'llmConfig.tokenRateLimit' for model 'm' is invalid; expected comma-separated '<positiveInteger>-<unit>' entries with unit in [S, M, H, D, W] (for example '100000-S' or '10-M,5-S')";
    let uris = "Invalid request: 'llmConfig.uris' for model 'm' is required and must not be empty";
    let named = "Invalid request: 'name' must be 1 to 128 letters, digits, '-' and '_', the first a letter or digit";
    let mut table = vec![
        (
            json!({ "name": null }),
            "Invalid request: 'name' is required and must not be empty",
        ),
        (
            json!({ "name": " " }),
            "Invalid request: 'name' is required and must not be empty",
        ),
        (
            json!({ "name": 1 }),
            "Invalid request: 'name' must be a string",
        ),
        (json!({ "name": "-f" }), named),
        (json!({ "name": "a b" }), named),
        (json!({ "name": "a".repeat(129) }), named),
        (
            json!({ "functionType": "DEFAULT" }),
            "Invalid request: 'functionType' 'DEFAULT' is not supported; all functions and their versions are of type LLM",
        ),
        (
            json!({ "apiBodyFormat": "OPENAI_CHAT" }),
            "Invalid request: 'apiBodyFormat' 'OPENAI_CHAT' is not supported; supported values are [CUSTOM, PREDICT_V2]",
        ),
        (
            json!({ "inferencePort": 0 }),
            "Invalid request: 'inferencePort' must be a port from 1 to 65535",
        ),
        (
            json!({ "models": null }),
            "Invalid request: 'models' is required and must not be empty",
        ),
        (
            json!({ "models": [] }),
            "Invalid request: 'models' is required and must not be empty",
        ),
        (
            json!({ "models": {} }),
            "Invalid request: 'models' must be an array",
        ),
        (
            json!({ "models": [1] }),
            "Invalid request: 'models[]' must be an object",
        ),
        (
            json!({ "models": [{}] }),
            "Invalid request: 'name' is required in 'models'",
        ),
        (
            json!({ "models": [{ "name": "m" }] }),
            "Invalid request: 'llmConfig' is required for model 'm'",
        ),
        (
            json!({ "models": [
            { "name": "m", "llmConfig": { "uris": ["/v1/responses"] } },
            { "name": "m", "llmConfig": { "uris": ["/v1/responses"] } },
        ] }),
            "Invalid request: model 'm' is twice in 'models'",
        ),
        (llm(json!({ "uris": null })), uris),
        (llm(json!({ "uris": [] })), uris),
        (llm(json!({ "uris": [""] })), uris),
        (llm(json!({ "uris": [7] })), uris),
        (
            json!({ "id": "demo" }),
            "Invalid request: 'id' 'demo' is not a UUID",
        ),
        (
            json!({ "llmInvocationConfig": { "priority": { "defaultPriority": -1 } } }),
            "Invalid request: 'defaultPriority' must be an integer from 0 to 4294967295",
        ),
        (
            json!({ "llmInvocationConfig": { "priority": { "defaultPriority": 4_294_967_296_u64 } } }),
            "Invalid request: 'defaultPriority' must be an integer from 0 to 4294967295",
        ),
        (
            json!({ "llmInvocationConfig": { "priority": { "defaultPriority": 1.0 } } }),
            "Invalid request: 'defaultPriority' must be an integer from 0 to 4294967295",
        ),
        (
            json!({ "llmInvocationConfig": { "priority": { "defaultPriority": 1, "perAccountPriority": { "a": -1 } } } }),
            "Invalid request: 'perAccountPriority' must be an integer from 0 to 4294967295",
        ),
        (
            json!({ "llmInvocationConfig": { "priority": { "perAccountPriority": { "a": 1 } } } }),
            "Invalid request: 'perAccountPriority' needs a 'defaultPriority'",
        ),
        (
            json!({ "big": 9_223_372_036_854_775_808_u64 }),
            "Invalid request: 9223372036854775808 is larger than 9223372036854775807",
        ),
    ];
    let accounts: serde_json::Map<String, Value> =
        (0..65).map(|n| (n.to_string(), json!(n))).collect();
    let priority = json!({ "defaultPriority": 1, "perAccountPriority": accounts });
    table.push((
        json!({ "llmInvocationConfig": { "priority": priority } }),
        "Invalid request: 'perAccountPriority' has 65 entries, at most 64 are allowed",
    ));
    for bad in ["least_used", "pulsar;seed=1", "round robin"] {
        table.push((llm(json!({ "routingMethod": bad })), method));
    }
    for bad in [
        "100-A",
        "100",
        "0-S",
        "-1-S",
        "100-s",
        "100-S,200-S",
        "100-S,",
        ",100-S",
        "01-S",
        " 1-S",
        "1-S ",
        "1 -S",
        "1-S ,2-M",
        "1-SM",
        "99999999999999999999-S",
    ] {
        table.push((llm(json!({ "tokenRateLimit": bad })), limit));
    }
    for member in ["inputTokenRateLimit", "outputTokenRateLimit"] {
        let change = llm(json!({ member: "1-s" }));
        let said = detail(NewVersion::read(&payload(&change)));
        assert_eq!(said, limit.replace("tokenRateLimit", member));
    }
    for (change, expected) in table {
        assert_eq!(
            detail(NewVersion::read(&payload(&change))),
            expected,
            "{change}"
        );
    }
    assert_eq!(
        detail(NewVersion::read(b"[]")),
        "the body is not a JSON object"
    );
    assert!(detail(NewVersion::read(b"{")).starts_with("the body is not JSON: EOF"));
}

#[test]
fn good_settings_are_taken_in_their_normal_form() {
    for (given, kept) in [
        ("round_robin", "round_robin"),
        ("Power-Of-Two", "power_of_two"),
        (" groq_multiregion ", "groq_multiregion"),
        ("pulsar", "pulsar"),
        ("random", "random"),
        ("wait-and-widen", "wait_and_widen"),
        ("pulsar_wait-and-widen", "pulsar_wait_and_widen"),
        ("", ""),
    ] {
        let new = NewVersion::read(&payload(&llm(json!({ "routingMethod": given })))).unwrap();
        assert_eq!(
            new.models[0].settings,
            [("routing_method", kept.to_owned())]
        );
    }
    for given in [
        "1000-S",
        "10-M,5-S",
        "1-S,\t 2-M,3-H,4-D,5-W",
        "18446744073709551615-W",
    ] {
        let new = NewVersion::read(&payload(&llm(json!({ "tokenRateLimit": given })))).unwrap();
        assert_eq!(
            new.models[0].settings,
            [("token_rate_limit", given.to_owned())]
        );
    }
    let new =
        NewVersion::read(&payload(&llm(json!({ "uris": [" v1/responses", "/x/"] })))).unwrap();
    assert_eq!(new.models[0].uris, ["/v1/responses", "/x/"]);
}

#[test]
fn bad_updates_are_refused() {
    let update =
        |config: Value| json!({ "modelUpdates": [{ "modelName": "m", "llmConfig": config }] });
    let nothing = "Invalid request: nothing to update for model 'm'; give one of [routingMethod, tokenRateLimit, inputTokenRateLimit, outputTokenRateLimit]";
    for (body, expected) in [
        (
            json!({}),
            "Invalid request: nothing to update; give one of [modelUpdates, llmInvocationConfig, tags, description, rateLimit]",
        ),
        (
            json!({ "modelUpdates": [] }),
            "Invalid request: nothing to update; give one of [modelUpdates, llmInvocationConfig, tags, description, rateLimit]",
        ),
        (
            json!({ "models": [] }),
            "Invalid request: 'models' is immutable; only [modelUpdates, llmInvocationConfig, tags, description, rateLimit] can be updated",
        ),
        (
            json!({ "modelUpdates": [{}] }),
            "Invalid request: 'modelName' is required in 'modelUpdates'",
        ),
        (json!({ "modelUpdates": [{ "modelName": "m" }] }), nothing),
        (update(json!({})), nothing),
        (
            update(json!({ "uris": ["/v1/responses"] })),
            "Invalid request: 'llmConfig.uris' for model 'm' is immutable; only [routingMethod, tokenRateLimit, inputTokenRateLimit, outputTokenRateLimit] can be updated",
        ),
        (
            update(json!({ "tokenizer": "t" })),
            "Invalid request: 'llmConfig.tokenizer' for model 'm' is immutable; only [routingMethod, tokenRateLimit, inputTokenRateLimit, outputTokenRateLimit] can be updated",
        ),
        (
            update(json!({ "tokenRateLimit": 7 })),
            "Invalid request: 'llmConfig.tokenRateLimit' must be a string",
        ),
        (
            json!({ "modelUpdates": [
            { "modelName": "m", "llmConfig": { "routingMethod": "random" } },
            { "modelName": "m", "llmConfig": { "routingMethod": "random" } },
        ] }),
            "Invalid request: model 'm' is twice in 'modelUpdates'",
        ),
    ] {
        assert_eq!(
            detail(Update::read(body.to_string().as_bytes())),
            expected,
            "{body}"
        );
    }
}

/// The two files, changed by one request after the other.
struct Files {
    sources: Sources,
    made: u32,
}

impl Files {
    fn new(main: &str, functions: Option<&str>) -> Self {
        let sources = Sources {
            file: PathBuf::from("weir.toml"),
            text: main.to_owned(),
            functions_file: PathBuf::from("functions.toml"),
            functions: functions.map(str::to_owned),
        };
        Self { sources, made: 0 }
    }

    fn take(&mut self, planned: Planned) -> Result<String, String> {
        let (change, subject) = planned.map_err(|problem| problem.detail().to_owned())?;
        let mut sources = self.sources.clone();
        match change {
            Change::Config(text) => sources.text = text,
            Change::Functions(text) => sources.functions = Some(text),
        }
        let parsed = sources.parse();
        assert!(parsed.is_ok(), "{parsed:?} of\n{sources:?}");
        self.sources = sources;
        Ok(subject.id)
    }

    fn stamp(&mut self) -> Stamp {
        self.made += 1;
        Stamp {
            function_id: format!("f{}", self.made),
            version_id: format!("v{}", self.made),
            created_at: "2026-05-04T10:00:00.000Z".into(),
        }
    }

    fn create(&mut self, change: &Value) -> Result<String, String> {
        let new = NewVersion::read(&payload(change)).unwrap();
        let config = self.sources.parse().unwrap();
        let stamp = self.stamp();
        let planned = plan::create(&self.sources, &config, &new, &stamp);
        self.take(planned)
    }

    fn add_version(&mut self, id: &str, change: &Value) -> Result<String, String> {
        let new = NewVersion::read(&payload(change)).unwrap();
        let config = self.sources.parse().unwrap();
        let stamp = self.stamp();
        let planned = plan::add_version(&self.sources, &config, id, &new, &stamp);
        self.take(planned)
    }

    fn update(&mut self, id: &str, version: Option<&str>, body: &Value) -> Result<String, String> {
        let update = Update::read(body.to_string().as_bytes()).unwrap();
        let config = self.sources.parse().unwrap();
        let planned = plan::update(&self.sources, &config, id, version, &update);
        self.take(planned)
    }

    fn delete(&mut self, id: &str, version: Option<&str>) -> Result<String, String> {
        let config = self.sources.parse().unwrap();
        let planned = plan::delete(&self.sources, &config, id, version);
        self.take(planned)
    }

    fn shown(&self, id: &str, version: Option<&str>) -> Value {
        let config = self.sources.parse().unwrap();
        view::version(id, &config.functions[id], version).unwrap()
    }

    fn functions(&self) -> &str {
        self.sources.functions.as_deref().unwrap()
    }
}

#[test]
fn a_function_is_shown_as_it_was_sent() {
    let mut files = Files::new(MAIN, None);
    let sent = json!({
        "description": "two\nlines", "tags": ["a", "b"], "containerImage": "nvcr.io/x:1",
        "inferenceUrl": "/", "inferencePort": 8000, "functionType": "LLM",
        "apiBodyFormat": "CUSTOM", "health": { "protocol": "HTTP", "uri": "/h", "port": 1,
        "timeout": "PT10S", "expectedStatusCode": 200 }, "weight": 1.5, "nothing": null,
        "secrets": [{ "name": "KEY", "value": "hidden" }],
        "models": [{ "name": "a/b", "version": "1", "uri": "u", "llmConfig": {
            "uris": ["/v1/responses"], "tokenizer": "t", "routingMethod": "random",
            "tokenRateLimit": "10-M,5-S" } }],
        "llmInvocationConfig": { "priority": { "defaultPriority": 4_294_967_295_u32,
            "perAccountPriority": { "acme corp": 0 } } },
    });
    assert_eq!(files.create(&sent).unwrap(), "f1");
    let mut expected = sent.clone();
    merge(
        &mut expected,
        &json!({ "id": "f1", "versionId": "v1", "ncaId": "weir", "status": "ACTIVE",
            "name": "f", "createdAt": "2026-05-04T10:00:00.000Z", "secrets": ["KEY"] }),
    );
    expected["models"][0]["cluster"] = json!("a");
    expected.as_object_mut().unwrap().remove("nothing");
    assert_eq!(files.shown("f1", None), expected);
    assert!(
        !files.functions().contains("hidden"),
        "{}",
        files.functions()
    );
    assert_eq!(files.sources.text, MAIN);
    assert_eq!(files.delete("f1", None).unwrap(), "f1");
    assert!(files.functions().starts_with("# Functions made through"));
    assert!(!files.functions().contains('['), "{}", files.functions());
}

#[test]
fn versions_share_their_models() {
    let mut files = Files::new(MAIN, Some(""));
    files.create(&llm(json!({ "tokenizer": "t" }))).unwrap();
    let existing = "Function id 'f1', version 'v1': ";
    for (change, expected) in [
        (
            llm(json!({ "tokenizer": "t", "uris": ["/v1/embeddings"] })),
            "'llmConfig.uris' for model 'm' must match existing versions",
        ),
        (
            llm(json!({})),
            "'llmConfig.tokenizer' for model 'm' must match existing versions",
        ),
        (
            llm(json!({ "tokenizer": "u" })),
            "'llmConfig.tokenizer' for model 'm' must match existing versions",
        ),
    ] {
        assert_eq!(
            files.add_version("f1", &change),
            Err(format!("{existing}{expected}"))
        );
    }
    files.made = 1;
    let second = json!({ "name": "second", "models": [
        { "name": "m", "llmConfig": { "uris": ["/v1/responses"], "tokenizer": "t", "tokenRateLimit": "7-S" } },
        { "name": "n", "llmConfig": { "uris": ["/v1/embeddings"] } },
    ] });
    files.add_version("f1", &second).unwrap();
    let first = files.shown("f1", Some("v1"));
    assert_eq!(
        first["models"][0]["llmConfig"]["tokenRateLimit"], "7-S",
        "spread to all"
    );
    assert_eq!(first["models"].as_array().unwrap().len(), 1);
    assert_eq!(files.shown("f1", None)["name"], "second", "the newest");
    let update = json!({ "modelUpdates": [
        { "modelName": "m", "llmConfig": { "tokenRateLimit": "", "routingMethod": "random" } },
    ], "tags": ["x"], "llmInvocationConfig": { "priority": { "defaultPriority": 3 } } });
    files.update("f1", Some("v1"), &update).unwrap();
    for (version, tags) in [("v1", json!(["x"])), ("v2", Value::Null)] {
        let shown = files.shown("f1", Some(version));
        assert_eq!(shown["models"][0]["llmConfig"].get("tokenRateLimit"), None);
        assert_eq!(shown["models"][0]["llmConfig"]["routingMethod"], "random");
        assert_eq!(
            shown["llmInvocationConfig"]["priority"]["defaultPriority"],
            3
        );
        assert_eq!(shown["tags"], tags, "of that version only");
    }
    let none = json!({ "llmInvocationConfig": {} });
    files.update("f1", None, &none).unwrap();
    assert_eq!(files.shown("f1", None).get("llmInvocationConfig"), None);
    files.delete("f1", Some("v2")).unwrap();
    let config = files.sources.parse().unwrap();
    assert_eq!(
        config.functions["f1"].models.keys().collect::<Vec<_>>(),
        ["m"]
    );
    assert_eq!(
        files.delete("f1", Some("v2")),
        Err("Function id 'f1', version 'v2': not found".into())
    );
    files.delete("f1", Some("v1")).unwrap();
    assert_eq!(
        files.delete("f1", None),
        Err("Function id 'f1': not found".into())
    );
}

#[test]
fn the_cluster_is_found_or_asked_for() {
    let two = format!("{MAIN}[clusters.b]\nendpoints = [\"127.0.0.1:2\"]\n");
    let set = format!("{two}[functions_api]\ncluster = \"b\"\n");
    let model = json!({ "models": [
        { "name": "m", "cluster": "a", "llmConfig": { "uris": ["/x"] } },
    ], "cluster": "b" });
    let required = "Invalid request: 'cluster' is required for model 'm', one of [a, b]: give it for the function or the model, or set `[functions_api] cluster` in the config";
    for (main, change, expected) in [
        (MAIN, json!({}), Ok("a")),
        (&two, json!({}), Err(required)),
        (&two, json!({ "cluster": "b" }), Ok("b")),
        (&two, model, Ok("a")),
        (&set, json!({}), Ok("b")),
        (&set, json!({ "cluster": "a" }), Ok("a")),
        (
            &set,
            json!({ "cluster": "c" }),
            Err("Invalid request: no cluster 'c' for model 'm'; there are [a, b]"),
        ),
    ] {
        let mut files = Files::new(main, None);
        let made = files.create(&change);
        let cluster = made.map(|id| {
            files.sources.parse().unwrap().functions[&id].models["m"]
                .cluster
                .clone()
        });
        assert_eq!(
            cluster.as_deref().map_err(String::as_str),
            expected,
            "{change}"
        );
    }
}

#[test]
fn a_wanted_id_is_given_once() {
    let id = "0E4F3A5C-8B1D-4B7A-9C51-2D1C7A3B9F00";
    let mut files = Files::new(MAIN, None);
    let lower = id.to_ascii_lowercase();
    assert_eq!(files.create(&json!({ "id": id })), Ok(lower.clone()));
    let exists =
        format!("Function id '{lower}': exists; POST {lower}/versions adds a version to it");
    assert_eq!(files.create(&json!({ "id": id })), Err(exists));
    assert_eq!(files.delete(id, None), Ok(lower), "in any case");
}

#[test]
fn what_hands_have_written_stays() {
    let mut files = Files::new(MAIN, None);
    let update = json!({ "modelUpdates": [{ "modelName": "m", "llmConfig": { "routingMethod": "round-robin" } }] });
    files.update("own", None, &update).unwrap();
    assert_eq!(
        files.sources.text,
        MAIN.replace("'random'", "\"round_robin\"")
    );
    let limit = json!({ "modelUpdates": [{ "modelName": "m", "llmConfig": { "routingMethod": "", "tokenRateLimit": "5-S" } }] });
    files.update("own", None, &limit).unwrap();
    let expected = MAIN.replace(
        "  routing_method   =  'random' # why\n",
        "token_rate_limit = \"5-S\"\n",
    );
    assert_eq!(files.sources.text, expected);
    assert_eq!(files.sources.functions, None);
    let by_hand = "Function id 'own': is written in weir.toml; change it there, or move its tables to the functions file";
    assert_eq!(files.delete("own", None), Err(by_hand.into()));
    assert_eq!(
        files.update("own", None, &json!({ "tags": [] })),
        Err(by_hand.into())
    );
    let version = json!({ "models": [{ "name": "n", "llmConfig": { "uris": ["/x"] } }] });
    assert_eq!(files.add_version("own", &version), Err(by_hand.into()));
    let missing = json!({ "modelUpdates": [{ "modelName": "x", "llmConfig": { "routingMethod": "random" } }] });
    assert_eq!(
        files.update("own", None, &missing),
        Err("Function id 'own': no model 'x'".into())
    );
}

#[test]
fn comments_of_the_functions_file_stay() {
    const BEFORE: &str = "# The head.\n\n# Team one.\n\n# About x.\n[functions.x.models.m] # here\ncluster = \"a\"\nuris = [ '/x', ] # odd\n\n# Team two.\n\n[functions.y]\nmodels = { m = { cluster = \"a\" } } # short\n# The end.\n";
    for (crlf, before) in [
        (false, BEFORE.to_owned()),
        (true, BEFORE.replace('\n', "\r\n")),
    ] {
        let mut files = Files::new(MAIN, Some(&before));
        let text = |text: &str| {
            if crlf {
                text.replace('\n', "\r\n")
            } else {
                text.to_owned()
            }
        };
        files.create(&json!({})).unwrap();
        let (tables, end) = before.split_at(before.rfind('#').unwrap());
        let made = files.functions();
        assert!(made.starts_with(tables) && made.ends_with(end), "{made}");
        files.delete("f1", None).unwrap();
        assert_eq!(files.functions(), before, "as before");
        files.delete("x", None).unwrap();
        let rest = "# The head.\n\n# Team one.\n\n# Team two.\n\n[functions.y]\nmodels = { m = { cluster = \"a\" } } # short\n# The end.\n";
        assert_eq!(files.functions(), text(rest));
        let update = json!({ "modelUpdates": [{ "modelName": "m", "llmConfig": { "tokenRateLimit": "5-S" } }] });
        files.update("y", None, &update).unwrap();
        let rest = rest.replace("\"a\" }", "\"a\" , token_rate_limit = \"5-S\"}");
        assert_eq!(
            files.functions().replace(' ', ""),
            text(&rest).replace(' ', "")
        );
        files.delete("y", None).unwrap();
        assert_eq!(
            files.functions(),
            text("# The head.\n\n# Team one.\n\n# Team two.\n\n# The end.\n")
        );
    }
}
