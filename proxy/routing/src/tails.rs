//! What is hashed behind the keys of rankings: the names of all candidates of a set.
//!
//! Of the about 200 bytes of a key and a name most are the key's. Up to 240 bytes, xxh3 adds up
//! pieces of 16 bytes, each mixed on its own, so that what the pieces behind the key add is the
//! same for all keys of one length. Kept, it leaves for each key and name the piece in which
//! they meet.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::prefixed_hash::PrefixedHash;
use crate::ring::append_sized;
use crate::xxh3::{
    EARLY, LAST_SECRET_AT, PRIME64_1, SECRET, avalanche, fold, mix, secret_at, word,
};

/// The names, as fields to hash.
#[derive(Debug)]
pub(crate) struct Tails {
    /// `len as u64 LE || name`, side by side.
    bytes: Box<[u8]>,
    /// Where each ends.
    ends: Box<[usize]>,
    /// By length of the prefix, the last ones asked for.
    digested: Mutex<Vec<(usize, Digests)>>,
}

/// `None` where the name has to be hashed with the whole prefix.
type Digests = Arc<[Option<Digest>]>;

impl Tails {
    pub(crate) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut bytes = Vec::new();
        let end = |name: &str| {
            append_sized(&mut bytes, name.as_bytes());
            bytes.len()
        };
        let ends = names.map(end).collect();
        Self {
            bytes: bytes.into(),
            ends,
            digested: Mutex::default(),
        }
    }

    /// Appends `xxh3_64(prefix || len as u64 LE || name)` of each name, in their order.
    pub(crate) fn hash_behind(&self, prefix: &[u8], hashes: &mut Vec<u64>) {
        let mut whole = PrefixedHash::new(prefix);
        if prefix.len() > DIGESTED_MAX {
            hashes.extend(self.iter().map(|tail| whole.of(tail)));
            return;
        }
        let (digests, beginning) = (self.digests(prefix.len()), Beginning::new(prefix));
        let hash = |(digest, tail): (&Option<Digest>, &[u8])| match digest {
            Some(digest) => beginning.hash_with(digest),
            None => whole.of(tail),
        };
        hashes.extend(digests.iter().zip(self.iter()).map(hash));
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let begun = std::mem::replace(&mut start, *end);
            self.bytes.get(begun..*end).unwrap_or_default()
        })
    }

    fn digests(&self, prefix: usize) -> Digests {
        let same = |(length, _): &&(usize, Digests)| *length == prefix;
        if let Some((_, digests)) = self.digested.lock().iter().find(same) {
            return Arc::clone(digests);
        }
        let digests: Digests = self.iter().map(|tail| Digest::new(prefix, tail)).collect();
        let lengths_max = (DIGESTS_MAX / self.ends.len().max(1)).max(1);
        let mut digested = self.digested.lock();
        if digested.len() >= lengths_max {
            digested.remove(0);
        }
        digested.push((prefix, Arc::clone(&digests)));
        digests
    }
}

/// What a tail adds to hashes behind prefixes of one length.
#[derive(Debug)]
struct Digest {
    /// Its part of the piece in which it meets the prefix; the prefix's bytes are 0.
    meeting: [u64; 2],
    /// Sum of its other pieces among the first eight, and what the length of all adds.
    early: u64,
    /// Of those after, with the last sixteen bytes, which count again.
    late: u64,
}

impl Digest {
    /// `None` where a hash is made in another way, or its last sixteen bytes are not the tail's.
    fn new(prefix: usize, tail: &[u8]) -> Option<Self> {
        let length = prefix + tail.len();
        let begun = u128::from_le_bytes(*tail.first_chunk()?);
        if !(129..=240).contains(&length) {
            return None;
        }
        let end = tail.len();
        let mut sums = [
            (length as u64).wrapping_mul(PRIME64_1),
            mix(word(tail, end - 16), word(tail, end - 8), LAST_SECRET_AT),
        ];
        for piece in prefix / 16 + 1..length / 16 {
            let at = piece * 16 - prefix;
            let mixed = mix(word(tail, at), word(tail, at + 8), secret_at(piece));
            let [early, late] = &mut sums;
            let sum = if piece < EARLY { early } else { late };
            *sum = sum.wrapping_add(mixed);
        }
        let [early, late] = sums;
        Some(Self {
            meeting: halves(begun << (8 * (prefix % 16))),
            early,
            late,
        })
    }
}

