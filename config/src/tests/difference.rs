//! Masking, loading, and differences between configurations.

use std::path::Path;

use crate::{REFERENCE, diff, load, masked, parse, parse_keys, resolve};

#[test]
fn secrets_are_masked_everywhere() {
    let text = r#"
        [[key_tables.t.keys]]
        id = "a"
        key = "hunter2"
        [[key_tables.t.keys]]
        id = "b"
        sha256 = "37a721706adc5240e60def713f9817d6800983f74ab6c89c32f41c244b29e03f"
        [clusters.c]
        endpoints = ["h:1"]
        api_key = "hunter3"
        [filters.f]
        module = "f.wasm"
        config = { a = [{ client-secret = "hunter4", limit = 5 }], api_key = "hunter5" }
    "#;
    let config = parse(text, "f").unwrap();
    let shown = masked(&config).to_string();
    assert!(
        !shown.contains("hunter") && !shown.contains("37a7"),
        "{shown}"
    );
    assert!(
        shown.contains(r#""a":[{"client-secret":"***","limit":5}]"#),
        "{shown}"
    );
    let debug = format!("{:?}", (&config.key_tables, &config.clusters));
    assert!(!debug.contains("hunter"), "{debug}");
    assert_eq!(
        config.key_tables["t"].keys[0]
            .key
            .as_ref()
            .unwrap()
            .reveal(),
        "hunter2"
    );
    assert_eq!(config.key_tables["t"].keys[0].tenant, "a");
}

/// A text of the reference file, another in its place, the lines and the keys for a restart.
type Change = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const HASH: &str = "sha256 = \"37a721706adc5240e60def713f9817d6800983f74ab6c89c32f41c244b29e03f\"";
const OTHER_HASH: &str =
    "sha256 = \"47a721706adc5240e60def713f9817d6800983f74ab6c89c32f41c244b29e03f\"";
const CHANGES: &[Change] = &[
    ("", "", &[], &[]),
    (
        "#threads = 0",
        "threads = 2",
        &["server: threads changed from 0 to 2"],
        &["server.threads"],
    ),
    (
        "#access = true",
        "access = false",
        &["log: access changed from true to false"],
        &[],
    ),
    (
        "#level = \"info\"",
        "level = \"debug\"",
        &[r#"log: level changed from "info" to "debug""#],
        &["log.level"],
    ),
    (
        "#series_max = 1000",
        "series_max = 5",
        &["telemetry: series_max changed from 1000 to 5"],
        &[],
    ),
    (
        "#headers = {}",
        "headers = { authorization = \"a secret\" }",
        &["telemetry: otlp changed"],
        &["telemetry.otlp"],
    ),
    (
        ":8080",
        ":8081",
        &[r#"listeners.main: listen changed from "127.0.0.1:8080" to "127.0.0.1:8081""#],
        &["listeners.main"],
    ),
    (
        "seed = 2",
        "seed = 3",
        &[r#"simulators."127.0.0.1:18082": seed changed from 2 to 3"#],
        &[r#"simulators."127.0.0.1:18082""#],
    ),
    (
        r#"config = { key_table = "demo", also = ["x-api-key"] }"#,
        r#"config = { key_table = "other" }"#,
        &["filters.auth: config changed"],
        &[],
    ),
    (
        r#", { address = "127.0.0.1:18082", weight = 1 }"#,
        r#", "127.0.0.1:9002""#,
        &[
            "clusters.sim: endpoint 127.0.0.1:18082 removed",
            "clusters.sim: endpoint 127.0.0.1:9002 added",
        ],
        &[],
    ),
    (
        "weight = 1",
        "weight = 4",
        &["clusters.sim: endpoint 127.0.0.1:18082 weight changed from 1 to 4"],
        &[],
    ),
    (
        "#retries = 2",
        "retries = 0",
        &["clusters.sim: retries changed from 2 to 0"],
        &[],
    ),
    (
        "#heartbeat_ms = 1000",
        "heartbeat_ms = 500\nlisten = \"127.0.0.1:7\"\npeers = [\"h:1\"]",
        &[
            "workers: heartbeat_ms changed from 1000 to 500",
            "workers: listen changed",
            "workers: peers changed",
        ],
        &["workers.listen"],
    ),
    (
        r#"filters = ["auth", "token-limit", "session-affinity", "routing-method"]"#,
        "filters = []",
        &[
            "pipelines.default: filters changed from [auth, token-limit, session-affinity, routing-method] to []",
        ],
        &[],
    ),
    (
        HASH,
        "key = \"x\"",
        &[
            "key_tables.demo.keys.demo: key changed",
            "key_tables.demo.keys.demo: sha256 changed",
        ],
        &[],
    ),
    (
        HASH,
        OTHER_HASH,
        &["key_tables.demo.keys.demo: a secret changed"],
        &[],
    ),
    (
        "\"50000-S,1000000-M\"",
        "\"1-S\"",
        &[
            r#"functions.demo.models.sim: token_rate_limit changed from "50000-S,1000000-M" to "1-S""#,
        ],
        &[],
    ),
    (
        "[limits]",
        "[[routes]]\npath_prefix = \"/x\"\ncluster = \"sim\"\n[limits]",
        &[r#"routes."/x": added"#],
        &[],
    ),
];

#[test]
fn says_what_changed() {
    for (from, to, lines, boot) in CHANGES {
        let old = parse(REFERENCE, "old").unwrap();
        let new = parse(&REFERENCE.replace(from, to), "new").expect(to);
        let diff = diff(&old, &new);
        assert_eq!(
            (diff.lines, diff.boot),
            (strings(lines), strings(boot)),
            "{to}"
        );
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn certificates_change_live() {
    let with = |tls: &str| {
        let text = format!("[[listeners]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\n{tls}");
        parse(&text, "f").unwrap()
    };
    let (one, two, none) = (
        with("tls = { cert = \"a\", key = \"b\" }"),
        with("tls = { cert = \"c\", key = \"b\" }"),
        with(""),
    );
    assert_eq!(diff(&one, &two).boot, strings(&[]));
    assert_eq!(diff(&one, &two).lines, ["listeners.a: tls changed"]);
    assert_eq!(diff(&one, &none).boot, ["listeners.a"]);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_in_it() {
    let errors = load(Path::new("no/such/file.toml")).unwrap_err();
    assert_eq!(errors.len(), 1);
    let text = errors[0].to_string();
    assert!(
        text.starts_with("no/such/file.toml:1:1: cannot be read: "),
        "{text}"
    );
}

#[test]
fn key_files_hold_keys_only() {
    let keys = parse_keys("[[keys]]\nid = \"a\"\nkey = \"b\"\n", "keys.toml").unwrap();
    assert_eq!(
        (keys[0].id.as_str(), keys[0].plan.as_str()),
        ("a", "default")
    );
    let errors = parse_keys("[[key]]\nid = \"a\"\n", "keys.toml").unwrap_err();
    let expected = "keys.toml:1:3: key: unknown key `key`; did you mean `keys`?";
    assert_eq!(errors[0].to_string(), expected);
}

#[test]
fn paths_are_relative_to_the_file() {
    let base = Path::new("/etc/weir");
    assert_eq!(
        resolve(base, Path::new("a.wasm")),
        Path::new("/etc/weir/a.wasm")
    );
    assert_eq!(resolve(base, Path::new("/b.wasm")), Path::new("/b.wasm"));
}
