//! Fake of `candidates`: the scripted backends and loads.

use crate::candidates::{Backend, Figure, Load};
use crate::testing::world::{World, hash53, with};

pub(crate) fn backends() -> Vec<Backend> {
    with(|world| world.backends.clone())
}

pub(crate) fn load_at(index: u32) -> Option<Load> {
    with(|world| world.loads.get(index as usize).copied())
}

pub(crate) fn column(figure: Figure) -> Vec<f64> {
    with(|world| {
        world
            .loads
            .iter()
            .map(|load| figure_of(load, figure))
            .collect()
    })
}

pub(crate) fn excluded() -> Vec<u32> {
    with(|world| world.excluded.clone())
}

pub(crate) fn least(figure: Figure, among: &[u32]) -> Option<u32> {
    with(|world| {
        let positions = if among.is_empty() {
            eligible(world)
        } else {
            among.to_vec()
        };
        let of = |at: &u32| {
            world
                .loads
                .get(*at as usize)
                .map_or(f64::MAX, |load| figure_of(load, figure))
        };
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

pub(crate) fn next_cursor() -> u64 {
    with(|world| {
        world.cursor += 1;
        world.cursor - 1
    })
}

fn eligible(world: &World) -> Vec<u32> {
    let count = u32::try_from(world.backends.len()).unwrap_or(u32::MAX);
    (0..count)
        .filter(|at| !world.excluded.contains(at))
        .collect()
}

#[allow(clippy::cast_precision_loss, reason = "figures of tests are small")]
fn figure_of(load: &Load, figure: Figure) -> f64 {
    match figure {
        Figure::Running => f64::from(load.running),
        Figure::Queued => f64::from(load.queued),
        Figure::QueuedInputTokens => load.queued_input_tokens as f64,
        Figure::KvFreeTokens => load.kv_free_tokens as f64,
        Figure::InputTps => f64::from(load.input_tps),
        Figure::OutputTps => f64::from(load.output_tps),
        Figure::EwmaTtftUs => f64::from(load.ewma_ttft_us),
        Figure::ErrorPermille => f64::from(load.error_permille),
        Figure::EstWaitUs if load.input_tps > 0.0 => {
            load.queued_input_tokens as f64 / f64::from(load.input_tps) * 1e6
        }
        Figure::EstWaitUs => 0.0,
    }
}
