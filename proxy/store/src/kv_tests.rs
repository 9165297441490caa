//! Versions, expiry and bounds of the key-value store.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn kv() -> Arc<Kv> {
    Stores::default().open("test").unwrap()
}

fn text(kv: &Kv, key: &str, now_ms: u64) -> Option<String> {
    let value = kv.get(key, now_ms)?.value;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn a_name_is_a_store() {
    let stores = Stores::default();
    stores.open("a").unwrap().set("k", b"v", None, 0).unwrap();
    assert!(stores.open("a").unwrap().get("k", 9).is_some());
    assert!(stores.open("b").unwrap().get("k", 9).is_none());
}

#[test]
fn entries_live_as_long_as_told() {
    let kv = kv();
    kv.set("short", b"1", Some(100), 1000).unwrap();
    kv.set("long", b"2", None, 1000).unwrap();
    assert_eq!(text(&kv, "short", 1099).as_deref(), Some("1"));
    assert_eq!(text(&kv, "short", 1100), None);
    assert_eq!(kv.len(), 1, "met after its time and removed");
    assert_eq!(text(&kv, "long", u64::MAX - 1).as_deref(), Some("2"));
    assert!(kv.delete("long", 2000) && !kv.delete("long", 2000));
    kv.set("short", b"3", Some(1), 0).unwrap();
    assert!(!kv.delete("short", 1), "expired is absent");
    assert!(kv.is_empty());
    assert_eq!(kv.bytes.load(Relaxed), 0);
}

#[test]
fn swaps_need_the_right_version() {
    let kv = kv();
    let swap = |expected, now_ms| kv.compare_and_swap("k", expected, b"v", Some(10), now_ms);
    assert_eq!(swap(7, 0), Err(StoreError::Conflict { current: 0 }));
    assert!(kv.is_empty(), "a refused swap leaves nothing");
    let first = swap(0, 0).unwrap();
    assert_eq!(swap(0, 0), Err(StoreError::Conflict { current: first }));
    let second = swap(first, 0).unwrap();
    assert_eq!(
        swap(first, 0),
        Err(StoreError::Conflict { current: second })
    );
    assert_eq!(
        swap(second, 10),
        Err(StoreError::Conflict { current: 0 }),
        "expired"
    );
    assert!(swap(0, 10).unwrap() > second, "no version comes twice");
    kv.delete("k", 10);
    assert_eq!(kv.bytes.load(Relaxed), 0);
}

#[test]
fn adds_are_atomic_and_expire_from_creation() {
    let kv = kv();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..1000).for_each(|_| _ = kv.add("n", 2, Some(50), 5).unwrap()));
        }
    });
    assert_eq!(kv.add("n", -1, Some(50), 54), Ok(15_999));
    assert_eq!(text(&kv, "n", 54).as_deref(), Some("15999"));
    assert_eq!(kv.add("n", 1, Some(50), 55), Ok(1), "expired, begun anew");
    assert_eq!(kv.add("gone", 5, Some(0), 55), Ok(5));
    assert_eq!(kv.add("gone", 5, Some(9), 55), Ok(5), "expired at once");
    kv.set("n", b"40", None, 60).unwrap();
    assert_eq!(kv.add("n", 2, None, 60), Ok(42));
    assert_eq!(kv.add("n", i64::MAX, None, 60), Ok(i64::MAX));
    kv.set("n", b"many", None, 60).unwrap();
    assert_eq!(kv.add("n", 1, None, 60), Err(StoreError::NotANumber));
}

#[test]
fn bounds_hold_and_expired_entries_make_room() {
    let limits = KvLimits {
        entries_max: 3,
        key_bytes_max: 4,
        value_bytes_max: 10,
        total_bytes_max: 30,
    };
    let kv = Stores::new(limits).open("small").unwrap();
    let set =
        |key: &str, bytes: usize, ttl_ms, now_ms| kv.set(key, &vec![0; bytes], ttl_ms, now_ms);
    assert!(matches!(
        set("12345", 1, None, 0),
        Err(StoreError::TooLarge { what: "key", .. })
    ));
    assert!(matches!(
        set("1", 11, None, 0),
        Err(StoreError::TooLarge { what: "value", .. })
    ));
    set("a", 1, None, 0).unwrap();
    set("b", 1, Some(10), 0).unwrap();
    set("c", 1, None, 0).unwrap();
    assert_eq!(set("d", 1, None, 5), Err(StoreError::Full));
    assert_eq!(kv.add("d", 1, None, 5), Err(StoreError::Full));
    assert!(set("d", 1, None, 1005).is_ok(), "b has expired");
    set("a", 10, None, 1005).unwrap();
    set("a", 10, None, 1005).unwrap();
    set("c", 10, Some(10), 1005).unwrap();
    let full = set("d", 10, None, 1500);
    assert_eq!(full, Err(StoreError::Full), "too many bytes together");
    assert_eq!(kv.bytes.load(Relaxed), 24);
    assert!(set("d", 10, None, 2500).is_ok(), "c has expired");
    assert_eq!(kv.bytes.load(Relaxed), 22);
}
