//! Phase `authorize`: who calls, and may they.

use crate::bindings::authorize::exports::weir::filter::on_authorize as contract;
pub use crate::bindings::authorize::exports::weir::filter::on_authorize::Decision;
use crate::secrets::Found;
use crate::{Filter, Instance, LocalResponse, Principal, RequestView};

/// Decides who calls.
pub trait Authorize: Filter {
    /// Called once per request, when the body is read and parsed. Costs about 1.3 µs with one
    /// header read and one key lookup.
    ///
    /// [`Decision::Abstain`]: the next authorizer decides; if none does, the request is refused
    /// with 401. [`Decision::Allow`], [`Decision::AllowFound`], [`Decision::AllowWith`]: let in,
    /// no later authorizer is asked. [`Decision::Deny`]: answer and stop. May suspend.
    fn authorize(&self, request: RequestView) -> Decision;
}

impl<F: Authorize + Instance> contract::Guest for F {
    fn authorize(request: RequestView) -> Decision {
        F::with(|filter| filter.authorize(request))
    }
}

impl From<Found> for Decision {
    /// Lets in whom the host found: nothing is copied.
    fn from(found: Found) -> Self {
        Self::AllowFound(found.id())
    }
}

impl From<Principal> for Decision {
    fn from(principal: Principal) -> Self {
        Self::Allow(principal)
    }
}

impl From<LocalResponse> for Decision {
    fn from(response: LocalResponse) -> Self {
        Self::Deny(response)
    }
}
