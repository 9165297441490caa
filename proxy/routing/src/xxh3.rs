//! The pieces that xxh3 is made of, with seed 0: for hashes of which a part is known already.

use xxhash_rust::const_xxh3::const_custom_default_secret;

/// Sixteen bytes against sixteen of the secret.
#[inline]
pub(crate) fn mix(one: u64, other: u64, secret_at: usize) -> u64 {
    fold(
        one ^ word(&SECRET, secret_at),
        other ^ word(&SECRET, secret_at + 8),
    )
}

/// Where the secret of a piece is, of the hash of 129 to 240 bytes.
#[inline]
pub(crate) fn secret_at(piece: usize) -> usize {
    match piece.checked_sub(EARLY) {
        None => piece * 16,
        Some(late) => late * 16 + 3,
    }
}

/// The halves of the product, laid over each other.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the halves are meant")]
pub(crate) fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

/// The last step of a hash.
#[inline]
pub(crate) fn avalanche(sum: u64) -> u64 {
    let mixed = (sum ^ (sum >> 37)).wrapping_mul(0x1656_6791_9e37_79f9);
    mixed ^ (mixed >> 32)
}

/// Eight bytes; those that do not exist are 0, which no caller asks for.
#[inline]
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.copied().map_or(0, u64::from_le_bytes)
}

/// Pieces of 16 bytes that are added up before the sum is mixed for the first time.
pub(crate) const EARLY: usize = 8;
/// Where the secret of the last 16 bytes is, which are a piece that may overlap others.
pub(crate) const LAST_SECRET_AT: usize = 119;
/// The secret of the algorithm with seed 0.
pub(crate) static SECRET: [u8; 192] = const_custom_default_secret(0);
/// What lengths are multiplied with.
pub(crate) const PRIME64_1: u64 = 0x9e37_79b1_85eb_ca87;