/// What a prefix adds to hashes with tails that were digested for its length.
struct Beginning {
    /// Its part of the piece in which it meets a tail, against the secret.
    meeting: [u64; 2],
    meets_early: bool,
    early: u64,
    late: u64,
}

impl Beginning {
    fn new(prefix: &[u8]) -> Self {
        let pieces = prefix.chunks_exact(16);
        let mut rest = [0; 16];
        for (byte, known) in rest.iter_mut().zip(pieces.remainder()) {
            *byte = *known;
        }
        let [one, other] = halves(u128::from_le_bytes(rest));
        let meeting = prefix.len() / 16;
        let (mut early, mut late) = (0_u64, 0_u64);
        for (piece, at) in pieces.zip(0..) {
            let mixed = mix(word(piece, 0), word(piece, 8), secret_at(at));
            let sum = if at < EARLY { &mut early } else { &mut late };
            *sum = sum.wrapping_add(mixed);
        }
        let secret = secret_at(meeting);
        Self {
            meeting: [
                one ^ word(&SECRET, secret),
                other ^ word(&SECRET, secret + 8),
            ],
            meets_early: meeting < EARLY,
            early,
            late,
        }
    }

    #[inline]
    fn hash_with(&self, tail: &Digest) -> u64 {
        let ([one, other], [mine, next]) = (self.meeting, tail.meeting);
        let met = fold(one ^ mine, other ^ next);
        let (early, late) = if self.meets_early { (met, 0) } else { (0, met) };
        let early = self.early.wrapping_add(tail.early).wrapping_add(early);
        let late = self.late.wrapping_add(tail.late).wrapping_add(late);
        avalanche(avalanche(early).wrapping_add(late))
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the halves are meant")]
fn halves(bytes: u128) -> [u64; 2] {
    [bytes as u64, (bytes >> 64) as u64]
}

/// Longest prefix behind which a name is digested: 240 bytes with the least of a name.
const DIGESTED_MAX: usize = 240 - 16;
/// Digests kept of one set, 5 MiB: of a thousand names for 131 lengths of a prefix.
const DIGESTS_MAX: usize = 1 << 17;

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    #[test]
    fn hashes_are_those_of_the_whole() {
        let bytes: Vec<u8> = (0..300_u32).map(|n| (n * 31 + n / 7) as u8).collect();
        let long = "a-name-of-any-length-that-a-candidate-may-have:8000";
        let sets: [&[usize]; 5] = [&[8, 9, 15, 16, 24], &[30, 51], &[3], &[3, 20], &[]];
        for lengths in sets {
            let names: Vec<&str> = lengths.iter().map(|length| &long[..*length]).collect();
            let tails = Tails::new(names.iter().copied());
            for prefix in (0..bytes.len()).chain([150, 100]) {
                let prefix = &bytes[..prefix];
                let whole = |name: &&str| {
                    let mut whole = prefix.to_vec();
                    append_sized(&mut whole, name.as_bytes());
                    xxh3_64(&whole)
                };
                let expected: Vec<u64> = names.iter().map(whole).collect();
                let mut found = Vec::new();
                tails.hash_behind(prefix, &mut found);
                assert_eq!(found, expected, "{lengths:?} behind {}", prefix.len());
            }
        }
    }

    #[test]
    fn digests_are_kept_within_bounds() {
        let names = vec!["10.0.0.1:8000"; DIGESTS_MAX / 3];
        let tails = Tails::new(names.into_iter());
        for prefix in [130, 131, 132, 133, 131] {
            tails.hash_behind(&vec![7; prefix], &mut Vec::new());
        }
        let kept: Vec<usize> = tails.digested.lock().iter().map(|(at, _)| *at).collect();
        assert_eq!(kept, [131, 132, 133]);
    }
}
