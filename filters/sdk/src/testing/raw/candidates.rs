//! Fake of `candidates`: the scripted backends and loads.

use weir_routing::{CandidateSet, ClusterSpec, Fleet, MemberSpec, Report};

use crate::candidates::{Backend, Figure, Load, Session, Total, Weighting};
use crate::testing::world::{World, hash53, name_of, with};

pub(crate) fn backends() -> Vec<Backend> {
    with(|world| world.backends.clone())
}

pub(crate) fn load_at(index: u32) -> Option<Load> {
    with(|world| world.loads.get(index as usize).copied())
}

pub(crate) fn figure_at(index: u32, figure: Figure) -> Option<f64> {
    with(|world| {
        let known = (index as usize) < world.loads.len();
        known.then(|| figure_of(world, index, figure))
    })
}

pub(crate) fn column(figure: Figure) -> Vec<f64> {
    with(|world| {
        let all = 0..u32::try_from(world.loads.len()).unwrap_or(u32::MAX);
        all.map(|at| figure_of(world, at, figure)).collect()
    })
}

pub(crate) fn total_of(figure: Figure) -> Total {
    let column = column(figure);
    let known = column.iter().filter(|value| **value > 0.0).count();
    Total {
        sum: column.iter().sum(),
        known: u32::try_from(known).unwrap_or(u32::MAX),
    }
}

pub(crate) fn at_most(figure: Figure, limit: f64, among: &[u32]) -> Vec<u32> {
    with(|world| {
        let mut found = asked_about(world, among);
        found.retain(|at| figure_of(world, *at, figure) <= limit);
        found
    })
}

pub(crate) fn with_room(queued_max: u32, among: &[u32]) -> Vec<u32> {
    with(|world| {
        let mut found = asked_about(world, among);
        found.retain(|at| {
            let slots = figure_of(world, *at, Figure::Slots);
            let running = figure_of(world, *at, Figure::Running);
            slots <= 0.0 || running < slots + f64::from(queued_max)
        });
        found
    })
}

pub(crate) fn excluded() -> Vec<u32> {
    with(|world| world.excluded.clone())
}

pub(crate) fn least(figure: Figure, among: &[u32]) -> Option<u32> {
    with(|world| {
        let positions = asked_about(world, among);
        let of = |at: &u32| figure_of(world, *at, figure);
        positions.into_iter().min_by(|a, b| of(a).total_cmp(&of(b)))
    })
}

pub(crate) fn rendezvous(key_hash: u64, count: u32) -> Vec<u32> {
    with(|world| {
        let mut order: Vec<(u64, u32)> = (0_u32..)
            .zip(&world.backends)
            .map(|(at, backend)| (hash53(&backend.id.to_le_bytes(), key_hash), at))
            .collect();
        order.sort_by_key(|entry| std::cmp::Reverse(entry.0));
        order
            .into_iter()
            .take(count as usize)
            .map(|(_, at)| at)
            .collect()
    })
}

pub(crate) fn rendezvous_by(prefix: &[u8], by: Weighting, count: u32, among: &[u32]) -> Vec<u32> {
    let weighting = match by {
        Weighting::Configured => weir_routing::Weighting::Configured,
        Weighting::InputTps => weir_routing::Weighting::InputTps,
        Weighting::MaxInputTps => weir_routing::Weighting::MaxInputTps,
    };
    with(|world| {
        let set = set(world);
        set.rendezvous_by(
            prefix,
            weighting,
            among,
            count as usize,
            &mut world.key_hashes,
        )
    })
}

pub(crate) fn ring(prefix: &[u8], key: &[u8], nodes: u32, count: u32) -> Vec<u32> {
    with(|world| set(world).ring(prefix, key, nodes, count as usize))
}

pub(crate) fn affinity_key() -> Option<String> {
    with(|world| world.affinity_key.clone())
}

pub(crate) fn last_served() -> Session {
    with(|world| world.session)
}

