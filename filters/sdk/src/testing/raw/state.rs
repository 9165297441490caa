//! Fake of `state`: exact, in memory, by the fake clock. Reservations are not settled: an
//! exchange under test has no end.

use std::collections::HashMap;

use crate::state::{
    Granted, HeaderForms, Limited, Scope, Subject, TakeResult, Unit, Versioned, Window,
};
use crate::testing::buckets::Bucket;
use crate::testing::world::{FakeLimiter, Kept, World, with};
use crate::types::Failure;

pub(crate) type Store = u32;
pub(crate) type Limiter = u32;

fn up<R>(act: impl FnOnce(&mut World) -> Result<R, Failure>) -> Result<R, Failure> {
    with(|world| match world.state_failure {
        Some(failure) => Err(failure),
        None => act(world),
    })
}

pub(crate) fn open_store(name: &str, scope: Scope) -> Result<Store, Failure> {
    let _ = scope;
    up(|world| {
        let at = world
            .stores
            .iter()
            .position(|(known, _)| known == name)
            .unwrap_or_else(|| {
                world.stores.push((name.to_owned(), HashMap::new()));
                world.stores.len() - 1
            });
        u32::try_from(at).map_err(|_| Failure::TooLarge)
    })
}

fn entry<'w>(
    world: &'w mut World,
    store: Store,
    key: &str,
) -> Result<Option<&'w mut Kept>, Failure> {
    let now_ms = world.now_ms;
    let (_, keys) = world
        .stores
        .get_mut(store as usize)
        .ok_or(Failure::NotFound)?;
    keys.retain(|_, kept| kept.until_ms.is_none_or(|until| until > now_ms));
    Ok(keys.get_mut(key))
}

fn put(
    world: &mut World,
    store: Store,
    key: &str,
    value: &[u8],
    ttl_ms: Option<u32>,
) -> Result<u64, Failure> {
    let version = entry(world, store, key)?.map_or(0, |kept| kept.value.version) + 1;
    let until_ms = ttl_ms.map(|ttl| world.now_ms + u64::from(ttl));
    let kept = Kept {
        value: Versioned {
            value: value.to_vec(),
            version,
        },
        until_ms,
    };
    let (_, keys) = world
        .stores
        .get_mut(store as usize)
        .ok_or(Failure::NotFound)?;
    keys.insert(key.to_owned(), kept);
    Ok(version)
}

pub(crate) fn get(store: Store, key: &str) -> Result<Option<Versioned>, Failure> {
    up(|world| Ok(entry(world, store, key)?.map(|kept| kept.value.clone())))
}

pub(crate) fn set(
    store: Store,
    key: &str,
    value: &[u8],
    ttl_ms: Option<u32>,
) -> Result<u64, Failure> {
    up(|world| put(world, store, key, value, ttl_ms))
}

pub(crate) fn compare_and_swap(
    store: Store,
    key: &str,
    expected: u64,
    value: &[u8],
    ttl_ms: Option<u32>,
) -> Result<u64, Failure> {
    up(|world| {
        let version = entry(world, store, key)?.map_or(0, |kept| kept.value.version);
        if version == expected {
            put(world, store, key, value, ttl_ms)
        } else {
            Err(Failure::Conflict)
        }
    })
}

pub(crate) fn delete(store: Store, key: &str) -> Result<bool, Failure> {
    up(|world| {
        let (_, keys) = world
            .stores
            .get_mut(store as usize)
            .ok_or(Failure::NotFound)?;
        Ok(keys.remove(key).is_some())
    })
}

pub(crate) fn add(
    store: Store,
    key: &str,
    delta: i64,
    ttl_ms: Option<u32>,
) -> Result<i64, Failure> {
    up(|world| {
        let Some(kept) = entry(world, store, key)? else {
            put(world, store, key, delta.to_string().as_bytes(), ttl_ms)?;
            return Ok(delta);
        };
        let text = std::str::from_utf8(&kept.value.value).map_err(|_| Failure::Invalid)?;
        let sum = text
            .parse::<i64>()
            .map_err(|_| Failure::Invalid)?
            .saturating_add(delta);
        kept.value = Versioned {
            value: sum.to_string().into_bytes(),
            version: kept.value.version + 1,
        };
        Ok(sum)
    })
}

pub(crate) fn open_limiter(
    name: &str,
    windows: &[Window],
    scope: Scope,
) -> Result<Limiter, Failure> {
    let _ = scope;
    if windows.is_empty()
        || windows
            .iter()
            .any(|window| window.budget == 0 || window.seconds == 0)
    {
        return Err(Failure::Invalid);
    }
    up(|world| {
        let known = |limiter: &FakeLimiter| limiter.name == name && limiter.windows == windows;
        let at = world.limiters.iter().position(known).unwrap_or_else(|| {
            let (name, windows) = (name.to_owned(), windows.to_vec());
            world.limiters.push(FakeLimiter {
                name,
                windows,
                buckets: HashMap::new(),
                told: None,
            });
            world.limiters.len() - 1
        });
        u32::try_from(at).map_err(|_| Failure::TooLarge)
    })
}

