//! The least of many figures, and one of several that are equally little.

/// The running minimum, with one of several equals kept by a reservoir of one: the `k`th of them
/// takes the place with a chance of `1 / k`. Drawn is not for each of them but for the next that
/// does (Li, "Reservoir-sampling algorithms of time complexity O(n(1+log(N/n)))", 1994).
#[derive(Default)]
pub(crate) struct Least {
    value: f64,
    /// Its position; none: there was nobody.
    pub(crate) position: Option<u32>,
    ties: u32,
    /// The tie that takes the place.
    next: u32,
}

impl Least {
    #[inline]
    pub(crate) fn offer(&mut self, value: f64, position: u32) {
        if self.position.is_none() || value < self.value {
            self.value = value;
            self.ties = 0;
            self.next = 1;
        } else if value > self.value {
            return;
        }
        self.ties += 1;
        if self.ties == self.next {
            self.position = Some(position);
            self.next = replaced_after(self.ties, fastrand::f64());
        }
    }
}

/// By all positions, in their order.
impl Extend<f64> for Least {
    #[inline]
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        // A copy, which stays in registers.
        let mut best = std::mem::take(self);
        for (value, position) in values.into_iter().zip(0..) {
            best.offer(value, position);
        }
        *self = best;
    }
}

/// The tie after `ties` that is the next to take the place: beyond `m` with a chance of `ties / m`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is too great becomes the greatest, which is never reached"
)]
fn replaced_after(ties: u32, drawn: f64) -> u32 {
    ((f64::from(ties) / drawn).floor() + 1.0) as u32
}
