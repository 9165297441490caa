//! Which conversations change their model server, and which of them had to.

use std::collections::HashMap;
use std::time::Duration;

/// An answered request of a conversation: when it was sent, and who answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(crate) at: Duration,
    pub(crate) key: u32,
    pub(crate) server: usize,
}

/// Conversations that were somewhere else after a change of the fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moved {
    /// Those seen before and after.
    pub(crate) keys: usize,
    pub(crate) moved: usize,
    /// Those which moved although neither their old nor their new place is what left or joined.
    pub(crate) needless: usize,
}

impl Moved {
    /// Between two spans of time. Where a conversation is in a span is where most of its requests
    /// were answered; `changed` is the server that left or joined.
    pub(crate) fn between(
        visits: &[Visit],
        before: (Duration, Duration),
        after: (Duration, Duration),
        changed: usize,
    ) -> Self {
        let (old, new) = (places(visits, before), places(visits, after));
        let mut found = Self::default();
        for (key, old) in old {
            let Some(new) = new.get(&key) else { continue };
            found.keys += 1;
            if *new != old {
                found.moved += 1;
                found.needless += usize::from(old != changed && *new != changed);
            }
        }
        found
    }

    /// Share of the conversations that moved.
    pub(crate) fn share(self) -> f64 {
        self.moved as f64 / self.keys.max(1) as f64
    }

    /// Share of the conversations that moved without need.
    pub(crate) fn needless_share(self) -> f64 {
        self.needless as f64 / self.keys.max(1) as f64
    }
}

/// Share of the requests that were answered elsewhere than the one before in their conversation.
pub(crate) fn switch_rate(visits: &[Visit]) -> f64 {
    let mut last = HashMap::new();
    let (mut switches, mut returns) = (0_u32, 0_u32);
    for visit in visits {
        if let Some(old) = last.insert(visit.key, visit.server) {
            returns += 1;
            switches += u32::from(old != visit.server);
        }
    }
    f64::from(switches) / f64::from(returns.max(1))
}

fn places(visits: &[Visit], span: (Duration, Duration)) -> HashMap<u32, usize> {
    let mut counts: HashMap<u32, HashMap<usize, u32>> = HashMap::new();
    for visit in visits {
        if (span.0..span.1).contains(&visit.at) {
            *counts
                .entry(visit.key)
                .or_default()
                .entry(visit.server)
                .or_default() += 1;
        }
    }
    let most = |counts: HashMap<usize, u32>| {
        let most = counts
            .into_iter()
            .max_by_key(|(server, count)| (*count, std::cmp::Reverse(*server)));
        most.map(|(server, _)| server)
    };
    counts
        .into_iter()
        .filter_map(|(key, counts)| Some((key, most(counts)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visits(table: &[(u64, u32, usize)]) -> Vec<Visit> {
        let visit = |(at, key, server): &(u64, u32, usize)| Visit {
            at: Duration::from_secs(*at),
            key: *key,
            server: *server,
        };
        table.iter().map(visit).collect()
    }

    #[test]
    fn moves_are_counted_by_where_most_were() {
        let seen = visits(&[
            (1, 1, 0),
            (2, 1, 0),
            (3, 1, 2),
            (1, 2, 1),
            (1, 3, 2),
            (1, 4, 2),
            (11, 1, 0),
            (11, 2, 2),
            (11, 3, 0),
            (12, 5, 0),
        ]);
        let span = |from, to| (Duration::from_secs(from), Duration::from_secs(to));
        let found = Moved::between(&seen, span(0, 10), span(10, 20), 1);
        let expected = Moved {
            keys: 3,
            moved: 2,
            needless: 1,
        };
        assert_eq!(found, expected);
        assert!((found.share() - 2.0 / 3.0).abs() < 1e-9);
        assert!((found.needless_share() - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn switches() {
        let seen = visits(&[(1, 1, 0), (2, 2, 1), (3, 1, 0), (4, 1, 1), (5, 2, 1)]);
        assert!((switch_rate(&seen) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(switch_rate(&[]), 0.0);
    }
}
