//! What can go wrong in a store.

/// Why a store did not do as asked. A spent limit is no error, see [`crate::Limited`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Key or value longer than the store takes.
    #[error("{what} of {bytes} bytes is longer than {bytes_max}")]
    TooLarge {
        /// `key` or `value`.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest taken.
        bytes_max: usize,
    },
    /// The store holds as much as it may and nothing of it has expired.
    #[error("the store is full: delete entries or give them a time to live")]
    Full,
    /// The entry has another version than expected.
    #[error("the entry has version {current}, not the expected one")]
    Conflict {
        /// Its version; 0 = absent.
        current: u64,
    },
    /// `add` met a value that is no decimal number of 64 bits.
    #[error("the value is not a decimal number of 64 bits")]
    NotANumber,
    /// A limiter without windows, with too many, or with one of 0 seconds.
    #[error("a limiter takes 1 to {windows_max} windows of at least 1 second")]
    BadWindows {
        /// The most windows taken.
        windows_max: usize,
    },
}
