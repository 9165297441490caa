//! The examples do what their READMEs say: the commands under `## Try` are run as they stand there,
//! but for the ports.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use weir_tests::caller;
use weir_tests::gateway::{Gateway, free_address};
use weir_tests::guests::target_folder;

use crate::stage::{beside_others, check};

/// An example copied away, with ports of its own, and running.
struct Example {
    gateway: Gateway,
    /// The blocks of commands under `## Try`.
    commands: Vec<String>,
}

impl Example {
    async fn start(name: &str) -> Self {
        let source = folder().join(name);
        let copy = TempDir::new().unwrap();
        for entry in fs::read_dir(&source).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        match name {
            "edge-tls" => make_cert(copy.path()),
            "custom-filter" | "prefix-cache" => build_filter(&source, copy.path()),
            _ => {}
        }
        let (code, text) = check(&copy.path().join("config.toml"));
        assert_eq!(code, 0, "{name}: {text}");

        let ports = PORTS.map(|port| (port, free_address().to_string()));
        let elsewhere = |text: &str, callers: &str| {
            let text = text
                .replace("127.0.0.1:8080", callers)
                .replace("127.0.0.1:8443", callers);
            ports
                .iter()
                .fold(text, |text, (port, free)| text.replace(port, free))
        };
        let config = fs::read_to_string(copy.path().join("config.toml")).unwrap();
        let config = format!(
            "admin.listen = \"{{admin}}\"\n{}",
            elsewhere(&config, "{listen}")
        );
        let gateway = Gateway::start_in(copy, &config).await;
        let readme = fs::read_to_string(source.join("README.md")).unwrap();
        let address = gateway.address().to_string();
        let commands = blocks(&readme, "## Try");
        let commands = commands
            .iter()
            .map(|block| elsewhere(block, &address))
            .collect();
        Self { gateway, commands }
    }

    /// Where the first requests went, by the access log.
    async fn targets(&self, count: usize) -> Vec<String> {
        let targets = || {
            let log = self.gateway.log();
            let lines = log.lines().filter(|line| line.contains("chat_completions"));
            let words = lines.flat_map(|line| line.split_whitespace().map(str::to_owned));
            words
                .filter(|word| word.starts_with("backend="))
                .collect::<Vec<_>>()
        };
        self.gateway
            .wait_for("lines of access log", async |_| targets().len() >= count)
            .await;
        targets()
    }

    /// What a block of commands prints.
    fn run(&self, block: usize) -> String {
        let output = Command::new("sh")
            .args(["-euc", &self.commands[block]])
            .current_dir(self.gateway.folder())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}: {text} {log}\n{}",
            self.commands[block],
            self.gateway.log()
        );
        text
    }
}

/// What is in `sh` fences after a heading.
fn blocks(readme: &str, heading: &str) -> Vec<String> {
    let (_, after) = readme.split_once(heading).unwrap();
    let fences = after.split("```sh\n").skip(1);
    fences
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn make_cert(folder: &Path) {
    let made = Command::new("sh")
        .arg("make-cert.sh")
        .current_dir(folder)
        .status();
    assert!(made.unwrap().success(), "openssl is needed");
}

/// Builds as the README says, but into the target folder of the tests.
fn build_filter(source: &Path, copy: &Path) {
    let target = target_folder().join("guests");
    let built = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--quiet",
            "--target",
            "wasm32-unknown-unknown",
        ])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(source)
        .status();
    assert!(built.unwrap().success());
    let name = source.file_name().unwrap().to_str().unwrap();
    let module = format!(
        "wasm32-unknown-unknown/release/{}.wasm",
        name.replace('-', "_")
    );
    let place = copy.join("target").join(&module);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy(target.join(&module), place).unwrap();
}

fn completion(text: &str) -> String {
    let answer: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(answer["object"], "chat.completion", "{text}");
    answer["model"].as_str().unwrap().to_owned()
}

/// How many chat completions a model server of an example has answered.
async fn chats(stats: &str) -> Option<u64> {
    let stats: Value =
        serde_json::from_str(stats).unwrap_or_else(|error| panic!("{error}: {stats}"));
    stats["requests"]["/v1/chat/completions"].as_u64()
}

