//! Figures about limiters, read from the registry of limiters when the scraper asks.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};
use weir_store::{LimiterStats, Limiters};

/// The metric families of all limiters. The label is `FILTER/NAME`, of which there are as many as
/// the registry admits.
pub(crate) struct LimitMetrics {
    limiters: Arc<Limiters>,
    gauges: [(IntGaugeVec, Figure); 2],
    counters: [(IntCounterVec, Figure); 4],
    /// One scrape at a time: the figures are written anew for each.
    scrape: Mutex<()>,
}

type Figure = fn(&LimiterStats) -> u64;

impl LimitMetrics {
    pub(crate) fn new(limiters: Arc<Limiters>) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str, figure: Figure| {
            IntGaugeVec::new(Opts::new(name, help), &["limiter"]).map(|family| (family, figure))
        };
        let counter = |name: &str, help: &str, figure: Figure| {
            IntCounterVec::new(Opts::new(name, help), &["limiter"]).map(|family| (family, figure))
        };
        Ok(Self {
            limiters,
            gauges: [
                gauge(
                    "weir_limit_open_reservations",
                    "Reservations not settled yet",
                    |stats| stats.open_holds,
                )?,
                gauge(
                    "weir_limit_keys",
                    "Callers of whom something is remembered",
                    |stats| stats.keys as u64,
                )?,
            ],
            counters: [
                counter(
                    "weir_limit_reserved_total",
                    "Estimates reserved, in what the limiter counts",
                    |stats| stats.reserved,
                )?,
                counter(
                    "weir_limit_settled_total",
                    "True costs by which reservations were replaced",
                    |stats| stats.settled,
                )?,
                counter(
                    "weir_limit_refunded_total",
                    "Reservations given back in full",
                    |stats| stats.refunded,
                )?,
                counter(
                    "weir_limit_abandoned_total",
                    "Reservations that stayed charged because nobody settled them",
                    |stats| stats.abandoned,
                )?,
            ],
            scrape: Mutex::new(()),
        })
    }
}

impl Collector for LimitMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = self.gauges.iter().flat_map(|(family, _)| family.desc());
        let counters = self.counters.iter().flat_map(|(family, _)| family.desc());
        gauges.chain(counters).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _scrape = self.scrape.lock();
        let all = self.limiters.stats();
        let mut families = Vec::new();
        for (family, figure) in &self.gauges {
            family.reset();
            for stats in &all {
                let value = i64::try_from(figure(stats)).unwrap_or(i64::MAX);
                family.with_label_values(&[&*stats.name]).set(value);
            }
            families.extend(family.collect());
        }
        for (family, figure) in &self.counters {
            family.reset();
            for stats in &all {
                family
                    .with_label_values(&[&*stats.name])
                    .inc_by(figure(stats));
            }
            families.extend(family.collect());
        }
        families
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use prometheus::{Registry, TextEncoder};
    use weir_store::Window;

    use super::*;

    #[test]
    fn figures_are_those_of_the_moment() {
        let limiters = Arc::new(Limiters::default());
        let registry = Registry::new();
        let metrics = LimitMetrics::new(Arc::clone(&limiters)).unwrap();
        registry.register(Box::new(metrics)).unwrap();
        let text = || TextEncoder::new().encode_to_string(&registry.gather());
        assert_eq!(text().unwrap(), "", "no limiter, no series");
        let windows = [Window {
            budget: 100,
            seconds: 3600,
        }];
        let limiter = limiters.open("f/tokens", &windows).unwrap();
        let hold = limiter.reserve("k", 40, 0).unwrap();
        limiter.reserve("k", 5, 0).unwrap().refund(0);
        drop(limiter.reserve("k", 3, 0).unwrap());
        let check = |name: &str, expected: u64| {
            let line = format!("weir_limit_{name}{{limiter=\"f/tokens\"}} {expected}\n");
            let text = text().unwrap();
            assert!(text.contains(&line), "{line}{text}");
        };
        check("open_reservations", 1);
        check("keys", 1);
        check("reserved_total", 48);
        check("refunded_total", 5);
        check("abandoned_total", 1);
        check("settled_total", 0);
        hold.settle(17, 0);
        check("open_reservations", 0);
        check("settled_total", 17);
    }
}
