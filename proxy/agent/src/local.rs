//! The agent's own requests to its model server: one connection each, bounded in size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;
use weir_tunnel::Socket;

use crate::error::LocalError;
use crate::upstream::Upstream;

/// `GET path`: status and body.
pub(crate) async fn get(
    upstream: &Upstream,
    path: &str,
    wait: Duration,
) -> Result<(StatusCode, Bytes), LocalError> {
    exchange(upstream, Method::GET, path, None, wait).await
}

/// `POST path` with a body of JSON: status and body.
pub(crate) async fn post(
    upstream: &Upstream,
    path: &str,
    json: String,
    wait: Duration,
) -> Result<(StatusCode, Bytes), LocalError> {
    exchange(upstream, Method::POST, path, Some(json), wait).await
}

async fn exchange(
    upstream: &Upstream,
    method: Method,
    path: &str,
    json: Option<String>,
    wait: Duration,
) -> Result<(StatusCode, Bytes), LocalError> {
    let exchange = async {
        let (response, _connection) = send(upstream, method, path, json, wait).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX);
        let body = body.collect().await.map_err(LocalError::Body)?;
        Ok((status, body.to_bytes()))
    };
    timeout(wait, exchange)
        .await
        .unwrap_or(Err(LocalError::Slow))
}

/// An answer that is read line by line for as long as it lasts.
pub(crate) struct Lines {
    body: Incoming,
    buffer: BytesMut,
    _connection: JoinSet<()>,
}

impl Lines {
    /// `GET path`; an answer other than 200 is [`LocalError::Status`].
    pub(crate) async fn open(
        upstream: &Upstream,
        path: &str,
        wait: Duration,
    ) -> Result<Self, LocalError> {
        let sent = send(upstream, Method::GET, path, None, wait);
        let (response, connection) = timeout(wait, sent).await.unwrap_or(Err(LocalError::Slow))?;
        if response.status() != StatusCode::OK {
            return Err(LocalError::Status(response.status()));
        }
        Ok(Self {
            body: response.into_body(),
            buffer: BytesMut::new(),
            _connection: connection,
        })
    }

    /// The next line without its end; `None` when the answer has ended. A line longer than
    /// `bytes_max` is an error.
    pub(crate) async fn next(&mut self, bytes_max: usize) -> Result<Option<Bytes>, LocalError> {
        let mut looked_at = 0;
        loop {
            let rest = self.buffer.get(looked_at..).unwrap_or_default();
            if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(looked_at + at + 1).freeze();
                line.truncate(looked_at + at);
                return Ok(Some(line));
            }
            looked_at = self.buffer.len();
            if looked_at > bytes_max {
                return Err(LocalError::Content(format!(
                    "a line longer than {bytes_max} bytes"
                )));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

async fn send(
    upstream: &Upstream,
    method: Method,
    path: &str,
    json: Option<String>,
    wait: Duration,
) -> Result<(Response<Incoming>, JoinSet<()>), LocalError> {
    let socket = upstream.connect(wait).await.map_err(LocalError::Connect)?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, upstream.host())
        .header(
            header::USER_AGENT,
            concat!("weir-agent/", env!("CARGO_PKG_VERSION")),
        );
    if json.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request
        .body(Full::from(json.unwrap_or_default()))
        .map_err(|error| LocalError::Content(error.to_string()))?;
    match socket {
        Socket::Tcp(socket) => over(socket, request).await,
        Socket::Unix(socket) => over(socket, request).await,
    }
}

async fn over<S>(
    socket: S,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, JoinSet<()>), LocalError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a connection to the model server broke");
        }
    });
    let response = sender.send_request(request).await?;
    Ok((response, driver))
}

/// The largest answer read: the metrics of an engine are the largest there are.
const BODY_BYTES_MAX: usize = 4 << 20;