pub(crate) fn announce(at: Limiter, what: Unit, forms: HeaderForms) -> Result<(), Failure> {
    up(|world| {
        let limiter = world.limiters.get_mut(at as usize);
        limiter.ok_or(Failure::NotFound)?.told = Some((what, forms));
        Ok(())
    })
}

fn key(world: &World, who: Subject, extra: &str) -> String {
    let principal = world.principal.as_ref();
    let mut key = String::new();
    let parts = [
        (Subject::TENANT, principal.map_or("", |it| &it.tenant)),
        (Subject::PRINCIPAL, principal.map_or("", |it| &it.subject)),
        (Subject::FUNCTION, &world.function),
        (Subject::MODEL, &world.model),
    ];
    for (flag, text) in parts {
        if who.contains(flag) {
            key.push_str(text);
        }
        key.push('\n');
    }
    key.push_str(extra);
    key
}

fn on_buckets<R>(
    at: Limiter,
    who: Subject,
    extra: &str,
    act: impl FnOnce(&[Window], &mut [Bucket]) -> R,
) -> Result<R, Failure> {
    up(|world| {
        let key = key(world, who, extra);
        let now_ms = world.now_ms;
        let limiter = world
            .limiters
            .get_mut(at as usize)
            .ok_or(Failure::NotFound)?;
        let full = || {
            limiter
                .windows
                .iter()
                .map(|window| Bucket::full(window, now_ms))
                .collect()
        };
        let buckets: &mut Vec<Bucket> = limiter.buckets.entry(key).or_insert_with(full);
        for (window, bucket) in limiter.windows.iter().zip(buckets.iter_mut()) {
            bucket.refill(window, now_ms);
        }
        Ok(act(&limiter.windows, buckets))
    })
}

/// The tightest window.
fn state_of(windows: &[Window], buckets: &[Bucket]) -> Granted {
    let all = windows.iter().zip(buckets);
    let tightest = all.min_by_key(|(_, bucket)| bucket.left());
    tightest.map_or(
        Granted {
            remaining: 0,
            limit: 0,
            reset_ms: 0,
        },
        |(window, bucket)| Granted {
            remaining: bucket.left(),
            limit: window.budget,
            reset_ms: bucket.wait_ms(window, window.budget),
        },
    )
}

pub(crate) fn peek(at: Limiter, who: Subject, extra: &str) -> Result<Granted, Failure> {
    on_buckets(at, who, extra, |windows, buckets| {
        state_of(windows, buckets)
    })
}

pub(crate) fn take(
    at: Limiter,
    who: Subject,
    extra: &str,
    cost: u64,
) -> Result<TakeResult, Failure> {
    on_buckets(at, who, extra, |windows, buckets| {
        let worst = (0_u32..)
            .zip(windows.iter().zip(buckets.iter()))
            .filter(|(_, (_, bucket))| bucket.left() < cost)
            .map(|(at, (window, bucket))| (bucket.wait_ms(window, cost), at, window.budget))
            .max();
        if let Some((retry_after_ms, window, limit)) = worst {
            return TakeResult::Limited(Limited {
                window,
                limit,
                retry_after_ms,
            });
        }
        for (window, bucket) in windows.iter().zip(buckets.iter_mut()) {
            bucket.add(window, -i128::from(cost));
        }
        TakeResult::Granted(state_of(windows, buckets))
    })
}

pub(crate) fn reserve(
    at: Limiter,
    who: Subject,
    extra: &str,
    estimate: u64,
    unit: Unit,
) -> Result<TakeResult, Failure> {
    let _ = unit;
    take(at, who, extra, estimate)
}

pub(crate) fn adjust(at: Limiter, who: Subject, extra: &str, delta: i64) -> Result<(), Failure> {
    on_buckets(at, who, extra, |windows, buckets| {
        for (window, bucket) in windows.iter().zip(buckets.iter_mut()) {
            bucket.add(window, -i128::from(delta));
        }
    })
}

pub(crate) fn acquire_slot(name: &str, key: &str, max: u32, scope: Scope) -> Result<bool, Failure> {
    let _ = scope;
    up(|world| {
        let used = world.slots.entry(format!("{name}\n{key}")).or_default();
        let free = *used < max;
        *used += u32::from(free);
        Ok(free)
    })
}
