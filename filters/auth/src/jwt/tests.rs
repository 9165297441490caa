//! Tokens of real keys: which count, which do not, and where keys come from.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use serde_json::{Value, json};
use weir_sdk::http_client::Response;
use weir_sdk::testing::{self, Exchange};
use weir_sdk::{Authorize as _, Decision, Failure, OnTick as _, Principal};

use crate::Auth;

/// The second at which the fake clock stands.
const NOW: u64 = 1_700_000_000;

/// A key pair of an issuer.
struct Signer {
    kid: String,
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
}

impl Signer {
    fn ec(kid: &str) -> Self {
        let (random, how) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(how, pkcs8.as_ref(), &random).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let jwk = json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": text(x), "y": text(y)});
        Self::new(
            kid,
            Algorithm::ES256,
            EncodingKey::from_ec_der(pkcs8.as_ref()),
            jwk,
        )
    }

    fn ed25519(kid: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let x = text(pair.public_key().as_ref());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x});
        Self::new(
            kid,
            Algorithm::EdDSA,
            EncodingKey::from_ed_der(pkcs8.as_ref()),
            jwk,
        )
    }

    fn rsa(kid: &str, algorithm: Algorithm) -> Self {
        let der = include_bytes!("../../../../proxy/signature/src/test-rsa.der");
        let pair = RsaKeyPair::from_der(der).unwrap();
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
        let jwk = json!({"kty": "RSA", "kid": kid, "n": text(&public.n), "e": text(&public.e)});
        Self::new(kid, algorithm, EncodingKey::from_rsa_der(der), jwk)
    }

    fn new(kid: &str, algorithm: Algorithm, key: EncodingKey, jwk: Value) -> Self {
        let kid = kid.to_owned();
        Self {
            kid,
            algorithm,
            key,
            jwk,
        }
    }

    /// A token with good claims and some others.
    fn token(&self, claims: Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.clone());
        encode(&header, &with(claims), &self.key).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Good claims, replaced by these; null takes one away.
fn with(claims: Value) -> Value {
    let mut all = json!({"iss": "https://idp", "sub": "alice", "aud": "weir", "exp": NOW + 600});
    for (name, value) in claims.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
            value => all[name] = value.clone(),
        }
    }
    all
}

fn set(signers: &[&Signer]) -> String {
    let keys: Vec<&Value> = signers.iter().map(|signer| &signer.jwk).collect();
    json!({"keys": keys}).to_string()
}

fn exchange() -> Exchange {
    Exchange::new().model("demo", "sim")
}

fn auth(exchange: &mut Exchange, config: &str) -> Auth {
    exchange
        .run(|| testing::filter(config))
        .unwrap_or_else(|errors| panic!("{config}: {errors:?}"))
}

fn decision(mut exchange: Exchange, auth: &Auth, token: &str) -> (Exchange, Decision) {
    exchange.set_header("authorization", format!("Bearer {token}"));
    let view = exchange.view();
    let decision = exchange.run(|| auth.authorize(view));
    (exchange, decision)
}

/// The subject let in, or status, code and challenge of the refusal.
fn said(decision: &Decision) -> String {
    match decision {
        Decision::Allow(principal) => format!("allow {}", principal.subject),
        Decision::Deny(refused) => {
            let challenge = refused.headers.first().map(|(_, value)| value.as_slice());
            let challenge = String::from_utf8_lossy(challenge.unwrap_or_default()).into_owned();
            let why = challenge.split("description=").nth(1).unwrap_or_default();
            format!("{} {} {why}", refused.status, refused.error_code)
        }
        other => format!("{other:?}"),
    }
}

const FILE: &str =
    r#"{"jwt":{"key_set":"idp","issuer":"https://idp","audience":["weir","other"]}}"#;

