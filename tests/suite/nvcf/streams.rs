//! Streams that survive the real world: readers that do not read, events of any size, model servers
//! that think long, or fail inside a 200.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use weir_tests::caller::{Body, Caller, chat, next_bytes, post, send};
use weir_tests::config_text::ConfigText;
use weir_tests::events::sse;
use weir_tests::gateway::Gateway;
use weir_tests::simulated::Simulated;
use weir_tests::upstream::{Connection, LAST_CHUNK, STREAM_HEAD, Upstream, chunk, delta};

use super::recorder::{chat_events, stream};
use super::row::{Row, call, call_body, recorded, row, same, served, walk};

/// What a reader that does not read is offered, at the most.
const OFFERED: u64 = 256 << 20;
const EVENT_BYTES: usize = 8_000;
const EVENTS: usize = 200;

/// Marks the request whose stream has no end.
const ENDLESS: &str = r#""stream":true,"user":"endless""#;
const SHORT: &str = r#""stream":true"#;

/// Cutting the reader that does not read would free the others.
const NEVER_CUT: &str = "write_timeout_ms = 600000";

/// A model server over HTTP/1.1 that streams without end to those who ask for it.
async fn flood(sent: &Arc<AtomicU64>) -> Upstream {
    let sent = Arc::clone(sent);
    Upstream::scripted(move |mut connection: Connection| {
        let sent = Arc::clone(&sent);
        async move {
            while let Ok(request) = connection.request().await {
                connection.send(STREAM_HEAD).await;
                let piece = chunk(delta(&"x".repeat(EVENT_BYTES)));
                let endless = is_endless(&request.body);
                let most = if endless {
                    OFFERED / EVENT_BYTES as u64
                } else {
                    EVENTS as u64
                };
                for _ in 0..most {
                    if connection.stream.write_all(&piece).await.is_err() {
                        return;
                    }
                    if endless {
                        sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
                    }
                }
                connection.send(chunk("data: [DONE]\n\n")).await;
                connection.send(LAST_CHUNK).await;
            }
        }
    })
    .await
}

/// The same over HTTP/2.
async fn flood_http2(sent: &Arc<AtomicU64>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let sent = Arc::clone(sent);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let sent = Arc::clone(&sent);
            let service = service_fn(move |request| flooding(request, Arc::clone(&sent)));
            let served = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            connections.spawn(async { _ = served.await });
        }
    });
    (address, serving)
}

async fn flooding(
    request: Request<Incoming>,
    sent: Arc<AtomicU64>,
) -> Result<Response<Body>, hyper::Error> {
    let endless = is_endless(&request.into_body().collect().await?.to_bytes());
    let piece = Bytes::from(delta(&"x".repeat(EVENT_BYTES)));
    let most = if endless { usize::MAX } else { EVENTS };
    let pieces = std::iter::repeat_n(piece, most).inspect(move |piece| {
        if endless {
            sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
        }
    });
    let last = std::iter::once(Bytes::from_static(b"data: [DONE]\n\n"));
    let frames = pieces
        .chain(last)
        .map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let mut response =
        Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync());
    let events = http::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert("content-type", events);
    Ok(response)
}

fn is_endless(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("endless")
}

async fn connected(gateway: &Gateway, http2: bool) -> Caller {
    let connected = match http2 {
        true => Caller::http2(gateway.address()).await,
        false => Caller::http1(gateway.address()).await,
    };
    connected.unwrap()
}

