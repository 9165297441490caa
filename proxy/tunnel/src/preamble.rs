//! The first bytes of a stream of data: what the rest is.
//!
//! Four bytes: version, kind, and the length (16 bits, big endian) of what a later version may put
//! between them and the data; a reader skips what it does not know.

use quinn::RecvStream;

use crate::code::StreamCode;
use crate::error::Undelivered;

/// The preamble of a connection to the model server.
pub(crate) const CONNECTION: [u8; 4] = [VERSION, KIND_CONNECTION, 0, 0];

const VERSION: u8 = 1;
const KIND_CONNECTION: u8 = 1;

/// The most a preamble may have to skip, in bytes.
const SKIPPED_BYTES_MAX: usize = 1024;

/// What `head` says: how many bytes to skip.
fn skipped(head: [u8; 4]) -> Result<usize, Undelivered> {
    let [version, kind, high, low] = head;
    let bytes = usize::from(u16::from_be_bytes([high, low]));
    if version != VERSION || kind != KIND_CONNECTION || bytes > SKIPPED_BYTES_MAX {
        return Err(Undelivered::Unsupported);
    }
    Ok(bytes)
}

/// Reads the preamble of a stream that the gateway opened.
pub(crate) async fn read(stream: &mut RecvStream) -> Result<(), StreamCode> {
    let mut head = [0; CONNECTION.len()];
    let lost = |_| StreamCode::Aborted;
    stream.read_exact(&mut head).await.map_err(lost)?;
    let bytes = skipped(head).map_err(StreamCode::Undelivered)?;
    let mut rest = [0; SKIPPED_BYTES_MAX];
    let rest = rest.get_mut(..bytes).unwrap_or_default();
    stream.read_exact(rest).await.map_err(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preambles_are_known_or_unsupported() {
        for (head, expected) in [
            (CONNECTION, Ok(0)),
            ([1, 1, 0, 7], Ok(7)),
            ([1, 1, 4, 0], Ok(1024)),
            ([1, 1, 4, 1], Err(Undelivered::Unsupported)),
            ([2, 1, 0, 0], Err(Undelivered::Unsupported)),
            ([1, 2, 0, 0], Err(Undelivered::Unsupported)),
            (*b"GET ", Err(Undelivered::Unsupported)),
        ] {
            assert_eq!(skipped(head), expected, "{head:?}");
        }
    }
}
