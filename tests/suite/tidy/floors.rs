//! Which crate may use which: the table of docs/architecture.md.

use crate::repository::{File, file};

/// Which of our crates a crate may use, and whose names it must not know: docs/architecture.md.
const FLOORS: [(&str, &[&str], &[&str]); 12] = [
    ("config", &[], &["tokio", "wasmtime", "pingora"]),
    ("proxy/dialect", &[], &["tokio", "wasmtime", "pingora"]),
    (
        "proxy/routing",
        &[],
        &["tokio", "serde", "wasmtime", "pingora"],
    ),
    ("proxy/signature", &[], &["tokio", "wasmtime", "pingora"]),
    ("proxy/store", &[], &["wasmtime", "pingora"]),
    ("proxy/simulator", &[], &["wasmtime", "pingora"]),
    ("proxy/tunnel", &[], &["wasmtime", "pingora"]),
    ("proxy/agent", &["tunnel"], &["wasmtime", "pingora"]),
    (
        "proxy/pipeline",
        &["dialect", "routing"],
        &["tokio", "wasmtime", "pingora"],
    ),
    (
        "proxy/host",
        &[
            "config",
            "dialect",
            "routing",
            "signature",
            "store",
            "pipeline",
        ],
        &["pingora"],
    ),
    (
        "proxy/server",
        &[
            "config",
            "dialect",
            "routing",
            "store",
            "pipeline",
            "host",
            "simulator",
            "tunnel",
        ],
        &["wasmtime"],
    ),
    // The suite runs the programs; it links none of the floors but to simulate and to read.
    ("tests", &["config", "simulator"], &["wasmtime"]),
];

pub(crate) fn floor(file: &File) -> Vec<String> {
    let folder = file.path.trim_end_matches("/Cargo.toml");
    let Some((_, may_use, must_not)) = FLOORS.iter().find(|(name, ..)| *name == folder) else {
        return vec![format!(
            "{}: the crate has no floor: add a row to FLOORS",
            file.path
        )];
    };
    let mut complaints = Vec::new();
    for name in dependencies(&file.text) {
        let ours = name.strip_prefix("weir-");
        if ours.is_some_and(|ours| !may_use.contains(&ours)) {
            complaints.push(format!("{}: `{name}` is not below it", file.path));
        }
        if must_not
            .iter()
            .any(|prefix| name == *prefix || name.starts_with(&format!("{prefix}-")))
        {
            complaints.push(format!(
                "{}: `{name}` is for another crate to know",
                file.path
            ));
        }
    }
    complaints
}

/// Names under `[dependencies]`, also those of one target; what only tests or builds use may know
/// more.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut wanted = false;
    for line in manifest.lines() {
        let line = line.trim();
        if let Some(table) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            let name = table.strip_prefix("dependencies.");
            names.extend(name);
            wanted = table == "dependencies" || table.ends_with(".dependencies");
            continue;
        }
        if wanted && !line.starts_with('#') {
            let end = line.find(['.', '=', ' ']).unwrap_or_default();
            names.extend(line.get(..end).filter(|name| !name.is_empty()));
        }
    }
    names
}

#[test]
fn bad_manifests_are_complained_about() {
    let table = [
        (
            "proxy/dialect",
            "[dependencies]\ntokio.workspace = true\n",
            1,
        ),
        (
            "proxy/dialect",
            "[dependencies]\nweir-host = { path = \"../host\" }\n",
            1,
        ),
        (
            "proxy/dialect",
            "[dependencies.pingora-core]\nversion = \"1\"\n",
            1,
        ),
        (
            "proxy/dialect",
            "[dev-dependencies]\ntokio.workspace = true\n[lints]\n",
            0,
        ),
        (
            "proxy/server",
            "[target.'cfg(unix)'.dependencies]\nwasmtime-wasi = \"1\"\n",
            1,
        ),
        (
            "proxy/server",
            "[dependencies]\npingora.workspace = true\nweir-host.workspace = true\n",
            0,
        ),
        ("proxy/nobody", "", 1),
    ];
    for (folder, text, expected) in table {
        let complaints = floor(&file(&format!("{folder}/Cargo.toml"), text));
        assert_eq!(
            complaints.len(),
            expected,
            "{folder}: {text}: {complaints:?}"
        );
    }
}