#[test]
fn claims_that_count_and_claims_that_do_not() {
    let signer = Signer::ec("a");
    let invalid = |why: &str| format!("401 invalid_token \"the token {why}\"");
    let good = "allow alice".to_owned();
    let table = [
        (json!({}), good.clone()),
        (json!({"exp": NOW - 59}), good.clone()),
        (
            json!({"exp": NOW - 60}),
            "401 expired_token \"the token has expired\"".to_owned(),
        ),
        (json!({"exp": NOW as f64 + 0.5}), good.clone()),
        (json!({"exp": null}), invalid("has no `exp`")),
        (
            json!({"exp": "soon"}),
            invalid("has a time that is no number"),
        ),
        (json!({"nbf": NOW + 60}), good.clone()),
        (json!({"nbf": NOW + 61}), invalid("is not valid yet")),
        (json!({"iat": NOW + 61}), invalid("is not valid yet")),
        (json!({"aud": ["x", "other"]}), good.clone()),
        (json!({"aud": "x"}), invalid("is for another audience")),
        (json!({"aud": []}), invalid("is for another audience")),
        (json!({"aud": null}), invalid("is for another audience")),
        (json!({"sub": ""}), invalid("has no `sub`")),
        (json!({"sub": null}), invalid("has no `sub`")),
        (json!({"sub": 7}), "allow 7".to_owned()),
        (
            json!({"sub": "s".repeat(1_025)}),
            invalid("says more than is kept"),
        ),
        (
            json!({"iss": "https://other"}),
            invalid("is none of an issuer known here"),
        ),
    ];
    for (claims, expected) in table {
        let mut exchange = exchange().key_set("idp", &set(&[&signer]));
        let auth = auth(&mut exchange, FILE);
        let (exchange, decision) = decision(exchange, &auth, &signer.token(claims.clone()));
        assert_eq!(said(&decision).trim(), expected, "{claims}");
        let logs = format!("{:?}", exchange.logs());
        assert!(!logs.contains("eyJ"), "a token in the log: {logs}");
    }
}

#[test]
fn a_token_without_an_audience_is_for_a_gateway_without_one() {
    let signer = Signer::ec("a");
    let config = r#"{"jwt":{"key_set":"idp","issuer":"https://idp"}}"#;
    for (claims, expected) in [
        (json!({"aud": null}), "allow alice"),
        (
            json!({}),
            "401 invalid_token \"the token is for another audience\"",
        ),
    ] {
        let mut exchange = exchange().key_set("idp", &set(&[&signer]));
        let auth = auth(&mut exchange, config);
        let (_, decision) = decision(exchange, &auth, &signer.token(claims));
        assert_eq!(said(&decision), expected);
    }
}

#[test]
fn claims_become_a_principal() {
    let signer = Signer::ed25519("a");
    let config = r#"{"jwt":{"key_set":"idp","issuer":"https://idp","audience":"weir","claims":{
        "subject":"email","tenant":"https://acme/org","plan":"/app/plan","models":"models",
        "priority":"prio","scopes":"scp"}}}"#;
    let mut exchange = exchange().key_set("idp", &set(&[&signer]));
    let auth = auth(&mut exchange, config);
    let claims = json!({"email": "a@b", "https://acme/org": "acme", "app": {"plan": "gold"},
        "models": ["demo/*"], "prio": 0, "scp": "read write"});
    let (exchange, allowed) = decision(exchange, &auth, &signer.token(claims));
    let mut expected = Principal::new("a@b", "acme");
    expected.plan = "gold".to_owned();
    expected.models = vec!["demo/*".to_owned()];
    expected.priority = Some(0);
    expected.scopes = vec!["read".to_owned(), "write".to_owned()];
    assert_eq!(allowed, Decision::Allow(expected));
    let mut exchange = exchange;
    for (claims, expected) in [
        (json!({"models": "demo/sim"}), "allow a@b"),
        (
            json!({"models": ["demo/other", "other/*"]}),
            "403 model_not_allowed ",
        ),
        (json!({"models": []}), "403 model_not_allowed "),
        (
            json!({"prio": -1}),
            "401 invalid_token \"the token has a priority that is no number\"",
        ),
        (
            json!({"https://acme/org": null}),
            "401 invalid_token \"the token has no `https://acme/org`\"",
        ),
    ] {
        let mut all = json!({"email": "a@b", "https://acme/org": "acme"});
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        let refused;
        (exchange, refused) = decision(exchange, &auth, &signer.token(all));
        assert_eq!(said(&refused), expected, "{claims}");
    }
}

