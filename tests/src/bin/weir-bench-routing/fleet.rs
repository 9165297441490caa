//! The simulated model servers behind one gateway.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::task::JoinSet;
use weir_simulator::{Hardware, Settings, Simulator};

use crate::fetch::{get, post};

/// One model server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) prefill_tokens_per_second: f64,
    pub(crate) kv_tokens: u64,
    pub(crate) slots: u32,
    /// Its share in the gateway's config.
    pub(crate) weight: u32,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            prefill_tokens_per_second: 4000.0,
            kv_tokens: 200_000,
            slots: 32,
            weight: 1,
        }
    }
}

/// Running model servers with nothing in their caches; they end when it is dropped.
pub(crate) struct Fleet {
    addresses: Vec<SocketAddr>,
    _serving: JoinSet<()>,
}

/// What one model server has worked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    pub(crate) prompt_tokens: f64,
    pub(crate) cached_tokens: f64,
}

impl Fleet {
    /// Starts them; simulated time passes `time_scale` times faster. Seeds are equal for equal
    /// fleets.
    ///
    /// # Errors
    /// When no address can be bound.
    pub(crate) async fn start(
        machines: &[Machine],
        seed: u64,
        time_scale: f64,
    ) -> io::Result<Self> {
        let mut addresses = Vec::new();
        let mut serving = JoinSet::new();
        for (place, machine) in machines.iter().enumerate() {
            let settings = Settings {
                seed: seed.wrapping_mul(1000).wrapping_add(place as u64),
                ttft_ms: TTFT_MS,
                jitter: JITTER,
                tokens_per_second: EVENTS_PER_SECOND,
                slots: machine.slots,
                kv_tokens: machine.kv_tokens,
                output_tokens: OUTPUT_EVENTS_MAX,
                ..Settings::default()
            };
            let hardware = Hardware {
                name: place.to_string(),
                prefill_tokens_per_second: machine.prefill_tokens_per_second,
                decode_batch: DECODE_BATCH,
                time_scale,
                ..Hardware::default()
            };
            let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let simulator = Simulator::bind(free, settings).await?;
            addresses.push(simulator.local_addr());
            let simulator = simulator.with_hardware(hardware);
            serving.spawn(simulator.serve(std::future::pending()));
        }
        Ok(Self {
            addresses,
            _serving: serving,
        })
    }

    /// Where they are.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Makes one so many times slower than its rates say.
    ///
    /// # Errors
    /// When it does not take it.
    pub(crate) async fn slow_down(&self, place: usize, factor: f64) -> io::Result<()> {
        let address = self.addresses.get(place);
        let address = address.ok_or_else(|| io::Error::other("no such model server"))?;
        let body = format!(r#"{{"factor":{factor:?}}}"#);
        post(*address, "/sim/slowdown", body).await.map(|_body| ())
    }

    /// What each has worked so far, by its metrics.
    ///
    /// # Errors
    /// When one does not tell.
    pub(crate) async fn work(&self) -> io::Result<Vec<Work>> {
        let mut work = Vec::new();
        for address in &self.addresses {
            let text = get(*address, "/metrics").await?;
            work.push(Work {
                prompt_tokens: figure(&text, "vllm:prompt_tokens_total")?,
                cached_tokens: figure(&text, "vllm:prefix_cache_hits_total")?,
            });
        }
        Ok(work)
    }
}

impl Work {
    /// Tokens it had to compute.
    pub(crate) fn computed(self) -> f64 {
        self.prompt_tokens - self.cached_tokens
    }
}

/// The value of a metric that has one series.
fn figure(text: &str, name: &str) -> io::Result<f64> {
    let line = text
        .lines()
        .find(|line| line.starts_with(name) && line.get(name.len()..=name.len()) == Some("{"));
    let value = line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
    value.ok_or_else(|| io::Error::other(format!("the simulator's metrics have no {name}")))
}

/// Beside the work on the prompt.
const TTFT_MS: u64 = 30;
const JITTER: f64 = 0.1;
/// An event stands for some 32 tokens: 64 tokens per second.
const EVENTS_PER_SECOND: f64 = 2.0;
const DECODE_BATCH: u32 = 16;
const OUTPUT_EVENTS_MAX: u32 = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn figures_of_metrics() {
        let text = "# HELP a b\na_more{x=\"1\"} 9\na{x=\"1\"} 3.5\n";
        assert_eq!(figure(text, "a").unwrap(), 3.5);
        assert!(figure(text, "b").is_err());
    }

    #[tokio::test]
    async fn a_fleet_works_and_slows_down() {
        let fleet = Fleet::start(&[Machine::default(); 2], 1, 1000.0)
            .await
            .unwrap();
        fleet.slow_down(1, 2.0).await.unwrap();
        assert!(fleet.slow_down(2, 2.0).await.is_err());
        let body = r#"{"model":"m","messages":[{"role":"user","content":"aaaabbbb"}]}"#;
        let at = fleet.addresses()[0];
        post(at, "/v1/chat/completions", body.to_owned())
            .await
            .unwrap();
        let work = fleet.work().await.unwrap();
        assert_eq!((work[0].computed(), work[1].computed()), (2.0, 0.0));
    }
}
