//! What the methods do to a fleet over many requests.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::VecDeque;
use std::process::Command;

use weir_sdk::candidates::Figure;
use weir_sdk::testing::{self, Exchange, backend, load};
use weir_sdk::{Choice, Route};

use crate::RoutingMethod;

fn method(config: &str) -> RoutingMethod {
    testing::filter(config).unwrap_or_else(|errors| panic!("{config}: {errors:?}"))
}

fn fleet(count: u32) -> Exchange {
    let candidates = (0..count).map(|at| (backend(&format!("cluster-{at}"), 1), load(0)));
    Exchange::new().model("demo", "sim").candidates(candidates)
}

fn choose(filter: &RoutingMethod, exchange: &mut Exchange, key: &str) -> usize {
    exchange.set_affinity_key(Some(key));
    let (view, routing) = (exchange.view(), exchange.routing(1));
    match exchange.run(|| filter.route(view, routing)) {
        Choice::Pick(position) => position as usize,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_hot_key_stays_within_the_bound() {
    let filter = method(r#"{"default":"pulsar","pulsar":{"assumed_slots":0}}"#);
    let count = 16_u32;
    let mut exchange = fleet(count);
    let mut running = vec![0_u32; count as usize];
    for arrived in 1..=2_000_u32 {
        let at = choose(&filter, &mut exchange, "hot");
        running[at] += 1;
        exchange.set_figure(at as u32, Figure::Running, f64::from(running[at]));
        let bound = (1.25 * f64::from(arrived) / f64::from(count)).ceil();
        let most = f64::from(*running.iter().max().unwrap());
        assert!(most <= bound, "{arrived}: {running:?}");
    }
    let mean = 2_000.0 / f64::from(count);
    assert!(f64::from(*running.iter().max().unwrap()) / mean <= 1.25 + 1.0 / mean);
}

/// A model server that works prompts through one after the other.
#[derive(Default, Clone)]
struct Server {
    /// When each ends, and its tokens.
    queue: VecDeque<(f64, u32)>,
    free_at: f64,
}

impl Server {
    fn advance(&mut self, now: f64) {
        while self.queue.front().is_some_and(|(end, _)| *end <= now) {
            self.queue.pop_front();
        }
    }

    /// Seconds to the first token of a prompt.
    fn take(&mut self, now: f64, tokens: u32) -> f64 {
        let end = self.free_at.max(now) + f64::from(tokens) / RATE;
        self.free_at = end;
        self.queue.push_back((end, tokens));
        end - now
    }

    fn queued_tokens(&self, now: f64) -> f64 {
        (self.free_at - now).max(0.0) * RATE
    }
}

/// The 99th percentile of short requests' time to the first token, while a tenant sends bursts
/// of long prompts that belong together.
fn short_p99(config: &str) -> f64 {
    let filter = method(config);
    let mut servers = vec![Server::default(); 8];
    let mut exchange = fleet(8);
    for at in 0..8 {
        exchange.set_figure(at, Figure::InputTps, RATE);
    }
    let mut state = 11_u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as f64 / f64::from(1_u32 << 31)
    };
    let (mut now, mut next_burst) = (0.0, 1.0);
    let mut short = Vec::new();
    while short.len() < 4_000 {
        now += -random().max(1e-9).ln() / 60.0;
        let mut arrivals = vec![(200_u32, format!("session-{}", (random() * 500.0) as u32))];
        if now >= next_burst {
            next_burst += 4.0;
            arrivals.extend((0..8).map(|_| (16_000, "batch".to_owned())));
        }
        for (tokens, key) in arrivals {
            for (at, server) in (0..).zip(&mut servers) {
                server.advance(now);
                exchange.set_figure(at, Figure::Running, server.queue.len() as f64);
                exchange.set_figure(at, Figure::QueuedInputTokens, server.queued_tokens(now));
            }
            exchange = exchange.tokens(tokens, 0);
            let at = choose(&filter, &mut exchange, &key);
            let ttft = servers[at].take(now, tokens);
            if tokens < 1_000 {
                short.push(ttft);
            }
        }
    }
    short.sort_by(f64::total_cmp);
    short[short.len() * 99 / 100]
}

#[test]
fn short_requests_do_not_suffer_from_a_bursty_tenant() {
    let drawn = short_p99(
        r#"{"default":"power_of_two","sticky":false,"power_of_two":{"comparator":"ttft"}}"#,
    );
    let pulsar = short_p99(r#"{"default":"pulsar","pulsar":{"ttft_penalty_ms":100}}"#);
    let widened = short_p99(r#"{"default":"groq_multiregion"}"#);
    let compat = short_p99(r#"{"default":"pulsar","pulsar":{"compat":true}}"#);
    let found = format!("p2c {drawn:.3} pulsar {pulsar:.3} groq {widened:.3} compat {compat:.3}");
    assert!(pulsar <= drawn, "{found}");
    assert!(widened <= drawn, "{found}");
    assert!(pulsar < compat, "{found}");
}

#[test]
fn two_processes_rank_alike() {
    const CHILD: &str = "WEIR_TEST_RANKING";
    if std::env::var_os(CHILD).is_some() {
        for config in [
            r#"{"default":"pulsar","seed":"s"}"#,
            r#"{"default":"groq_multiregion","groq_multiregion":{"cache_affinity_backend_selection_count":1}}"#,
        ] {
            let filter = method(config);
            let mut exchange = fleet(32);
            let picks: Vec<usize> = (0..500)
                .map(|key| choose(&filter, &mut exchange, &format!("key-{key}")))
                .collect();
            println!("ranking {picks:?}");
        }
        return;
    }
    let rankings = || {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "fleet_tests::two_processes_rank_alike",
            "--nocapture",
        ]);
        let output = child.env(CHILD, "1").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let found = text.lines().filter_map(|line| line.split_once("ranking "));
        found
            .map(|(_, ranking)| ranking.to_owned())
            .collect::<Vec<_>>()
    };
    let first = rankings();
    assert_eq!(first.len(), 2, "{first:?}");
    assert_eq!(first, rankings());
}

/// Input tokens a second of each server.
const RATE: f64 = 8_000.0;