pub(crate) fn elapsed_ms() -> u32 {
    with(|world| {
        let elapsed = world.now_ms.saturating_sub(world.meta.received_unix_ms);
        u32::try_from(elapsed).unwrap_or(u32::MAX)
    })
}

pub(crate) fn next_cursor() -> u64 {
    with(|world| {
        world.cursor += 1;
        world.cursor - 1
    })
}

/// Some, or all that are not excluded.
fn asked_about(world: &World, among: &[u32]) -> Vec<u32> {
    if !among.is_empty() {
        return among.to_vec();
    }
    let count = u32::try_from(world.backends.len()).unwrap_or(u32::MAX);
    (0..count)
        .filter(|at| !world.excluded.contains(at))
        .collect()
}

/// The scripted candidates as the gateway itself holds them: made once for each change.
fn set(world: &mut World) -> CandidateSet {
    if let Some(set) = &world.set {
        return set.clone();
    }
    let member = |backend: &Backend| MemberSpec::new(&name_of(backend.id), backend.weight);
    let members: Vec<MemberSpec> = world.backends.iter().map(member).collect();
    let cluster = Fleet::new().cluster(&ClusterSpec::new("test", members), 0);
    for (at, member) in (0..).zip(cluster.backends()) {
        let report = Report {
            input_tps: rate(figure_of(world, at, Figure::InputTps)),
            max_input_tps: rate(figure_of(world, at, Figure::MaxInputTps)),
            ..Report::default()
        };
        member.backend.report(&report, 1);
    }
    let set = cluster.candidates(1, &[]);
    world.set = Some(set.clone());
    set
}

#[allow(clippy::cast_possible_truncation, reason = "rates of tests are small")]
fn rate(figure: f64) -> f32 {
    figure as f32
}

/// What was set, else what follows from the scripted load, without learning and by the formulas
/// of the host.
#[allow(clippy::cast_precision_loss, reason = "figures of tests are small")]
fn figure_of(world: &World, at: u32, figure: Figure) -> f64 {
    let scripted = |(known, which, _): &&(u32, Figure, f64)| *known == at && *which == figure;
    if let Some((_, _, value)) = world.figures.iter().rfind(scripted) {
        return *value;
    }
    let Some(load) = world.loads.get(at as usize) else {
        return f64::MAX;
    };
    let of = |figure| figure_of(world, at, figure);
    let over_rate = |tokens: f64, otherwise: f64| match of(Figure::InputTps) {
        rate if rate > 0.0 => tokens / rate * 1e6,
        _ => otherwise,
    };
    let input = f64::from(world.est_input_tokens);
    match figure {
        Figure::Running => f64::from(load.running),
        Figure::Queued => f64::from(load.queued),
        Figure::QueuedInputTokens => load.queued_input_tokens as f64,
        Figure::KvFreeTokens => load.kv_free_tokens as f64,
        Figure::InputTps => f64::from(load.input_tps),
        Figure::OutputTps => f64::from(load.output_tps),
        Figure::EwmaTtftUs => f64::from(load.ewma_ttft_us),
        Figure::ErrorPermille => f64::from(load.error_permille),
        Figure::AgeMs => f64::from(load.age_ms),
        Figure::EstWaitUs => over_rate(of(Figure::QueuedInputTokens), 0.0),
        Figure::QueueUs if of(Figure::Running) < of(Figure::Slots) => 0.0,
        Figure::QueueUs => of(Figure::EstWaitUs),
        Figure::PrefillUs => over_rate(input, 0.0),
        Figure::TtftUs => of(Figure::RttUs) + of(Figure::QueueUs) + of(Figure::PrefillUs),
        Figure::InputWorkUs => match of(Figure::QueuedInputTokens) + input {
            0.0 => 0.0,
            work => over_rate(work, f64::INFINITY),
        },
        Figure::Utilization => of(Figure::Running) / of(Figure::Slots).max(1.0),
        Figure::MaxInputTps => of(Figure::InputTps),
        Figure::RttUs
        | Figure::Slots
        | Figure::MaxOutputTps
        | Figure::KvUsedTokens
        | Figure::KvCapacityTokens => 0.0,
    }
}
