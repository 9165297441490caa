//! What a guest returned, checked and made into the chain's own values.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use weir_dialect::JsonEdit;
use weir_pipeline::edits::{self, EditGrants, Edits, HeaderEdit, Side};
use weir_pipeline::facts::Facts;
use weir_pipeline::intern::Interner;
use weir_pipeline::principal::Principal;
use weir_pipeline::verdict::{FailureKind, LocalResponse, Outcome};

use crate::bindings::weir::filter::types;
use crate::failure::Fault;

/// What lifting needs besides the value.
pub(crate) struct Lifting<'a> {
    pub(crate) filter: &'a str,
    pub(crate) respond_granted: bool,
    pub(crate) edit_grants: &'a EditGrants,
    pub(crate) interner: &'a Interner,
    pub(crate) found: &'a [Arc<Principal>],
    pub(crate) facts: Option<&'a mut Facts>,
}

impl Lifting<'_> {
    /// Of the phases that pass, edit or respond.
    pub(super) fn outcome(
        &mut self,
        returned: types::Outcome,
        side: Side,
    ) -> Result<Outcome, Fault> {
        match returned {
            types::Outcome::Pass => Ok(Outcome::Pass),
            types::Outcome::Edit(edits) => self.apply(edits, side).map(|()| Outcome::Pass),
            types::Outcome::Respond(response) => self.response(response).map(Outcome::Respond),
        }
    }

    /// All edits or none.
    pub(super) fn apply(&mut self, edits: types::Edits, side: Side) -> Result<(), Fault> {
        let Some(facts) = self.facts.as_deref_mut() else {
            return Err(Fault::new(FailureKind::Host, "edits without an exchange"));
        };
        // Before any name is parsed: the bound is on work too.
        let count = edits.headers.len() + edits.json.len() + edits.attributes.len();
        if count > self.edit_grants.edits_max {
            let max = self.edit_grants.edits_max;
            return Err(edits::EditError::TooMany { count, max }.into());
        }
        let headers = edits
            .headers
            .into_iter()
            .map(header_edit)
            .collect::<Result<Vec<_>, _>>()?;
        let json = edits.json.into_iter().map(json_edit).collect();
        let lifted = Edits {
            headers,
            json,
            attributes: edits.attributes,
        };
        Ok(edits::apply(
            lifted,
            self.edit_grants,
            side,
            self.filter,
            self.interner,
            facts,
        )?)
    }

    /// An answer of the filter's own.
    pub(super) fn response(&self, from: types::LocalResponse) -> Result<LocalResponse, Fault> {
        if !self.respond_granted {
            return Err(Fault::new(
                FailureKind::ForbiddenEdit,
                "no grant to respond",
            ));
        }
        let status = StatusCode::from_u16(from.status)
            .ok()
            .filter(|status| (200..600).contains(&status.as_u16()));
        let status = status.ok_or_else(|| Fault::bad_verdict(format!("status {}", from.status)))?;
        if from.headers.len() > RESPONSE_HEADERS_MAX {
            return Err(Fault::bad_verdict(format!(
                "{} response headers",
                from.headers.len()
            )));
        }
        let headers = from.headers.into_iter().map(|(name, value)| {
            let name = header_name(&name)?;
            if FRAMING.contains(&name.as_str()) {
                return Err(Fault::new(
                    FailureKind::ForbiddenEdit,
                    format!("response header `{name}`"),
                ));
            }
            header_value(&name, &value).map(|value| (name, value))
        });
        Ok(LocalResponse {
            status,
            headers: headers.collect::<Result<_, _>>()?,
            body: from.body.into(),
            error_type: from.error_type,
            error_code: from.error_code,
            message: from.message,
            grpc_status: from.grpc_status,
        })
    }

    /// Headers for the answer, from a phase that has no edits.
    pub(super) fn answer_headers(
        &self,
        from: Vec<types::Header>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
        let (count, max) = (from.len(), self.edit_grants.edits_max);
        if count > max {
            return Err(edits::EditError::TooMany { count, max }.into());
        }
        let granted = |(name, value): types::Header| {
            let name = header_name(&name)?;
            if !self.edit_grants.allows_header(name.as_str()) {
                let (what, name) = ("header", name.to_string());
                return Err(edits::EditError::NoGrant { what, name }.into());
            }
            header_value(&name, &value).map(|value| (name, value))
        };
        from.into_iter().map(granted).collect()
    }

    /// A caller described by the guest.
    pub(super) fn principal(&self, from: types::Principal) -> Result<Arc<Principal>, Fault> {
        let long = |text: &String| text.len() > PRINCIPAL_TEXT_MAX;
        if from.subject.is_empty()
            || [&from.subject, &from.tenant, &from.plan]
                .into_iter()
                .any(long)
        {
            return Err(Fault::bad_verdict(
                "a principal needs a subject, and texts of at most 1,024 bytes",
            ));
        }
        Ok(Arc::new(Principal {
            id: self.interner.intern_foreign(&from.subject),
            subject: from.subject.into(),
            tenant: from.tenant.into(),
            plan: from.plan.into(),
            scopes: from.scopes,
            models: from.models,
            priority: from.priority,
        }))
    }
}

fn header_edit(from: types::HeaderEdit) -> Result<HeaderEdit, Fault> {
    Ok(match from {
        types::HeaderEdit::Set((name, value)) => {
            let name = header_name(&name)?;
            let value = header_value(&name, &value)?;
            HeaderEdit::Set(name, value)
        }
        types::HeaderEdit::Append((name, value)) => {
            let name = header_name(&name)?;
            let value = header_value(&name, &value)?;
            HeaderEdit::Append(name, value)
        }
        types::HeaderEdit::Remove(name) => HeaderEdit::Remove(header_name(&name)?),
    })
}

fn json_edit(from: types::JsonEdit) -> JsonEdit {
    match from {
        types::JsonEdit::Set((pointer, value)) => JsonEdit::Set { pointer, value },
        types::JsonEdit::Remove(pointer) => JsonEdit::Remove { pointer },
    }
}

fn header_name(name: &str) -> Result<HeaderName, Fault> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Fault::bad_verdict(format!("header name {name:?}")))
}

fn header_value(name: &HeaderName, value: &[u8]) -> Result<HeaderValue, Fault> {
    HeaderValue::from_bytes(value)
        .map_err(|_| Fault::bad_verdict(format!("value of header `{name}`")))
}

/// The gateway frames the answer itself.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const RESPONSE_HEADERS_MAX: usize = 64;
const PRINCIPAL_TEXT_MAX: usize = 1_024;
