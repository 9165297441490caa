//! The filter's table.

use serde::Deserialize;
use weir_sdk::ConfigError;
use weir_sdk::lifecycle::config_error;

/// `[filters.NAME.config]` of the filter `auth`: one or more of the three ways to know a caller.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Key table of the configuration in which presented keys are looked up.
    pub key_table: Option<String>,
    /// Tokens that an issuer has signed.
    pub jwt: Option<JwtTable>,
    /// Credentials that an NVCF control plane knows.
    pub nvcf: Option<NvcfTable>,
    /// Header with `Bearer KEY`.
    #[serde(default = "default_header")]
    pub header: String,
    /// Headers whose whole value is the key, asked in this order when `header` has none.
    #[serde(default)]
    pub also: Vec<String>,
    /// `true`: a request whose credential is none, or none of this filter's, is left to the next
    /// authorizer.
    #[serde(default)]
    pub optional: bool,
}

/// `jwt`: JSON web tokens of one issuer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtTable {
    /// Key set of the configuration.
    pub key_set: Option<String>,
    /// In its place: cluster that serves the issuer's keys.
    pub cluster: Option<String>,
    /// Path of the keys on that cluster.
    #[serde(default = "default_path")]
    pub path: String,
    /// Keys may be fetched without TLS.
    #[serde(default)]
    pub insecure: bool,
    /// How often fetched keys are fetched again.
    #[serde(default = "default_refresh_seconds")]
    pub refresh_seconds: u32,
    /// How long beyond that fetched keys count while the issuer cannot be reached.
    #[serde(default = "default_jwt_stale_seconds")]
    pub stale_seconds: u32,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be, or contain. None: tokens must not have one.
    #[serde(default)]
    pub audience: Texts,
    /// How far clocks may differ.
    #[serde(default = "default_leeway_seconds")]
    pub leeway_seconds: u32,
    /// What tokens may be signed with.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<String>,
    /// Where in the token is what.
    #[serde(default)]
    pub claims: ClaimsTable,
}

/// Names of claims, or RFC 6901 pointers to them when they start with `/`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimsTable {
    /// Who it is.
    pub subject: String,
    /// The account that pays; the subject by default.
    pub tenant: Option<String>,
    /// The plan of the account.
    pub plan: Option<String>,
    /// Models the caller may use.
    pub models: Option<String>,
    /// Whether its calls are served first.
    pub priority: Option<String>,
    /// Scopes granted to the token.
    pub scopes: String,
}

/// `nvcf`: the call `AuthLlmInvocation` of an NVCF control plane.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NvcfTable {
    /// Cluster of the service.
    pub cluster: String,
    /// How long a call may take.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u32,
    /// How long an admission counts.
    #[serde(default = "default_ttl_seconds")]
    pub ttl_seconds: u32,
    /// How long beyond that it counts while the service cannot be reached.
    #[serde(default = "default_nvcf_stale_seconds")]
    pub stale_seconds: u32,
    /// Credentials may be sent without TLS.
    #[serde(default)]
    pub insecure: bool,
}

/// One text or several.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Written")]
pub struct Texts(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Several(Vec<String>),
}

impl From<Written> for Texts {
    fn from(written: Written) -> Self {
        match written {
            Written::One(text) => Self(vec![text]),
            Written::Several(texts) => Self(texts),
        }
    }
}

impl Default for ClaimsTable {
    fn default() -> Self {
        Self {
            subject: "sub".to_owned(),
            tenant: None,
            plan: None,
            models: None,
            priority: None,
            scopes: "scope".to_owned(),
        }
    }
}

