//! Listeners with TLS: protocols by ALPN, certificates replaced live.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use weir_tests::caller::chat_body;
use weir_tests::config_text::{ConfigText, KEY};
use weir_tests::gateway::Gateway;
use weir_tests::simulated::Simulated;

const TLS: &str = r#"tls = { cert = "cert.pem", key = "key.pem" }"#;

fn run(command: &mut Command) -> Output {
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}; the suite needs openssl and curl"))
}

/// Writes `cert.pem` and `key.pem` for this name into a folder.
fn certificate(folder: &Path, name: &str) {
    let made = run(Command::new("openssl")
        .current_dir(folder)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args(["-days", "2", "-subj", &format!("/CN={name}")])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"]));
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

/// What a caller got over TLS: the protocol, the name in the certificate, and the answer.
#[derive(Debug)]
struct Seen {
    version: String,
    certificate: String,
    body: String,
}

/// Blocks while curl runs: the gateway is another process, but a simulator is not.
async fn ask(gateway: &Gateway, version: &str, members: &str) -> Seen {
    let url = format!("https://{}/v1/chat/completions", gateway.address());
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--verbose",
            "--insecure",
            "--max-time",
            "30",
            version,
            &url,
        ])
        .args([
            "-H",
            &format!("authorization: Bearer {KEY}"),
            "-H",
            "content-type: application/json",
        ])
        .args([
            "--data",
            &chat_body("demo/sim", members),
            "--write-out",
            "\n%{http_version}",
        ]);
    let output = tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let subject = said.lines().find_map(|line| {
        line.split_once("subject: CN=")
            .or(line.split_once("subject: CN = "))
    });
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, version) = answer.rsplit_once('\n').unwrap_or_default();
    assert!(output.status.success(), "{said}");
    Seen {
        version: version.to_owned(),
        certificate: subject
            .unwrap_or_else(|| panic!("{said}"))
            .1
            .trim()
            .to_owned(),
        body: body.to_owned(),
    }
}

async fn gateway(name: &str) -> (Gateway, Simulated) {
    let simulated = Simulated::start().await;
    let folder = TempDir::new().unwrap();
    certificate(folder.path(), name);
    let config = ConfigText::new(&[simulated.address()]).listener(TLS);
    (Gateway::start_in(folder, &config.text()).await, simulated)
}

#[tokio::test]
async fn protocols_by_alpn() {
    let (gateway, _simulated) = gateway("first.example").await;
    for (argument, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let unary = ask(&gateway, argument, "").await;
        assert_eq!(
            (unary.version.as_str(), unary.certificate.as_str()),
            (version, "first.example")
        );
        assert!(unary.body.contains(r#""model":"demo/sim""#), "{unary:?}");
        let stream = ask(&gateway, argument, r#""stream":true"#).await;
        assert!(
            stream.body.trim_end().ends_with("data: [DONE]"),
            "{stream:?}"
        );
    }
}

#[tokio::test]
async fn certificates_are_replaced_live() {
    let (mut gateway, _simulated) = gateway("first.example").await;
    let id = gateway.process().id();
    let next = TempDir::new().unwrap();
    certificate(next.path(), "second.example");
    let file = |name: &str| std::fs::read(next.path().join(name)).unwrap();
    // Half a change is no change: the pair does not match.
    gateway.replace("key.pem", file("key.pem"));
    assert_eq!(
        ask(&gateway, "--http2", "").await.certificate,
        "first.example"
    );
    gateway.replace("cert.pem", file("cert.pem"));
    gateway
        .wait_for("the new certificate", async |gateway| {
            ask(gateway, "--http1.1", "").await.certificate == "second.example"
        })
        .await;
    assert_eq!(gateway.process().id(), id);
    assert_eq!(
        ask(&gateway, "--http2", "").await.certificate,
        "second.example"
    );
    gateway.replace("cert.pem", "not a certificate");
    gateway
        .wait_for("a word about it", async |gateway| {
            gateway.log().matches("certificate").count() > 0
        })
        .await;
    assert_eq!(
        ask(&gateway, "--http1.1", "").await.certificate,
        "second.example"
    );
}
