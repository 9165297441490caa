//! A ring of virtual nodes: the few candidates next to a key.

use xxhash_rust::xxh3::xxh3_64;

use crate::candidate::Candidate;

/// The nodes of all candidates of a set, in order of their hashes.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) prefix_hash: u64,
    pub(crate) nodes: u32,
    sorted: Vec<(u64, u32)>,
}

impl Ring {
    /// `nodes` of each candidate at `xxh3_64(prefix || len(id) || id || 0x06 0xff len(n) || n)`.
    pub(crate) fn new(prefix: &[u8], nodes: u32, candidates: &[Candidate]) -> Self {
        let mut bytes = Vec::with_capacity(prefix.len() + 128);
        let mut sorted = Vec::with_capacity(candidates.len() * nodes as usize);
        for (candidate, position) in candidates.iter().zip(0_u32..) {
            bytes.clear();
            bytes.extend_from_slice(prefix);
            append_sized(&mut bytes, candidate.id().as_bytes());
            bytes.extend_from_slice(&[NODE_TAG, 0xff]);
            bytes.extend_from_slice(&8_u64.to_le_bytes());
            let base = bytes.len();
            for node in 0..u64::from(nodes) {
                bytes.truncate(base);
                bytes.extend_from_slice(&node.to_le_bytes());
                sorted.push((xxh3_64(&bytes), position));
            }
        }
        sorted.sort_unstable();
        Self {
            prefix_hash: xxh3_64(prefix),
            nodes,
            sorted,
        }
    }

    /// The first `n` different positions from a hash on upwards, and around.
    pub(crate) fn first(&self, key_hash: u64, n: usize) -> Vec<u32> {
        let start = self.sorted.partition_point(|(hash, _)| *hash < key_hash);
        let (before, after) = self.sorted.split_at(start);
        let mut found = Vec::with_capacity(n.min(FIRST_CAPACITY_MAX));
        for (_, position) in after.iter().chain(before) {
            if found.len() >= n {
                break;
            }
            if !found.contains(position) {
                found.push(*position);
            }
        }
        found
    }
}

/// `len as u64 LE || value`.
pub(crate) fn append_sized(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(value);
}

/// Tag of the field with the number of a virtual node.
const NODE_TAG: u8 = 0x06;
const FIRST_CAPACITY_MAX: usize = 64;
