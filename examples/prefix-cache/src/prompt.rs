//! The prompt as hashes of its blocks, each with all before it in it.

use weir_sdk::{RequestView, exchange, host};

/// Hashes of the leading blocks, at most `blocks_max`; the last one may be shorter.
///
/// A block's hash is seeded with that of the block before it, the first one's with the model: two
/// prompts share the first `n` hashes when they share the first `n` blocks.
pub(crate) fn blocks(request: &RequestView, block_bytes: usize, blocks_max: usize) -> Vec<u64> {
    let Some(text) = text() else {
        return Vec::new();
    };
    let mut seed = u64::from(request.model);
    let pieces = text.as_bytes().chunks(block_bytes.max(1)).take(blocks_max);
    pieces
        .map(|piece| {
            seed = host::hash(piece, seed);
            seed
        })
        .collect()
}

/// What the model reads first stands first: the JSON of the messages, or of the input.
fn text() -> Option<String> {
    ["/messages", "/input", "/prompt"]
        .into_iter()
        .find_map(exchange::json)
}
