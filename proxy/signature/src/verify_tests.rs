//! Signatures made by real keys, and everything that must not pass for one.

#![allow(clippy::unwrap_used, reason = "tests")]

use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
};

use super::*;

const MESSAGE: &[u8] = b"header.claims";

/// A key of 2,048 bits that signs nothing but tests: ring does not make RSA keys.
fn rsa() -> RsaKeyPair {
    RsaKeyPair::from_der(include_bytes!("test-rsa.der")).unwrap()
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn modulus() -> Vec<u8> {
    PublicKeyComponents::<Vec<u8>>::from(rsa().public()).n
}

fn rsa_jwk(more: &str) -> String {
    let n = text(&modulus());
    format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB"{more}}}"#)
}

fn rsa_signed(how: &'static dyn ring::signature::RsaEncoding) -> Vec<u8> {
    let key = rsa();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(how, &SystemRandom::new(), MESSAGE, &mut signature)
        .unwrap();
    signature
}

/// The public key as a JWK, and a signature of [`MESSAGE`].
fn ec(curve: &str, how: &'static ring::signature::EcdsaSigningAlgorithm) -> (String, Vec<u8>) {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(how, pkcs8.as_ref(), &random).unwrap();
    let point = key.public_key().as_ref();
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    let jwk = format!(
        r#"{{"kty":"EC","crv":"{curve}","x":"{}","y":"{}"}}"#,
        text(x),
        text(y)
    );
    (jwk, key.sign(&random, MESSAGE).unwrap().as_ref().to_vec())
}

fn ed25519() -> (String, Vec<u8>) {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let x = text(key.public_key().as_ref());
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#);
    (jwk, key.sign(MESSAGE).as_ref().to_vec())
}

#[test]
fn every_algorithm_knows_its_own_signatures_and_no_others() {
    let rsa = rsa_jwk("");
    let (p256, es256) = ec("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING);
    let (p384, es384) = ec("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING);
    let (okp, eddsa) = ed25519();
    let table = [
        ("RS256", &rsa, rsa_signed(&RSA_PKCS1_SHA256)),
        ("RS384", &rsa, rsa_signed(&RSA_PKCS1_SHA384)),
        ("RS512", &rsa, rsa_signed(&RSA_PKCS1_SHA512)),
        ("PS256", &rsa, rsa_signed(&RSA_PSS_SHA256)),
        ("PS384", &rsa, rsa_signed(&RSA_PSS_SHA384)),
        ("PS512", &rsa, rsa_signed(&RSA_PSS_SHA512)),
        ("ES256", &p256, es256),
        ("ES384", &p384, es384),
        ("EdDSA", &okp, eddsa),
    ];
    for (algorithm, jwk, signature) in &table {
        assert_eq!(
            verify(jwk, algorithm, MESSAGE, signature),
            Ok(true),
            "{algorithm}"
        );
        assert_eq!(
            verify(jwk, algorithm, b"other", signature),
            Ok(false),
            "{algorithm}"
        );
        let mut broken = signature.clone();
        broken[10] ^= 1;
        assert_eq!(
            verify(jwk, algorithm, MESSAGE, &broken),
            Ok(false),
            "{algorithm}"
        );
        for wrong in [&[][..], &signature[1..]] {
            assert_eq!(
                verify(jwk, algorithm, MESSAGE, wrong),
                Ok(false),
                "{algorithm}"
            );
        }
        for (other, _, _) in table.iter().filter(|row| row.0 != *algorithm) {
            let checked = verify(jwk, other, MESSAGE, signature);
            assert_ne!(checked, Ok(true), "{algorithm} as {other}");
        }
    }
}

#[test]
fn what_is_no_public_key_for_signatures_is_refused() {
    let signature = rsa_signed(&RSA_PKCS1_SHA256);
    let rs256 = |jwk: &str| verify(jwk, "RS256", MESSAGE, &signature);
    for more in [
        "",
        r#","kid":"a","use":"sig","alg":"RS256""#,
        r#","key_ops":["verify"]"#,
    ] {
        assert_eq!(rs256(&rsa_jwk(more)), Ok(true), "{more}");
    }
    for more in [
        r#","use":"enc""#,
        r#","alg":"PS256""#,
        r#","key_ops":["encrypt"]"#,
    ] {
        assert_eq!(rs256(&rsa_jwk(more)), Err(KeyError::Key), "{more}");
    }
    for jwk in [
        "",
        "{}",
        "[]",
        r#"{"kty":"RSA","e":"AQAB"}"#,
        r#"{"kty":"RSA","n":"+/==","e":"AQAB"}"#,
        r#"{"kty":"oct","k":"c2VjcmV0"}"#,
        r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#,
    ] {
        assert_eq!(rs256(jwk), Err(KeyError::Key), "{jwk}");
    }
    let short = verify(
        r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#,
        "ES256",
        b"",
        b"",
    );
    assert_eq!(short, Err(KeyError::Key));
    // A modulus that ring finds too small is a key by which nothing was ever signed.
    assert_eq!(rs256(r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#), Ok(false));
}

#[test]
fn secrets_and_no_signature_at_all_are_no_algorithms() {
    for algorithm in [
        "none", "None", "", "HS256", "HS384", "HS512", "rs256", "ES512",
    ] {
        let checked = verify(&rsa_jwk(""), algorithm, MESSAGE, b"");
        assert_eq!(checked, Err(KeyError::Algorithm), "{algorithm}");
    }
}

#[test]
fn leading_zeros_of_a_modulus_do_not_matter() {
    let padded = [vec![0], modulus()].concat();
    let jwk = format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, text(&padded));
    let signature = rsa_signed(&RSA_PKCS1_SHA256);
    assert_eq!(verify(&jwk, "RS256", MESSAGE, &signature), Ok(true));
}

#[test]
fn what_is_too_long_is_not_read() {
    let long = vec![b' '; 65 << 10];
    let jwk = rsa_jwk("");
    for (jwk, message, signature) in [
        (" ".repeat(20 << 10).as_str(), MESSAGE, MESSAGE),
        (&jwk, &long, MESSAGE),
        (&jwk, MESSAGE, &long),
    ] {
        let checked = verify(jwk, "RS256", message, signature);
        assert_eq!(checked, Err(KeyError::TooLong));
    }
}
