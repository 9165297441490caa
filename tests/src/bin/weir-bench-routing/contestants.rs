//! Who takes part: routing methods and how the filter is told of them.

/// One way of routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contestant {
    /// For people and for the report.
    pub(crate) name: &'static str,
    /// The filter's `default`, which is the method of models that name none.
    pub(crate) method: &'static str,
    /// What else is in `[filters.routing-method.config]`, in TOML. `{ms:N}` is N simulated milliseconds.
    pub(crate) config: &'static str,
    /// The contestant that is the same method as NVCF defines it.
    pub(crate) nvcf: Option<&'static str>,
    /// Whether the two must keep the bounds of the verdict.
    pub(crate) judged: bool,
    /// Scenarios in which it must be clearly better than that.
    pub(crate) wins: &'static [&'static str],
    /// Whether it must find nearly everything in caches that can be found.
    pub(crate) reuses: bool,
}

/// All of them, in the order of the report. One that the gateway does not know is left out.
pub(crate) const CONTESTANTS: [Contestant; 7] = [
    Contestant {
        name: "round_robin",
        method: "round_robin",
        config: ALONE,
        ..PLAIN
    },
    Contestant {
        name: "random",
        method: "random",
        config: ALONE,
        ..PLAIN
    },
    Contestant {
        name: "power_of_two",
        method: "power_of_two",
        config: ALONE,
        ..PLAIN
    },
    Contestant {
        name: "groq_multiregion",
        method: "groq_multiregion",
        config: "last_cluster_affinity = true\n\
                 [filters.routing-method.config.groq_multiregion]\n\
                 ttft_bucket_size_ms = {ms:20}\n\
                 cache_affinity_backend_selection_count = 2\n\
                 cache_affinity_wait_ms = {ms:1000}\n\
                 cache_affinity_input_tokens_scale = 0.75\n\
                 cache_affinity_ttft_penalty_ms = {ms:100}",
        nvcf: Some("groq_multiregion NVCF"),
        judged: true,
        ..PLAIN
    },
    Contestant {
        name: "groq_multiregion NVCF",
        method: "groq_multiregion",
        config: "last_cluster_affinity = false\n\
                 [filters.routing-method.config.groq_multiregion]\n\
                 ttft_bucket_size_ms = {ms:20}",
        ..PLAIN
    },
    Contestant {
        name: "pulsar",
        method: "pulsar",
        config: "[filters.routing-method.config.pulsar]\n\
                 weight = \"configured\"\n\
                 ttft_penalty_ms = {ms:5000}\n\
                 new_session_ttft_penalty_ms = {ms:250}",
        nvcf: Some("pulsar NVCF"),
        judged: true,
        wins: &["hotset", "bursty"],
        reuses: true,
    },
    Contestant {
        name: "pulsar NVCF",
        method: "pulsar",
        config: "last_cluster_affinity = false\n\
                 [filters.routing-method.config.pulsar]\n\
                 weight = \"configured\"\n\
                 compat = true",
        ..PLAIN
    },
];

/// What most rows have.
const PLAIN: Contestant = Contestant {
    name: "",
    method: "",
    config: "",
    nvcf: None,
    judged: false,
    wins: &[],
    reuses: false,
};
/// The method alone, without keeping conversations where they are.
const ALONE: &str = "sticky = false";

impl Contestant {
    /// Its config at a time scale: simulated milliseconds become real ones, at least one.
    pub(crate) fn config_at(&self, time_scale: f64) -> String {
        let mut parts = self.config.split("{ms:");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (number, rest) = part.split_once('}').unwrap_or((part, ""));
            let simulated: f64 = number.parse().unwrap_or(0.0);
            let real = (simulated / time_scale).round();
            let least = if simulated > 0.0 { 1.0 } else { 0.0 };
            text += &format!("{:.0}", real.max(least));
            text += rest;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_pairs_exist() {
        for (place, contestant) in CONTESTANTS.iter().enumerate() {
            let named = |name| CONTESTANTS.iter().position(|other| other.name == name);
            assert_eq!(named(contestant.name), Some(place));
            let pair = contestant.nvcf.map(named);
            assert!(pair.is_none_or(|pair| pair.is_some_and(|pair| pair != place)));
        }
    }

    #[test]
    fn times_are_scaled() {
        let contestant = Contestant {
            config: "a_ms = {ms:4000}\nb_ms = {ms:2}\nc = 7\nd_ms = {ms:0}",
            ..CONTESTANTS[0]
        };
        assert_eq!(
            contestant.config_at(8.0),
            "a_ms = 500\nb_ms = 1\nc = 7\nd_ms = 0"
        );
    }
}
