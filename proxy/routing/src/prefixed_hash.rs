//! xxh3 of many byte strings that begin alike, of any length: the work on the beginning is done
//! once.

use xxhash_rust::xxh3::xxh3_64;

use crate::xxh3::{PRIME64_1, SECRET, avalanche, fold, word};

/// Hashes `prefix || tail` for one prefix and many tails; equal to `xxh3_64` of the whole.
#[derive(Debug)]
pub(crate) struct PrefixedHash {
    /// The prefix, and room for a tail where both have to lie side by side.
    bytes: Vec<u8>,
    prefix: usize,
    /// Stripes of 64 bytes in `lanes`: for more than 240 in all.
    stripes: usize,
    lanes: [u64; 8],
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
            stripes,
            lanes,
        }
    }

    /// The hash with this tail. A long one is read where it lies: bytes that were copied just now
    /// cannot be read as other words without waiting for them.
    #[inline]
    pub(crate) fn of(&mut self, tail: &[u8]) -> u64 {
        let length = self.prefix + tail.len();
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