/// One caller begins a stream and never reads it. Others read theirs, on the same connection as
/// well as on their own: each gets all of it, again and again, until the first is held back, and
/// once more then.
async fn one_does_not_read(gateway: &Gateway, sent: &AtomicU64) {
    for same_connection in [true, false] {
        let mut caller = connected(gateway, true).await;
        let unread = caller.open(chat(ENDLESS)).await.unwrap();
        let mut other = match same_connection {
            true => caller,
            false => connected(gateway, false).await,
        };
        let mut held_back = false;
        while !held_back {
            let before = sent.load(Ordering::SeqCst);
            let answer = other.ask(chat(SHORT)).await.unwrap();
            let events = answer.events();
            let what = format!("on the same connection: {same_connection}");
            assert_eq!(events.len(), EVENTS + 1, "{what}");
            assert_eq!(events.last().unwrap().data, "[DONE]", "{what}");
            let after = sent.load(Ordering::SeqCst);
            assert!(
                after < OFFERED,
                "{what}: all was taken for a caller that takes nothing"
            );
            held_back = after > 0 && after == before;
        }
        drop(unread);
        sent.store(0, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_slow_reader_slows_nobody() {
    let sent = Arc::new(AtomicU64::new(0));
    let upstream = flood(&sent).await;
    let config = ConfigText::new(&[upstream.address()]).cluster(NEVER_CUT);
    let gateway = Gateway::start(&config.text()).await;
    one_does_not_read(&gateway, &sent).await;
}

#[tokio::test]
async fn a_slow_reader_slows_nobody_behind_http2() {
    let sent = Arc::new(AtomicU64::new(0));
    let (address, _serving) = flood_http2(&sent).await;
    let config = ConfigText::new(&[address])
        .cluster("http2 = true")
        .cluster(NEVER_CUT);
    let gateway = Gateway::start(&config.text()).await;
    one_does_not_read(&gateway, &sent).await;
}

/// 1.12: the limit is on one stalled write.
#[tokio::test]
async fn a_caller_that_never_reads_is_cut() {
    let sent = Arc::new(AtomicU64::new(0));
    let upstream = flood(&sent).await;
    let config = ConfigText::new(&[upstream.address()]).cluster("write_timeout_ms = 300");
    let gateway = Gateway::start(&config.text()).await;
    for http2 in [false, true] {
        let mut caller = connected(&gateway, http2).await;
        let unread = caller.open(chat(ENDLESS)).await.unwrap();
        let ended =
            async |gateway: &Gateway| gateway.metric("weir_requests_active", &[]).await == 0.0;
        gateway
            .wait_for(&format!("the end of it (HTTP/2: {http2})"), ended)
            .await;
        assert!(sent.swap(0, Ordering::SeqCst) < OFFERED, "HTTP/2: {http2}");
        drop(unread);
    }
    let counted = async |gateway: &Gateway| {
        let ends = [r#"end="client_gone""#];
        gateway.metric("weir_requests_total", &ends).await == 2.0
    };
    gateway.wait_for("both to be counted", counted).await;
}

/// An event of this size, line ends included.
fn event_of(bytes: usize) -> String {
    let around = delta("").len();
    delta(&"x".repeat(bytes - around))
}

#[tokio::test]
async fn events_up_to_the_limit() {
    const MAX: usize = 100_000;
    let (gateway, recorder) =
        recorded(|config| config.more("[limits]\nevent_max_bytes = 100000")).await;
    let streamed = |name: &'static str, events: &[String]| {
        row(name, chat(SHORT))
            .upstream(stream(&events.concat()))
            .status(200)
    };
    let end = "data: [DONE]\n\n".to_owned();
    let rows: Vec<Row> = vec![
        streamed(
            "6 an event just within the limit",
            &[event_of(MAX - 200), end.clone()],
        )
        .events(|events| same("the number of events", &events.len(), &2))
        .done_with_model("demo/sim"),
        streamed(
            "6 many that are more together",
            &[
                event_of(MAX / 2),
                event_of(MAX / 2),
                event_of(MAX / 2),
                end.clone(),
            ],
        )
        .events(|events| same("the number of events", &events.len(), &4))
        .done_with_model("demo/sim"),
        streamed(
            "6 one beyond the limit ends the stream in an error",
            &[delta("before"), event_of(MAX + 200), end],
        )
        .text("before")
        .no_text("xxxx")
        .no_text("[DONE]")
        .events(|events| {
            let last = events.last().ok_or("no events")?.json();
            same(
                "the code",
                &last["error"]["code"],
                &"event_too_large".into(),
            )
        }),
    ];
    walk(&gateway, &recorder, rows).await;
}

/// A model server that thinks before it answers, or before it says something, until it is told.
async fn thinking(gate: &Arc<Semaphore>, begins: bool) -> Upstream {
    let gate = Arc::clone(gate);
    Upstream::scripted(move |mut connection: Connection| {
        let gate = Arc::clone(&gate);
        async move {
            while connection.request().await.is_ok() {
                let whole = stream(&chat_events());
                let (head, rest) = whole.split_at(if begins { STREAM_HEAD.len() } else { 0 });
                connection.send(head).await;
                let Ok(thought) = gate.acquire().await else {
                    return;
                };
                thought.forget();
                connection.send(rest).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn comments_while_a_model_thinks() {
    for begins in [false, true] {
        let gate = Arc::new(Semaphore::new(0));
        let upstream = thinking(&gate, begins).await;
        let config =
            ConfigText::new(&[upstream.address()]).more("[streams]\ncomment_interval_ms = 20");
        let gateway = Gateway::start(&config.text()).await;
        for http2 in [false, true] {
            let mut caller = connected(&gateway, http2).await;
            let mut answer = caller.open(chat(SHORT)).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["content-type"], "text/event-stream");
            assert!(answer.headers().contains_key("x-request-id"));
            let mut text = String::new();
            while text.matches(": ").count() < 3 {
                let piece = next_bytes(&mut answer).await.unwrap().expect("a comment");
                text.push_str(&String::from_utf8_lossy(&piece));
            }
            for comment in text.split_terminator("\n\n") {
                assert!(
                    comment.starts_with(": ") && !comment.contains('\n'),
                    "{text:?}"
                );
            }
            gate.add_permits(1);
            while let Some(piece) = next_bytes(&mut answer).await.unwrap() {
                text.push_str(&String::from_utf8_lossy(&piece));
            }
            let events = sse(&text);
            assert_eq!(events.len(), 4, "begins {begins}, HTTP/2 {http2}: {text}");
            assert_eq!(events[3].data, "[DONE]", "{text}");
        }
        // One answer is not spoilt by comments.
        gate.add_permits(1);
        let json = send(gateway.address(), call("/v1/responses", "")).await;
        assert!(!json.text().contains(": waiting"), "{}", json.text());
    }
}

/// What a model server says in a 200 when it fails before it says anything.
fn failed_at_once(path: &str) -> String {
    match path {
        "/v1/responses" => "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"model\":\"sim\"}}\n\n\
             event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"out of memory\",\"param\":null,\"sequence_number\":1}\n\n"
            .to_owned(),
        "/v1/messages" => "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"out of memory\"}}\n\n"
            .to_owned(),
        _ => "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"sim\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n\
             data: {\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\",\"code\":500}}\n\n"
            .to_owned(),
    }
}

/// Enough that they do not all belong to one of two backends.
const CONVERSATIONS: usize = 16;

/// The beginning of a conversation of its own, as a stream.
fn conversation(path: &str, number: usize) -> Request<Body> {
    let body = call_body(path, "demo/sim", SHORT);
    post(path, body.replace(r#""hi""#, &format!(r#""hi {number}""#)))
}

const STREAMING: [&str; 3] = ["/v1/chat/completions", "/v1/responses", "/v1/messages"];

/// A gateway before a model server that fails at once, and a good one.
async fn one_fails_at_once(path: &str, more: &str) -> (Gateway, Upstream, Simulated) {
    let bad = stream(&failed_at_once(path));
    let bad = Upstream::fixed(bad).await;
    let good = Simulated::start().await;
    let config = ConfigText::new(&[bad.address(), good.address()])
        .cluster("[clusters.sim.ejection]\nconsecutive_failures = 0")
        .more(more);
    (Gateway::start(&config.text()).await, bad, good)
}

#[tokio::test]
async fn an_error_inside_a_200_is_another_ones_chance() {
    for path in STREAMING {
        let (gateway, bad, _good) = one_fails_at_once(path, "").await;
        for number in 0..CONVERSATIONS {
            let answer = send(gateway.address(), conversation(path, number)).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert!(
                !answer.text().contains("out of memory"),
                "{path}: {}",
                answer.text()
            );
            assert!(answer.events().len() > 3, "{path}: {}", answer.text());
        }
        assert!(bad.requests() >= 1, "{path}: it was never asked");
        let retries = gateway.metric("weir_upstream_retries_total", &[]).await;
        assert!(retries >= 1.0, "{path}");
    }
}

#[tokio::test]
async fn an_error_inside_a_200_comes_through_where_nothing_is_held() {
    for path in STREAMING {
        let (gateway, bad, _good) =
            one_fails_at_once(path, "[streams]\nhold_first_event = false").await;
        let mut told = 0;
        for number in 0..CONVERSATIONS {
            let answer = send(gateway.address(), conversation(path, number)).await;
            told += usize::from(answer.text().contains("out of memory"));
        }
        assert!(
            told >= 1 && told == bad.requests(),
            "{path}: {told} of {}",
            bad.requests()
        );
    }
}

/// What the caller has done wrong is wrong everywhere; what has begun is not begun again.
#[tokio::test]
async fn errors_that_no_other_backend_mends() {
    let (gateway, recorder) = recorded(|config| config).await;
    let callers = "data: {\"error\":{\"message\":\"too long\",\"type\":\"invalid_request_error\",\"code\":\"context_length_exceeded\"}}\n\n";
    let late = failed_at_once("").replace(r#""content":"""#, r#""content":"a""#);
    let once = |row: Row| row.check(|done| same("tries", &done.seen.len(), &1));
    let rows = vec![
        once(
            row("6 the caller's own fault", chat(SHORT))
                .upstream(stream(callers))
                .text("too long"),
        ),
        once(
            row("6 an error after the first word", chat(SHORT))
                .upstream(stream(&late))
                .status(200)
                .text("out of memory"),
        )
        .no_text("[DONE]"),
        once(served("6 a stream that ends well", chat(SHORT))),
    ];
    walk(&gateway, &recorder, rows).await;
}
