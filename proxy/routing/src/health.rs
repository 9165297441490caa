//! What active probes say about a backend: a pure state machine.

/// Standing of a backend according to its probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// No probe has answered yet: eligible, so that a new backend serves at once.
    #[default]
    Unknown,
    /// Probes succeed: eligible.
    Healthy,
    /// Probes fail: not eligible, whatever the traffic says.
    Unhealthy,
}

/// Counts consecutive probe results and turns them into a standing.
#[derive(Debug, Clone, Copy, Default)]
pub struct HealthState {
    standing: Health,
    streak: u32,
}

impl HealthState {
    /// Takes one probe result and returns the new standing if it changed.
    ///
    /// The first probe of an unknown backend decides at once; afterwards a change takes
    /// `healthy_after` successes or `unhealthy_after` failures in a row (0 counts as 1).
    pub fn on_probe(
        &mut self,
        ok: bool,
        healthy_after: u32,
        unhealthy_after: u32,
    ) -> Option<Health> {
        let (seen, needed) = if ok {
            (Health::Healthy, healthy_after)
        } else {
            (Health::Unhealthy, unhealthy_after)
        };
        if self.standing == seen {
            self.streak = 0;
            return None;
        }
        self.streak = self.streak.saturating_add(1);
        if self.standing != Health::Unknown && self.streak < needed {
            return None;
        }
        *self = Self {
            standing: seen,
            streak: 0,
        };
        Some(seen)
    }

    /// The standing reached so far.
    #[must_use]
    pub fn standing(&self) -> Health {
        self.standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(probes: &str, expected: &str) {
        let mut state = HealthState::default();
        let seen: String = probes
            .chars()
            .map(|probe| match state.on_probe(probe == '+', 2, 3) {
                None => '.',
                Some(Health::Healthy) => 'H',
                Some(Health::Unhealthy) => 'U',
                Some(Health::Unknown) => '?',
            })
            .collect();
        assert_eq!(seen, expected, "probes {probes}");
    }

    #[test]
    fn changes_need_a_streak_and_the_first_probe_decides() {
        check("+", "H");
        check("-", "U");
        check("+---", "H..U");
        check("+--+---", "H.....U");
        check("-++", "U.H");
        check("-+-++", "U...H");
        check("++---++", "H...U.H");
    }
}
