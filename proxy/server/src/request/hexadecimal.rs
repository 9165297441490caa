//! Bytes in lower-case hexadecimal: ids of requests, traces and conversations, made for every request.

/// Appends two digits for each byte.
pub(crate) fn push(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
}

fn digit(value: u8) -> char {
    char::from(b'0' + value + if value > 9 { b'a' - b'0' - 10 } else { 0 })
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
