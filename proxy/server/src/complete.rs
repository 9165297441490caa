//! Off the callers' path: filters hear of ended exchanges, and get their ticks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir_pipeline::filter::Filter;
use weir_pipeline::verdict::Summary;

use crate::members::Way;
use crate::runtime::{Completion, Runtime};

/// Ended exchanges told of in one call.
const BATCH_MAX: usize = 32;
/// How often is looked whose tick it is.
const TICK: Duration = Duration::from_millis(10);
/// How often idle instances are retired.
const PRUNE: Duration = Duration::from_secs(10);

/// Hands summaries to filters, several at a time when the gateway is busy.
pub(crate) async fn deliver(mut completions: mpsc::Receiver<Completion>) {
    let mut waiting = Vec::with_capacity(BATCH_MAX);
    while completions.recv_many(&mut waiting, BATCH_MAX).await > 0 {
        let mut batches: Vec<(Arc<dyn Filter>, Vec<Summary>)> = Vec::new();
        for (filter, summary) in waiting.drain(..) {
            match batches
                .iter_mut()
                .find(|(known, _)| Arc::ptr_eq(known, &filter))
            {
                Some((_, batch)) => batch.push(summary),
                None => batches.push((filter, vec![summary])),
            }
        }
        for (filter, batch) in batches {
            filter.complete(&batch);
        }
    }
}

/// Calls `tick` of the live filters that asked for it, one call of a filter at a time, and retires
/// instances and connections that nobody needs.
pub(crate) async fn tick(runtime: Arc<Runtime>) {
    let mut due: HashMap<String, Instant> = HashMap::new();
    let mut ticking: JoinSet<String> = JoinSet::new();
    let mut busy: Vec<String> = Vec::new();
    let mut prune_at = Instant::now() + PRUNE;
    loop {
        tokio::time::sleep(TICK).await;
        while let Some(Ok(done)) = ticking.try_join_next() {
            busy.retain(|name| *name != done);
        }
        let now = Instant::now();
        let snapshot = runtime.snapshot();
        due.retain(|name, _| snapshot.filters.contains_key(name));
        for (name, filter) in &snapshot.filters {
            let every = Duration::from_millis(u64::from(filter.phases().tick_ms));
            if every.is_zero() || busy.contains(name) {
                continue;
            }
            let at = due.entry(name.clone()).or_insert(now + every);
            if *at > now {
                continue;
            }
            *at = now + every;
            busy.push(name.clone());
            let (name, filter) = (name.clone(), Arc::clone(filter));
            ticking.spawn(async move {
                filter.tick().await;
                name
            });
        }
        if now >= prune_at {
            prune_at = now + PRUNE;
            snapshot.filters.values().for_each(|filter| filter.prune());
            for upstream in snapshot.upstreams.values() {
                let members = upstream.members(&runtime);
                let links = members
                    .targets
                    .iter()
                    .filter_map(|target| match &target.way {
                        Way::Tcp(_, links) => Some(links),
                        Way::Tunnel(_) => None,
                    });
                links.for_each(|links| links.sweep(upstream.idle_timeout));
            }
        }
    }
}
