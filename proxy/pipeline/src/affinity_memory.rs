//! Affinity verdicts by the session keys they follow from, so that the turns of a conversation do
//! not ask a filter the same thing again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::facts::SessionKey;
use crate::verdict::Affinity;

type Verdicts = HashMap<u64, Option<Arc<Affinity>>>;

/// What one filter has said; forgotten with the chain it belongs to.
#[derive(Default)]
pub(crate) struct AffinityMemory {
    shards: [Mutex<Verdicts>; SHARDS],
}

impl AffinityMemory {
    /// What was said of these keys, if it is known still.
    pub(crate) fn recall(&self, keys: &[SessionKey]) -> Option<Option<Arc<Affinity>>> {
        let name = name(keys);
        self.shard(name)?.lock().get(&name).cloned()
    }

    /// Keeps what was said of these keys.
    pub(crate) fn keep(&self, keys: &[SessionKey], verdict: Option<Arc<Affinity>>) {
        let name = name(keys);
        if let Some(shard) = self.shard(name) {
            let mut verdicts = shard.lock();
            if verdicts.len() >= VERDICTS_MAX {
                verdicts.clear();
            }
            verdicts.insert(name, verdict);
        }
    }

    fn shard(&self, name: u64) -> Option<&Mutex<Verdicts>> {
        self.shards.get(usize::try_from(name).ok()? % SHARDS)
    }
}

/// One number for all keys and where they were found, in their order.
fn name(keys: &[SessionKey]) -> u64 {
    keys.iter().fold(0, |name: u64, key| {
        name.rotate_left(7) ^ key.hash ^ ((key.source as u64) << 56)
    })
}

const SHARDS: usize = 16;
/// Of one shard; then it starts over.
const VERDICTS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::SessionSource;

    fn key(source: SessionSource, hash: u64) -> SessionKey {
        SessionKey {
            source,
            value: String::new(),
            hash,
        }
    }

    #[test]
    fn verdicts_belong_to_their_keys() {
        use SessionSource::{PrefixChain, SessionHeader};
        let memory = AffinityMemory::default();
        let mine = [key(SessionHeader, 7)];
        assert_eq!(memory.recall(&mine), None);
        memory.keep(&mine, None);
        assert_eq!(memory.recall(&mine), Some(None));
        let others: [&[SessionKey]; 4] = [
            &[key(PrefixChain, 7)],
            &[key(SessionHeader, 8)],
            &[key(SessionHeader, 7), key(SessionHeader, 7)],
            &[],
        ];
        for other in others {
            assert_eq!(memory.recall(other), None, "{other:?}");
        }
    }

    #[test]
    fn it_is_bounded() {
        let memory = AffinityMemory::default();
        for hash in 0..100_000 {
            memory.keep(&[key(SessionSource::PrefixChain, hash)], None);
        }
        let kept: usize = memory.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(kept <= SHARDS * VERDICTS_MAX, "{kept}");
    }
}
