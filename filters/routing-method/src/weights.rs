//! Shares of the candidates by configured weight.

use weir_sdk::candidates::Backend;

/// Weights of a set of candidates; nothing is kept when all are alike.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Weights {
    /// Running sums, or none when all weights are alike.
    sums: Option<Vec<u64>>,
    /// Coprime to the total: visits every ticket once per round, heavy backends spread out.
    stride: u64,
}

impl Weights {
    /// Of the backends in order of position.
    pub(crate) fn of(backends: &[Backend]) -> Self {
        let mut weights = backends.iter().map(|backend| backend.weight);
        let first = weights.next().unwrap_or(1);
        if weights.all(|weight| weight == first) {
            return Self {
                sums: None,
                stride: 1,
            };
        }
        let mut total = 0;
        let sums = backends.iter().map(|backend| {
            total += u64::from(backend.weight);
            total
        });
        let sums: Vec<u64> = sums.collect();
        Self {
            sums: Some(sums),
            stride: stride(total),
        }
    }

    /// Position of the `turn`th turn; over a full round each gets turns by its weight.
    pub(crate) fn turn(&self, turn: u64, candidates: u32) -> Option<u32> {
        match self.total() {
            None => modulo(turn, candidates),
            Some(total) => self.owner(turn.checked_rem(total)?.wrapping_mul(self.stride) % total),
        }
    }

    /// Position that a random number falls on, by weight.
    pub(crate) fn drawn(&self, number: u64, candidates: u32) -> Option<u32> {
        match self.total() {
            None => modulo(number, candidates),
            Some(total) => self.owner(number.checked_rem(total)?),
        }
    }

    /// Weight of a position, 1 when all are alike.
    pub(crate) fn weight(&self, position: u32) -> u64 {
        let Some(sums) = &self.sums else { return 1 };
        let at = position as usize;
        let below = at
            .checked_sub(1)
            .and_then(|at| sums.get(at))
            .copied()
            .unwrap_or(0);
        sums.get(at).copied().unwrap_or(below) - below
    }

    /// Weight of all of so many candidates.
    pub(crate) fn whole(&self, candidates: u32) -> u64 {
        self.total().unwrap_or(u64::from(candidates))
    }

    fn total(&self) -> Option<u64> {
        self.sums.as_ref()?.last().copied()
    }

    fn owner(&self, ticket: u64) -> Option<u32> {
        let position = self.sums.as_ref()?.partition_point(|sum| *sum <= ticket);
        u32::try_from(position).ok()
    }
}

fn modulo(number: u64, candidates: u32) -> Option<u32> {
    u32::try_from(number.checked_rem(u64::from(candidates))?).ok()
}

/// Near the golden section of `total`, where multiples spread most evenly, and coprime to it.
fn stride(total: u64) -> u64 {
    // Weights are 32 bits, so the product cannot overflow for fewer than 2^22 backends.
    let start = (total.saturating_mul(618) / 1_000).max(1);
    (start..)
        .find(|stride| gcd(*stride, total) == 1)
        .unwrap_or(1)
}

fn gcd(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use weir_sdk::testing::backend;

    use super::*;

    #[test]
    fn turns_follow_the_weights() {
        let table: [(&[u32], &[u32]); 5] = [
            (&[1, 1, 1], &[2, 2, 2]),
            (&[5, 5], &[3, 3]),
            (&[3, 2, 1], &[3, 2, 1]),
            (&[1, 0, 5], &[1, 0, 5]),
            (&[0, 6, 0], &[0, 6, 0]),
        ];
        for (weights, expected) in table {
            let backends: Vec<_> = weights.iter().map(|weight| backend("b", *weight)).collect();
            let set = Weights::of(&backends);
            let count = u32::try_from(weights.len()).unwrap_or(0);
            let mut turns = vec![0; weights.len()];
            let mut draws = vec![0; weights.len()];
            for turn in 0..6 {
                for (found, counts) in [
                    (set.turn(turn, count), &mut turns),
                    (set.drawn(turn, count), &mut draws),
                ] {
                    let position = found.map(|position| position as usize);
                    if let Some(slot) = position.and_then(|position| counts.get_mut(position)) {
                        *slot += 1;
                    }
                }
            }
            assert_eq!(turns, expected, "turns of {weights:?}");
            assert_eq!(draws, expected, "draws of {weights:?}");
        }
    }

    #[test]
    fn heavy_backends_are_spread_out() {
        let set = Weights::of(&[backend("a", 3), backend("b", 1), backend("c", 1)]);
        let turns: Vec<_> = (0..5).filter_map(|turn| set.turn(turn, 3)).collect();
        let runs = turns
            .windows(3)
            .filter(|run| run.iter().all(|position| *position == 0))
            .count();
        assert_eq!(runs, 0, "{turns:?}");
    }

    #[test]
    fn weights_of_positions() {
        let set = Weights::of(&[backend("a", 3), backend("b", 0), backend("c", 7)]);
        let found: Vec<u64> = (0..4).map(|position| set.weight(position)).collect();
        assert_eq!((found, set.whole(3)), (vec![3, 0, 7, 0], 10));
        let alike = Weights::of(&[backend("a", 9), backend("b", 9)]);
        assert_eq!((alike.weight(0), alike.whole(2)), (1, 2));
    }

    #[test]
    fn no_candidate_has_no_turn() {
        let set = Weights::of(&[]);
        assert_eq!((set.turn(7, 0), set.drawn(7, 0)), (None, None));
    }
}
