//! From a presented token to who presents it.

use std::rc::Rc;

use weir_sdk::{LocalResponse, Principal, host, secrets};

use super::claims;
use super::fault::Fault;
use super::keys::Keys;
use super::source::Source;
use super::token::Token;
use super::verified::Verified;
use crate::config::JwtTable;

/// The tokens of one issuer.
pub(crate) struct Jwt {
    table: JwtTable,
    source: Source,
    verified: Verified,
}

/// What came of a token.
pub(crate) enum Checked {
    /// It is good.
    Good(Rc<Principal>),
    /// It is of this issuer, and does not count.
    Bad(LocalResponse),
    /// It is not for us to say: no token, or one of another issuer.
    Foreign,
}

impl Jwt {
    pub(crate) fn new(table: JwtTable) -> Result<Self, String> {
        Ok(Self {
            source: Source::new(&table)?,
            verified: Verified::default(),
            table,
        })
    }

    /// Checks a token, given whole and in its parts.
    pub(crate) fn check(&self, whole: &[u8], parts: [&[u8]; 3]) -> Checked {
        let now = host::now_unix_ms() / 1_000;
        let digest: Option<[u8; 32]> = secrets::sha256(whole).try_into().ok();
        if let Some(known) = digest.and_then(|digest| self.verified.find(&digest, now)) {
            return Checked::Good(known);
        }
        let Some(token) = Token::read(whole, parts) else {
            return Checked::Foreign;
        };
        if !claims::is_of(&self.table.issuer, &token.claims) {
            return Checked::Foreign;
        }
        match self.good(&token, now) {
            Ok((principal, expires)) => {
                let principal = Rc::new(principal);
                if let Some(digest) = digest {
                    self.verified.keep(digest, expires, now, &principal);
                }
                Checked::Good(principal)
            }
            Err(fault) => Checked::Bad(fault.response()),
        }
    }

    pub(crate) fn tick(&self) {
        self.source.tick();
    }

    fn good(&self, token: &Token<'_>, now: u64) -> Result<(Principal, u64), Fault> {
        let algorithm = &token.header.alg;
        if !self.table.algorithms.contains(algorithm) {
            return Err(Fault::invalid(
                "is signed in a way that does not count here",
            ));
        }
        let known = self.source.keys().ok_or(Fault::NoKeys)?;
        if !self.is_signed(token, &known)? {
            return Err(Fault::invalid("has a signature that is not the issuer's"));
        }
        let expires = claims::valid_until(&token.claims, &self.table, now)?;
        let principal = claims::principal(&token.claims, &self.table.claims)?;
        Ok((principal, expires))
    }

    fn is_signed(&self, token: &Token<'_>, known: &Rc<Keys>) -> Result<bool, Fault> {
        let kid = token.header.kid.as_deref();
        let algorithm = &token.header.alg;
        let is_by = |jwk: &&str| {
            let checked = secrets::verify_signature(jwk, algorithm, token.signed, &token.signature);
            checked == Ok(true)
        };
        let candidates = known.of(kid, algorithm);
        if !candidates.is_empty() {
            return Ok(candidates.iter().any(is_by));
        }
        let newer = self.source.newer_than(known);
        let newer = newer.ok_or(Fault::invalid("is signed by an unknown key"))?;
        let candidates = newer.of(kid, algorithm);
        if candidates.is_empty() {
            return Err(Fault::invalid("is signed by an unknown key"));
        }
        Ok(candidates.iter().any(is_by))
    }
}
