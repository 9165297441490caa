//! The one check there is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;

/// Why a signature cannot be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not one of those that are checked.
    #[error("no such algorithm")]
    Algorithm,
    /// The key cannot be read, is for something else, or does not go with the algorithm.
    #[error("the key does not fit")]
    Key,
    /// The key, the message or the signature is too long.
    #[error("too long")]
    TooLong,
}

/// The members of RFC 7517 and 7518 that matter here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// What an algorithm needs of a key.
enum Scheme {
    Rsa(&'static RsaParameters),
    Ec(
        &'static signature::EcdsaVerificationAlgorithm,
        &'static str,
        usize,
    ),
    Ed25519,
}

/// Whether `signature` is the one of `message` by the key. Symmetric algorithms and `none` do not
/// exist here: a public key must never be taken for a secret.
///
/// `algorithm` is RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA with Ed25519, and
/// the signature as RFC 7518 and RFC 8037 write it. The key is read anew each time, which is little
/// beside the check itself.
///
/// # Errors
/// When it cannot be checked at all.
pub fn verify(
    jwk: &str,
    algorithm: &str,
    message: &[u8],
    signature: &[u8],
) -> Result<bool, KeyError> {
    let scheme = scheme(algorithm)?;
    if jwk.len() > JWK_BYTES_MAX
        || message.len() > MESSAGE_BYTES_MAX
        || signature.len() > SIGNATURE_BYTES_MAX
    {
        return Err(KeyError::TooLong);
    }
    let key: Jwk = serde_json::from_str(jwk).map_err(|_| KeyError::Key)?;
    let checks = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
    if key.purpose.as_ref().is_some_and(|purpose| purpose != "sig")
        || key.key_ops.as_ref().is_some_and(|ops| !checks(ops))
        || key.alg.as_ref().is_some_and(|alg| alg != algorithm)
    {
        return Err(KeyError::Key);
    }
    let curve = key.crv.as_deref();
    let checked = match scheme {
        Scheme::Rsa(parameters) if key.kty == "RSA" => {
            let (n, e) = (number(&key.n)?, number(&key.e)?);
            RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
        }
        Scheme::Ec(algorithm, named, bytes) if key.kty == "EC" && curve == Some(named) => {
            let mut point = vec![UNCOMPRESSED];
            for coordinate in [&key.x, &key.y] {
                let coordinate = decoded(coordinate)?;
                if coordinate.len() != bytes {
                    return Err(KeyError::Key);
                }
                point.extend(coordinate);
            }
            UnparsedPublicKey::new(algorithm, point).verify(message, signature)
        }
        Scheme::Ed25519 if key.kty == "OKP" && curve == Some("Ed25519") => {
            UnparsedPublicKey::new(&signature::ED25519, decoded(&key.x)?).verify(message, signature)
        }
        _ => return Err(KeyError::Key),
    };
    Ok(checked.is_ok())
}

fn scheme(algorithm: &str) -> Result<Scheme, KeyError> {
    Ok(match algorithm {
        "RS256" => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
        "RS384" => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
        "RS512" => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
        "PS256" => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
        "PS384" => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
        "PS512" => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
        "ES256" => Scheme::Ec(&signature::ECDSA_P256_SHA256_FIXED, "P-256", 32),
        "ES384" => Scheme::Ec(&signature::ECDSA_P384_SHA384_FIXED, "P-384", 48),
        "EdDSA" => Scheme::Ed25519,
        _ => return Err(KeyError::Algorithm),
    })
}

fn decoded(member: &Option<String>) -> Result<Vec<u8>, KeyError> {
    let text = member.as_deref().ok_or(KeyError::Key)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Key)
}

/// A number without leading zeros, which some issuers write and ring refuses.
fn number(member: &Option<String>) -> Result<Vec<u8>, KeyError> {
    let mut bytes = decoded(member)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    Ok(bytes)
}

/// Marks a point of which both coordinates follow (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// A key of 8,192 bits is 1.5 kB; certificates may come with it.
const JWK_BYTES_MAX: usize = 16 << 10;
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The longest: RSA with 8,192 bits.
const SIGNATURE_BYTES_MAX: usize = 1024;

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
