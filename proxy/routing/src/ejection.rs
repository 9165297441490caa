//! When failing traffic takes a backend out.

/// When failing traffic takes a backend out of selection for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionPolicy {
    /// Failures in a row that eject; 0 = never eject.
    pub consecutive_failures: u32,
    /// First ejection; doubled by each further one without a success between, up to 32 times.
    pub base_ms: u64,
    /// Greatest share of a cluster that may be ejected at once, 0..=100. One backend of
    /// several may always be ejected unless this is 0.
    pub max_percent: u32,
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ms: 10_000,
            max_percent: 50,
        }
    }
}
