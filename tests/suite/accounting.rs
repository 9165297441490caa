//! The books under a crowd: what is admitted, what is charged, and what was really used.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};
use weir_tests::caller::{Caller, next_bytes, post, with_header};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::Gateway;
use weir_tests::upstream::{
    Connection, LAST_CHUNK, STREAM_HEAD, Upstream, answer, chat_event, chunk, delta,
};

use crate::stage::alone;

const REQUESTS: usize = 10_000;
/// Callers connected at once: each costs the gateway two sockets, and this program two more.
const CONNECTED_MAX: usize = 1_000;

/// Budgets of tokens, output tokens and requests, with their spans in seconds. Each window of the
/// tokens is the one that refuses at some time of the test.
const TOKENS: [(u64, u64); 3] = [(1_000_000, 1), (4_000_000, 60), (5_000_000, 3_600)];
const OUTPUT: [(u64, u64); 2] = [(900_000, 1), (40_000_000, 60)];
const CALLS: [(u64, u64); 2] = [(2_000, 1), (200_000, 3_600)];

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Unary,
    /// The backend answers 500.
    Failed,
    Stream,
    /// Without usage.
    Bare,
    /// The backend closes the connection in the middle.
    Cut,
    /// The stream begins with an error.
    Error,
    /// The caller leaves in the middle of a stream.
    Aborted,
    /// The caller leaves before the answer begins.
    Left,
}

const FATES: [(&str, Fate); 8] = [
    ("unary", Fate::Unary),
    ("failed", Fate::Failed),
    ("stream", Fate::Stream),
    ("bare", Fate::Bare),
    ("cut", Fate::Cut),
    ("error", Fate::Error),
    ("aborted", Fate::Aborted),
    ("left", Fate::Left),
];

/// One request. The backend reads its script in the member `user`.
#[derive(Clone, Copy, Debug)]
struct Script {
    fate: Fate,
    /// Tokens the gateway reckons with, which is also what the backend reports: nothing is learned.
    input: u64,
    output_max: u64,
    /// Tokens the backend makes; sometimes more than are allowed.
    output: u64,
}

impl Script {
    fn new(seed: u64) -> (Self, String) {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (_, fate) = FATES[usize::try_from(random.below(8)).unwrap()];
        let output_max = 1 + random.below(1_000);
        let output = random.below(output_max + output_max / 4 + 1);
        let prompt = "p".repeat(usize::try_from(random.below(3_000)).unwrap());
        let stream = !matches!(fate, Fate::Unary | Fate::Failed | Fate::Left);
        let (name, _) = FATES.iter().find(|(_, known)| *known == fate).unwrap();
        // As long as the longest, so that the length does not depend on the numbers.
        let user = format!("{name},{output_max:06},{output:06},{{input:06}}");
        let body = format!(
            r#"{{"model":"demo/sim","stream":{stream},"max_tokens":{output_max},"user":"{user}","messages":[{{"role":"user","content":"{prompt}"}}]}}"#
        );
        let input = (body.len() as u64 - "{input:06}".len() as u64 + 6) / 4;
        let body = body.replace("{input:06}", &format!("{input:06}"));
        let script = Self {
            fate,
            input,
            output_max,
            output,
        };
        (script, body)
    }

    fn read(body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap();
        let parts: Vec<&str> = body["user"].as_str().unwrap().split(',').collect();
        let (_, fate) = FATES.iter().find(|(name, _)| *name == parts[0]).unwrap();
        Self {
            fate: *fate,
            output_max: parts[1].parse().unwrap(),
            output: parts[2].parse().unwrap(),
            input: parts[3].parse().unwrap(),
        }
    }

    fn reserved(&self) -> Charge {
        Charge {
            tokens: self.input + self.output_max,
            output: self.output_max,
            calls: 1,
        }
    }

