//! The commands: their output is for people, their exit codes for scripts.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use weir_tests::caller;
use weir_tests::gateway;
use weir_tests::guests::{Guest, target_folder};
use weir_tests::process::{Process, Signal};

use crate::stage::{beside_others, weir};

#[test]
fn init_writes_a_config_that_check_likes() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("new");
    let dir = dir.to_str().unwrap();
    let file = format!("{dir}/weir.toml");
    let (code, text) = weir(&["init", dir]);
    assert!(code == 0 && text.contains(&file), "{code} {text}");
    let (code, text) = weir(&["check", "--config", &file]);
    assert!(code == 0 && text.contains("is good"), "{code} {text}");
    fs::write(&file, "mine").unwrap();
    let (code, text) = weir(&["init", dir]);
    assert!(code == 2 && text.contains("--force"), "{code} {text}");
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "mine",
        "it is not overwritten"
    );
    assert_eq!(weir(&["init", "--force", dir]).0, 0);
    assert_ne!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn check_prints_every_error_with_its_place() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("weir.toml");
    let path = file.to_str().unwrap();
    let (code, text) = weir(&["check", "--config", path]);
    assert!(
        code == 1 && text.contains(path),
        "a missing file: {code} {text}"
    );
    for (config, errors) in [
        ("listeners = [\n", &["weir.toml:1:"][..]),
        (
            "[[listeners]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nlisteen = 1\n[clusters.sim]\nendpoints = [7]\n[functions.demo.models.sim]\ncluster = \"smi\"\n",
            &[
                "weir.toml:4:1: listeners[0].listeen",
                "weir.toml:6:",
                "weir.toml:8:",
                "`smi`",
                "error",
            ][..],
        ),
        (
            "[[listeners]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\n[filters.a]\nmodule = \"none.wasm\"\n[filters.b]\nmodule = \"builtin:token-limit\"\nconfig = { default = \"7-Q\" }\ngrants = { limiters = true }\n",
            &[
                "weir.toml:5:",
                "none.wasm",
                "weir.toml:8:",
                "`Q` is not a unit",
                "2 errors",
            ][..],
        ),
    ] {
        fs::write(&file, config).unwrap();
        let (code, text) = weir(&["check", "--config", path]);
        assert_eq!(code, 1, "{config}: {text}");
        for error in errors {
            assert!(text.contains(error), "{error} in:\n{text}");
        }
        let (code, text) = weir(&["run", "--config", path]);
        assert!(
            code == 1 && text.contains("weir.toml:"),
            "it is not started: {code} {text}"
        );
    }
    assert_eq!(weir(&["chekc"]).0, 2);
    assert_eq!(weir(&["--version"]).0, 0);
}

/// Runs a command of the binary in a folder.
fn weir_in(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(gateway::binary())
        .args(arguments)
        .current_dir(folder)
        .env("XDG_CACHE_HOME", target_folder().join("test-cache"))
        .env("CARGO_TARGET_DIR", target_folder().join("guests"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test]
async fn filters_are_written_built_tested_and_inspected() {
    let _guard = beside_others().await;
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../filters/sdk");
    let sdk = sdk.canonicalize().unwrap();
    let folder = TempDir::new().unwrap();
    for (phase, name) in [
        ("route", "routing-mine"),
        ("request", "limit-mine"),
        ("authorize", "auth-mine"),
    ] {
        let new = [
            "filter",
            "new",
            name,
            "--phase",
            phase,
            "--sdk",
            sdk.to_str().unwrap(),
        ];
        let (code, text) = weir_in(folder.path(), &new);
        assert_eq!(code, 0, "{phase}: {text}");
        let (code, text) = weir_in(folder.path(), &new);
        assert!(
            code != 0 && text.contains("is there already"),
            "{phase}: {text}"
        );
        let (code, text) = weir_in(folder.path(), &["filter", "build", name]);
        assert_eq!(code, 0, "{phase}: {text}");
        let (code, text) = weir_in(folder.path(), &["filter", "test", name]);
        assert!(code == 0 && text.contains("all ok"), "{phase}: {text}");
        let (code, text) = weir_in(folder.path(), &["filter", "inspect", name]);
        assert!(
            code == 0 && text.contains(phase) && text.contains("weir:filter/"),
            "{phase}: {text}"
        );
    }
    // A case that expects something else fails.
    let cases = folder.path().join("limit-mine/tests.toml");
    let text = fs::read_to_string(&cases).unwrap();
    let wrong = text.replacen(
        "expect = ",
        "expect = { outcome = \"respond\", status = 599 } #",
        1,
    );
    fs::write(&cases, &wrong).unwrap();
    let (code, text) = weir_in(folder.path(), &["filter", "test", "limit-mine"]);
    assert_eq!(code, 1, "{wrong}\n{text}");
}

#[test]
fn inspect_names_what_must_not_be_imported() {
    let folder = TempDir::new().unwrap();
    Guest::Connects.put(folder.path(), "connects.wasm");
    let (_, text) = weir_in(folder.path(), &["filter", "inspect", "connects.wasm"]);
    assert!(text.contains("wasi:sockets/tcp@0.2"), "{text}");
    let (code, text) = weir_in(folder.path(), &["filter", "inspect", "builtin:auth"]);
    assert!(code == 0 && text.contains("authorize"), "{text}");
    fs::write(folder.path().join("not.wasm"), "not").unwrap();
    let (code, text) = weir_in(folder.path(), &["filter", "inspect", "not.wasm"]);
    assert!(code == 1 && text.contains("not.wasm"), "{code} {text}");
}

#[tokio::test]
async fn simulate_says_which_port_it_got() {
    let _guard = beside_others().await;
    let mut command = Command::new(gateway::binary());
    command.args(["simulate", "--listen", "127.0.0.1:0", "--model", "mine"]);
    let mut process = Process::spawn(&mut command).unwrap();
    process
        .wait_for_log("simulator on http://", gateway::DEADLINE)
        .await
        .unwrap();
    let log = process.log();
    let address = log
        .lines()
        .next()
        .unwrap()
        .rsplit("http://")
        .next()
        .unwrap();
    let models = caller::send(address.parse().unwrap(), caller::get("/v1/models")).await;
    assert!(
        models.status == 200 && models.text().contains("mine"),
        "{}",
        models.text()
    );
    process.signal(Signal::TERM).unwrap();
    let status = process
        .wait_for_exit(Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(status.code(), Some(0));
}
