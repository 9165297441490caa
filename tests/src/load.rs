//! A load client for HTTP/1.1 that costs little beside what it measures.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::load_answer::{Answer, Reader};

/// A load: the same request, again and again, over keep-alive connections.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to connect.
    pub addr: SocketAddr,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// When to stop.
    pub requests: Stop,
    /// The request in wire form, see [`chat_request`].
    pub head_and_body: Vec<u8>,
    /// Whether answers are event streams, whose events and `[DONE]` are counted.
    pub stream: bool,
}

/// When a load ends. Requests under way are always finished.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stop {
    /// After this many requests over all connections.
    Count(u64),
    /// No new request after this time.
    Duration(Duration),
}

/// What a load saw.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests that ended, well or not.
    pub requests: u64,
    /// Requests without a complete answer of status 2xx.
    pub failed: u64,
    /// What happened to the first 20 failed requests.
    pub failures: Vec<String>,
    /// Complete answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Events of complete answers, with `stream` only.
    pub events: u64,
    /// Streams that ended with `data: [DONE]`.
    pub done: u64,
    /// Requests sent again on a new connection, because a kept one turned out closed before the
    /// first byte of the answer. Every HTTP client does so; it is no failure.
    pub resent: u64,
    /// Time the whole load took.
    pub seconds: f64,
    /// Microseconds from first byte written to last byte read of the requests that did not fail,
    /// ascending.
    pub latency_us: Vec<u64>,
}

impl Report {
    /// Median latency in microseconds; 0 without any request.
    pub fn p50(&self) -> u64 {
        self.percentile(50)
    }

    /// Latency in microseconds that 99 of 100 requests do not exceed; 0 without any request.
    pub fn p99(&self) -> u64 {
        self.percentile(99)
    }

    /// Requests per second that did not fail.
    pub fn rate(&self) -> f64 {
        (self.requests - self.failed) as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Nearest rank.
    fn percentile(&self, percent: usize) -> u64 {
        let rank = (self.latency_us.len() * percent).div_ceil(100);
        self.latency_us
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(0)
    }

    fn fail(&mut self, reason: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(reason);
        }
    }

    fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.events += other.events;
        self.done += other.done;
        self.resent += other.resent;
        self.failures.extend(other.failures);
        self.failures.truncate(FAILURES_MAX);
        self.latency_us.extend(other.latency_us);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
    }
}

/// Runs the load on the current runtime. Dropping the future ends it.
pub async fn run(plan: Plan) -> Report {
    let begun = Instant::now();
    let stop = Arc::new(Stopper::new(plan.requests, begun));
    let connections = plan.connections;
    let plan = Arc::new(plan);
    let mut callers = JoinSet::new();
    for _ in 0..connections {
        callers.spawn(Caller::new(&plan).run(Arc::clone(&stop)));
    }
    let mut report = Report::default();
    while let Some(ended) = callers.join_next().await {
        match ended {
            Ok(part) => report.merge(part),
            Err(error) => report.fail(format!("load client: {error}")),
        }
    }
    report.seconds = begun.elapsed().as_secs_f64();
    report.latency_us.sort_unstable();
    report
}

/// A chat completion request for [`Plan::head_and_body`]. `extra_json` is more members of the
/// body, such as `"max_tokens":4,"seed":1`, or empty.
pub fn chat_request(
    addr: SocketAddr,
    key: &str,
    model: &str,
    stream: bool,
    extra_json: &str,
) -> Vec<u8> {
    let comma = if extra_json.is_empty() { "" } else { "," };
    let body = format!(
        r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}],"stream":{stream}{comma}{extra_json}}}"#
    );
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Hands out the right to send one more request.
struct Stopper {
    sent: AtomicU64,
    requests_max: u64,
    deadline: Option<Instant>,
}

impl Stopper {
    fn new(stop: Stop, begun: Instant) -> Self {
        let (requests_max, deadline) = match stop {
            Stop::Count(count) => (count, None),
            Stop::Duration(duration) => (u64::MAX, begun.checked_add(duration)),
        };
        Self {
            sent: AtomicU64::new(0),
            requests_max,
            deadline,
        }
    }

    fn one_more(&self) -> bool {
        match self.deadline {
            Some(deadline) => Instant::now() < deadline,
            None => self.sent.fetch_add(1, Ordering::Relaxed) < self.requests_max,
        }
    }
}

/// One connection and what it has seen.
struct Caller {
    plan: Arc<Plan>,
    stream: Option<TcpStream>,
    reader: Reader,
    report: Report,
}

impl Caller {
    fn new(plan: &Arc<Plan>) -> Self {
        let reader = Reader::new(plan.stream);
        Self {
            plan: Arc::clone(plan),
            stream: None,
            reader,
            report: Report::default(),
        }
    }

    async fn run(mut self, stop: Arc<Stopper>) -> Report {
        while stop.one_more() {
            let begun = Instant::now();
            let outcome = match tokio::time::timeout(REQUEST_TIMEOUT, self.request()).await {
                Ok(outcome) => outcome,
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no complete answer in time",
                )),
            };
            self.report.requests += 1;
            match outcome {
                Ok(answer) => self.count(answer, begun),
                Err(error) => {
                    self.stream = None;
                    self.report.fail(error.to_string());
                    if error.kind() == io::ErrorKind::ConnectionRefused {
                        // A refused connection costs nothing, so a dead server would be flooded.
                        tokio::time::sleep(REFUSED_PAUSE).await;
                    }
                }
            }
        }
        self.report
    }

    fn count(&mut self, answer: Answer, begun: Instant) {
        *self.report.statuses.entry(answer.status).or_default() += 1;
        self.report.events += answer.events;
        self.report.done += u64::from(answer.done);
        if answer.closes {
            self.stream = None;
        }
        if (200..300).contains(&answer.status) {
            let taken = begun.elapsed().as_micros();
            self.report
                .latency_us
                .push(u64::try_from(taken).unwrap_or(u64::MAX));
        } else {
            self.report.fail(format!(
                "status {}: {}",
                answer.status,
                self.reader.body_start()
            ));
        }
    }

    async fn request(&mut self) -> io::Result<Answer> {
        if let Some(stream) = &mut self.stream {
            match exchange(stream, &self.plan.head_and_body, &mut self.reader).await {
                Err(error) if self.reader.is_untouched() && is_closed(&error) => {
                    self.report.resent += 1
                }
                outcome => return outcome,
            }
        }
        let stream = TcpStream::connect(self.plan.addr).await?;
        stream.set_nodelay(true)?;
        let stream = self.stream.insert(stream);
        exchange(stream, &self.plan.head_and_body, &mut self.reader).await
    }
}

async fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    reader: &mut Reader,
) -> io::Result<Answer> {
    reader.reset();
    stream.write_all(request).await?;
    reader.read(stream).await
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

const FAILURES_MAX: usize = 20;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const REFUSED_PAUSE: Duration = Duration::from_millis(10);
