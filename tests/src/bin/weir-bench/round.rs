//! One load on each contestant, and what it came to.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use weir_tests::load::{self, Plan, Stop};

use crate::contestant::{Contestant, KEY, NAMES};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An 85-byte chat request with a short answer.
    Unary,
    /// The same answered with [`STREAM_TOKENS`] events.
    Stream,
    /// The first from one caller alone: how long it takes when nobody waits for a processor.
    Lone,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Unary, Self::Stream, Self::Lone];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Stream => "sse",
            Self::Lone => "lone",
        }
    }
}

/// All contestants under the same load, one after the other.
pub(crate) struct Round {
    pub(crate) kind: Kind,
    /// In the order of [`NAMES`], in whatever order they were measured.
    pub(crate) samples: [Sample; NAMES.len()],
}

impl Round {
    /// Begins with another contestant in every round: nobody always follows the same one.
    ///
    /// # Errors
    /// When a request failed, or a contestant ended.
    pub(crate) async fn run(
        contestants: &[Contestant],
        kind: Kind,
        number: usize,
        length: Duration,
    ) -> io::Result<Self> {
        let mut samples = [Sample::default(); NAMES.len()];
        let mut turns: Vec<_> = contestants.iter().zip(&mut samples).collect();
        turns.rotate_left(number % NAMES.len());
        for (contestant, sample) in turns {
            *sample = measure(contestant, kind, length).await?;
        }
        Ok(Self { kind, samples })
    }
}

/// One load on one contestant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) requests_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU time of the proxy, user and system, and of the agent where there is one.
    pub(crate) cpu_us_per_request: f64,
    /// Events per second of the proxy's CPU time; 0 without streams.
    pub(crate) events_per_cpu_second: f64,
    /// Share of one processor the proxy used: below 1 something else was the bottleneck.
    pub(crate) cpu_share: f64,
}

/// Puts load on `contestant` for `length`.
///
/// # Errors
/// As [`Round::run`].
pub(crate) async fn measure(
    contestant: &Contestant,
    kind: Kind,
    length: Duration,
) -> io::Result<Sample> {
    let stream = kind == Kind::Stream;
    let extra = match kind {
        Kind::Unary | Kind::Lone => UNARY_EXTRA.to_owned(),
        Kind::Stream => format!(r#""metadata":{{"sim_tokens":"{STREAM_TOKENS}"}}"#),
    };
    let plan = Plan {
        addr: contestant.address,
        connections: if kind == Kind::Lone { 1 } else { CONNECTIONS },
        requests: Stop::Duration(length),
        head_and_body: load::chat_request(contestant.address, KEY, MODEL, stream, &extra),
        stream,
    };
    let cpu_before = contestant.cpu_us()?;
    let report = load::run(plan).await;
    let cpu_us = (contestant.cpu_us()? - cpu_before) as f64;
    let done = report.requests - report.failed;
    if report.failed > 0 || done == 0 || (stream && report.done != done) {
        return Err(io::Error::other(format!(
            "{}: {} of {} requests failed, {} streams were complete: {:?}",
            contestant.name, report.failed, report.requests, report.done, report.failures
        )));
    }
    Ok(Sample {
        requests_per_second: report.rate(),
        p50_us: report.p50() as f64,
        p99_us: report.p99() as f64,
        cpu_us_per_request: cpu_us / done as f64,
        events_per_cpu_second: report.events as f64 * 1e6 / cpu_us.max(1.0),
        cpu_share: cpu_us / 1e6 / report.seconds.max(f64::MIN_POSITIVE),
    })
}

/// Whether a request is answered.
pub(crate) async fn serves(address: SocketAddr) -> bool {
    let plan = Plan {
        addr: address,
        connections: 1,
        requests: Stop::Count(1),
        head_and_body: load::chat_request(address, KEY, MODEL, false, UNARY_EXTRA),
        stream: false,
    };
    load::run(plan).await.failed == 0
}

const CONNECTIONS: usize = 16;
const MODEL: &str = "demo/sim";
/// Makes the body 85 bytes long.
const UNARY_EXTRA: &str = r#""n":1"#;
const STREAM_TOKENS: u32 = 200;