    /// What the gateway charges for it at the least.
    fn settled_min(&self) -> Charge {
        let (input, output, calls) = match self.fate {
            Fate::Unary | Fate::Stream => (self.input, self.output, 1),
            Fate::Failed | Fate::Error => (0, 0, 0),
            Fate::Bare | Fate::Cut | Fate::Aborted | Fate::Left => (self.input, 0, 1),
        };
        Charge {
            tokens: input + output,
            output,
            calls,
        }
    }

    /// The backend's side of it.
    async fn play(&self, connection: &mut Connection) -> bool {
        // Eight characters are two tokens.
        let deltas = || (0..self.output / 2).map(|_| delta("12345678"));
        let events = |more: &str| {
            let mut text: String = deltas().collect();
            text.push_str(more);
            let head = STREAM_HEAD.as_bytes();
            [head, &chunk(text)].concat()
        };
        let usage = format!(
            r#""usage":{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{}}}"#,
            self.input,
            self.output,
            self.input + self.output
        );
        let finish = chat_event(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#, "");
        let done = "data: [DONE]\n\n";
        match self.fate {
            Fate::Unary => {
                let body = format!(
                    r#"{{"id":"c","object":"chat.completion","created":1,"model":"sim","choices":[{{"index":0,"message":{{"role":"assistant","content":"ok"}},"finish_reason":"stop"}}],{usage}}}"#
                );
                let whole = answer("200 OK", "application/json", &body);
                connection.send(whole).await;
            }
            Fate::Failed => {
                let body = r#"{"error":{"message":"no","type":"server_error"}}"#;
                let whole = answer("500 Error", "application/json", body);
                connection.send(whole).await;
            }
            Fate::Stream => {
                let last = chat_event("", &format!(",{usage}"));
                connection
                    .send(events(&format!("{finish}{last}{done}")))
                    .await;
                connection.send(LAST_CHUNK).await;
            }
            Fate::Bare => {
                connection.send(events(&format!("{finish}{done}"))).await;
                connection.send(LAST_CHUNK).await;
            }
            Fate::Cut => {
                connection.send(events(&delta("last"))).await;
                return false;
            }
            Fate::Error => {
                let event = "data: {\"error\":{\"message\":\"no\",\"type\":\"server_error\"}}\n\n";
                let head = STREAM_HEAD.as_bytes();
                connection.send([head, &chunk(event)].concat()).await;
                connection.send(LAST_CHUNK).await;
            }
            Fate::Aborted => {
                connection.send(events(&delta("last"))).await;
                connection.closed().await;
                return false;
            }
            Fate::Left => {
                connection.closed().await;
                return false;
            }
        }
        true
    }

    /// The caller's side of it; the status, or 0 for one who left before there was one.
    async fn ask(&self, gateway: std::net::SocketAddr, number: usize, body: String) -> u16 {
        let request = post("/v1/chat/completions", body);
        let request = with_header(request, "x-request-id", Some(&format!("r{number}")));
        let mut caller = Caller::http1(gateway).await.unwrap();
        match self.fate {
            Fate::Left => {
                let patience = sleep(Duration::from_millis(300));
                tokio::select! {
                    answer = caller.open(request) => answer.unwrap().status().as_u16(),
                    () = patience => 0,
                }
            }
            Fate::Aborted => {
                let mut answer = caller.open(request).await.unwrap();
                if answer.status() == 200 {
                    assert!(next_bytes(&mut answer).await.unwrap().is_some());
                }
                answer.status().as_u16()
            }
            _ => caller.ask(request).await.unwrap().status,
        }
    }
}

/// What a request takes of each budget.
#[derive(Clone, Copy, Debug, Default)]
struct Charge {
    tokens: u64,
    output: u64,
    calls: u64,
}

impl Charge {
    fn least(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.min(other.tokens),
            output: self.output.min(other.output),
            calls: self.calls.min(other.calls),
        }
    }
}

