//! The best possible: one cache that never forgets and has computed everything that arrived before.

use std::collections::HashSet;

use crate::schedule::Arrival;

/// Prompt tokens of a schedule, and how many of them no cache could have had to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Best {
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
}

impl Best {
    /// Of arrivals in their order.
    pub(crate) fn of(arrivals: &[Arrival]) -> Self {
        let mut known = HashSet::new();
        let mut best = Self::default();
        for arrival in arrivals {
            let mut is_prefix_known = true;
            let mut prefix = Vec::new();
            for part in &arrival.prompt {
                prefix.push(*part);
                is_prefix_known &= known.contains(&prefix);
                if is_prefix_known {
                    best.cached_tokens += u64::from(part.tokens);
                } else {
                    known.insert(prefix.clone());
                }
            }
            best.prompt_tokens += arrival.prompt_tokens();
        }
        best
    }

    /// Share of the prompt tokens that need not be computed, 0 to 1.
    pub(crate) fn hit_rate(self) -> f64 {
        self.cached_tokens as f64 / self.prompt_tokens.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::schedule::{Key, Segment};

    fn arrival(parts: &[u64]) -> Arrival {
        let part = |number: &u64| Segment::new(0, *number, 16);
        Arrival {
            at: Duration::ZERO,
            key: Key::None,
            prompt: parts.iter().map(part).collect(),
            output: 1,
        }
    }

    #[test]
    fn only_what_begins_alike_is_known() {
        let table: [(&[&[u64]], u64); 5] = [
            (&[&[1, 2], &[1, 2]], 32),
            (&[&[1, 2], &[1, 3], &[1, 3, 2]], 48),
            (&[&[1, 2], &[2]], 0),
            (&[&[1, 1], &[1]], 16),
            (&[], 0),
        ];
        for (prompts, expected) in table {
            let arrivals: Vec<_> = prompts.iter().map(|parts| arrival(parts)).collect();
            assert_eq!(Best::of(&arrivals).cached_tokens, expected, "{prompts:?}");
        }
        let all = Best::of(&[arrival(&[1, 2]), arrival(&[1, 2])]);
        assert!((all.hit_rate() - 0.5).abs() < 1e-9);
    }
}
