//! The hash that guests and the gateway share.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// xxh3 with seed 0, cut to 53 bits: some JavaScript engines read a u64 as a double. Never 0,
/// which means "none" wherever a hash is carried.
#[must_use]
pub fn hash53(data: &[u8]) -> u64 {
    (xxh3_64_with_seed(data, 0) >> 11).max(1)
}
