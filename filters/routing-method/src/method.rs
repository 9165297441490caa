//! The routing methods by name.

/// A rule that chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// See [`crate::round_robin`].
    RoundRobin,
    /// See [`crate::random`].
    Random,
    /// See [`crate::power_of_two`].
    PowerOfTwo,
}

impl Method {
    /// For messages.
    pub(crate) const NAMES: &str = "`round_robin`, `random` or `power_of_two`";

    /// A name as configurations write it; case, and `-` for `_`, do not matter.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let is = |known: &str| {
            let name = name.trim().bytes();
            let alike = |(byte, known): (u8, u8)| {
                byte.eq_ignore_ascii_case(&known) || (byte == b'-' && known == b'_')
            };
            name.len() == known.len() && name.zip(known.bytes()).all(alike)
        };
        if is("round_robin") {
            Some(Self::RoundRobin)
        } else if is("random") {
            Some(Self::Random)
        } else if is("power_of_two") || is("power_of_n") {
            Some(Self::PowerOfTwo)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Method;

    #[test]
    fn names() {
        let table = [
            ("round_robin", Some(Method::RoundRobin)),
            (" Round-Robin ", Some(Method::RoundRobin)),
            ("random", Some(Method::Random)),
            ("power_of_two", Some(Method::PowerOfTwo)),
            ("power-of-n", Some(Method::PowerOfTwo)),
            ("pulsar", None),
            ("", None),
            ("randomly", None),
        ];
        for (name, expected) in table {
            assert_eq!(Method::parse(name), expected, "{name:?}");
        }
    }
}
