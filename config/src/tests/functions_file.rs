//! The functions file: what it adds, and the exact lines bad ones are answered with.

use std::fs;

use crate::{ConfigError, diff, load};

const MAIN: &str = r#"
[[listeners]]
name = "main"
listen = "127.0.0.1:0"
[clusters.a]
endpoints = ["127.0.0.1:1"]
[filters.routing]
module = "builtin:routing-method"
[pipelines.default]
filters = ["routing"]
[functions.own.models.m]
cluster = "a"
"#;

/// Loads `main` with `functions` beside it; errors as lines `FILE:LINE:COLUMN: KEY: ...`.
fn loaded(main: &str, functions: &str) -> Result<crate::Config, Vec<String>> {
    let folder = std::env::temp_dir().join(format!(
        "weir-config-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("weir.toml");
    fs::write(&file, main).unwrap();
    fs::write(folder.join("functions.toml"), functions).unwrap();
    let config = load(&file);
    fs::remove_dir_all(&folder).unwrap();
    let prefix = format!("{}/", folder.display());
    let line = |error: &ConfigError| error.to_string().replace(&prefix, "");
    config
        .map(|(config, _)| config)
        .map_err(|errors| errors.iter().map(line).collect())
}

#[test]
fn adds_its_functions() {
    let functions = r#"
[functions.more]
priority = { default = 4294967295, per_tenant = { "a/b" = 0 } }
[functions.more.models."x/y"]
cluster = "a"
[[functions.more.versions]]
id = "v1"
created_at = "2026-05-04T10:00:00Z"
nvcf = { name = "more", health = { port = 8000 }, tags = ["t"] }
"#;
    let config = loaded(MAIN, functions).unwrap();
    assert_eq!(config.functions.keys().collect::<Vec<_>>(), ["more", "own"]);
    let more = &config.functions["more"];
    assert_eq!(more.models["x/y"].cluster, "a");
    let priority = more.priority.as_ref().unwrap();
    assert_eq!(priority.of("a/b"), Some(0));
    assert_eq!(priority.of("other"), Some(u32::MAX));
    assert_eq!(more.versions[0].nvcf["health"]["port"], 8000);
    let without = loaded(MAIN, "").unwrap();
    assert_eq!(diff(&without, &config).lines, ["functions.more: added"]);
}

#[test]
fn another_place_can_be_named() {
    let main = format!("functions_file = \"elsewhere.toml\"\n{MAIN}");
    let config = loaded(&main, "this is not TOML").unwrap();
    assert_eq!(config.functions.keys().collect::<Vec<_>>(), ["own"]);
}

#[test]
fn errors_name_the_file_they_are_in() {
    for (main, functions, expected) in [
        (
            MAIN,
            "[functions.own]\n",
            &[
                "functions.toml:1:1: functions.own: `own` is declared here and in weir.toml; remove it in one of the two files",
            ][..],
        ),
        (
            MAIN,
            "[cluster.b]\n[functions.f.models.m]\ncluster = \"b\"\nrouting_method = \"x\"\n",
            &[
                "functions.toml:1:2: cluster: unknown key `cluster`; remove it or use one of: functions",
                "functions.toml:3:11: functions.f.models.m.cluster: no cluster named `b`; declare [clusters.b] or use one of: a",
                "functions.toml:4:18: functions.f.models.m.routing_method: no routing method named `x`; use one of: round_robin, random, power_of_two, groq_multiregion, pulsar, pulsar_multiregion; or a routing filter of your own (role = \"routing\")",
            ],
        ),
        (
            MAIN,
            "[functions.f]\npriority = { default = -1, per_tenant = { t = 4294967296 } }\n[[functions.f.versions]]\nnvcf = 1\n[[functions.f.versions]]\nid = \"a\"\n[[functions.f.versions]]\nid = \"a\"\n",
            &[
                "functions.toml:2:24: functions.f.priority.default: -1 is out of range; write a number from 0 to 4294967295",
                "functions.toml:2:47: functions.f.priority.per_tenant.t: 4294967296 is out of range; write a number from 0 to 4294967295",
                "functions.toml:3:1: functions.f.versions[0].id: missing key `id`; add id = \"a UUID\"",
                "functions.toml:4:8: functions.f.versions[0].nvcf: is of type integer; write a table",
                "functions.toml:7:1: functions.f.versions[2]: two versions have the id `a`; remove one",
            ],
        ),
        (
            "a = \n[functions_api]\ncluster = \"b\"\n",
            "[functions.f.models.m]\ncluster = 1\n",
            &[
                "weir.toml:1:5: string values must be quoted, expected literal string; correct the TOML here",
                "functions.toml:2:11: functions.f.models.m.cluster: is of type integer; write a string",
            ],
        ),
        (
            "[functions_api]\ncluster = \"b\"\n",
            "",
            &["weir.toml:2:11: functions_api.cluster: no cluster named `b`; declare [clusters.b]"],
        ),
    ] {
        assert_eq!(
            loaded(main, functions).unwrap_err(),
            expected,
            "{main}\n{functions}"
        );
    }
}