/// What the gateway must have charged so far, as the backend sees it: reservations of those under
/// way, and of the others the least of reservation and use, for the gateway may not know it yet.
struct Books {
    began: Instant,
    charged: Mutex<Charge>,
    overruns: Mutex<Vec<String>>,
    admitted: AtomicU64,
}

impl Books {
    fn admit(&self, script: &Script) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
        let charge = script.reserved();
        let charged = {
            let mut charged = self.charged.lock().unwrap();
            charged.tokens += charge.tokens;
            charged.output += charge.output;
            charged.calls += charge.calls;
            *charged
        };
        // Read last: a budget only grows with time.
        let elapsed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap() + 1;
        self.check("tokens", charged.tokens, &TOKENS, elapsed_ms);
        self.check("output tokens", charged.output, &OUTPUT, elapsed_ms);
        self.check("requests", charged.calls, &CALLS, elapsed_ms);
    }

    fn check(&self, what: &str, charged: u64, windows: &[(u64, u64)], elapsed_ms: u64) {
        for (budget, seconds) in windows {
            let room = budget + budget * elapsed_ms / (seconds * 1_000);
            if charged > room {
                let text = format!(
                    "{charged} {what} admitted of {room} after {elapsed_ms} ms, of {budget} in {seconds} s"
                );
                self.overruns.lock().unwrap().push(text);
            }
        }
    }

    fn end(&self, script: &Script) {
        let reserved = script.reserved();
        let kept = reserved.least(script.settled_min());
        let mut charged = self.charged.lock().unwrap();
        charged.tokens -= reserved.tokens - kept.tokens;
        charged.output -= reserved.output - kept.output;
        charged.calls -= reserved.calls - kept.calls;
    }
}

async fn backend(books: Arc<Books>) -> Upstream {
    Upstream::scripted(move |mut connection: Connection| {
        let books = Arc::clone(&books);
        async move {
            while let Ok(request) = connection.request().await {
                let script = Script::read(&request.body);
                books.admit(&script);
                let goes_on = script.play(&mut connection).await;
                books.end(&script);
                if !goes_on {
                    return;
                }
            }
        }
    })
    .await
}

fn limit(windows: &[(u64, u64)]) -> String {
    let letter = |seconds| match seconds {
        1 => 'S',
        60 => 'M',
        _ => 'H',
    };
    let parts: Vec<_> = windows
        .iter()
        .map(|(budget, seconds)| format!("{budget}-{}", letter(*seconds)))
        .collect();
    parts.join(",")
}

/// Input and output tokens and whether they were reported, as the access log has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Logged {
    status: u64,
    input: u64,
    output: u64,
    reported: bool,
}

fn access_log(log: &str) -> BTreeMap<String, Logged> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["target"] == "weir::access")
        .map(|line| {
            let number = |name: &str| line[name].as_u64().unwrap();
            let logged = Logged {
                status: number("status"),
                input: number("input_tokens"),
                output: number("output_tokens"),
                reported: line["usage_reported"].as_bool().unwrap(),
            };
            (line["request_id"].as_str().unwrap().to_owned(), logged)
        })
        .collect()
}

