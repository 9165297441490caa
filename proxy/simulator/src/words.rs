//! The text of answers: words chosen by the request's roll, one word a token.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Token number `index` of the text of `roll`; all but the first begin with a space. Needs no
/// escaping in JSON.
pub(crate) fn word(roll: u64, index: u32) -> &'static str {
    let pick = xxh3_64_with_seed(&index.to_le_bytes(), roll) % WORDS.len() as u64;
    let word = usize::try_from(pick)
        .ok()
        .and_then(|pick| WORDS.get(pick))
        .copied()
        .unwrap_or(" the");
    if index == 0 { word.trim_start() } else { word }
}

/// The first `tokens` tokens of the text of `roll`.
pub(crate) fn text(roll: u64, tokens: u32) -> String {
    (0..tokens).map(|index| word(roll, index)).collect()
}

/// Tokens of a text of this many bytes: the usual rule of thumb, rounded up.
pub(crate) fn tokens_of(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4)
}

#[rustfmt::skip]
const WORDS: [&str; 64] = [
    " the", " water", " rises", " behind", " a", " low", " wall", " and", " finds", " its", " way", " past", " stones",
    " where", " fish", " wait", " in", " slow", " light", " under", " an", " old", " bridge", " until", " rain", " comes",
    " from", " hills", " with", " new", " colour", " then", " every", " gate", " opens", " at", " once", " while",
    " reeds", " bend", " toward", " sea", " boats", " turn", " home", " by", " evening", " someone", " counts", " drops",
    " on", " glass", " nothing", " is", " lost", " only", " carried", " further", " down", " to", " meadows", " that",
    " drink", " it",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_depends_on_the_roll_only() {
        assert_eq!(text(7, 12), text(7, 12));
        assert_ne!(text(7, 12), text(8, 12));
        assert!(text(7, 12).starts_with(&text(7, 5)));
        assert_eq!(text(7, 12).split(' ').count(), 12);
        assert_eq!(text(7, 0), "");
    }

    #[test]
    fn tokens_round_up() {
        for (bytes, tokens) in [(0, 0), (1, 1), (4, 1), (5, 2)] {
            assert_eq!(tokens_of(bytes), tokens, "{bytes} bytes");
        }
    }
}