#[test]
fn every_example_is_tried_here() {
    let mut found: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "affinity",
            "custom-filter",
            "edge-tls",
            "limits",
            "minimal",
            "prefix-cache"
        ]
    );
}

#[tokio::test]
async fn minimal() {
    let _guard = beside_others().await;
    let example = Example::start("minimal").await;
    assert_eq!(completion(&example.run(0)), "demo/sim");
    let refused = example.run(1);
    assert!(
        refused.contains("\"error\"") && refused.trim_end().ends_with("401"),
        "{refused}"
    );
}

#[tokio::test]
async fn edge_tls() {
    let _guard = beside_others().await;
    let example = Example::start("edge-tls").await;
    assert_eq!(completion(&example.run(0)), "demo/sim");
    let stats = example.run(1);
    assert!(stats.contains("the-provider-s-key"), "{stats}");
    assert!(!stats.contains("weir-demo-key"), "{stats}");

    // A renewed certificate is served without a restart.
    let before = fs::read(example.gateway.folder().join("tls/cert.pem")).unwrap();
    make_cert(example.gateway.folder());
    assert_ne!(
        before,
        fs::read(example.gateway.folder().join("tls/cert.pem")).unwrap()
    );
    // Curl trusts the new file only: until it is served, the handshake fails.
    example
        .gateway
        .wait_for("the new certificate", async |gateway| {
            let run = Command::new("sh")
                .args(["-euc", &example.commands[0]])
                .current_dir(gateway.folder())
                .output();
            run.unwrap().status.success()
        })
        .await;
}

#[tokio::test]
async fn limits() {
    let _guard = beside_others().await;
    let example = Example::start("limits").await;
    let fits = example.run(0);
    assert!(fits.starts_with("HTTP/1.1 200"), "{fits}");
    let again = example.run(0);
    assert!(
        again.starts_with("HTTP/1.1 200"),
        "what was not used came back: {again}"
    );
    let too_much = example.run(1);
    assert!(
        too_much.starts_with("HTTP/1.1 429") && too_much.contains("rate_limit_exceeded"),
        "{too_much}"
    );
    assert!(
        too_much.to_lowercase().contains("x-should-retry: false"),
        "{too_much}"
    );
    let statuses = example.run(2);
    assert_eq!(
        statuses.split_whitespace().collect::<Vec<_>>(),
        ["200", "200", "200", "200", "200", "429"]
    );
}

#[tokio::test]
async fn affinity() {
    let _guard = beside_others().await;
    let example = Example::start("affinity").await;
    let sessions = example.run(0);
    assert_eq!(
        sessions.split_whitespace().collect::<Vec<_>>(),
        ["my-conversation"; 4]
    );
    let mut counts = Vec::new();
    for line in example.commands[1].lines() {
        let address = line
            .split([' ', '/'])
            .find(|word| word.contains(':'))
            .unwrap();
        let stats = caller::send(address.parse().unwrap(), caller::get("/sim/stats")).await;
        counts.push(chats(&stats.text()).await.unwrap_or(0));
    }
    counts.sort_unstable();
    assert_eq!(counts, [0, 4]);
}

#[tokio::test]
async fn custom_filter() {
    let _guard = beside_others().await;
    let example = Example::start("custom-filter").await;
    for _ in 0..4 {
        assert_eq!(completion(&example.run(0)), "demo/sim");
    }
    let targets = example.targets(4).await;
    assert!(
        targets.iter().all(|target| *target == targets[0]),
        "the tenant's home: {targets:?}"
    );
}

#[tokio::test]
async fn prefix_cache() {
    let _guard = beside_others().await;
    let example = Example::start("prefix-cache").await;
    example.run(0);
    example.targets(2).await;
    assert_eq!(completion(&example.run(1)), "demo/sim");
    example.run(0);
    let targets = example.targets(5).await;
    let first = &targets[0];
    let elsewhere: Vec<bool> = targets.iter().map(|target| target != first).collect();
    assert_eq!(elsewhere, [false, false, true, false, false], "{targets:?}");
}

const PORTS: [&str; 2] = ["127.0.0.1:18081", "127.0.0.1:18082"];
