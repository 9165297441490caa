//! One run: a scenario with one seed, all contestants side by side under the same requests at the
//! same time, so that what else the machine does falls on all of them alike.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Client, Prepared};
use crate::contestants::Contestant;
use crate::cpu::{Mark, Shares};
use crate::figures::at;
use crate::fleet::Fleet;
use crate::gateway::Gateway;
use crate::oracle::Best;
use crate::outcome::{Frame, Outcome, Reply};
use crate::scenario::{Event, Scenario};
use crate::schedule::Arrival;

/// What a run came to.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) best: Best,
    pub(crate) cpu: Shares,
    /// How much later than due the callers sent, 99th percentile, real milliseconds.
    pub(crate) late_ms: f64,
    /// In the order of the contestants.
    pub(crate) outcomes: Vec<Outcome>,
}

/// How long and how fast runs are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tempo {
    /// Real length of the arrivals.
    pub(crate) real: Duration,
    /// Simulated seconds per second.
    pub(crate) time_scale: f64,
}

/// A contestant with its own model servers.
struct Side {
    fleet: Fleet,
    gateway: Gateway,
    client: Arc<Client>,
}

impl Tempo {
    /// Simulated length.
    pub(crate) fn length(self) -> Duration {
        self.real.mul_f64(self.time_scale)
    }
}

impl Run {
    /// # Errors
    /// When a gateway does not start or ends, or a model server does not answer.
    pub(crate) async fn perform(
        scenario: &Scenario,
        contestants: &[Contestant],
        seed: u64,
        tempo: Tempo,
    ) -> io::Result<Self> {
        let arrivals = scenario.arrivals(seed, tempo.length());
        let mut sides = Vec::new();
        for contestant in contestants {
            sides.push(Side::start(scenario, *contestant, seed, tempo).await?);
        }
        let gateways: Vec<u32> = sides.iter().map(|side| side.gateway.process.id()).collect();
        let before = Mark::now(&gateways)?;
        let begin = Instant::now() + LEAD;
        let clients: Vec<_> = sides.iter().map(|side| Arc::clone(&side.client)).collect();
        let (sent, happened) = tokio::join!(
            send_all(&arrivals, &clients, begin, tempo),
            happen(&scenario.events, &mut sides, begin, tempo.real)
        );
        happened?;
        // What comes after the last arrival is waiting, which would make the shares look better.
        let cpu =
            Mark::now(&gateways)?.since(before, (Instant::now() - begin + LEAD).as_secs_f64());
        let (replies, late_ms) = (sent.calls.gather(clients.len()).await, sent.late_ms);
        let mut outcomes = Vec::new();
        for (side, replies) in sides.iter().zip(replies) {
            let frame = Frame {
                arrivals: &arrivals,
                machines: &scenario.machines,
                events: &scenario.events,
                length: tempo.length(),
                time_scale: tempo.time_scale,
            };
            outcomes.push(Outcome::of(frame, &replies, &side.fleet.work().await?));
        }
        Ok(Self {
            seed,
            best: Best::of(&arrivals),
            cpu,
            late_ms,
            outcomes,
        })
    }
}

impl Side {
    async fn start(
        scenario: &Scenario,
        contestant: Contestant,
        seed: u64,
        tempo: Tempo,
    ) -> io::Result<Self> {
        let machines = &scenario.machines;
        let fleet = Fleet::start(machines, seed, tempo.time_scale).await?;
        let gateway =
            Gateway::start(contestant, machines, fleet.addresses(), tempo.time_scale).await?;
        let client = Arc::new(Client::new(gateway.address));
        Ok(Self {
            fleet,
            gateway,
            client,
        })
    }
}

/// Requests under way: contestant and reply.
struct Calls(JoinSet<(usize, Reply)>);

struct Sent {
    calls: Calls,
    late_ms: f64,
}

/// Sends every request to everybody when it is due, answered or not.
async fn send_all(
    arrivals: &[Arrival],
    clients: &[Arc<Client>],
    begin: Instant,
    tempo: Tempo,
) -> Sent {
    let deadline = CALL_SIMULATED_MAX.div_f64(tempo.time_scale);
    let mut calls = JoinSet::new();
    let mut late_ms = Vec::with_capacity(arrivals.len());
    for (place, arrival) in arrivals.iter().enumerate() {
        let prepared = Prepared::new(arrival, place);
        let due = begin + arrival.at.div_f64(tempo.time_scale);
        tokio::time::sleep_until(due).await;
        late_ms.push(due.elapsed().as_secs_f64() * 1e3);
        // Nobody is always the first to be sent to.
        let mut order: Vec<_> = clients.iter().enumerate().collect();
        order.rotate_left(place % clients.len().max(1));
        for (contestant, client) in order {
            let (client, prepared) = (Arc::clone(client), prepared.clone());
            calls.spawn(async move {
                let answer = client.call(prepared, due, deadline).await;
                (
                    contestant,
                    (place, answer.map_err(|error| error.to_string())),
                )
            });
        }
    }
    tokio::time::sleep_until(begin + tempo.real).await;
    late_ms.sort_unstable_by(f64::total_cmp);
    Sent {
        calls: Calls(calls),
        late_ms: at(&late_ms, 0.99),
    }
}

impl Calls {
    /// All replies by contestant; each call has a deadline, so this ends.
    async fn gather(mut self, contestants: usize) -> Vec<Vec<Reply>> {
        let mut replies: Vec<Vec<Reply>> = (0..contestants).map(|_| Vec::new()).collect();
        while let Some(joined) = self.0.join_next().await {
            if let Ok((contestant, reply)) = joined
                && let Some(list) = replies.get_mut(contestant)
            {
                list.push(reply);
            }
        }
        replies
    }
}

/// Lets the events happen to everybody's machines.
async fn happen(
    events: &[(f64, Event)],
    sides: &mut [Side],
    begin: Instant,
    real: Duration,
) -> io::Result<()> {
    for (share, event) in events {
        tokio::time::sleep_until(begin + real.mul_f64(*share)).await;
        for side in sides.iter_mut() {
            match *event {
                Event::Slow(place, factor) => side.fleet.slow_down(place, factor).await?,
                Event::Leave(place) => side.gateway.set_present(place, false)?,
                Event::Join(place) => side.gateway.set_present(place, true)?,
            }
        }
    }
    Ok(())
}

/// Between the start of everything and the first request.
const LEAD: Duration = Duration::from_millis(200);
/// How long a caller waits for the end of an answer.
const CALL_SIMULATED_MAX: Duration = Duration::from_secs(90);
