//! Key sets (RFC 7517), and which of their keys a token may be signed by.

use serde_json::Value;

/// The keys of a set that can be for signatures, in their order.
pub(super) struct Keys {
    keys: Vec<Key>,
}

struct Key {
    kid: Option<String>,
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    /// The whole key, for the host.
    json: String,
}

impl Keys {
    /// Reads a set; none when it is none. Keys of a kind that is not known are passed over, as RFC
    /// 7517, 5 wants it.
    pub(super) fn read(json: &str) -> Option<Self> {
        let set: Value = serde_json::from_str(json).ok()?;
        let keys = set.get("keys")?.as_array()?;
        let keys = keys.iter().filter_map(Key::read).take(KEYS_MAX).collect();
        Some(Self { keys })
    }

    /// JSON text of the keys by which a token with this header may be signed: those with its `kid`,
    /// or where a set or a token does without names, all that go with the algorithm.
    pub(super) fn of(&self, kid: Option<&str>, algorithm: &str) -> Vec<&str> {
        let fits = |key: &&Key| key.fits(algorithm);
        let with = |named: fn(&Key, &str) -> bool| -> Vec<&str> {
            let chosen = |key: &&Key| kid.is_none_or(|kid| named(key, kid));
            let keys = self.keys.iter().filter(fits).filter(chosen);
            keys.take(TRIED_MAX).map(|key| key.json.as_str()).collect()
        };
        let named = with(|key, kid| key.kid.as_deref() == Some(kid));
        if named.is_empty() {
            with(|key, _| key.kid.is_none())
        } else {
            named
        }
    }
}

impl Key {
    fn read(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str).map(str::to_owned);
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        Some(Self {
            kid: text("kid"),
            kty: text("kty")?,
            crv: text("crv"),
            alg: text("alg"),
            json: key.to_string(),
        })
    }

    fn fits(&self, algorithm: &str) -> bool {
        let (kty, crv) = match algorithm {
            "ES256" => ("EC", Some("P-256")),
            "ES384" => ("EC", Some("P-384")),
            "EdDSA" => ("OKP", Some("Ed25519")),
            _ => ("RSA", None),
        };
        self.kty == kty
            && (crv.is_none() || self.crv.as_deref() == crv)
            && self.alg.as_deref().is_none_or(|alg| alg == algorithm)
    }
}

/// Keys kept of one set.
const KEYS_MAX: usize = 64;
/// Keys by which one token is checked: each costs some 50 µs.
const TRIED_MAX: usize = 4;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::Keys;

    #[test]
    fn keys_by_name_and_algorithm() {
        let keys = Keys::read(
            r#"{"keys":[
                {"kty":"RSA","kid":"a"}, {"kty":"RSA","kid":"b","alg":"PS256"},
                {"kty":"EC","crv":"P-256","kid":"c"}, {"kty":"OKP","crv":"Ed25519"},
                {"kty":"RSA","kid":"d","use":"enc"}, {"kty":"new","kid":"e"}, 7
            ]}"#,
        );
        let keys = keys.unwrap();
        let table = [
            (Some("a"), "RS256", 1),
            (Some("a"), "PS512", 1),
            (Some("b"), "PS256", 1),
            (Some("b"), "RS256", 0),
            (Some("c"), "ES256", 1),
            (Some("c"), "ES384", 0),
            (Some("d"), "RS256", 0),
            (Some("x"), "RS256", 0),
            // The set has one key without a name.
            (Some("x"), "EdDSA", 1),
            (None, "EdDSA", 1),
            (None, "RS256", 1),
            (None, "PS256", 2),
        ];
        for (kid, algorithm, expected) in table {
            let found = keys.of(kid, algorithm);
            assert_eq!(found.len(), expected, "{kid:?} {algorithm}: {found:?}");
        }
        for wrong in ["", "[]", "{}", r#"{"keys":1}"#] {
            assert!(Keys::read(wrong).is_none(), "{wrong}");
        }
    }
}
