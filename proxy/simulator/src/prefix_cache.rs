//! A KV cache of prompt prefixes: blocks of 64 bytes, least recently used out first.

use std::collections::{BTreeSet, HashMap};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::words::tokens_of;

const BLOCK_BYTES: usize = 64;
/// Tokens of one block.
pub(crate) const BLOCK_TOKENS: u64 = 16;

/// Which prompt prefixes are in memory. Blocks of prompts being answered are pinned: only the
/// others can be evicted.
pub(crate) struct PrefixCache {
    blocks_max: usize,
    blocks: HashMap<u64, Block>,
    /// Blocks nobody uses now, oldest first: (tick of last use, block).
    idle: BTreeSet<(u64, u64)>,
    tick: u64,
}

struct Block {
    pins: u32,
    used: u64,
}

/// The pinned blocks of one prompt, to be given back by [`PrefixCache::release`].
pub(crate) struct Pinned {
    blocks: Vec<u64>,
    /// Prompt tokens that were in memory already.
    pub(crate) cached_tokens: u64,
    /// Share (0 to 1) of the prompt that still has to be computed.
    pub(crate) missed: f64,
}

impl PrefixCache {
    pub(crate) fn new(kv_tokens: u64) -> Self {
        let blocks_max = usize::try_from(kv_tokens / BLOCK_TOKENS).unwrap_or(usize::MAX);
        Self {
            blocks_max,
            blocks: HashMap::new(),
            idle: BTreeSet::new(),
            tick: 0,
        }
    }

    /// Pins the blocks of `prompt`, evicting idle ones; `None` when the pinned ones leave no room.
    pub(crate) fn pin(&mut self, prompt: &str) -> Option<Pinned> {
        let blocks = block_hashes(prompt);
        let hits = blocks
            .iter()
            .take_while(|hash| self.blocks.contains_key(hash))
            .count();
        // A later block can be present although an earlier one was evicted: it is in memory, but
        // useless until the earlier one is computed again, and takes no new room.
        let idle_own = blocks
            .iter()
            .filter(|hash| self.blocks.get(hash).is_some_and(|block| block.pins == 0))
            .count();
        let absent = blocks
            .iter()
            .filter(|hash| !self.blocks.contains_key(hash))
            .count();
        let evictable = self.idle.len().saturating_sub(idle_own);
        if self.blocks.len() + absent > self.blocks_max + evictable {
            return None;
        }
        for hash in &blocks {
            let block = self
                .blocks
                .entry(*hash)
                .or_insert(Block { pins: 0, used: 0 });
            self.idle.remove(&(block.used, *hash));
            block.pins += 1;
        }
        while self.blocks.len() > self.blocks_max {
            let Some((_, hash)) = self.idle.pop_first() else {
                break;
            };
            self.blocks.remove(&hash);
        }
        let cached_tokens = tokens_of(prompt.len()).min(hits as u64 * BLOCK_TOKENS);
        let missed = 1.0 - hits as f64 / blocks.len().max(1) as f64;
        Some(Pinned {
            blocks,
            cached_tokens,
            missed,
        })
    }

    /// Whether `prompt` fits when it has the cache for itself.
    pub(crate) fn fits(&self, prompt: &str) -> bool {
        prompt.len().div_ceil(BLOCK_BYTES) <= self.blocks_max
    }

    /// How many blocks there can be.
    pub(crate) fn blocks_max(&self) -> usize {
        self.blocks_max
    }

    /// Share (0 to 1) of the blocks that prompts being answered use.
    pub(crate) fn usage(&self) -> f64 {
        let pinned = self.blocks.len() - self.idle.len();
        pinned as f64 / self.blocks_max.max(1) as f64
    }

    /// Ends the use of a prompt's blocks; they stay in memory until others need the room.
    pub(crate) fn release(&mut self, pinned: &Pinned) {
        // From the end: the head of a prompt is the part others share, so it must leave last.
        for hash in pinned.blocks.iter().rev() {
            let Some(block) = self.blocks.get_mut(hash) else {
                continue;
            };
            self.tick += 1;
            block.used = self.tick;
            block.pins = block.pins.saturating_sub(1);
            if block.pins == 0 {
                self.idle.insert((block.used, *hash));
            }
        }
    }
}

/// One hash per block, each covering the prompt up to the block's end.
fn block_hashes(prompt: &str) -> Vec<u64> {
    let mut prefix = 0;
    let chain = |block| {
        prefix = xxh3_64_with_seed(block, prefix);
        prefix
    };
    prompt.as_bytes().chunks(BLOCK_BYTES).map(chain).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn prompt(blocks: &str) -> String {
        blocks
            .chars()
            .flat_map(|block| std::iter::repeat_n(block, BLOCK_BYTES))
            .collect()
    }

    #[test]
    fn a_shared_prefix_hits() {
        let mut cache = PrefixCache::new(8 * BLOCK_TOKENS);
        for (blocks, cached) in [("abc", 0), ("abd", 2), ("abc", 3), ("xbc", 0)] {
            let pinned = cache.pin(&prompt(blocks)).unwrap();
            assert_eq!(pinned.cached_tokens, cached * BLOCK_TOKENS, "{blocks}");
            cache.release(&pinned);
        }
    }

    #[test]
    fn the_least_recently_used_prompt_leaves_first() {
        let mut cache = PrefixCache::new(4 * BLOCK_TOKENS);
        for (blocks, cached) in [
            ("ab", 0),
            ("cd", 0),
            ("ab", 2),
            ("ef", 0),
            ("ab", 2),
            ("cd", 0),
        ] {
            let pinned = cache.pin(&prompt(blocks)).unwrap();
            assert_eq!(pinned.cached_tokens, cached * BLOCK_TOKENS, "{blocks}");
            cache.release(&pinned);
            assert!(cache.blocks.len() <= 4);
            assert_eq!(cache.blocks.len(), cache.idle.len());
        }
    }

    #[test]
    fn pinned_prompts_leave_no_room() {
        let mut cache = PrefixCache::new(3 * BLOCK_TOKENS);
        let first = cache.pin(&prompt("ab")).unwrap();
        assert!(cache.pin(&prompt("cd")).is_none());
        let second = cache.pin(&prompt("abc")).unwrap();
        assert_eq!(second.cached_tokens, 2 * BLOCK_TOKENS);
        cache.release(&first);
        assert!(cache.pin(&prompt("d")).is_none());
        cache.release(&second);
        assert!(cache.pin(&prompt("d")).is_some());
        assert!(
            cache.pin(&prompt("abcd")).is_none(),
            "larger than the whole cache"
        );
    }
}