/// Whether a request was charged as the rules say.
fn is_right(script: &Script, status: u16, logged: &Logged) -> bool {
    let Script { input, output, .. } = *script;
    let made = output / 2 * 2;
    let charged = (logged.input, logged.output, logged.reported);
    match (script.fate, status) {
        (_, 429) | (Fate::Failed, 500) | (Fate::Error, _) => charged == (0, 0, false),
        (Fate::Unary | Fate::Stream, 200) => charged == (input, output, true),
        (Fate::Bare, 200) => charged == (input, made, false),
        (Fate::Cut, 200) => charged == (input, made + 1, false),
        (Fate::Aborted, 200) => {
            logged.input == input && (1..=made + 1).contains(&logged.output) && !logged.reported
        }
        // Who leaves may do so before the backend was asked, or even before the request was read.
        (Fate::Left, 0) => charged == (input, 0, false) || charged == (0, 0, false),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_are_charged_what_they_used() {
    let _alone = alone().await;
    let books = Arc::new(Books {
        began: Instant::now(),
        charged: Mutex::default(),
        overruns: Mutex::default(),
        admitted: AtomicU64::new(0),
    });
    let upstream = backend(Arc::clone(&books)).await;
    let limits = format!(
        "token_rate_limit = \"{}\"\noutput_token_rate_limit = \"{}\"\nrequest_rate_limit = \"{}\"",
        limit(&TOKENS),
        limit(&OUTPUT),
        limit(&CALLS)
    );
    let config = ConfigText::new(&[upstream.address()])
        .model(&limits)
        .more("[log]\nformat = \"json\"\n[clusters.sim.ejection]\nconsecutive_failures = 0");
    let gateway = Gateway::start(&config.text()).await;

    let places = Arc::new(Semaphore::new(CONNECTED_MAX));
    let mut crowd = JoinSet::new();
    for number in 0..REQUESTS {
        let (address, places) = (gateway.address(), Arc::clone(&places));
        crowd.spawn(async move {
            let (script, body) = Script::new(number as u64);
            let _place = places.acquire().await.unwrap();
            let status = script.ask(address, number, body).await;
            (number, script, status)
        });
    }
    let asked = crowd.join_all().await;

    let sum = async |name: &str, limiter: &str| {
        let label = format!("limiter=\"token-limit/{limiter}\"");
        gateway.metric(name, &[&label]).await as u64
    };
    gateway
        .wait_for("every reservation to be settled", async |gateway| {
            let open = gateway.metric("weir_limit_open_reservations", &[]).await;
            let active = gateway.metric("weir_requests_active", &[]).await;
            open == 0.0 && active == 0.0
        })
        .await;
    gateway
        .wait_for("the log of all", async |gateway| {
            gateway.log().matches("\"weir::access\"").count() == REQUESTS
        })
        .await;
    let log = access_log(&gateway.log());
    assert_eq!(log.len(), REQUESTS, "each request is logged once");
    let mut outcomes: BTreeMap<(Fate, u16), u64> = BTreeMap::new();
    let (mut input, mut output) = (0, 0);
    for (number, script, status) in asked {
        *outcomes.entry((script.fate, status)).or_default() += 1;
        let logged = log[&format!("r{number}")];
        assert!(
            is_right(&script, status, &logged),
            "r{number}: {status} {script:?} {logged:?}"
        );
        input += logged.input;
        output += logged.output;
    }
    let overruns = books.overruns.lock().unwrap().clone();
    assert!(
        overruns.is_empty(),
        "{}: {:?}",
        overruns.len(),
        overruns.first()
    );
    let settled = "weir_limit_settled_total";
    assert_eq!(sum(settled, "total_tokens").await, input + output);
    assert_eq!(sum(settled, "output_tokens").await, output);
    for way in [("input", input), ("output", output)] {
        let label = format!("direction=\"{}\"", way.0);
        let counted = gateway.metric("weir_tokens_total", &[&label]).await;
        assert_eq!(counted as u64, way.1, "{label}");
    }
    let abandoned = gateway.metric("weir_limit_abandoned_total", &[]).await;
    assert_eq!(abandoned, 0.0);
    for (_, fate) in FATES {
        let with = |refused: bool| {
            let of = outcomes
                .iter()
                .filter(|((known, status), _)| *known == fate && (*status == 429) == refused);
            of.map(|(_, count)| count).sum::<u64>()
        };
        // Those who leave do not wait for a refusal.
        let enough = with(false) > 100 && (fate == Fate::Left || with(true) > 100);
        assert!(enough, "{fate:?}: {outcomes:?}");
    }
    assert!(
        books.admitted.load(Ordering::Relaxed) > 1_000,
        "{outcomes:?}"
    );
}

/// Numbers that are the same each time (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
