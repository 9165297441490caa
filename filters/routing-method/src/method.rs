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
    /// See [`crate::groq_multiregion`].
    GroqMultiregion,
    /// See [`crate::pulsar`].
    Pulsar,
    /// See [`crate::pulsar_multiregion`].
    PulsarMultiregion,
}

impl Method {
    /// For messages.
    pub(crate) const NAMES: &str = "`round_robin`, `random`, `power_of_two`, `groq_multiregion`, \
         `pulsar` or `pulsar_multiregion`";

    /// A name as configurations write it; case, and `-` for `_`, do not matter.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let name = name.trim();
        let is = |known: &str| {
            let alike = |(byte, known): (u8, u8)| {
                byte.eq_ignore_ascii_case(&known) || (byte == b'-' && known == b'_')
            };
            name.len() == known.len() && name.bytes().zip(known.bytes()).all(alike)
        };
        let named = |(_, names): &&(Self, &[&str])| names.iter().any(|known| is(known));
        NAMED.iter().find(named).map(|(method, _)| *method)
    }

    /// Its table in the configuration.
    pub(crate) fn table(self) -> Option<&'static str> {
        match self {
            Self::RoundRobin | Self::Random => None,
            Self::PowerOfTwo => Some("power_of_two"),
            Self::GroqMultiregion => Some("groq_multiregion"),
            Self::Pulsar => Some("pulsar"),
            Self::PulsarMultiregion => Some("pulsar_multiregion"),
        }
    }

    /// Whether it looks at affinity keys itself.
    pub(crate) fn sees_affinity(self) -> bool {
        !matches!(self, Self::RoundRobin | Self::Random | Self::PowerOfTwo)
    }
}

const NAMED: [(Method, &[&str]); 6] = [
    (Method::RoundRobin, &["round_robin"]),
    (Method::Random, &["random"]),
    (
        Method::PowerOfTwo,
        &["power_of_two", "power_of_n", "powerof2"],
    ),
    (
        Method::GroqMultiregion,
        &["groq_multiregion", "wait_and_widen"],
    ),
    (Method::Pulsar, &["pulsar"]),
    (
        Method::PulsarMultiregion,
        &["pulsar_multiregion", "pulsar_wait_and_widen"],
    ),
];

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
            ("powerOf2", Some(Method::PowerOfTwo)),
            ("pulsar", Some(Method::Pulsar)),
            ("groq_multiregion", Some(Method::GroqMultiregion)),
            ("wait-and-widen", Some(Method::GroqMultiregion)),
            ("pulsar-wait-and-widen", Some(Method::PulsarMultiregion)),
            ("", None),
            ("randomly", None),
        ];
        for (name, expected) in table {
            assert_eq!(Method::parse(name), expected, "{name:?}");
        }
    }
}
