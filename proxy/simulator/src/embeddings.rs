//! The answer of Embeddings: unit vectors which depend only on seed and input.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ask::Embed;

/// `usage` is the number of prompt tokens, `None` to leave it out.
pub(crate) fn unary(embed: &Embed, model_json: &str, seed: u64, usage: Option<u64>) -> String {
    let mut body = String::from(r#"{"object":"list","data":["#);
    for (index, input) in embed.inputs.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        let vector = vector(input, embed.dimensions, seed);
        body.push_str(&format!(
            r#"{{"object":"embedding","index":{index},"embedding":"#
        ));
        if embed.base64 {
            let bytes: Vec<u8> = vector
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            body.push('"');
            STANDARD.encode_string(bytes, &mut body);
            body.push('"');
        } else {
            let values: Vec<_> = vector.iter().map(ToString::to_string).collect();
            body.push('[');
            body.push_str(&values.join(","));
            body.push(']');
        }
        body.push('}');
    }
    body.push_str(&format!(r#"],"model":{model_json}"#));
    if let Some(tokens) = usage {
        body.push_str(&format!(
            r#","usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}"#
        ));
    }
    body.push('}');
    body
}

fn vector(input: &str, dimensions: usize, seed: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(xxh3_64_with_seed(input.as_bytes(), seed));
    let raw: Vec<f32> = (0..dimensions).map(|_| random.f32() * 2.0 - 1.0).collect();
    let norm = raw
        .iter()
        .map(|value| value * value)
        .sum::<f32>()
        .sqrt()
        .max(f32::MIN_POSITIVE);
    raw.into_iter().map(|value| value / norm).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::*;

    fn embed(base64: bool) -> Value {
        let embed = Embed {
            inputs: vec!["a".to_owned(), "b".to_owned()],
            dimensions: 8,
            base64,
        };
        serde_json::from_str(&unary(&embed, "\"m\"", 1, Some(2))).unwrap()
    }

    #[test]
    fn floats_and_base64_are_the_same_unit_vector() {
        let (float, base64) = (embed(false), embed(true));
        let floats: Vec<f32> =
            serde_json::from_value(float["data"][1]["embedding"].clone()).unwrap();
        let bytes = STANDARD
            .decode(base64["data"][1]["embedding"].as_str().unwrap())
            .unwrap();
        let decoded: Vec<f32> = bytes
            .chunks(4)
            .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
            .collect();
        assert_eq!(floats, decoded);
        let norm: f32 = floats.iter().map(|value| value * value).sum();
        assert!((norm - 1.0).abs() < 1e-5);
        assert_ne!(float["data"][0]["embedding"], float["data"][1]["embedding"]);
        assert_eq!(float["usage"]["total_tokens"], 2);
    }
}
