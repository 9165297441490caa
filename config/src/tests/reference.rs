//! The reference file is whole: it parses, shows every key, and its defaults are the real ones.

use std::collections::BTreeMap;

use toml::de::DeTable;

use crate::config::Config;
use crate::reader::Table;
use crate::report::Report;
use crate::{REFERENCE, masked, parse};

/// The reference file with its commented keys in effect; `examples` too or not.
fn uncommented(examples: bool) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with([' ', '#']) && !key.is_empty() => {
            if examples || !key.ends_with("# example") {
                key.to_owned()
            } else {
                line.to_owned()
            }
        }
        _ => line.to_owned(),
    };
    REFERENCE.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn parses() {
    let config = parse(REFERENCE, "config/weir.toml").unwrap();
    assert_eq!(config.listeners[0].listen.to_string(), "127.0.0.1:8080");
    assert!(config.listeners[0].h2c);
    let simulators: Vec<_> = config
        .simulators
        .iter()
        .map(|s| (s.listen.port(), s.seed, s.ttft_ms))
        .collect();
    assert_eq!(simulators, [(18081, 1, 20), (18082, 2, 20)]);
    assert_eq!(config.functions["demo"].models["sim"].cluster, "sim");
    assert_eq!(
        config.filters["auth"].config,
        serde_json::json!({"key_table": "demo", "also": ["x-api-key"]})
    );
}

#[test]
fn shows_the_real_defaults() {
    let as_it_is = parse(REFERENCE, "reference").unwrap();
    let with_defaults = parse(&uncommented(false), "uncommented").unwrap();
    assert_eq!(masked(&as_it_is), masked(&with_defaults));
    assert_eq!(as_it_is, with_defaults);
}

#[test]
fn shows_every_key() {
    let text = uncommented(true);
    parse(&text, "uncommented").unwrap();
    let root = DeTable::parse(&text).unwrap();
    let report = Report::new("uncommented", &text);
    Config::read(Table::root(&report, root.get_ref()));
    let mut shown: BTreeMap<String, bool> = BTreeMap::new();
    for (key, present) in report.asked.borrow().iter() {
        *shown.entry(anywhere(key)).or_default() |= present;
    }
    let missing: Vec<_> = shown
        .iter()
        .filter(|(_, shown)| !**shown)
        .map(|(key, _)| key)
        .collect();
    assert!(
        missing.is_empty(),
        "keys which config/weir.toml does not show: {missing:#?}"
    );
    assert!(shown.len() > 90, "only {} keys were asked for", shown.len());
}

/// A key without the names the user chose.
fn anywhere(key: &str) -> String {
    let mut parts: Vec<&str> = key
        .split('.')
        .map(|part| part.split('[').next().unwrap())
        .collect();
    let named = [
        "key_tables",
        "key_sets",
        "filters",
        "pipelines",
        "clusters",
        "functions",
        "models",
    ];
    if parts.len() > 1 && named.contains(&parts[0]) {
        parts[1] = "*";
    }
    if parts.len() > 3 && parts[2] == "models" {
        parts[3] = "*";
    }
    parts.join(".")
}
