//! How busy the processors were: a bench of simulated times must not measure them.

use std::io;

use weir_tests::process::cpu_us;

/// CPU time used up to a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// Of this program: model servers and callers.
    own_us: u64,
    /// Of all gateways.
    gateways_us: u64,
    /// Of the machine, in ticks: busy, and all there was.
    busy: u64,
    all: u64,
    processors: f64,
}

/// Shares (0 to 1) of all processors between two marks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shares {
    /// This program.
    pub(crate) own: f64,
    /// All gateways together.
    pub(crate) gateways: f64,
    /// Everything on the machine, other programs too.
    pub(crate) machine: f64,
}

impl Mark {
    /// Now; `gateways` are process ids.
    ///
    /// # Errors
    /// When a gateway has ended, or the system does not tell.
    pub(crate) fn now(gateways: &[u32]) -> io::Result<Self> {
        let mut gateways_us = 0;
        for id in gateways {
            gateways_us += cpu_us(*id)?;
        }
        let stat = std::fs::read_to_string("/proc/stat")?;
        let (busy, all) =
            ticks(&stat).ok_or_else(|| io::Error::other("/proc/stat is unreadable"))?;
        let processors = stat
            .lines()
            .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "))
            .count();
        Ok(Self {
            own_us: cpu_us(std::process::id())?,
            gateways_us,
            busy,
            all,
            processors: processors.max(1) as f64,
        })
    }

    /// What was used since an earlier mark, `seconds` ago.
    pub(crate) fn since(self, earlier: Self, seconds: f64) -> Shares {
        let there_was = (seconds * self.processors * 1e6).max(1.0);
        let share = |now: u64, before: u64| now.saturating_sub(before) as f64 / there_was;
        let all = self.all.saturating_sub(earlier.all).max(1) as f64;
        Shares {
            own: share(self.own_us, earlier.own_us),
            gateways: share(self.gateways_us, earlier.gateways_us),
            machine: self.busy.saturating_sub(earlier.busy) as f64 / all,
        }
    }
}

/// Busy and all ticks of the first line; waiting for disks is idle.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line
        .split_ascii_whitespace()
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    let idle = fields.get(3)? + fields.get(4)?;
    let all: u64 = fields.iter().sum();
    Some((all - idle, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_the_machine() {
        let stat = "cpu  10 1 4 80 5 0 2 3 7 7\ncpu0 1 2 3\n";
        assert_eq!(ticks(stat), Some((20, 105)));
        assert_eq!(ticks("intr 1"), None);
    }

    #[test]
    fn shares_are_of_all_processors() {
        let mark = |own_us, busy, all| Mark {
            own_us,
            gateways_us: 0,
            busy,
            all,
            processors: 2.0,
        };
        let shares = mark(3_000_000, 150, 400).since(mark(1_000_000, 50, 200), 2.0);
        assert!((shares.own - 0.5).abs() < 1e-9 && (shares.machine - 0.5).abs() < 1e-9);
    }
}
