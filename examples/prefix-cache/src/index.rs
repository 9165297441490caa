//! Which blocks each backend has worked through lately: a guess at what its cache holds.

use std::collections::{HashMap, VecDeque};

/// The last blocks of each backend.
pub(crate) struct Index {
    backends: HashMap<u32, Recent>,
    blocks_max: usize,
    cold: u64,
}

/// Blocks in the order of their last use.
#[derive(Default)]
struct Recent {
    /// The number of each block's last use.
    uses: HashMap<u64, u64>,
    /// Uses, oldest first; those of blocks used again since are passed over.
    order: VecDeque<(u64, u64)>,
    used: u64,
    /// Number of its last cold prompt among those of all backends.
    cold: u64,
}

impl Index {
    pub(crate) fn new(blocks_max: usize) -> Self {
        Self {
            backends: HashMap::new(),
            blocks_max,
            cold: 0,
        }
    }

    /// How many leading blocks a backend has.
    pub(crate) fn matched(&self, backend: u32, blocks: &[u64]) -> usize {
        let Some(recent) = self.backends.get(&backend) else {
            return 0;
        };
        let known = |block: &&u64| recent.uses.contains_key(*block);
        blocks.iter().take_while(known).count()
    }

    /// When a backend was last given a prompt that nobody knew; 0 = never.
    pub(crate) fn last_cold(&self, backend: u32) -> u64 {
        self.backends.get(&backend).map_or(0, |recent| recent.cold)
    }

    /// A backend is going to work through these.
    pub(crate) fn insert(&mut self, backend: u32, blocks: &[u64], cold: bool) {
        if !self.backends.contains_key(&backend) && self.backends.len() >= BACKENDS_MAX {
            // Backends come and go; those that are still there are learnt again.
            self.backends.clear();
        }
        let recent = self.backends.entry(backend).or_default();
        if cold {
            self.cold += 1;
            recent.cold = self.cold;
        }
        for block in blocks {
            recent.used += 1;
            recent.uses.insert(*block, recent.used);
            recent.order.push_back((*block, recent.used));
        }
        recent.shrink(self.blocks_max);
    }
}

impl Recent {
    fn shrink(&mut self, blocks_max: usize) {
        while let Some((block, used)) = self.order.front().copied() {
            let current = self.uses.get(&block) == Some(&used);
            if current && self.uses.len() <= blocks_max {
                return;
            }
            self.order.pop_front();
            if current {
                self.uses.remove(&block);
            }
        }
    }
}

/// Backends remembered at once.
const BACKENDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_blocks_count_and_old_ones_are_forgotten() {
        let mut index = Index::new(4);
        index.insert(7, &[1, 2, 3], true);
        for (blocks, expected) in [(&[1, 2, 9][..], 2), (&[9, 1], 0), (&[], 0)] {
            assert_eq!(index.matched(7, blocks), expected, "{blocks:?}");
        }
        assert_eq!(index.matched(8, &[1]), 0);
        index.insert(7, &[1, 10, 11], false);
        assert_eq!(index.matched(7, &[1]), 1, "used again");
        assert_eq!(index.matched(7, &[2]), 0, "the oldest goes first");
        for round in 0..1_000 {
            index.insert(7, &[1, round], false);
        }
        let recent = &index.backends[&7];
        assert!(recent.uses.len() <= 4 && recent.order.len() <= 8);
    }

    #[test]
    fn backends_are_bounded() {
        let mut index = Index::new(4);
        (0..1_000).for_each(|backend| index.insert(backend, &[1], true));
        assert!(index.backends.len() <= BACKENDS_MAX);
        assert!(index.last_cold(999) > index.last_cold(998));
    }
}
