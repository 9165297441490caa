//! xxh3 of many byte strings that begin alike: the work on the beginning is done once.
//!
//! Routing by a key hashes that key with each candidate's name. Of 200 bytes all but the last 20
//! are the same for all of them.

use xxhash_rust::const_xxh3::const_custom_default_secret;
use xxhash_rust::xxh3::xxh3_64;

/// Hashes `prefix || tail` for one prefix and many tails; equal to `xxh3_64` of the whole.
#[derive(Debug)]
pub(crate) struct PrefixedHash {
    /// The prefix, and room for a tail where both have to lie side by side.
    bytes: Vec<u8>,
    prefix: usize,
    /// For up to 240 bytes in all.
    middle: Middle,
    /// Stripes of 64 bytes in `lanes`: for more.
    stripes: usize,
    lanes: [u64; 8],
}

/// What the prefix adds to a hash made of pieces of 16 bytes.
#[derive(Debug)]
struct Middle {
    /// The first piece that is not all prefix.
    first: usize,
    /// Sum of the pieces before it that are of the first eight.
    sum: u64,
    /// Of those after.
    late_sum: u64,
    /// Bytes of the prefix in the first piece.
    rest: usize,
    /// Its first word, if that is all prefix.
    head: u64,
    /// The bytes of the prefix in the word that begins with some and ends with the tail's.
    last: u64,
    /// The last length, and the sum of the first eight pieces for it: names of equal length are
    /// frequent.
    known: (usize, u64),
}

impl PrefixedHash {
    pub(crate) fn new(prefix: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(prefix.len() + TAIL_CAPACITY);
        bytes.extend_from_slice(prefix);
        let whole = Joined { prefix, tail: &[] };
        // One stripe less than there are: the last one of a whole is treated differently.
        let stripes = (prefix.len().saturating_sub(1) / 64).min(STRIPES_MAX);
        let mut lanes = LANES;
        for stripe in 0..stripes {
            whole.accumulate(&mut lanes, stripe * 64, stripe * 8);
        }
        Self {
            bytes,
            prefix: prefix.len(),
            middle: Middle::new(prefix),
            stripes,
            lanes,
        }
    }

    /// The hash with this tail. A long one is read where it lies: bytes that were copied just now
    /// cannot be read as other words without waiting for them.
    #[inline]
    pub(crate) fn of(&mut self, tail: &[u8]) -> u64 {
        let length = self.prefix + tail.len();
        if (129..=240).contains(&length) && tail.len() >= 16 {
            return self.middle.of(tail, length);
        }
        if (241..=1024).contains(&length) && self.prefix >= 8 && tail.len() >= 8 {
            let whole = Joined {
                prefix: self.bytes.get(..self.prefix).unwrap_or_default(),
                tail,
            };
            return self.long(&whole, length);
        }
        self.bytes.extend_from_slice(tail);
        let hash = xxh3_64(&self.bytes);
        self.bytes.truncate(self.prefix);
        hash
    }

    fn long(&self, whole: &Joined<'_>, length: usize) -> u64 {
        let mut lanes = self.lanes;
        for stripe in self.stripes..(length - 1) / 64 {
            whole.accumulate(&mut lanes, stripe * 64, stripe * 8);
        }
        whole.accumulate(&mut lanes, length - 64, 121);
        let mut sum = (length as u64).wrapping_mul(PRIME64_1);
        for (pair, at) in lanes.chunks_exact(2).zip((11..).step_by(16)) {
            if let [one, other] = *pair {
                let (one, other) = (one ^ word(&SECRET, at), other ^ word(&SECRET, at + 8));
                sum = sum.wrapping_add(fold(one, other));
            }
        }
        avalanche(sum)
    }
}

impl Middle {
    fn new(prefix: &[u8]) -> Self {
        let first = (prefix.len() / 16).min(15);
        let piece = |at: usize, secret_at| mix(word(prefix, at), word(prefix, at + 8), secret_at);
        let sum = |sum: u64, piece: u64| sum.wrapping_add(piece);
        let early = (0..first.min(8)).map(|at| piece(at * 16, at * 16));
        let late = (8..first).map(|at| piece(at * 16, (at - 8) * 16 + 3));
        let rest = prefix.len() - first * 16;
        let mut last = [0; 8];
        let begun = prefix.get(prefix.len() - rest % 8..).unwrap_or_default();
        for (byte, known) in last.iter_mut().zip(begun) {
            *byte = *known;
        }
        Self {
            first,
            sum: early.fold(0, sum),
            late_sum: late.fold(0, sum),
            rest,
            head: word(prefix, first * 16),
            last: u64::from_le_bytes(last),
            known: (0, 0),
        }
    }

