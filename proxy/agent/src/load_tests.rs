//! Figures out of gateways, metrics and the stream.

use weir_tunnel::Samples;

use super::*;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn load() -> Load {
    let mut load = Load::new(16);
    load.keep(&BTreeSet::from(["m".to_owned()]));
    load.start_with(1000.0, "configured");
    load
}

fn seen(running: u64, waiting: u64, tokens: &[(u32, u64)]) -> Observed {
    let seen = ObservedModel {
        running,
        waiting,
        waiting_input_tokens: tokens.iter().map(|(_, tokens)| tokens).sum(),
        waiting_tokens_by_priority: tokens.iter().copied().collect(),
        running_input_tokens: running * 100,
        samples: None,
    };
    Observed {
        models: BTreeMap::from([("m".to_owned(), seen)]),
    }
}

#[test]
fn gateways_are_added_up_and_forgotten() {
    let mut load = load();
    load.observe("a", seen(5, 2, &[(0, 1000), (3, 500)]), at(0));
    load.observe("b", seen(3, 1, &[(3, 500)]), at(0));
    let stats = load.stats("m", at(1), 77);
    assert_eq!(stats.num_running_queries, Some(8));
    assert_eq!(stats.queue_size, Some(3));
    assert_eq!(stats.queued_input_size, Some(2000));
    assert_eq!(stats.total_query_input_size, Some(800));
    assert_eq!(stats.output_generation_queries, Some(5));
    assert_eq!(stats.input_processing_queries, Some(3));
    assert_eq!(stats.max_engine_concurrency, 16);
    assert_eq!(stats.stats_observed_at_unix_ms, 77);
    assert_eq!(
        stats.queue_time_estimate_ms_by_priority,
        BTreeMap::from([(0, 1000), (3, 2000)])
    );
    assert_eq!(stats.stats_sources, ["configured", "gateway"]);
    assert_eq!(stats.stats_capabilities, ["input_tps", "queue"]);
    assert_eq!(load.queues_ms(), BTreeMap::from([("m".to_owned(), 2000.0)]));

    load.observe("a", seen(0, 0, &[]), at(2));
    load.forget("b");
    let stats = load.stats("m", at(3), 0);
    assert_eq!(stats.num_running_queries, Some(0));
    assert_eq!(
        stats.queue_time_estimate_ms_by_priority,
        BTreeMap::from([(0, 0)])
    );
}

#[test]
fn the_start_rate_counts_until_five_requests_were_measured() {
    let mut load = load();
    let mut measured = |count| {
        let mut observed = seen(0, 0, &[]);
        observed.models.get_mut("m").unwrap().samples = Some(Samples {
            count,
            input_tokens: count * 400,
            prefill_us: count * 100_000,
            output_tokens: 30,
            decode_us: 1_000_000,
        });
        load.observe("a", observed, at(100));
        load.stats("m", at(100), 0)
    };
    let stats = measured(4);
    assert_eq!(stats.last_mean_input_tps, Some(1000.0));
    assert_eq!(stats.output_tps, Some(30.0));
    let stats = measured(1);
    assert_eq!(stats.last_mean_input_tps.map(f64::round), Some(4000.0));
    assert_eq!(stats.max_input_tps.map(f64::round), Some(4000.0));
    assert_eq!(stats.stats_sources, ["gateway"]);
}

#[test]
fn metrics_come_before_gateways_and_get_stale() {
    let mut load = load();
    load.observe("a", seen(2, 1, &[(0, 10)]), at(0));
    let figures = |generated, running| {
        let figures = EngineFigures {
            running: Some(running),
            waiting: Some(4.0),
            kv_capacity: Some(1000.0),
            kv_used: Some(250.0),
            generated_tokens: Some(generated),
            ..EngineFigures::default()
        };
        BTreeMap::from([("m".to_owned(), figures)])
    };
    load.measure(&figures(100.0, 9.0), at(0));
    load.measure(&figures(300.0, 9.0), at(1000));
    let stats = load.stats("m", at(1000), 0);
    assert_eq!(stats.num_running_queries, Some(9));
    assert_eq!(stats.queue_size, Some(4));
    assert_eq!(stats.input_processing_queries, Some(0));
    assert_eq!(stats.kv_cache_free_tokens, Some(750));
    assert_eq!(stats.output_tps, Some(200.0));
    assert_eq!(stats.stats_sources, ["configured", "gateway", "metrics"]);

    load.measure(&figures(5.0, 9.0), at(2000));
    assert_eq!(
        load.stats("m", at(2000), 0).max_output_tps,
        Some(200.0),
        "the engine began anew"
    );

    let stale = load.stats("m", at(20_000), 0);
    assert_eq!(stale.num_running_queries, Some(2));
    assert_eq!(stale.kv_cache_capacity_tokens, None);
    assert_eq!(stale.output_tps, None);
}

#[test]
fn the_stream_comes_before_all() {
    let mut load = load();
    load.observe("a", seen(9, 0, &[]), at(0));
    let line = |id: &str, generated| {
        format!(
            r#"{{"v":1,"type":"stats","request_id":"{id}","model":"m","tokens_processed":100,"tokens_generated":{generated},"finished":false}}"#
        )
    };
    load.stream(line("a", 0).as_bytes(), at(0)).unwrap();
    load.stream(line("b", 0).as_bytes(), at(0)).unwrap();
    load.stream(line("b", 50).as_bytes(), at(100)).unwrap();
    let stats = load.stats("m", at(100), 0);
    assert_eq!(stats.num_running_queries, Some(2));
    assert_eq!(stats.queue_size, Some(1));
    assert_eq!(stats.output_generation_queries, Some(1));
    assert_eq!(stats.output_tps, Some(50.0));
    load.stream_ended();
    assert_eq!(load.stats("m", at(100), 0).num_running_queries, Some(9));
}

#[test]
fn models_that_are_not_served_are_not_known() {
    let mut load = load();
    load.observe(
        "a",
        Observed {
            models: BTreeMap::from([("x".to_owned(), ObservedModel::default())]),
        },
        at(0),
    );
    assert_eq!(load.stats("x", at(0), 0).queue_size, None);
    load.keep(&BTreeSet::new());
    assert_eq!(load.stats("m", at(0), 0).queue_size, None);
}
