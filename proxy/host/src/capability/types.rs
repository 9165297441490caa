//! The interface `types`: values only, and their translation.

use crate::bindings::weir::filter::types::{self, Failure, Principal};
use crate::guest_state::GuestState;

impl types::Host for GuestState {}

/// A principal as filters see it.
pub(super) fn principal(known: &weir_pipeline::principal::Principal) -> Principal {
    Principal {
        subject: known.subject.to_string(),
        tenant: known.tenant.to_string(),
        plan: known.plan.to_string(),
        scopes: known.scopes.clone(),
        models: known.models.clone(),
        priority: known.priority,
    }
}

impl From<weir_store::StoreError> for Failure {
    fn from(error: weir_store::StoreError) -> Self {
        use weir_store::StoreError;
        match error {
            StoreError::TooLarge { .. } => Self::TooLarge,
            StoreError::Full => Self::Unavailable,
            StoreError::Conflict { .. } => Self::Conflict,
            StoreError::NotANumber | StoreError::BadWindows { .. } => Self::Invalid,
        }
    }
}

impl From<crate::capability::http_client::OutboundError> for Failure {
    fn from(error: crate::capability::http_client::OutboundError) -> Self {
        use crate::capability::http_client::OutboundError;
        match error {
            OutboundError::UnknownCluster => Self::NotFound,
            OutboundError::Unavailable => Self::Unavailable,
            OutboundError::Timeout => Self::Timeout,
            OutboundError::TooLarge => Self::TooLarge,
            OutboundError::Plaintext => Self::Denied,
            OutboundError::Internal => Self::Internal,
        }
    }
}
