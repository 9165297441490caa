//! Who calls.

use std::sync::Arc;

use crate::intern::NameId;

/// A caller that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Interned subject for the request view; [`NameId::NONE`] when the table of names is full.
    pub id: NameId,
    /// The key's or token's own name; never the credential.
    pub subject: Arc<str>,
    /// The account that pays; limits are kept per tenant.
    pub tenant: Arc<str>,
    /// The plan the account is on.
    pub plan: Arc<str>,
    /// Scopes granted to the credential.
    pub scopes: Vec<String>,
    /// `function/model` strings this caller may use; empty = all.
    pub models: Vec<String>,
    /// Lower is served first.
    pub priority: i16,
}
