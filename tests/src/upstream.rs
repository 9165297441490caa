//! Model servers that misbehave: what they send, byte by byte, is the test's script.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a kit for tests: what goes wrong here ends the test that asked"
)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A listening script. Dropping it cuts its connections.
pub struct Upstream {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Upstream {
    /// Runs the script for each connection, which is closed when the script ends.
    pub async fn scripted<S, F>(script: S) -> Self
    where
        S: Fn(Connection) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(AtomicUsize::new(0));
        let mut serving = JoinSet::new();
        let (seen, asked) = (Arc::clone(&connections), Arc::clone(&requests));
        serving.spawn(async move {
            let mut running = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let connection = Connection {
                    stream,
                    number: seen.fetch_add(1, Ordering::SeqCst),
                    requests: Arc::clone(&asked),
                    unread: Vec::new(),
                };
                running.spawn(script(connection));
                while running.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            connections,
            requests,
            _serving: serving,
        }
    }

    /// Reads a request on each connection, sends these bytes and closes.
    pub async fn fixed(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::scripted(move |mut connection| {
            let answer = Arc::clone(&answer);
            async move {
                if connection.request().await.is_ok() {
                    connection.send(&answer).await;
                }
            }
        })
        .await
    }

    /// Takes requests and never answers.
    pub async fn silent() -> Self {
        Self::scripted(
            async |mut connection: Connection| {
                while connection.request().await.is_ok() {}
            },
        )
        .await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Complete requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// One accepted connection.
pub struct Connection {
    /// The socket, for what the methods do not offer.
    pub stream: TcpStream,
    /// How many connections came before.
    pub number: usize,
    requests: Arc<AtomicUsize>,
    unread: Vec<u8>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// Request line and header fields, as text.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Connection {
    /// Reads one request with `content-length`, or without a body.
    ///
    /// # Errors
    /// When the other side closes before.
    pub async fn request(&mut self) -> io::Result<RawRequest> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let rest = self.unread.split_off(end);
        let head = std::mem::replace(&mut self.unread, rest);
        let head = String::from_utf8_lossy(&head).into_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().unwrap())
        });
        let length = length.unwrap_or(0);
        while self.unread.len() < length {
            self.more().await?;
        }
        let rest = self.unread.split_off(length);
        let body = std::mem::replace(&mut self.unread, rest);
        self.requests.fetch_add(1, Ordering::SeqCst);
        Ok(RawRequest { head, body })
    }

    /// Sends bytes; that the other side is gone is no error.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if self.stream.write_all(bytes.as_ref()).await.is_ok() {
            _ = self.stream.flush().await;
        }
    }

    /// Waits until the other side closes.
    pub async fn closed(&mut self) {
        while self.more().await.is_ok() {}
    }

    /// Closes with a reset, as a killed machine's kernel would.
    pub fn reset(self) {
        _ = self.stream.set_zero_linger();
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.unread).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// An address that refuses connections.
pub fn refusing() -> SocketAddr {
    crate::gateway::free_address()
}

/// An answer with `content-length`.
pub fn answer(status: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// The head of an event stream in chunks.
pub const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// The last chunk.
pub const LAST_CHUNK: &str = "0\r\n\r\n";

/// One chunk.
pub fn chunk(data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// A chunk of a chat completion as a server-sent event; `choices` is the content of the array,
/// `more` further members such as `,"usage":null`.
pub fn chat_event(choices: &str, more: &str) -> String {
    format!(
        "data: {{\"id\":\"c-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"sim\",\"choices\":[{choices}]{more}}}\n\n"
    )
}

/// The event of some text.
pub fn delta(text: &str) -> String {
    chat_event(
        &format!(r#"{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}"#),
        "",
    )
}

/// A whole chat completion.
pub fn completion(text: &str) -> String {
    format!(
        r#"{{"id":"c-1","object":"chat.completion","created":1,"model":"sim","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}}}"#
    )
}
