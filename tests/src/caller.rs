//! Callers: HTTP/1.1 and HTTP/2 with prior knowledge, and bytes as they are.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a kit for tests: what goes wrong here ends the test that asked"
)]

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::config_text::KEY;
use crate::events::{Event, sse};
use crate::gateway::DEADLINE;

/// The body of a request.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body known as a whole.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A `GET` with the key of the test configs.
pub fn get(path: &str) -> Request<Body> {
    request(Method::GET, path, Empty::new().boxed_unsync())
}

/// A `POST` of JSON with the key of the test configs.
pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Body> {
    request(Method::POST, path, whole(body))
}

/// A request with the key of the test configs.
pub fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    let key = HeaderValue::try_from(format!("Bearer {KEY}")).unwrap();
    request.headers_mut().insert(AUTHORIZATION, key);
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    request
}

/// A chat completion of `demo/sim`; `members` are more members of the body, such as
/// `"stream":true`, or empty.
pub fn chat(members: &str) -> Request<Body> {
    post("/v1/chat/completions", chat_body("demo/sim", members))
}

/// The body of a chat completion, see [`chat`].
pub fn chat_body(model: &str, members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    format!(
        r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]{comma}{members}}}"#
    )
}

/// Sets a header of a request, or takes it away when `value` is `None`.
pub fn with_header(mut request: Request<Body>, name: &str, value: Option<&str>) -> Request<Body> {
    let name = HeaderName::try_from(name).unwrap();
    match value {
        Some(value) => {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().insert(name, value);
        }
        None => {
            request.headers_mut().remove(name);
        }
    }
    request
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body as a whole.
    pub body: Bytes,
    /// Trailer fields; empty without any.
    pub trailers: HeaderMap,
}

impl Answer {
    /// A header as text; empty without one.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap_or("(binary)"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none; the message carries it.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in status {}: {}", self.status, self.text()))
    }

    /// The body as server-sent events.
    pub fn events(&self) -> Vec<Event> {
        sse(&self.text())
    }

    /// `error.code` of the body; empty without one.
    pub fn code(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        let code = body.pointer("/error/code").and_then(Value::as_str);
        code.unwrap_or_default().to_owned()
    }
}

/// A connection of a caller. Dropping it closes the connection.
pub struct Caller {
    address: SocketAddr,
    sender: Sender,
    _driver: JoinSet<()>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Caller {
    /// An HTTP/1.1 connection.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn http1(address: SocketAddr) -> io::Result<Self> {
        let stream = TokioIo::new(connect(address).await?);
        let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn(async { _ = connection.with_upgrades().await });
        Ok(Self {
            address,
            sender: Sender::Http1(sender),
            _driver: driver,
        })
    }

    /// An HTTP/2 connection without TLS, by prior knowledge.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn http2(address: SocketAddr) -> io::Result<Self> {
        let stream = TokioIo::new(connect(address).await?);
        let handshake = http2::handshake(TokioExecutor::new(), stream).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn(async { _ = connection.await });
        Ok(Self {
            address,
            sender: Sender::Http2(sender),
            _driver: driver,
        })
    }

    /// Sends a request and reads the head of the answer. Dropping the answer before its end resets
    /// the stream of HTTP/2, and closes the connection of HTTP/1.1 together with the caller.
    ///
    /// # Errors
    /// When the connection ends first, or the deadline passes.
    pub async fn open(&mut self, mut request: Request<Body>) -> io::Result<Response<Incoming>> {
        let answer = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    let host = HeaderValue::try_from(self.address.to_string()).unwrap();
                    request.headers_mut().entry(HOST).or_insert(host);
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    let path = request.uri().path_and_query().cloned().unwrap();
                    let host = request.headers_mut().remove(HOST);
                    let authority = match &host {
                        Some(host) => host.to_str().unwrap().to_owned(),
                        None => self.address.to_string(),
                    };
                    let uri = Uri::builder().scheme("http").authority(authority);
                    *request.uri_mut() = uri.path_and_query(path).build().unwrap();
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        in_time(async { answer.await.map_err(io::Error::other) }).await
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// As [`Caller::open`], and when the answer ends early.
    pub async fn ask(&mut self, request: Request<Body>) -> io::Result<Answer> {
        let response = self.open(request).await?;
        in_time(collect(response)).await
    }
}

/// Reads an answer to its end.
///
/// # Errors
/// When it ends early.
pub async fn collect(response: Response<Incoming>) -> io::Result<Answer> {
    let (head, body) = response.into_parts();
    let collected = body.collect().await.map_err(io::Error::other)?;
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        trailers: collected.trailers().cloned().unwrap_or_default(),
        body: collected.to_bytes(),
    })
}

/// The next bytes of an answer; `None` at its end.
///
/// # Errors
/// When it ends early, or nothing comes before the deadline.
pub async fn next_bytes(response: &mut Response<Incoming>) -> io::Result<Option<Bytes>> {
    let next = async {
        while let Some(frame) = response.body_mut().frame().await {
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    };
    in_time(next).await
}

/// Sends one request over a new HTTP/1.1 connection.
///
/// # Panics
/// When it is not answered in full.
pub async fn send(address: SocketAddr, request: Request<Body>) -> Answer {
    let what = format!("{} {}", request.method(), request.uri());
    let answer = async { Caller::http1(address).await?.ask(request).await }.await;
    answer.unwrap_or_else(|error| panic!("{what} of {address}: {error:?}"))
}

/// As [`send`], over HTTP/2.
///
/// # Panics
/// When it is not answered in full.
pub async fn send_http2(address: SocketAddr, request: Request<Body>) -> Answer {
    let what = format!("{} {}", request.method(), request.uri());
    let answer = async { Caller::http2(address).await?.ask(request).await }.await;
    answer.unwrap_or_else(|error| panic!("{what} of {address} over HTTP/2: {error:?}"))
}

/// Sends bytes as they are and reads until the connection is closed; put `connection: close` into
/// the last request. What was read before an error counts.
///
/// # Panics
/// When nobody listens, or the connection stays open beyond the deadline.
pub async fn send_raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = connect(address).await.unwrap();
    // The other side may close before it has read all.
    _ = stream.write_all(bytes.as_ref()).await;
    read_to_end(&mut stream).await
}

/// Reads until the connection is closed.
///
/// # Panics
/// When it stays open beyond the deadline.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut read)).await;
    let read = String::from_utf8_lossy(&read).into_owned();
    assert!(ended.is_ok(), "the connection stays open after: {read}");
    read
}

/// Reads until `text` has come; returns all that came.
///
/// # Panics
/// When the connection ends before, or the deadline passes.
pub async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let seen = String::from_utf8_lossy(&read);
        if seen.contains(text) {
            return seen.into_owned();
        }
        match tokio::time::timeout(DEADLINE, stream.read(&mut buffer)).await {
            Ok(Ok(bytes @ 1..)) => read.extend_from_slice(buffer.get(..bytes).unwrap_or_default()),
            end => panic!("{end:?} before {text:?} in: {seen}"),
        }
    }
}

/// A plain connection.
///
/// # Errors
/// When nobody listens.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
    }
}