impl Config {
    pub(crate) fn errors(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if self.key_table.is_none() && self.jwt.is_none() && self.nvcf.is_none() {
            errors.push(config_error(
                "",
                "knows no caller; give it `key_table`, `jwt` or `nvcf`",
            ));
        }
        if self.key_table.as_deref() == Some("") {
            errors.push(config_error("/key_table", "is empty; name a key table"));
        }
        if !is_header_name(&self.header) {
            errors.push(config_error("/header", "is not a header name"));
        }
        for (at, name) in self.also.iter().enumerate() {
            if !is_header_name(name) {
                errors.push(config_error(format!("/also/{at}"), "is not a header name"));
            }
        }
        if self.also.len() > ALSO_MAX {
            errors.push(config_error("/also", "has more than 8 headers"));
        }
        if let Some(jwt) = &self.jwt {
            jwt.errors(&mut errors);
        }
        if let Some(nvcf) = &self.nvcf {
            nvcf.errors(&mut errors);
        }
        errors
    }
}

impl JwtTable {
    fn errors(&self, errors: &mut Vec<ConfigError>) {
        match (&self.key_set, &self.cluster) {
            (None, None) => errors.push(config_error(
                "/jwt",
                "has no keys; give it `key_set`, or `cluster` to fetch them from",
            )),
            (Some(_), Some(_)) => errors.push(config_error(
                "/jwt/cluster",
                "and `key_set` are both there; keep one",
            )),
            _ => {}
        }
        if !self.path.starts_with('/') {
            errors.push(config_error("/jwt/path", "does not start with /"));
        }
        if self.issuer.is_empty() {
            errors.push(config_error("/jwt/issuer", "is empty; write what `iss` is"));
        }
        if self.refresh_seconds == 0 {
            errors.push(config_error(
                "/jwt/refresh_seconds",
                "is 0; write at least 1",
            ));
        }
        if self.algorithms.is_empty() {
            errors.push(config_error(
                "/jwt/algorithms",
                "is empty; name at least one",
            ));
        }
        for (at, name) in self.algorithms.iter().enumerate() {
            if !ALGORITHMS.contains(&name.as_str()) {
                let message = format!("is none of {}", ALGORITHMS.join(", "));
                errors.push(config_error(format!("/jwt/algorithms/{at}"), message));
            }
        }
        for (name, seconds) in [
            ("refresh_seconds", self.refresh_seconds),
            ("stale_seconds", self.stale_seconds),
            ("leeway_seconds", self.leeway_seconds),
        ] {
            too_long(&format!("/jwt/{name}"), seconds, errors);
        }
    }
}

impl NvcfTable {
    fn errors(&self, errors: &mut Vec<ConfigError>) {
        if self.timeout_ms == 0 || self.timeout_ms > TIMEOUT_MS_MAX {
            errors.push(config_error("/nvcf/timeout_ms", "is not within 1 to 30000"));
        }
        too_long("/nvcf/ttl_seconds", self.ttl_seconds, errors);
        too_long("/nvcf/stale_seconds", self.stale_seconds, errors);
    }
}

fn too_long(pointer: &str, seconds: u32, errors: &mut Vec<ConfigError>) {
    if seconds > SECONDS_MAX {
        errors.push(config_error(pointer, "is more than 604800, a week"));
    }
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn default_header() -> String {
    "authorization".to_owned()
}

fn default_path() -> String {
    "/.well-known/jwks.json".to_owned()
}

fn default_algorithms() -> Vec<String> {
    ALGORITHMS.map(str::to_owned).to_vec()
}

fn default_refresh_seconds() -> u32 {
    300
}

fn default_jwt_stale_seconds() -> u32 {
    86_400
}

fn default_leeway_seconds() -> u32 {
    60
}

fn default_timeout_ms() -> u32 {
    2_000
}

fn default_ttl_seconds() -> u32 {
    60
}

fn default_nvcf_stale_seconds() -> u32 {
    300
}

/// Those that the host can check.
const ALGORITHMS: [&str; 9] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
];
const ALSO_MAX: usize = 8;
/// What the host allows a call that waits.
const TIMEOUT_MS_MAX: u32 = 30_000;
const SECONDS_MAX: u32 = 604_800;
