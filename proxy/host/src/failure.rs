//! Why one call of a guest gave no verdict, before it is put into words for the chain.

use wasmtime::{PoolConcurrencyLimitError, Trap};
use weir_pipeline::edits::EditError;
use weir_pipeline::verdict::FailureKind;

/// What went wrong in one call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct Fault {
    /// Its class.
    pub kind: FailureKind,
    /// Particulars for the log.
    pub detail: String,
}

impl Fault {
    pub(crate) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    pub(crate) fn bad_verdict(detail: impl Into<String>) -> Self {
        Self::new(FailureKind::BadVerdict, detail)
    }

    /// Classifies what wasmtime says. `memory_refused`: the store's limiter said no in this call,
    /// which reaches us as an ordinary error.
    pub(crate) fn of_call(error: &wasmtime::Error, memory_refused: bool) -> Self {
        let kind = if memory_refused {
            FailureKind::Memory
        } else if error.is::<PoolConcurrencyLimitError>() {
            FailureKind::PoolExhausted
        } else {
            match error.downcast_ref::<Trap>() {
                Some(Trap::Interrupt) => FailureKind::Deadline,
                Some(_) => FailureKind::Trap,
                // Values that cannot be lifted: a string that is not UTF-8, a discriminant out
                // of range, a pointer outside the memory.
                None => FailureKind::BadVerdict,
            }
        };
        Self::new(kind, detail_of(error))
    }

    /// Whether it says something about the filter, and so counts for its quarantine.
    pub(crate) fn counts(&self) -> bool {
        !matches!(
            self.kind,
            FailureKind::PoolExhausted | FailureKind::Quarantined
        )
    }
}

impl From<EditError> for Fault {
    fn from(error: EditError) -> Self {
        Self::new(FailureKind::ForbiddenEdit, error.to_string())
    }
}

/// The cause in one line and the innermost frames of the guest.
fn detail_of(error: &wasmtime::Error) -> String {
    let mut detail = error.root_cause().to_string();
    if let Some(trace) = error.downcast_ref::<wasmtime::WasmBacktrace>() {
        let named = trace
            .frames()
            .iter()
            .filter_map(wasmtime::FrameInfo::func_name);
        for (nth, name) in named.take(FRAMES_MAX).enumerate() {
            detail.push_str(if nth == 0 { "; in " } else { " < " });
            detail.push_str(name);
        }
    }
    detail
}

const FRAMES_MAX: usize = 6;