    #[inline]
    fn of(&mut self, tail: &[u8], length: usize) -> u64 {
        let begun = self.rest % 8;
        let joined = match begun {
            0 => word(tail, 0),
            _ => self.last | word(tail, 0) << (8 * begun),
        };
        let mut at = 8 - begun;
        let mut pair = if self.rest < 8 {
            at += 8;
            (joined, word(tail, at - 8))
        } else {
            (self.head, joined)
        };
        let mut next = |secret_at| {
            let mixed = mix(pair.0, pair.1, secret_at);
            pair = (word(tail, at), word(tail, at + 8));
            at += 16;
            mixed
        };
        let (sum, from) = if self.first < 8 {
            let mut sum = self.begin(length);
            for piece in self.first..8 {
                sum = sum.wrapping_add(next(piece * 16));
            }
            (avalanche(sum), 8)
        } else {
            if self.known.0 != length {
                self.known = (length, avalanche(self.begin(length)));
            }
            (self.known.1.wrapping_add(self.late_sum), self.first)
        };
        let mut sum = sum;
        for piece in from..length / 16 {
            sum = sum.wrapping_add(next((piece - 8) * 16 + 3));
        }
        let end = tail.len();
        let last = mix(word(tail, end - 16), word(tail, end - 8), 119);
        avalanche(sum.wrapping_add(last))
    }

    fn begin(&self, length: usize) -> u64 {
        (length as u64)
            .wrapping_mul(PRIME64_1)
            .wrapping_add(self.sum)
    }
}

/// Two strings read as one.
struct Joined<'a> {
    prefix: &'a [u8],
    tail: &'a [u8],
}

impl Joined<'_> {
    /// Eight bytes of the whole.
    #[inline]
    fn word(&self, at: usize) -> u64 {
        let prefix = self.prefix.len();
        if at >= prefix {
            return word(self.tail, at - prefix);
        }
        match prefix - at {
            here @ 1..8 => {
                let last = word(self.prefix, prefix - 8) >> (8 * (8 - here));
                last | word(self.tail, 0) << (8 * here)
            }
            _ => word(self.prefix, at),
        }
    }

    #[inline]
    fn accumulate(&self, lanes: &mut [u64; 8], at: usize, secret_at: usize) {
        let mut words = [0_u64; 8];
        for (word, offset) in words.iter_mut().zip((0..).step_by(8)) {
            *word = self.word(at + offset);
        }
        for (pair, lanes) in words.chunks_exact(2).zip(lanes.chunks_exact_mut(2)) {
            if let ([one, other], [lane, next]) = (pair, lanes) {
                *lane = lane.wrapping_add(*other);
                *next = next.wrapping_add(*one);
            }
        }
        for ((lane, word_), offset) in lanes.iter_mut().zip(words).zip((0..).step_by(8)) {
            let keyed = word_ ^ word(&SECRET, secret_at + offset);
            *lane = lane.wrapping_add((keyed & 0xffff_ffff).wrapping_mul(keyed >> 32));
        }
    }
}

/// Sixteen bytes against sixteen of the secret.
#[inline]
fn mix(one: u64, other: u64, secret_at: usize) -> u64 {
    fold(
        one ^ word(&SECRET, secret_at),
        other ^ word(&SECRET, secret_at + 8),
    )
}

/// The halves of the product, laid over each other.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the halves are meant")]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn avalanche(sum: u64) -> u64 {
    let mixed = (sum ^ (sum >> 37)).wrapping_mul(0x1656_6791_9e37_79f9);
    mixed ^ (mixed >> 32)
}

/// Eight bytes; those that do not exist are 0, which no caller asks for.
#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.copied().map_or(0, u64::from_le_bytes)
}

/// The secret of the algorithm with seed 0.
static SECRET: [u8; 192] = const_custom_default_secret(0);
const PRIME64_1: u64 = 0x9e37_79b1_85eb_ca87;
/// What the lanes start from: primes of the algorithm.
const LANES: [u64; 8] = [
    0xc2b2_ae3d,
    PRIME64_1,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x85eb_ca77,
    0x27d4_eb2f_1656_67c5,
    0x9e37_79b1,
];
/// Stripes of the first kilobyte; beyond it the algorithm does more.
const STRIPES_MAX: usize = 15;
const TAIL_CAPACITY: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hash_of_the_whole() {
        let bytes: Vec<u8> = (0..1_200_u32).map(|n| (n * 31 + n / 7) as u8).collect();
        for prefix in (0..1_100).step_by(7).chain([16, 64, 128, 129, 240, 1024]) {
            let mut hash = PrefixedHash::new(&bytes[..prefix]);
            for tail in [0, 1, 8, 15, 16, 17, 23, 40, 64, 65, 90] {
                let whole = &bytes[..prefix + tail];
                let found = hash.of(&bytes[prefix..prefix + tail]);
                assert_eq!(found, xxh3_64(whole), "{prefix} and {tail}");
            }
        }
    }
}
