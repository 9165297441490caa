//! Bytes in lower-case hexadecimal: ids of requests, traces and conversations, made for every request.

/// Appends two digits for each of at most 32 bytes; of more than that none.
pub(crate) fn push(text: &mut String, bytes: &[u8]) {
    let mut digits = [[0_u8; 2]; 32];
    for (pair, byte) in digits.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    let written = digits.get(..bytes.len()).unwrap_or_default();
    // Checked and copied as a whole: letter by letter this costs several times as much.
    text.push_str(std::str::from_utf8(written.as_flattened()).unwrap_or_default());
}

const fn digit(value: u8) -> u8 {
    b'0' + value + if value > 9 { b'a' - b'0' - 10 } else { 0 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_digit_has_its_letter() {
        let mut text = String::from("x");
        super::push(&mut text, &[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        assert_eq!(text, "x0123456789abcdef");
    }
}
