//! What weighted rendezvous hashing promises, with the bytes that filters hash.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "tests"
)]

use weir_routing::{CandidateSet, ClusterSpec, Fleet, KeyHashes, MemberSpec, Report, Weighting};

const RATES: [f32; 5] = [1_000.0, 2_000.0, 3_000.0, 4_000.0, 10_000.0];

/// Clusters that report these greatest rates.
fn set(rates: &[f32]) -> CandidateSet {
    let ids = (0..rates.len()).map(|at| format!("cluster-{at}"));
    let members = ids.map(|id| MemberSpec::new(&id, 1)).collect();
    let cluster = Fleet::new().cluster(&ClusterSpec::new("c", members), 0);
    for (member, rate) in cluster.backends().iter().zip(rates) {
        let report = Report {
            max_input_tps: *rate,
            ..Report::default()
        };
        member.backend.report(&report, 1);
    }
    cluster.candidates(1, &[])
}

fn field(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = (value.len() as u64).to_le_bytes();
    [&[tag, 0xff][..], &length, value].concat()
}

/// The key of a conversation, as `docs/routing.md` has it.
fn prefix(key: u64) -> Vec<u8> {
    let key = format!("conversation-{key}");
    [
        vec![0x01],
        field(1, b""),
        field(2, b"6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        field(3, b"llama-70b"),
        field(4, key.as_bytes()),
        vec![0x05, 0xff],
    ]
    .concat()
}

fn first(set: &CandidateSet, key: u64) -> usize {
    let known = &mut KeyHashes::default();
    let order = set.rendezvous_by(&prefix(key), Weighting::MaxInputTps, &[], 1, known);
    order[0] as usize
}

/// As weights have them.
fn stepped(rate: f32) -> f64 {
    let step = 1.05_f64.ln();
    ((f64::from(rate).ln() / step).round() * step).exp()
}

#[test]
fn shares_follow_weights_within_one_percent() {
    const KEYS: u64 = 1_000_000;
    let set = set(&RATES);
    let mut firsts = [0_u64; RATES.len()];
    for key in 0..KEYS {
        firsts[first(&set, key)] += 1;
    }
    let total: f64 = RATES.iter().map(|rate| stepped(*rate)).sum();
    for (count, rate) in firsts.iter().zip(RATES) {
        let (share, expected) = (*count as f64 / KEYS as f64, stepped(rate) / total);
        assert!((share / expected - 1.0).abs() < 0.01, "{share} {expected}");
    }
}

#[test]
fn a_new_cluster_moves_little_more_than_its_share() {
    const KEYS: u64 = 100_000;
    let (fewer, more) = (set(&RATES[..4]), set(&RATES));
    let mut moved = 0_u64;
    for key in 0..KEYS {
        let (before, after) = (first(&fewer, key), first(&more, key));
        if before != after {
            assert_eq!(after, 4, "keys move to the new one only");
            moved += 1;
        }
    }
    let total: f64 = RATES.iter().map(|rate| stepped(*rate)).sum();
    let share = stepped(RATES[4]) / total;
    let found = moved as f64 / KEYS as f64;
    assert!(
        found <= 1.2 * share && found >= 0.8 * share,
        "{found} {share}"
    );
}

#[test]
fn known_hashes_change_nothing() {
    let set = set(&RATES);
    let known = &mut KeyHashes::default();
    for key in [1, 1, 2, 1] {
        for n in [1, 5] {
            let fresh = &mut KeyHashes::default();
            let ask = |known| set.rendezvous_by(&prefix(key), Weighting::Configured, &[], n, known);
            assert_eq!(ask(known), ask(fresh), "{key} {n}");
        }
    }
    let few = set.rendezvous_by(&prefix(1), Weighting::Configured, &[1, 3], 5, known);
    let all = set.rendezvous_by(&prefix(1), Weighting::Configured, &[], 5, known);
    let kept: Vec<u32> = all.into_iter().filter(|at| [1, 3].contains(at)).collect();
    assert_eq!(few, kept, "the same order among fewer");
}

#[test]
fn the_first_few_are_the_beginning_of_the_whole_order() {
    const COUNT: usize = 200;
    let even = |_| 1_000.0;
    let mixed = |at| 500.0 + (at * at % 997) as f32;
    // What is looked above first is then too high for all but one.
    let skewed = |at| if at == 7 { 1e9 } else { 1.0 + at as f32 };
    for rate in [even, mixed, skewed] {
        let set = set(&(0..COUNT).map(rate).collect::<Vec<f32>>());
        let known = &mut KeyHashes::default();
        for key in 0..50 {
            let mut first = |n: usize, among: &[u32]| {
                set.rendezvous_by(&prefix(key), Weighting::MaxInputTps, among, n, known)
            };
            let whole = first(COUNT, &[]);
            assert_eq!(whole.len(), COUNT);
            for n in [0, 1, 3, 8, 32, 97, 98, 199, 300] {
                assert_eq!(first(n, &[]), whole[..n.min(COUNT)], "{n} of {key}");
            }
            let some: Vec<u32> = (0..200).filter(|at| at % 3 == 1).collect();
            let kept: Vec<u32> = whole.into_iter().filter(|at| at % 3 == 1).collect();
            for n in [1, 8, 31, 66] {
                assert_eq!(first(n, &some), kept[..n], "{n} of some of {key}");
            }
        }
    }
}