#[test]
fn signatures_of_all_kinds_and_none_that_is_forged() {
    let signers = [
        Signer::ec("ec"),
        Signer::ed25519("ed"),
        Signer::rsa("rs", Algorithm::RS256),
        Signer::rsa("ps", Algorithm::PS512),
    ];
    let all: Vec<&Signer> = signers.iter().collect();
    let mut exchange = exchange().key_set("idp", &set(&all));
    let auth = auth(&mut exchange, FILE);
    let unsigned = "401 invalid_token \"the token has a signature that is not the issuer's\"";
    for signer in &signers {
        let token = signer.token(json!({}));
        let (signed, _) = token.rsplit_once('.').unwrap();
        let stranger = Signer::ec(&signer.kid);
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(signer.kid.clone());
        let secret = EncodingKey::from_secret(signer.jwk.to_string().as_bytes());
        let symmetric = encode(&header, &with(json!({})), &secret).unwrap();
        let none = text(br#"{"alg":"none"}"#);
        let claims = signed.split('.').nth(1).unwrap();
        let critical = text(br#"{"alg":"ES256","kid":"ec","crit":["b64"]}"#);
        for (token, expected) in [
            (token.clone(), "allow alice"),
            (format!("{signed}.{}", text(&[7; 64])), unsigned),
            (
                symmetric,
                "401 invalid_token \"the token is signed in a way that does not count here\"",
            ),
            (
                format!("{none}.{claims}.AA"),
                "401 invalid_token \"the token is signed in a way that does not count here\"",
            ),
            (
                format!("{none}.{claims}."),
                "401 invalid_token \"the token is none of an issuer known here\"",
            ),
            (
                format!("{critical}.{claims}.AA"),
                "401 invalid_token \"the token is none of an issuer known here\"",
            ),
            (
                "a.b.c".to_owned(),
                "401 invalid_token \"the token is none of an issuer known here\"",
            ),
        ] {
            let decided;
            (exchange, decided) = decision(exchange, &auth, &token);
            assert_eq!(said(&decided), expected, "{} {token}", signer.kid);
        }
        let decided;
        (exchange, decided) = decision(exchange, &auth, &stranger.token(json!({})));
        assert!(
            said(&decided).starts_with("401 invalid_token"),
            "{}",
            signer.kid
        );
    }
}

#[test]
fn a_good_token_is_checked_once_a_minute() {
    let signer = Signer::ec("a");
    let mut exchange = exchange().key_set("idp", &set(&[&signer]));
    let auth = auth(&mut exchange, FILE);
    let token = signer.token(json!({}));
    let decided;
    (exchange, decided) = decision(exchange, &auth, &token);
    assert_eq!(said(&decided), "allow alice");
    // Another key has taken the place of the one that signed.
    exchange.set_key_set("idp", &set(&[&Signer::ec("b")]));
    exchange.advance_ms(59_000);
    let decided;
    (exchange, decided) = decision(exchange, &auth, &token);
    assert_eq!(said(&decided), "allow alice");
    exchange.advance_ms(1_000);
    let (_, decided) = decision(exchange, &auth, &token);
    assert_eq!(
        said(&decided),
        "401 invalid_token \"the token is signed by an unknown key\""
    );
}

#[test]
fn a_set_that_is_not_there_is_our_fault() {
    let signer = Signer::ec("a");
    let mut exchange = exchange();
    let auth = auth(&mut exchange, FILE);
    let (_, decided) = decision(exchange, &auth, &signer.token(json!({})));
    assert_eq!(said(&decided), "503 authentication_unavailable ");
}

const URL: &str = r#"{"jwt":{"cluster":"idp","path":"/keys","issuer":"https://idp","audience":"weir",
    "refresh_seconds":300,"stale_seconds":600}}"#;

fn served(status: u16, body: &str) -> Result<Response, Failure> {
    Ok(Response {
        status,
        headers: Vec::new(),
        body: body.as_bytes().to_vec(),
        trailers: Vec::new(),
    })
}

#[test]
fn keys_are_fetched_once_and_again_when_one_is_unknown() {
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let mut exchange = exchange();
    let auth = auth(&mut exchange, URL);
    exchange.push_answer(served(200, &set(&[&old])));
    for subject in ["a", "b"] {
        let decided;
        (exchange, decided) = decision(exchange, &auth, &old.token(json!({"sub": subject})));
        assert_eq!(said(&decided), format!("allow {subject}"));
    }
    assert_eq!(exchange.sent().len(), 1);
    let (cluster, request) = &exchange.sent()[0];
    assert_eq!(
        (cluster.as_str(), request.path_and_query.as_str()),
        ("idp", "/keys")
    );
    assert!(request.tls_only && request.share.is_some());
    // Asked a moment ago: an unknown key costs no request.
    let unknown = "401 invalid_token \"the token is signed by an unknown key\"";
    let decided;
    (exchange, decided) = decision(exchange, &auth, &new.token(json!({})));
    assert_eq!(
        (said(&decided).as_str(), exchange.sent().len()),
        (unknown, 1)
    );
    exchange.advance_ms(5_000);
    exchange.push_answer(served(200, &set(&[&old, &new])));
    let decided;
    (exchange, decided) = decision(exchange, &auth, &new.token(json!({})));
    assert_eq!(
        (said(&decided).as_str(), exchange.sent().len()),
        ("allow alice", 2)
    );
    // Keys that nobody has are asked for at most once in five seconds.
    exchange.push_answer(served(200, &set(&[&old, &new])));
    for (after_ms, sent) in [(5_000, 3), (0, 3), (4_999, 3)] {
        exchange.advance_ms(after_ms);
        let decided;
        (exchange, decided) = decision(exchange, &auth, &Signer::ec("x").token(json!({})));
        assert_eq!(
            (said(&decided).as_str(), exchange.sent().len()),
            (unknown, sent)
        );
    }
}

