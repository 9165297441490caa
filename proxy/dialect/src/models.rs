//! Answers to `GET /v1/models`.

use bytes::Bytes;
use serde::Serialize;

/// The list of models. An item is the id as callers write it, seconds since 1970 and the owner.
#[must_use]
pub fn models_list<'a>(ids: impl Iterator<Item = (&'a str, u64, &'a str)>) -> Bytes {
    let data = ids
        .map(|(id, created, owned_by)| Model::new(id, created, owned_by))
        .collect();
    json(&List {
        object: "list",
        data,
    })
}

/// One model.
#[must_use]
pub fn model_object(id: &str, created: u64, owned_by: &str) -> Bytes {
    json(&Model::new(id, created, owned_by))
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
}

impl<'a> Model<'a> {
    const fn new(id: &'a str, created: u64, owned_by: &'a str) -> Self {
        Self {
            id,
            object: "model",
            created,
            owned_by,
        }
    }
}

/// These types always have a JSON form; the empty body is never reached.
fn json(answer: &impl Serialize) -> Bytes {
    serde_json::to_vec(answer)
        .map(Bytes::from)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_objects() {
        let one = r#"{"id":"demo/sim","object":"model","created":5,"owned_by":"weir"}"#;
        assert_eq!(model_object("demo/sim", 5, "weir"), one);
        let list = models_list([("demo/sim", 5, "weir"), ("demo/sim", 5, "weir")].into_iter());
        assert_eq!(list, format!(r#"{{"object":"list","data":[{one},{one}]}}"#));
        assert_eq!(
            models_list(std::iter::empty()),
            r#"{"object":"list","data":[]}"#
        );
    }
}
