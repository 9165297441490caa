//! Tokens of an issuer: by a file, by a URL, and what becomes of them when keys change.

use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tempfile::TempDir;
use weir_tests::config_text::KEY;
use weir_tests::gateway::{Gateway, wait_until};
use weir_tests::issuer::{Signer, key_set, now};
use weir_tests::simulated::Simulated;
use weir_tests::upstream::{Connection, Upstream, answer};

use super::kit::{ask, gateway, said};

const BY_FILE: (&str, &str) = (
    r#"{ key_table = "demo", jwt = { key_set = "idp", issuer = "https://idp.test", audience = "weir", claims = { tenant = "org", models = "models" } } }"#,
    r#"key_tables = ["demo"], key_sets = ["idp"]"#,
);

const KEY_SET: &str = "[key_sets.idp]\nfile = \"jwks.json\"\n";

async fn by_file(signers: &[&Signer]) -> (Gateway, Simulated) {
    let simulated = Simulated::start().await;
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("jwks.json"), key_set(signers)).unwrap();
    let gateway = gateway(folder, simulated.address(), BY_FILE, KEY_SET).await;
    (gateway, simulated)
}

#[tokio::test]
async fn tokens_of_every_kind_of_key_and_none_that_does_not_count() {
    let signers = [Signer::rsa("rsa"), Signer::ec("ec"), Signer::ed25519("ed")];
    let all: Vec<&Signer> = signers.iter().collect();
    let (gateway, _simulated) = by_file(&all).await;
    let org = json!({"org": "acme"});
    for signer in &signers {
        let token = signer.token("alice", &org);
        let (signed, _) = token.rsplit_once('.').unwrap();
        let table = [
            (token.clone(), "200"),
            // From memory.
            (token.clone(), "200"),
            (format!("{signed}.AAAA"), "401 invalid_token"),
            (
                signer.token("a", &json!({"org": "acme", "exp": now() - 61})),
                "401 expired_token",
            ),
            (
                signer.token("a", &json!({"org": "acme", "nbf": now() + 600})),
                "401 invalid_token",
            ),
            (
                signer.token("a", &json!({"org": "acme", "aud": "other"})),
                "401 invalid_token",
            ),
            (signer.token("a", &json!({})), "401 invalid_token"),
            (
                signer.token("a", &json!({"org": "acme", "models": ["demo/*"]})),
                "200",
            ),
            (
                signer.token("a", &json!({"org": "acme", "models": ["other/*"]})),
                "403 model_not_allowed",
            ),
            // What is not of the issuer may be a key.
            (
                signer.token("a", &json!({"iss": "other"})),
                "401 invalid_api_key",
            ),
            (KEY.to_owned(), "200"),
            ("nobody".to_owned(), "401 invalid_api_key"),
        ];
        for (credential, expected) in table {
            let answer = ask(&gateway, &credential).await;
            assert_eq!(said(&answer), expected, "{credential}: {}", answer.text());
        }
    }
    let expired = signers[0].token("a", &json!({"org": "acme", "exp": 1}));
    let answer = ask(&gateway, &expired).await;
    assert_eq!(
        answer.header("www-authenticate"),
        r#"Bearer error="invalid_token", error_description="the token has expired""#
    );
    assert!(!gateway.log().contains("eyJ"), "a token in the log");
}

