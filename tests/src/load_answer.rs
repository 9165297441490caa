//! Reads HTTP/1.1 answers: framing and event counts only, without copying bodies.

use std::io;

use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt};

/// One complete answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The connection cannot be used again.
    pub(crate) closes: bool,
    pub(crate) events: u64,
    pub(crate) done: bool,
}

/// Reads one answer after the other from a connection, in one buffer.
pub(crate) struct Reader {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that hold unread data.
    start: usize,
    end: usize,
    untouched: bool,
    count_events: bool,
    body: BodyScan,
}

/// What is remembered of a body.
#[derive(Default)]
struct BodyScan {
    events: u64,
    /// The last byte seen is a line feed that ends no event yet.
    half_end: bool,
    tail: [u8; DONE.len()],
    start: Vec<u8>,
}

struct Head {
    status: u16,
    closes: bool,
    framing: Framing,
}

#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

impl Reader {
    pub(crate) fn new(count_events: bool) -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Self {
            buffer,
            start: 0,
            end: 0,
            untouched: true,
            count_events,
            body: BodyScan::default(),
        }
    }

    /// Prepares for the next answer; what is left of an earlier one is thrown away.
    pub(crate) fn reset(&mut self) {
        (self.start, self.end, self.untouched) = (0, 0, true);
        self.body.reset();
    }

    /// No byte has come since the reset.
    pub(crate) fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// The first bytes of the last body, for messages.
    pub(crate) fn body_start(&self) -> String {
        String::from_utf8_lossy(&self.body.start).into_owned()
    }

    /// Reads one answer to its end. Fails when the connection ends before it, or on broken framing.
    pub(crate) async fn read(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<Answer> {
        let mut head = self.head(io).await?;
        while (100..200).contains(&head.status) {
            head = self.head(io).await?;
        }
        match head.framing {
            Framing::Length(length) => self.take(io, length).await?,
            Framing::Chunked => self.chunks(io).await?,
            Framing::UntilClose => while self.available(io).await? > 0 {},
        }
        Ok(Answer {
            status: head.status,
            closes: head.closes,
            events: self.body.events,
            done: self.count_events && self.body.tail == *DONE,
        })
    }

    async fn head(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<Head> {
        loop {
            let unread = self.unread();
            if let Some(length) = memmem::find(unread, b"\r\n\r\n") {
                let head = parse_head(unread.get(..length).unwrap_or_default())?;
                self.start += length + 4;
                return Ok(head);
            }
            self.fill(io).await?;
        }
    }

    async fn chunks(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        loop {
            let size = self.line(io).await?;
            if size == 0 {
                // Trailers, up to the empty line.
                while self.skip_line(io).await? > 0 {}
                return Ok(());
            }
            self.take(io, size).await?;
            if self.skip_line(io).await? > 0 {
                return Err(broken("chunk longer than its size"));
            }
        }
    }

    /// The size in a chunk's first line.
    async fn line(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        let length = self.line_length(io).await?;
        let line = self.unread().get(..length).unwrap_or_default();
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(size)
            .ok()
            .and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        self.start += length + 2;
        size.ok_or_else(|| broken("chunk size is no number"))
    }

    async fn skip_line(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        let length = self.line_length(io).await?;
        self.start += length + 2;
        Ok(length)
    }

    async fn line_length(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        loop {
            if let Some(length) = memmem::find(self.unread(), b"\r\n") {
                return Ok(length);
            }
            self.fill(io).await?;
        }
    }

    /// Passes `length` bytes of the body to the scan.
    async fn take(&mut self, io: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.start == self.end {
                self.fill(io).await?;
            }
            let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
            let part = unread.get(..left.min(unread.len())).unwrap_or_default();
            self.body.scan(part, self.count_events);
            self.start += part.len();
            left -= part.len();
        }
        Ok(())
    }

    /// Scans what can be had; 0 at the end of the connection.
    async fn available(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        if self.start == self.end {
            match self.fill(io).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                outcome => outcome?,
            }
        }
        let length = self.end - self.start;
        self.take(io, length).await?;
        Ok(length)
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads more behind the unread bytes.
    async fn fill(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        if room.is_empty() {
            return Err(broken("line or head larger than the buffer"));
        }
        let bytes = io.read(room).await?;
        if bytes == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "connection closed before the end of the answer",
            ));
        }
        self.untouched = false;
        self.end += bytes;
        Ok(())
    }
}

