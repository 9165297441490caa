//! `name=m,uris=/a|/b,routingMethod=random,tokenRateLimit=1000-S,5000-M` as members of a payload.

use serde_json::{Map, Value, json};

/// A model of a new function.
///
/// # Errors
/// What is wrong with the spec.
pub(crate) fn model(spec: &str) -> Result<Value, String> {
    let known = ["uris", "tokenizer", "cluster", "version", "uri"];
    let mut model = Map::new();
    let mut config = Map::new();
    let (name, pairs) = pairs(spec, &known)?;
    model.insert("name".into(), json!(name));
    for (key, value) in pairs {
        match key {
            "uris" => config.insert(key.into(), value.split('|').collect()),
            "cluster" | "version" | "uri" => model.insert(key.into(), json!(value)),
            _ => config.insert(key.into(), json!(value)),
        };
    }
    model.insert("llmConfig".into(), Value::Object(config));
    Ok(Value::Object(model))
}

/// New settings of a model.
///
/// # Errors
/// What is wrong with the spec.
pub(crate) fn update(spec: &str) -> Result<Value, String> {
    let (name, pairs) = pairs(spec, &[])?;
    let config: Map<String, Value> = pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    Ok(json!({ "modelName": name, "llmConfig": config }))
}

/// Keys and values, as written.
type Pairs<'s> = Vec<(&'s str, String)>;

/// The name, and the other pairs. A part without `=` belongs to the value before it: a token rate
/// limit may hold commas.
fn pairs<'s>(spec: &'s str, more: &[&str]) -> Result<(String, Pairs<'s>), String> {
    let known: Vec<&str> = ["name"]
        .iter()
        .chain(&SETTINGS)
        .chain(more)
        .copied()
        .collect();
    let mut pairs: Pairs<'s> = Vec::new();
    for part in spec.split(',') {
        let Some((key, value)) = part.split_once('=') else {
            let Some((_, value)) = pairs.last_mut() else {
                return Err(format!(
                    "`{spec}` begins without a key; write name=MODEL first"
                ));
            };
            value.push(',');
            value.push_str(part);
            continue;
        };
        let key = key.trim();
        if !known.contains(&key) {
            let known = known.join(", ");
            return Err(format!("`{key}` of `{spec}` is none of: {known}"));
        }
        if pairs.iter().any(|(other, _)| *other == key) {
            return Err(format!("`{key}` is twice in `{spec}`"));
        }
        pairs.push((key, value.trim().to_owned()));
    }
    let place = pairs
        .iter()
        .position(|(key, value)| *key == "name" && !value.is_empty());
    let place = place.ok_or_else(|| format!("`{spec}` has no name=MODEL"))?;
    let (_, name) = pairs.remove(place);
    Ok((name, pairs))
}

const SETTINGS: [&str; 4] = [
    "routingMethod",
    "tokenRateLimit",
    "inputTokenRateLimit",
    "outputTokenRateLimit",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_read() {
        for (spec, expected) in [
            (
                "name=m,uris=/a|/b,routingMethod=round_robin,tokenRateLimit=1000-S",
                json!({ "name": "m", "llmConfig": { "uris": ["/a", "/b"],
                    "routingMethod": "round_robin", "tokenRateLimit": "1000-S" } }),
            ),
            (
                "tokenRateLimit=1000-S,5000-M, 1-W, name = x/y ,cluster=c,uris=/a",
                json!({ "name": "x/y", "cluster": "c", "llmConfig": { "uris": ["/a"],
                    "tokenRateLimit": "1000-S,5000-M, 1-W" } }),
            ),
        ] {
            assert_eq!(model(spec), Ok(expected), "{spec}");
        }
        let updated = json!({ "modelName": "m", "llmConfig": { "tokenRateLimit": "1-S,2-M" } });
        assert_eq!(update("name=m,tokenRateLimit=1-S,2-M"), Ok(updated));
        let cleared = json!({ "modelName": "m", "llmConfig": { "tokenRateLimit": "" } });
        assert_eq!(update("name=m,tokenRateLimit="), Ok(cleared));
    }

    #[test]
    fn bad_specs_are_explained() {
        for (spec, expected) in [
            ("", "`` begins without a key; write name=MODEL first"),
            ("uris=/a", "`uris=/a` has no name=MODEL"),
            ("name=", "`name=` has no name=MODEL"),
            ("name=m,name=n", "`name` is twice in `name=m,name=n`"),
            (
                "name=m,limit=1",
                "`limit` of `name=m,limit=1` is none of: name, routingMethod, tokenRateLimit, inputTokenRateLimit, outputTokenRateLimit, uris, tokenizer, cluster, version, uri",
            ),
        ] {
            assert_eq!(model(spec), Err(expected.to_owned()), "{spec}");
        }
        assert!(update("name=m,uris=/a").is_err());
    }
}
