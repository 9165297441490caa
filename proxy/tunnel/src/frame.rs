//! Messages on the control stream: each preceded by its length, bounded, readable piece by piece.

use bytes::{Buf, BufMut, BytesMut};
use prost::Message;
use quinn::{ReadError, RecvStream, SendStream, WriteError};

use crate::error::{Error, Loss};

/// The largest control message in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The largest hello: whoever sends it has not shown who it is.
pub(crate) const HELLO_BYTES_MAX: usize = 64 * 1024;

const LENGTH_BYTES: usize = 4;

/// Reads messages. [`FrameReader::next`] may be dropped and called again: nothing is lost.
pub(crate) struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
    bytes_max: usize,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, bytes_max: usize) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            bytes_max,
        }
    }

    /// Takes messages of up to `bytes_max` from now on.
    pub(crate) fn allow(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// The next message; `None` when the other side has finished the stream.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Error> {
        loop {
            if let Some(message) = take(&mut self.buffer, self.bytes_max)? {
                return Ok(Some(message));
            }
            match self.stream.read_chunk(READ_BYTES, true).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) => return Ok(None),
                Err(ReadError::ConnectionLost(error)) => return Err(error.into()),
                Err(_) => return Err(Error::Unexpected("an open stream")),
            }
        }
    }
}

/// Takes one message off `buffer` if it is there as a whole.
fn take<M: Message + Default>(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<M>, Error> {
    let Some(head) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let bytes = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if bytes > bytes_max {
        return Err(Error::TooLarge {
            bytes,
            max: bytes_max,
        });
    }
    if buffer.len() < LENGTH_BYTES + bytes {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    let message = buffer.split_to(bytes);
    if buffer.is_empty() {
        // A large message must not keep its memory for the small ones that follow.
        *buffer = BytesMut::new();
    }
    M::decode(message.freeze())
        .map(Some)
        .map_err(Error::Malformed)
}

/// Writes messages. A send that is dropped halfway is completed by the next one.
pub(crate) struct FrameWriter {
    stream: SendStream,
    buffer: BytesMut,
}

impl FrameWriter {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// Queues a message and hands on what the transport takes.
    pub(crate) async fn send<M: Message>(&mut self, message: &M) -> Result<(), Error> {
        let bytes = message.encoded_len();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(Error::TooLarge {
                bytes,
                max: MESSAGE_BYTES_MAX,
            });
        }
        if self.buffer.len() > BACKLOG_BYTES_MAX {
            return Err(Error::Stalled);
        }
        let length = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.buffer.reserve(LENGTH_BYTES + bytes);
        self.buffer.put_u32(length);
        self.buffer.extend_from_slice(&message.encode_to_vec());
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        while !self.buffer.is_empty() {
            match self.stream.write(&self.buffer).await {
                Ok(written) => self.buffer.advance(written),
                Err(WriteError::ConnectionLost(error)) => return Err(error.into()),
                Err(_) => return Err(Error::Unexpected("an open stream")),
            }
        }
        self.buffer = BytesMut::new();
        Ok(())
    }

    /// Ends the stream and waits until the other side has it all.
    pub(crate) async fn finish(&mut self) -> Result<(), Error> {
        self.flush().await?;
        if self.stream.finish().is_err() {
            return Err(Error::Lost(Loss::Local));
        }
        match self.stream.stopped().await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Lost(Loss::Local)),
        }
    }
}

/// Bytes of messages that may wait for the transport when another comes.
const BACKLOG_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// The most taken from the transport at once.
const READ_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AgentSays, Draining, ToGateway};

    fn message(reason: &str) -> ToGateway {
        let draining = Draining {
            reason: reason.to_owned(),
            timeout_ms: 7,
        };
        ToGateway {
            body: Some(AgentSays::Draining(draining)),
        }
    }

    fn framed(message: &ToGateway) -> Vec<u8> {
        let body = message.encode_to_vec();
        let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(body);
        frame
    }

    #[test]
    fn messages_come_out_however_they_are_cut() {
        let (first, second) = (message("one"), message(&"two".repeat(99)));
        let bytes = [framed(&first), framed(&second)].concat();
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            let mut seen = Vec::new();
            while let Some(message) = take::<ToGateway>(&mut buffer, 1000).unwrap() {
                seen.push(message);
            }
            buffer.extend_from_slice(&bytes[cut..]);
            while let Some(message) = take::<ToGateway>(&mut buffer, 1000).unwrap() {
                seen.push(message);
            }
            assert_eq!(seen, [first.clone(), second.clone()], "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let mut large = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 1][..]);
        assert!(matches!(
            take::<ToGateway>(&mut large, 1000),
            Err(Error::TooLarge { .. })
        ));
        let mut garbage = BytesMut::from(&[0, 0, 0, 2, 0xff, 0xff][..]);
        assert!(matches!(
            take::<ToGateway>(&mut garbage, 1000),
            Err(Error::Malformed(_))
        ));
    }

    #[test]
    fn a_member_of_a_newer_version_is_no_error() {
        // Field 15, a string.
        let mut newer = BytesMut::from(&[0, 0, 0, 3, 0x7a, 1, b'x'][..]);
        let message = take::<ToGateway>(&mut newer, 1000).unwrap().unwrap();
        assert_eq!(message.body, None);
    }
}