impl BodyScan {
    fn reset(&mut self) {
        (self.events, self.half_end) = (0, false);
        self.tail = [0; DONE.len()];
        self.start.clear();
    }

    fn scan(&mut self, part: &[u8], count_events: bool) {
        let room = START_BYTES.saturating_sub(self.start.len());
        self.start.extend(part.iter().take(room));
        if !count_events || part.is_empty() {
            return;
        }
        let mut rest = part;
        if self.half_end && rest.first() == Some(&b'\n') {
            self.events += 1;
            rest = rest.get(1..).unwrap_or_default();
        }
        let mut counted = 0;
        for at in memmem::find_iter(rest, b"\n\n") {
            self.events += 1;
            counted = at + 2;
        }
        self.half_end = rest.len() > counted && rest.last() == Some(&b'\n');
        let keep = part.len().min(self.tail.len());
        self.tail.rotate_left(keep);
        let length = self.tail.len();
        let new = self.tail.iter_mut().skip(length - keep);
        for (place, byte) in new.zip(part.iter().skip(part.len() - keep)) {
            *place = *byte;
        }
    }
}

fn parse_head(head: &[u8]) -> io::Result<Head> {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .get(9..12)
        .and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
    let status: u16 = status.ok_or_else(|| broken("no status line"))?;
    let mut closes = status_line.starts_with(b"HTTP/1.0");
    let mut framing = None;
    for line in lines {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value)
                .ok()
                .and_then(|value| value.parse().ok());
            framing = framing.or(Some(Framing::Length(
                length.ok_or_else(|| broken("bad content-length"))?,
            )));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding")
            && value.eq_ignore_ascii_case(b"chunked")
        {
            framing = Some(Framing::Chunked);
        } else if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
            closes = true;
        }
    }
    let framing = match (status, framing) {
        (100..=199 | 204 | 304, _) => Framing::Length(0),
        (_, Some(framing)) => framing,
        (_, None) => {
            closes = true;
            Framing::UntilClose
        }
    };
    Ok(Head {
        status,
        closes,
        framing,
    })
}

fn broken(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

const DONE: &[u8; 14] = b"data: [DONE]\n\n";
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes kept of a body, to be shown when it is an error.
const START_BYTES: usize = 200;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of one size.
    struct Pieces<'a> {
        bytes: &'a [u8],
        size: usize,
    }

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context,
            buffer: &mut tokio::io::ReadBuf,
        ) -> std::task::Poll<io::Result<()>> {
            let length = self.size.min(self.bytes.len()).min(buffer.remaining());
            let (piece, rest) = self.bytes.split_at(length);
            buffer.put_slice(piece);
            self.bytes = rest;
            std::task::Poll::Ready(Ok(()))
        }
    }

    async fn read(bytes: &str, size: usize) -> io::Result<Answer> {
        Reader::new(true)
            .read(&mut Pieces {
                bytes: bytes.as_bytes(),
                size,
            })
            .await
    }

    #[tokio::test]
    async fn answers_in_pieces_of_every_size() {
        let table = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd",
                (200, false, 0, false),
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
                (204, false, 0, false),
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\ndata: 1\n\ndata: 2\n\n",
                (200, true, 2, false),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n1a;x=y\r\ndata: 22\n\ndata: [DONE]\n\nab\r\n0\r\n\r\n",
                (200, false, 3, false),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n8\r\ndata: 1\n\r\n1\r\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\nt: 1\r\n\r\n",
                (200, true, 2, true),
            ),
        ];
        for (bytes, (status, closes, events, done)) in table {
            for size in 1..=bytes.len() {
                let answer = read(bytes, size)
                    .await
                    .unwrap_or_else(|error| panic!("{error}, {size}: {bytes}"));
                assert_eq!(
                    answer,
                    Answer {
                        status,
                        closes,
                        events,
                        done
                    },
                    "pieces of {size}: {bytes}"
                );
            }
        }
    }

    #[tokio::test]
    async fn broken_answers_fail() {
        let table = [
            "",
            "HTTP/1.1 200 OK\r\n",
            "nonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcd",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        ];
        for bytes in table {
            assert!(read(bytes, 1000).await.is_err(), "{bytes}");
        }
    }
}
