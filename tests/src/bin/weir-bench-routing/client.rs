//! The caller's side: one request over a kept connection, timed until its first event and its end.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::schedule::{Arrival, Key};

/// Connections to one gateway, as many as there are requests at once.
pub(crate) struct Client {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    drivers: Mutex<JoinSet<()>>,
}

/// A request ready to be sent; copies share the body.
#[derive(Clone)]
pub(crate) struct Prepared {
    body: Bytes,
    session: Option<String>,
    id: String,
}

/// A complete answer, in real time since the request was due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) ttft: Duration,
    pub(crate) total: Duration,
    /// Which model server answered.
    pub(crate) server: usize,
}

impl Prepared {
    /// Of one arrival; `number` is its place in the schedule.
    pub(crate) fn new(arrival: &Arrival, number: usize) -> Self {
        let tokens = usize::try_from(arrival.prompt_tokens()).unwrap_or(0);
        let mut body = String::with_capacity(4 * tokens + BODY_EXTRA);
        body += r#"{"model":"bench/sim","stream":true,"max_tokens":"#;
        body += &arrival.output.max(1).to_string();
        let mut session = None;
        match arrival.key {
            Key::None => {}
            Key::Body(number) => {
                body += &format!(r#","prompt_cache_key":"{}""#, Key::name(number));
            }
            Key::Header(number) => session = Some(Key::name(number)),
        }
        body += r#","messages":["#;
        for (place, part) in arrival.prompt.iter().enumerate() {
            let (comma, role) = match place {
                0 => ("", "system"),
                place if place % 2 == 1 => (",", "user"),
                _ => (",", "assistant"),
            };
            body += &format!(r#"{comma}{{"role":"{role}","content":""#);
            part.write(&mut body);
            body += r#""}"#;
        }
        body += "]}";
        Self {
            body: Bytes::from(body),
            session,
            id: format!("bench-{number}"),
        }
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: Mutex::default(),
            drivers: Mutex::default(),
        }
    }

    /// Sends a request that was due at `due` and reads its answer.
    ///
    /// # Errors
    /// When it is not answered completely within `deadline`.
    pub(crate) async fn call(
        &self,
        prepared: Prepared,
        due: Instant,
        deadline: Duration,
    ) -> io::Result<Answered> {
        tokio::time::timeout_at(due + deadline, self.exchange(prepared, due)).await?
    }

    async fn exchange(&self, prepared: Prepared, due: Instant) -> io::Result<Answered> {
        let mut sender = self.sender().await?;
        let mut request = Request::post("/v1/chat/completions")
            .header("host", "bench")
            .header("content-type", "application/json")
            .header("x-request-id", prepared.id);
        if let Some(session) = prepared.session {
            request = request.header("x-multi-turn-session-id", session);
        }
        let request = request
            .body(Full::new(prepared.body))
            .map_err(io::Error::other)?;
        let response = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        if !response.status().is_success() {
            return Err(io::Error::other(format!("status {}", response.status())));
        }
        let server = response.headers().get("x-sim-server");
        let server = server.and_then(|place| place.to_str().ok()?.parse().ok());
        let server = server.ok_or_else(|| io::Error::other("no model server named"))?;
        let (ttft, total) = read(response.into_body(), due).await?;
        self.idle.lock().push(sender);
        Ok(Answered {
            ttft,
            total,
            server,
        })
    }

    async fn sender(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        loop {
            let idle = self.idle.lock().pop();
            match idle {
                Some(mut sender) => {
                    if sender.ready().await.is_ok() {
                        return Ok(sender);
                    }
                }
                None => break,
            }
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let mut drivers = self.drivers.lock();
        while drivers.try_join_next().is_some() {}
        drivers.spawn(async move {
            // A connection that breaks is told to whoever sends on it.
            let _told_elsewhere = connection.await;
        });
        Ok(sender)
    }
}

/// Reads a stream of events; it must end in `[DONE]`.
async fn read(mut body: Incoming, due: Instant) -> io::Result<(Duration, Duration)> {
    let mut ttft = None;
    let mut tail = Bytes::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        // Comments keep connections open while nothing is said.
        if ttft.is_none() && !data.starts_with(b":") {
            ttft = Some(due.elapsed());
        }
        tail = data;
    }
    let total = due.elapsed();
    match ttft {
        Some(ttft) if tail.trim_ascii_end().ends_with(b"[DONE]") => Ok((ttft, total)),
        _ => Err(io::Error::other("the answer broke off")),
    }
}

/// Room for what is not text.
const BODY_EXTRA: usize = 2048;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::schedule::Segment;

    #[test]
    fn bodies_are_json_that_name_their_conversation() {
        let arrival = Arrival {
            at: Duration::ZERO,
            key: Key::Body(7),
            prompt: vec![Segment::new(1, 1, 32), Segment::new(2, 1, 16)],
            output: 3,
        };
        let prepared = Prepared::new(&arrival, 5);
        let body: serde_json::Value = serde_json::from_slice(&prepared.body).unwrap();
        assert_eq!(body["prompt_cache_key"], "conversation-7");
        assert_eq!(body["max_tokens"], 3);
        assert_eq!(body["messages"][1]["role"], "user");
        let length = |place: usize| body["messages"][place]["content"].as_str().unwrap().len();
        assert_eq!((length(0), length(1)), (128, 64));
        assert_eq!(prepared.session, None);
        let by_header = Prepared::new(
            &Arrival {
                key: Key::Header(7),
                ..arrival
            },
            5,
        );
        assert_eq!(by_header.session.as_deref(), Some("conversation-7"));
    }
}