#[test]
fn an_issuer_that_is_down_is_not_missed_for_a_while() {
    let signer = Signer::ec("a");
    let mut exchange = exchange();
    let auth = auth(&mut exchange, URL);
    let token =
        |number: u64| signer.token(json!({"sub": format!("s{number}"), "exp": NOW + 9_999}));
    let unavailable = "503 authentication_unavailable ";
    // Down from the start: one request, and no more until some seconds have passed.
    for sent in [1, 1] {
        let decided;
        (exchange, decided) = decision(exchange, &auth, &token(0));
        assert_eq!(
            (said(&decided).as_str(), exchange.sent().len()),
            (unavailable, sent)
        );
    }
    // The tick finds it up.
    exchange.push_answer(served(200, &set(&[&signer])));
    exchange.run(|| auth.on_tick());
    let decided;
    (exchange, decided) = decision(exchange, &auth, &token(0));
    assert_eq!(said(&decided), "allow s0");
    // Not old yet.
    exchange.run(|| auth.on_tick());
    assert_eq!(exchange.sent().len(), 2);
    for (minutes, answer, expected) in [
        (5, Err(Failure::Timeout), "allow s1"),
        (2, served(503, "down"), "allow s2"),
        (2, served(200, "<html>"), "allow s3"),
        (6, Err(Failure::Unavailable), unavailable),
        (1, served(200, &set(&[&signer])), "allow s5"),
    ] {
        exchange.advance_ms(minutes * 60_000);
        exchange.push_answer(answer);
        exchange.run(|| auth.on_tick());
        let subject = expected.rsplit('s').next().unwrap().parse().unwrap_or(4);
        let decided;
        (exchange, decided) = decision(exchange, &auth, &token(subject));
        assert_eq!(said(&decided), expected, "{minutes}");
    }
}

#[test]
fn keys_are_not_fetched_in_the_clear() {
    let signer = Signer::ec("a");
    for (insecure, expected) in [
        (false, "503 authentication_unavailable "),
        (true, "allow alice"),
    ] {
        let mut exchange = exchange()
            .plaintext("idp")
            .answer(served(200, &set(&[&signer])));
        let config = URL.replace(
            r#""cluster""#,
            &format!(r#""insecure":{insecure},"cluster""#),
        );
        let auth = auth(&mut exchange, &config);
        let (_, decided) = decision(exchange, &auth, &signer.token(json!({})));
        assert_eq!(said(&decided), expected);
    }
}

#[test]
fn what_is_not_the_issuers_goes_on_to_the_next_way() {
    let signer = Signer::ec("a");
    let foreign = signer.token(json!({"iss": "https://other"}));
    let jwt = r#""jwt":{"key_set":"idp","issuer":"https://idp","audience":"weir"}"#;
    let bad = signer.token(json!({"aud": "x"}));
    let table = [
        (format!("{{{jwt}}}"), "plain", "401 invalid_token"),
        (
            format!("{{{jwt},\"optional\":true}}"),
            "plain",
            "Decision::Abstain",
        ),
        (
            format!("{{{jwt},\"optional\":true}}"),
            &foreign,
            "Decision::Abstain",
        ),
        (
            format!("{{{jwt},\"optional\":true}}"),
            &bad,
            "401 invalid_token",
        ),
        (
            format!("{{{jwt},\"key_table\":\"t\"}}"),
            "plain",
            "Decision::AllowFound",
        ),
        (
            format!("{{{jwt},\"key_table\":\"t\"}}"),
            "none",
            "401 invalid_api_key",
        ),
        (
            format!("{{{jwt},\"key_table\":\"t\"}}"),
            &foreign,
            "Decision::AllowFound",
        ),
        (
            format!("{{{jwt},\"key_table\":\"t\"}}"),
            &bad,
            "401 invalid_token",
        ),
    ];
    for (config, token, expected) in table {
        let mut exchange = exchange()
            .key_set("idp", &set(&[&signer]))
            .key("t", "plain", Principal::new("p", "p"))
            .key("t", &foreign, Principal::new("f", "f"));
        let auth = auth(&mut exchange, &config);
        let (_, decided) = decision(exchange, &auth, token);
        assert!(
            said(&decided).starts_with(expected),
            "{config} {token}: {decided:?}"
        );
    }
}
