//! A TCP connection that sends a request's head together with its body, and knows whether a request
//! that was not answered was delivered.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::upstream::undelivered::{Undelivered, ended_before_receiving};

/// Longest write that is kept back to go out with the next one, in bytes.
const HELD_MAX: usize = 16 << 10;

/// pingora flushes a request's head before it is given the body, which costs a packet and a system
/// call of its own: a fifth of the CPU time of a small exchange. Here the first write after a read
/// is kept back until there is more to write, or until an answer is read for.
#[derive(Debug)]
pub(super) struct JoinedWrites {
    tcp: TcpStream,
    /// Not sent yet.
    held: Vec<u8>,
    /// Nothing was written since the last read: what comes is a head.
    fresh: bool,
    /// The head alone is held: a flush does not send it.
    head_only: bool,
    /// Bytes handed to the kernel since the connection was opened.
    sent: u64,
}

impl JoinedWrites {
    /// For a connected socket.
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            held: Vec::new(),
            fresh: true,
            head_only: false,
            sent: 0,
        }
    }

    /// Sends what is held.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.head_only = false;
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.held));
            let sent = self.counted(written)?;
            self.held.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Counts what was written. A failed write leaves a request of which the end was never sent.
    fn counted(&mut self, written: io::Result<usize>) -> io::Result<usize> {
        match written {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => {
                self.sent += sent as u64;
                Ok(sent)
            }
            Err(_) => Err(Undelivered.into()),
        }
    }
}

impl AsyncWrite for JoinedWrites {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.fresh && buf.len() <= HELD_MAX {
            this.fresh = false;
            this.head_only = true;
            this.held.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        this.fresh = false;
        this.head_only = false;
        while !this.held.is_empty() {
            let both = [IoSlice::new(&this.held), IoSlice::new(buf)];
            let written = ready!(Pin::new(&mut this.tcp).poll_write_vectored(cx, &both));
            let sent = this.counted(written)?;
            let of_held = sent.min(this.held.len());
            this.held.drain(..of_held);
            if sent > of_held {
                return Poll::Ready(Ok(sent - of_held));
            }
        }
        let written = ready!(Pin::new(&mut this.tcp).poll_write(cx, buf));
        Poll::Ready(this.counted(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.head_only {
            Poll::Ready(Ok(()))
        } else {
            this.poll_drain(cx)
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

impl AsyncRead for JoinedWrites {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        let filled = buf.filled().len();
        let read = ready!(Pin::new(&mut this.tcp).poll_read(cx, buf));
        if buf.filled().len() > filled {
            this.fresh = true;
        } else if read.is_ok() && !this.fresh && ended_before_receiving(&this.tcp, this.sent) {
            // An orderly end with a request that was not answered.
            return Poll::Ready(Err(Undelivered.into()));
        }
        Poll::Ready(read)
    }
}

impl VirtualSocket for JoinedWrites {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.tcp.set_nodelay(true),
            // Model servers are asked often enough to notice a dead connection.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (JoinedWrites, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (JoinedWrites::new(near), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_head_waits_for_its_body_and_both_arrive_whole() {
        let (mut near, mut far) = pair().await;
        near.write_all(b"head").await.unwrap();
        near.flush().await.unwrap();
        let mut seen = [0; 64];
        assert_eq!(
            far.try_read(&mut seen).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        near.write_all(b"body").await.unwrap();
        near.flush().await.unwrap();
        far.read_exact(&mut seen[..8]).await.unwrap();
        assert_eq!(&seen[..8], b"headbody");
    }

    #[tokio::test]
    async fn a_head_without_a_body_goes_out_when_the_answer_is_read_for() {
        let (mut near, mut far) = pair().await;
        for round in 0..3_u8 {
            near.write_all(&[round; 4]).await.unwrap();
            near.flush().await.unwrap();
            let answering = async {
                let mut asked = [0; 4];
                far.read_exact(&mut asked).await.unwrap();
                far.write_all(&asked).await.unwrap();
            };
            let mut answer = [9; 4];
            let (read, ()) = tokio::join!(near.read_exact(&mut answer), answering);
            read.unwrap();
            assert_eq!(answer, [round; 4]);
        }
    }

    /// What a request meets whose connection ends without an answer.
    async fn unanswered(near: &mut JoinedWrites) -> String {
        let exchange = async {
            near.write_all(b"request").await?;
            near.flush().await?;
            near.read(&mut [0; 64]).await
        };
        match exchange.await {
            Ok(read) => format!("{read} bytes"),
            Err(error) => match error.get_ref() {
                Some(inner) if inner.is::<Undelivered>() => "undelivered".into(),
                _ => format!("{:?}", error.kind()),
            },
        }
    }

    #[tokio::test]
    async fn a_request_that_meets_a_closed_socket_is_undelivered() {
        let (mut near, far) = pair().await;
        drop(far);
        assert_eq!(unanswered(&mut near).await, "undelivered");
        // A connection that has served before, and a far end that resets.
        let (mut near, mut far) = pair().await;
        near.write_all(b"first").await.unwrap();
        far.write_all(b"answer").await.unwrap();
        near.read_exact(&mut [0; 6]).await.unwrap();
        far.read_exact(&mut [0; 5]).await.unwrap();
        far.set_zero_linger().unwrap();
        drop(far);
        assert_eq!(unanswered(&mut near).await, "undelivered");
    }

    #[tokio::test]
    async fn a_request_that_was_received_is_not_undelivered() {
        for reset in [false, true] {
            let (mut near, mut far) = pair().await;
            // After some rounds the kernel holds acknowledgements back for an answer to carry them.
            for _ in 0..20 {
                near.write_all(b"earlier").await.unwrap();
                let answering = async {
                    far.read_exact(&mut [0; 7]).await.unwrap();
                    far.write_all(b"answer").await.unwrap();
                };
                let mut answer = [0; 6];
                let (read, ()) = tokio::join!(near.read_exact(&mut answer), answering);
                read.unwrap();
            }
            let taking = async {
                far.read_exact(&mut [0; 7]).await.unwrap();
                if reset {
                    far.set_zero_linger().unwrap();
                }
                drop(far);
            };
            let (met, ()) = tokio::join!(unanswered(&mut near), taking);
            let expected = if reset { "ConnectionReset" } else { "0 bytes" };
            assert_eq!(met, expected);
        }
    }

    #[tokio::test]
    async fn a_request_received_in_part_is_undelivered() {
        let (mut near, mut far) = pair().await;
        let body = vec![b'x'; 8 << 20];
        let taking = async {
            far.read_exact(&mut [0; 1_000]).await.unwrap();
            drop(far);
        };
        let sending = async {
            near.write_all(b"head").await.unwrap();
            let sent = near.write_all(&body).await;
            sent.and(near.flush().await).unwrap_err()
        };
        let (error, ()) = tokio::join!(sending, taking);
        assert!(error.get_ref().unwrap().is::<Undelivered>(), "{error}");
    }

    #[tokio::test]
    async fn large_bodies_pass_whole_however_they_are_cut() {
        let (mut near, mut far) = pair().await;
        let body: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let sending = async {
            near.write_all(b"head").await.unwrap();
            near.flush().await.unwrap();
            near.write_all(&body).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut seen = Vec::new();
        let (read, ()) = tokio::join!(far.read_to_end(&mut seen), sending);
        read.unwrap();
        assert_eq!(&seen[..4], b"head");
        assert!(seen[4..] == body[..], "the body differs");
    }
}
