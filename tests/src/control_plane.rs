//! A control plane of NVCF's kind: gRPC over HTTP/2, answering as the test says.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a kit for tests: what goes wrong here ends the test that asked"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The caller's credential; field 1.
    pub credential: String,
    /// The function id; field 2.
    pub routing_key: String,
}

/// An admission.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// The function id; field 1.
    pub routing_key: String,
    /// Who calls; field 2.
    pub subject: String,
    /// `ncaId` and the like; field 3.
    pub context: BTreeMap<String, String>,
    /// By model; field 4.
    pub models: BTreeMap<String, Spec>,
    /// 0 is the highest; field 5.
    pub priority: Option<u32>,
}

/// What it says of a model.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Paths; field 1.
    pub uris: Vec<String>,
    /// Tokens; field 2.
    pub token_rate_limit: Option<String>,
    /// Field 3, which the gateway does not read.
    pub tokenizer: Option<String>,
    /// How backends are ranked; field 4.
    pub routing_method: Option<String>,
}

impl Admission {
    /// Of an account, for a function.
    pub fn of(account: &str, routing_key: &str) -> Self {
        Self {
            routing_key: routing_key.to_owned(),
            subject: format!("{account}-subject"),
            context: BTreeMap::from([("ncaId".to_owned(), account.to_owned())]),
            ..Self::default()
        }
    }

    fn encoded(&self) -> Vec<u8> {
        let mut message = Vec::new();
        put(&mut message, 1, self.routing_key.as_bytes());
        put(&mut message, 2, self.subject.as_bytes());
        for (name, value) in &self.context {
            put(&mut message, 3, &entry(name, value.as_bytes()));
        }
        for (name, spec) in &self.models {
            put(&mut message, 4, &entry(name, &spec.encoded()));
        }
        if let Some(priority) = self.priority {
            put_number(&mut message, 5 << 3);
            put_number(&mut message, priority.into());
        }
        message
    }
}

impl Spec {
    fn encoded(&self) -> Vec<u8> {
        let mut message = Vec::new();
        for uri in &self.uris {
            put(&mut message, 1, uri.as_bytes());
        }
        let texts = [
            &self.token_rate_limit,
            &self.tokenizer,
            &self.routing_method,
        ];
        for (number, text) in (2..).zip(texts) {
            if let Some(text) = text {
                put(&mut message, number, text.as_bytes());
            }
        }
        message
    }
}

impl Asked {
    fn decoded(mut message: &[u8]) -> Self {
        let mut asked = Self::default();
        while !message.is_empty() {
            let key = take_number(&mut message);
            let length = usize::try_from(take_number(&mut message)).unwrap();
            let (text, rest) = message.split_at(length);
            let text = String::from_utf8(text.to_vec()).unwrap();
            match key {
                0x0a => asked.credential = text,
                0x12 => asked.routing_key = text,
                key => panic!("field {key:#x} in {asked:?}"),
            }
            message = rest;
        }
        asked
    }
}

/// A member of a map: its key and its value.
fn entry(name: &str, value: &[u8]) -> Vec<u8> {
    let mut entry = Vec::new();
    put(&mut entry, 1, name.as_bytes());
    put(&mut entry, 2, value);
    entry
}

/// A field with a length: texts, messages.
fn put(message: &mut Vec<u8>, number: u64, value: &[u8]) {
    put_number(message, number << 3 | 2);
    put_number(message, value.len() as u64);
    message.extend_from_slice(value);
}

fn put_number(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    message.push(number.to_le_bytes()[0]);
}

fn take_number(message: &mut &[u8]) -> u64 {
    let mut number = 0;
    for place in 0.. {
        let (byte, rest) = message.split_first().unwrap();
        *message = rest;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

/// What it does with a call.
#[derive(Clone)]
pub enum Manner {
    /// Lets the caller in.
    Admit(Admission),
    /// Ends the call with this status, in the headers of an answer without a message.
    Refuse(u16),
    /// The same in trailers, after an empty message.
    RefuseLate(u16),
    /// Never answers.
    Silent,
    /// Answers as a proxy in front of it would.
    Proxy(u16),
}

/// A listening control plane. Dropping it cuts its connections.
pub struct ControlPlane {
    address: SocketAddr,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

struct State {
    manner: Mutex<Manner>,
    calls: Mutex<Vec<(HeaderMap, String, Asked)>>,
    /// A call needs one to be answered.
    permits: Semaphore,
}

type Body = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

impl ControlPlane {
    /// Answers in this manner.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            manner: Mutex::new(manner),
            calls: Mutex::default(),
            permits: Semaphore::new(PERMITS),
        });
        let mut serving = JoinSet::new();
        let shared = Arc::clone(&state);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let connection = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(async { _ = connection.await });
            }
        });
        Self {
            address,
            state,
            _serving: serving,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers in another manner from now on.
    pub fn now(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    /// Keeps calls waiting until [`ControlPlane::release`].
    pub fn hold(&self) {
        self.state.permits.forget_permits(PERMITS);
    }

    /// Answers those that wait, and all others.
    pub fn release(&self) {
        self.state.permits.add_permits(PERMITS);
    }

    /// The calls so far: headers, path and message.
    pub fn calls(&self) -> Vec<(HeaderMap, String, Asked)> {
        self.state.calls.lock().unwrap().clone()
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let asked = Asked::decoded(body.get(5..).unwrap_or_default());
    let call = (head.headers, head.uri.path().to_owned(), asked);
    state.calls.lock().unwrap().push(call);
    drop(state.permits.acquire().await.unwrap());
    let manner = state.manner.lock().unwrap().clone();
    let mut response = Response::new(frames(Vec::new()));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    match manner {
        Manner::Admit(admission) => {
            *response.body_mut() = frames(vec![message(&admission.encoded()), status(0)]);
        }
        Manner::Refuse(code) => {
            response.headers_mut().insert(STATUS, code.into());
        }
        Manner::RefuseLate(code) => {
            *response.body_mut() = frames(vec![message(&[]), status(code)]);
        }
        Manner::Silent => std::future::pending().await,
        Manner::Proxy(code) => {
            *response.status_mut() = code.try_into().unwrap();
            let html = HeaderValue::from_static("text/html");
            response.headers_mut().insert("content-type", html);
        }
    }
    Ok(response)
}

fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    let frames: Vec<_> = frames.into_iter().map(Ok).collect();
    StreamBody::new(stream::iter(frames))
}

fn message(bytes: &[u8]) -> Frame<Bytes> {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(bytes.len()).unwrap());
    framed.put_slice(bytes);
    Frame::data(framed.freeze())
}

fn status(code: u16) -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([(STATUS, HeaderValue::from(code))]))
}

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const PERMITS: usize = 1_000;
