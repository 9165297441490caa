//! What an embeddings request wants embedded: texts, or token ids as OpenAI also takes them.

use crate::measure::Measure;
use crate::refusal::{INPUTS_MAX, PeekError};
use crate::scan::Cursor;

/// How much there is to embed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EmbeddingInput {
    pub(crate) inputs: u32,
    /// Guessed for texts, counted for token ids.
    pub(crate) tokens: u32,
}

/// Reads a text, a list of token ids, or an array of one of the two.
pub(crate) fn embedding_input(raw: &[u8], size: &Measure) -> Result<EmbeddingInput, PeekError> {
    let mut cursor = Cursor::new(raw, 0);
    match cursor.peek() {
        Some(b'"') => {
            let tokens = text(&mut cursor).ok_or(PeekError::EmptyInputElement { index: 0 })?;
            return Ok(EmbeddingInput { inputs: 1, tokens });
        }
        Some(b'[') => {}
        _ => return Err(wrong_input()),
    }
    cursor.eat(b'[');
    let kind = match cursor.peek() {
        Some(kind @ (b'"' | b'[')) => kind,
        Some(b']') => return Err(PeekError::EmptyInput),
        _ => {
            let tokens = token_ids(raw)?;
            return Ok(EmbeddingInput { inputs: 1, tokens });
        }
    };
    if size.elements > INPUTS_MAX {
        return Err(PeekError::TooManyInputs);
    }
    let mut found = EmbeddingInput {
        inputs: 0,
        tokens: 0,
    };
    while cursor.next_item() {
        if cursor.peek() != Some(kind) {
            return Err(wrong_input());
        }
        let tokens = if kind == b'"' {
            text(&mut cursor)
        } else {
            let ids = cursor.value();
            Some(token_ids(cursor.slice(&ids))?).filter(|ids| *ids > 0)
        };
        let tokens = tokens.ok_or(PeekError::EmptyInputElement {
            index: found.inputs,
        })?;
        found.tokens = found.tokens.saturating_add(tokens);
        found.inputs += 1;
    }
    Ok(found)
}

/// Neither texts nor token ids, or nothing at all.
pub(crate) const fn wrong_input() -> PeekError {
    PeekError::InvalidType {
        member: "input",
        reason: "Must be either a string or an array of string",
    }
}

/// The estimate for the text the cursor stands on; `None` when it is empty.
fn text(cursor: &mut Cursor<'_>) -> Option<u32> {
    let bytes = cursor.string().len().saturating_sub(2);
    let tokens = u32::try_from(bytes.div_ceil(4)).unwrap_or(u32::MAX);
    (bytes > 0).then(|| tokens.saturating_add(TEXT_TOKENS))
}

/// How many token ids an array holds.
fn token_ids(raw: &[u8]) -> Result<u32, PeekError> {
    let mut cursor = Cursor::new(raw, 0);
    cursor.eat(b'[');
    let mut ids = 0_u32;
    while cursor.next_item() {
        let id = cursor.value();
        if !cursor.slice(&id).iter().all(u8::is_ascii_digit) {
            return Err(wrong_input());
        }
        ids = ids.saturating_add(1);
    }
    Ok(ids)
}

/// What a text costs beside a token for every four bytes, as NVCF's gateway estimates it.
const TEXT_TOKENS: u32 = 5;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::measure::measure;

    #[test]
    fn inputs_are_counted_or_refused() {
        const WRONG: Result<(u32, u32), &str> =
            Err("`input`: Must be either a string or an array of string");
        let strings = |count: usize| format!("[{}]", vec!["\"abcd\""; count].join(","));
        let (most, over) = (strings(2048), strings(2049));
        let long = format!("[{}]", vec!["7"; 3000].join(", "));
        let table = [
            (r#""abcde""#, Ok((1, 7))),
            (r#"[ "abcde" , "f" ]"#, Ok((2, 13))),
            ("[1, 22, 333]", Ok((1, 3))),
            ("[[1,2],[3]]", Ok((2, 3))),
            (&most, Ok((2048, 2048 * 6))),
            (&long, Ok((1, 3000))),
            (
                &over,
                Err("'input' array is too large, must be less than 2048 elements"),
            ),
            ("[]", Err("'input' array must not be empty")),
            ("[ ]", Err("'input' array must not be empty")),
            (r#""""#, Err("'input.0' must not be empty")),
            (r#"["a",""]"#, Err("'input.1' must not be empty")),
            ("[[1],[2],[]]", Err("'input.2' must not be empty")),
            ("{}", WRONG),
            ("5", WRONG),
            ("true", WRONG),
            ("[{}]", WRONG),
            ("[null]", WRONG),
            ("[1.5]", WRONG),
            ("[-1]", WRONG),
            (r#"["a",1]"#, WRONG),
            (r#"[1,"a"]"#, WRONG),
            (r#"["a",["b"]]"#, WRONG),
            (r#"[["a"]]"#, WRONG),
            ("[[1],[[2]]]", WRONG),
            ("[[1],null]", WRONG),
        ];
        for (raw, expected) in table {
            let size = measure(&mut Cursor::new(raw.as_bytes(), 0), 1).unwrap();
            let got = embedding_input(raw.as_bytes(), &size)
                .map(|found| (found.inputs, found.tokens))
                .map_err(|error| error.to_string());
            assert_eq!(got, expected.map_err(str::to_owned), "{raw:.40}");
        }
    }
}
