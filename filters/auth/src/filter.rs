//! The decision.

use weir_sdk::exchange::Header;
use weir_sdk::secrets::{self, Found};
use weir_sdk::{
    Authorize, ConfigError, Decision, Filter, LocalResponse, Manifest, OnTick, RequestView,
};

use crate::config::Config;
use crate::jwt::{Checked, Jwt};
use crate::nvcf::Nvcf;
use crate::{credential, models, refusal};

/// Finds out whose the presented key is, and lets its principal in.
pub struct Auth {
    key_table: Option<String>,
    jwt: Option<Jwt>,
    nvcf: Option<Nvcf>,
    header_name: String,
    header: Header,
    also: Vec<Header>,
    optional: bool,
}

impl Filter for Auth {
    type Config = Config;
    const NAME: &'static str = "auth";

    fn manifest() -> Manifest {
        Manifest::new(
            env!("CARGO_PKG_VERSION"),
            "Lets in callers by key tables, signed tokens, or an NVCF control plane.",
        )
        .reads_headers(&["authorization"])
        .tick_ms(TICK_MS)
    }

    fn validate(config: &Config) -> Vec<ConfigError> {
        config.errors()
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self {
            header: Header::new(&config.header),
            also: config.also.iter().map(|name| Header::new(name)).collect(),
            header_name: config.header.to_ascii_lowercase(),
            key_table: config.key_table,
            jwt: config.jwt.map(Jwt::new).transpose()?,
            nvcf: config.nvcf.map(Nvcf::new).transpose()?,
            optional: config.optional,
        })
    }
}

impl Authorize for Auth {
    fn authorize(&self, request: RequestView) -> Decision {
        match self.presented(|key| self.decide(key, &request)) {
            Some(Word::Found(found)) => found.into(),
            Some(Word::Other(decision)) => *decision,
            None if self.optional => Decision::Abstain,
            None => refusal::missing(&self.header_name).into(),
        }
    }
}

/// A decision. Whom the key table knows is the usual case: small, where a whole [`Decision`] would be
/// copied from call to call.
enum Word {
    Found(Found),
    Other(Box<Decision>),
}

impl<D: Into<Decision>> From<D> for Word {
    fn from(decision: D) -> Self {
        Self::Other(Box::new(decision.into()))
    }
}

impl OnTick for Auth {
    fn on_tick(&self) {
        if let Some(jwt) = &self.jwt {
            jwt.tick();
        }
    }
}

impl Auth {
    /// Runs `check` on the key presented, if there is one.
    fn presented<R>(&self, check: impl Fn(&[u8]) -> R) -> Option<R> {
        if let Some(result) = self
            .header
            .value()
            .and_then(|value| credential::bearer(&value).map(&check))
        {
            return Some(result);
        }
        self.also
            .iter()
            .find_map(|header| credential::whole(&header.value()?).map(&check))
    }

    /// Tokens of the issuer first, then keys of the table, then what the control plane says. Each
    /// leaves to the next what it does not know; the last one's word counts.
    fn decide(&self, key: &[u8], request: &RequestView) -> Word {
        if let Some(jwt) = &self.jwt
            && let Some(word) = by_token(jwt, key, request)
        {
            return word;
        }
        if let Some(table) = &self.key_table
            && let Some(word) = by_key(table, key, request)
        {
            return word;
        }
        match &self.nvcf {
            Some(nvcf) => nvcf.check(key, request).into(),
            None => self.unknown(),
        }
    }

    /// A credential that nobody here knows. Where a table was asked that is final; a token that is
    /// none of the issuer's may be somebody else's.
    fn unknown(&self) -> Word {
        match (&self.key_table, self.optional) {
            (Some(_), _) => refusal::invalid().into(),
            (None, true) => Decision::Abstain.into(),
            (None, false) => refusal::invalid_token("is none of an issuer known here").into(),
        }
    }
}

fn by_token(jwt: &Jwt, key: &[u8], request: &RequestView) -> Option<Word> {
    let parts = credential::token_parts(key)?;
    match jwt.check(key, parts) {
        Checked::Good(principal) => Some(match forbidden(&principal.models, request) {
            None => principal.as_ref().clone().into(),
            Some(refused) => refused.into(),
        }),
        Checked::Bad(refused) => Some(refused.into()),
        Checked::Foreign => None,
    }
}

fn by_key(table: &str, key: &[u8], request: &RequestView) -> Option<Word> {
    match secrets::lookup_key(table, key) {
        Ok(Some(found)) if found.is_restricted() => Some(restricted(found, request)),
        Ok(Some(found)) => Some(Word::Found(found)),
        Ok(None) => None,
        Err(failure) => {
            weir_sdk::error!("key table `{table}` cannot be asked: {failure:?}");
            Some(refusal::unavailable().into())
        }
    }
}

fn restricted(found: Found, request: &RequestView) -> Word {
    let Some(who) = found.principal() else {
        return refusal::unavailable().into();
    };
    match forbidden(&who.models, request) {
        None => Word::Found(found),
        Some(refused) => refused.into(),
    }
}

fn forbidden(allowed: &[String], request: &RequestView) -> Option<LocalResponse> {
    if allowed.is_empty() {
        return None;
    }
    models::forbidden(allowed, request)
}

/// How soon keys that are old are noticed.
const TICK_MS: u32 = 5_000;

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