#[tokio::test]
async fn a_file_with_other_keys_counts_at_once_and_a_bad_one_not_at_all() {
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let (gateway, _simulated) = by_file(&[&old]).await;
    let token = |signer: &Signer, subject: &str| signer.token(subject, &json!({"org": "acme"}));
    assert_eq!(said(&ask(&gateway, &token(&old, "a")).await), "200");
    assert_eq!(
        said(&ask(&gateway, &token(&new, "a")).await),
        "401 invalid_token"
    );
    gateway.replace("jwks.json", key_set(&[&new]));
    gateway
        .wait_for("the new key to count", async |gateway| {
            ask(gateway, &token(&new, "b")).await.status == 200
        })
        .await;
    assert_eq!(
        said(&ask(&gateway, &token(&old, "b")).await),
        "401 invalid_token"
    );
    let number = gateway.config_number().await;
    let private = key_set(&[&old]).replacen(r#""kty""#, r#""d":"c2VjcmV0","kty""#, 1);
    for (bad, message) in [
        ("{", "jwks.json is not JSON"),
        (&private, "jwks.json: keys[0] holds a secret, `d`"),
    ] {
        gateway.replace("jwks.json", bad);
        gateway
            .wait_for("the file to be refused", async |gateway| {
                gateway.log().contains(message)
            })
            .await;
        assert_eq!(gateway.config_number().await, number);
        assert_eq!(said(&ask(&gateway, &token(&new, "c")).await), "200");
    }
    assert!(!gateway.log().contains("c2VjcmV0"));
}

/// Serves a key set; `None` is an issuer that is down.
async fn issuer(served: &Arc<Mutex<Option<String>>>) -> Upstream {
    let served = Arc::clone(served);
    Upstream::scripted(move |mut connection: Connection| {
        let served = Arc::clone(&served);
        async move {
            while let Ok(request) = connection.request().await {
                assert!(request.head.starts_with("GET /keys "), "{}", request.head);
                let set = served.lock().unwrap().clone();
                let answer = match set {
                    Some(set) => answer("200 OK", "application/json", &set),
                    None => answer("500 Down", "text/html", "<html>"),
                };
                connection.send(answer).await;
            }
        }
    })
    .await
}

const BY_URL: (&str, &str) = (
    r#"{ jwt = { cluster = "idp", path = "/keys", insecure = true, refresh_seconds = 1, issuer = "https://idp.test", audience = "weir" } }"#,
    r#"clusters = ["idp"], stores = true"#,
);

async fn by_url(served: &Arc<Mutex<Option<String>>>) -> (Gateway, Simulated, Upstream) {
    let simulated = Simulated::start().await;
    let idp = issuer(served).await;
    let cluster = format!("[clusters.idp]\nendpoints = [\"{}\"]\n", idp.address());
    let folder = TempDir::new().unwrap();
    let gateway = gateway(folder, simulated.address(), BY_URL, &cluster).await;
    (gateway, simulated, idp)
}

#[tokio::test]
async fn keys_of_a_url_rotate_and_outlive_their_issuer() {
    let (old, new) = (Signer::ec("old"), Signer::ed25519("new"));
    let served = Arc::new(Mutex::new(Some(key_set(&[&old]))));
    let (gateway, _simulated, idp) = by_url(&served).await;
    let token = |signer: &Signer, subject: &str| signer.token(subject, &json!({}));
    assert_eq!(said(&ask(&gateway, &token(&old, "a")).await), "200");
    *served.lock().unwrap() = Some(key_set(&[&old, &new]));
    gateway
        .wait_for("the new key to count", async |gateway| {
            ask(gateway, &token(&new, "a")).await.status == 200
        })
        .await;
    *served.lock().unwrap() = None;
    let asked = idp.requests();
    wait_until("keys to be asked for again", async || {
        idp.requests() > asked
    })
    .await;
    for signer in [&old, &new] {
        let answer = ask(&gateway, &token(signer, "not seen before")).await;
        assert_eq!(said(&answer), "200", "{}", answer.text());
    }
}

#[tokio::test]
async fn an_issuer_that_comes_up_late_is_found() {
    let signer = Signer::ec("a");
    let served = Arc::new(Mutex::new(None));
    let (gateway, _simulated, _idp) = by_url(&served).await;
    let token = signer.token("a", &json!({}));
    let answer = ask(&gateway, &token).await;
    assert_eq!(said(&answer), "503 authentication_unavailable");
    *served.lock().unwrap() = Some(key_set(&[&signer]));
    gateway
        .wait_for("the keys to be fetched", async |gateway| {
            ask(gateway, &token).await.status == 200
        })
        .await;
}
