//! Real clients against the gateway: `tests/clients/suite.py`, once for each client.

use std::path::{Path, PathBuf};
use std::process::Command;

use weir_tests::gateway::binary;

/// Set where tests may not be left out.
const CI: &str = "CI";
/// The folder that `tests/setup/clients` fills.
const CLIENTS: &str = "WEIR_CLIENTS";

#[test]
fn openai_for_python() {
    passes("openai");
}

#[test]
fn openai_1_for_python() {
    passes("openai-1");
}

#[test]
fn anthropic_for_python() {
    passes("anthropic");
}

#[test]
fn anthropic_0_for_python() {
    passes("anthropic-0");
}

#[test]
fn openai_for_node() {
    passes("openai-node");
}

#[test]
fn openai_6_for_node() {
    passes("openai-node-6");
}

#[track_caller]
fn passes(client: &str) {
    let Some(folder) = clients() else {
        let missing = format!(
            "no client {client}: `make setup-test` installs them, {CLIENTS} names the folder"
        );
        assert!(std::env::var_os(CI).is_none(), "{missing}");
        eprintln!("SKIPPED: {missing}");
        return;
    };
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/suite.py");
    let run = Command::new("python3")
        .args([&suite, &binary(), &folder])
        .arg(client)
        .output();
    let run = run.unwrap_or_else(|error| panic!("python3: {error}"));
    let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    for line in said.lines().filter(|line| line.contains("SKIPPED")) {
        eprintln!("{line}");
    }
}

fn clients() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(CLIENTS) {
        return Some(PathBuf::from(named));
    }
    // The folder of the profile is in the target folder, where `make setup-test` puts them.
    let test = std::env::current_exe().ok()?;
    let made = |folder: &Path| folder.join("clients");
    test.ancestors()
        .map(made)
        .find(|clients| clients.join("node").exists())
}
