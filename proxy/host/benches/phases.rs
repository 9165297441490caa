//! What one phase call costs, and one event of a stream, each into a warm instance of a real filter.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a bench has nobody to report errors to"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method};
use sha2::{Digest, Sha256};
use weir_dialect::Api;
use weir_host::{Host, HostOptions, KeyEntry, KeyTable, KeyTables, Services, WasmFilter};
use weir_pipeline::attributes::Attributes;
use weir_pipeline::facts::{Facts, SessionKey, SessionSource, Transport};
use weir_pipeline::filter::{Filter, PhaseCall};
use weir_pipeline::ledger::Ledger;
use weir_pipeline::principal::Principal;
use weir_pipeline::verdict::{Affinity, StreamEvent};
use weir_pipeline::view::RequestView;
use weir_routing::{
    Cluster, ClusterSpec, Demand, Figure, Fleet, KeyHashes, MemberSpec, Report, Weighting,
};

criterion_group! {
    name = phases;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = request_phases, routing, events
}
criterion_main!(phases);

fn request_phases(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mut group = criterion.benchmark_group("phase");
    group.bench_function("authorize", |b| {
        let filter = bench.filter("auth");
        let mut facts = Some(bench.facts());
        b.iter(|| repeat(&mut facts, |facts| filter.authorize(facts)));
    });
    group.bench_function("request", |b| {
        let filter = bench.filter("token-limit");
        let mut facts = Some(bench.facts());
        b.iter(|| {
            repeat(&mut facts, |mut facts| {
                // Settles the claim of the call before, as the end of an exchange does.
                facts.ledger = Arc::new(Ledger::default());
                filter.request(facts)
            });
        });
    });
    group.bench_function("affinity", |b| {
        let filter = bench.filter("session-affinity");
        let mut facts = Some(bench.facts());
        b.iter(|| repeat(&mut facts, |facts| filter.affinity(facts)));
    });
    group.bench_function("route", |b| {
        let filter = bench.filter("routing-method");
        let mut facts = Some(bench.facts());
        b.iter(|| repeat(&mut facts, |facts| filter.route(facts, 0)));
    });
    group.finish();
}

/// A choice among 1,000 candidates that report their loads, by each method: where slots are free,
/// where only ten candidates have one, and where all are taken and each fifth candidate holds more
/// than its share.
fn routing(criterion: &mut Criterion) {
    let bench = Bench::new();
    let free = cluster(1_000, |at| at % 5);
    choices(criterion, "route-1000", &bench, &free);
    let nearly = cluster(1_000, |at| if at % 100 == 57 { 0 } else { 8 });
    choices(criterion, "route-1000-nearly", &bench, &nearly);
    let full = cluster(1_000, |at| if at % 5 == 0 { 40 } else { 8 });
    choices(criterion, "route-1000-full", &bench, &full);
    native(criterion, &free);
}

fn choices(criterion: &mut Criterion, name: &str, bench: &Bench, cluster: &Cluster) {
    let mut group = criterion.benchmark_group(name);
    for name in ROUTES {
        group.bench_function(name, |b| {
            let filter = bench.filter(name);
            let mut facts = bench.facts();
            facts.candidates = Some(cluster.candidates(Services::now_ms(), &[]));
            let mut key = 0_u64;
            let mut facts = Some(facts);
            b.iter(|| {
                // Another conversation each time: nothing is known of it.
                key += 1;
                let affinity = Affinity {
                    key: format!("{key:064x}"),
                    hash: key,
                    ttl_ms: 0,
                    strict: false,
                    answer_headers: Vec::new(),
                };
                facts.as_mut().unwrap().affinity = Some(Arc::new(affinity));
                repeat(&mut facts, |facts| filter.route(facts, key));
            });
        });
    }
    group.finish();
}

/// What of it is native.
fn native(criterion: &mut Criterion, cluster: &Cluster) {
    let mut group = criterion.benchmark_group("native-1000");
    let set = cluster.candidates(Services::now_ms(), &[]);
    let demand = Demand {
        input_tokens: 1_000,
        priority: 0,
    };
    group.bench_function("candidates", |b| {
        b.iter(|| cluster.candidates(Services::now_ms(), &[]));
    });
    for figure in [Figure::Running, Figure::TtftUs, Figure::Slots] {
        group.bench_function(format!("column {figure:?}"), |b| {
            b.iter(|| set.column(figure, &demand));
        });
    }
    let mut key = [7_u8; 180];
    for n in [1, 8, 32, 1_000] {
        group.bench_function(format!("rendezvous {n}"), |b| {
            let mut known = KeyHashes::default();
            b.iter(|| {
                key[150] = key[150].wrapping_add(1);
                set.rendezvous_by(&key, Weighting::MaxInputTps, &[], n, &mut known)
            });
        });
    }
    group.finish();
}

fn events(criterion: &mut Criterion) {
    let bench = Bench::new();
    let filter = bench.filter("passing");
    let mut group = criterion.benchmark_group("events");
    for batch in [1, 8, 32] {
        let batched: Vec<StreamEvent> = (0..batch).map(event).collect();
        group.throughput(Throughput::Elements(u64::from(batch)));
        group.bench_with_input(
            BenchmarkId::from_parameter(batch),
            &batched,
            |b, batched| {
                let mut facts = Some(bench.facts());
                b.iter(|| {
                    let (back, verdicts) = filter.events(facts.take().unwrap(), batched);
                    verdicts.unwrap();
                    facts = Some(back);
                });
            },
        );
    }
    group.finish();
}

/// Calls with the facts that the last call gave back.
fn repeat<'a, T>(
    facts: &mut Option<Box<Facts>>,
    call: impl FnOnce(Box<Facts>) -> PhaseCall<'a, T>,
) {
    let PhaseCall::Done((back, verdict)) = call(facts.take().unwrap()) else {
        panic!("the call may suspend: no filter here was granted a cluster");
    };
    verdict.unwrap();
    *facts = Some(back);
}

/// A host with the built-in filters and one that passes events.
struct Bench {
    host: Arc<Host>,
    config: weir_config::Config,
    modules: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let registry = prometheus::Registry::new();
        let host = Host::new(HostOptions {
            cache_dir: None,
            registry,
        })
        .unwrap();
        let principal = Arc::new(principal(host.services()));
        let key = KeyEntry {
            sha256: Sha256::digest(KEY).into(),
            principal,
        };
        let table = KeyTable::new("bench", vec![key]);
        host.services()
            .key_tables
            .store(Arc::new(KeyTables::new(vec![table])));
        let config = weir_config::parse(CONFIG, "bench.toml").unwrap();
        Self {
            host,
            config,
            modules: build_guests(),
        }
    }

    fn filter(&self, name: &str) -> Arc<WasmFilter> {
        let file = match name {
            "passing" => "passing_guest.wasm".to_owned(),
            name if ROUTES.contains(&name) => "weir_filter_routing_method.wasm".to_owned(),
            name => format!("weir_filter_{}.wasm", name.replace('-', "_")),
        };
        let module = self
            .host
            .load(&std::fs::read(self.modules.join(file)).unwrap())
            .unwrap();
        self.host
            .prepare(
                name,
                &module,
                self.config
                    .filters
                    .get(name)
                    .expect("a filter of the bench's config"),
            )
            .unwrap()
    }

    fn facts(&self) -> Box<Facts> {
        let services = self.host.services();
        let mut view = RequestView::new(Api::ChatCompletions);
        view.routing_key = services.interner.intern("demo");
        view.model = services.interner.intern("sim");
        view.session_hash = 7;
        view.est_input_tokens = 12;
        view.body_bytes = u32::try_from(BODY.len()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(
            "authorization",
            HeaderValue::from_static("Bearer bench-key"),
        );
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        let principal = principal(services);
        view.principal = principal.id;
        let session_keys = vec![SessionKey {
            source: SessionSource::SessionHeader,
            value: "conversation-1".to_owned(),
            hash: 7,
        }];
        let cluster = cluster(8, |_| 0);
        Box::new(Facts {
            id: 1,
            request_id: Arc::from("bench"),
            transport: Transport::Http1,
            received_unix_ms: 0,
            view,
            method: Method::POST,
            path: "/v1/chat/completions".to_owned(),
            query: None,
            headers,
            edited_headers: Vec::new(),
            peer: None,
            sni: None,
            body: Bytes::from_static(BODY.as_bytes()),
            body_edited: false,
            messages: 1,
            inputs: 0,
            session_keys,
            principal: Some(Arc::new(principal)),
            routing_key: Arc::from("demo"),
            model: Arc::from("sim"),
            settings: None,
            attributes: Attributes::default(),
            scratch: Vec::new(),
            candidates: Some(cluster.candidates(Services::now_ms(), &[])),
            affinity: None,
            session: weir_routing::Session::Unknown,
            excluded: Vec::new(),
            response: None,
            ledger: Arc::new(Ledger::default()),
            filter_ns: 0,
        })
    }
}

/// Backends with 8 slots each, of which so many are taken.
fn cluster(backends: u32, running: fn(u32) -> u32) -> Arc<Cluster> {
    let members = (0..backends).map(|n| MemberSpec::new(&format!("127.0.0.1:{}", 9000 + n), 1));
    let cluster = Fleet::new().cluster(&ClusterSpec::new("bench", members.collect()), 0);
    for (at, member) in (0..).zip(cluster.backends()) {
        member.backend.record_rtt_us(u64::from(500 + at % 7));
        let report = Report {
            running: running(at),
            slots: 8,
            queued_input_tokens: u64::from(at % 11) * 100,
            input_tps: 5_000.0,
            max_input_tps: 5_000.0 + f32::from(u8::try_from(at % 100).unwrap()),
            ..Report::default()
        };
        member.backend.report(&report, Services::now_ms());
    }
    cluster
}

fn principal(services: &Services) -> Principal {
    Principal {
        id: services.interner.intern("bench"),
        subject: Arc::from("bench"),
        tenant: Arc::from("bench"),
        plan: Arc::from("default"),
        scopes: Vec::new(),
        models: Vec::new(),
        priority: None,
    }
}

fn event(seq: u32) -> StreamEvent {
    StreamEvent {
        seq,
        name: String::new(),
        data: Bytes::from_static(EVENT.as_bytes()),
        delta: " word".to_owned(),
        finish: false,
        usage: None,
    }
}

/// Builds the guests and gives the folder they are in.
fn build_guests() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-guests");
    for manifest in [
        "../../filters/Cargo.toml",
        "benches/passing-guest/Cargo.toml",
    ] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--target", WASM, "--manifest-path"]);
        cargo
            .arg(here.join(manifest))
            .arg("--target-dir")
            .arg(&target);
        assert!(
            cargo.status().unwrap().success(),
            "{manifest} does not build"
        );
    }
    target.join(WASM).join("release")
}

const WASM: &str = "wasm32-unknown-unknown";
const KEY: &[u8] = b"bench-key";
const BODY: &str =
    r#"{"model":"demo/sim","messages":[{"role":"user","content":"hi"}],"stream":false,"n":1}"#;
const EVENT: &str = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"sim","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}"#;
/// One filter of the config for each method.
const ROUTES: [&str; 8] = [
    "round_robin",
    "random",
    "power_of_two",
    "groq_multiregion",
    "pulsar",
    "pulsar_escape",
    "pulsar_crowded",
    "pulsar_multiregion",
];
/// Deadlines are wall-clock time: on a busy machine a call that is put aside must not end the bench.
const CONFIG: &str = r#"
[key_tables.bench]
[filters.auth]
limits = { request_ms = 1000, event_ms = 1000 }
module = "builtin:auth"
config = { key_table = "bench" }
grants = { read_headers = ["authorization"], key_tables = ["bench"] }
[filters.token-limit]
limits = { request_ms = 1000, event_ms = 1000 }
module = "builtin:token-limit"
config = { default = "1000000000-S,100000000000-M" }
grants = { limiters = true }
[filters.session-affinity]
limits = { request_ms = 1000, event_ms = 1000 }
module = "builtin:session-affinity"
grants = { read_headers = ["x-multi-turn-session-id"], write_headers = ["x-multi-turn-session-id"] }
[filters.routing-method]
limits = { request_ms = 1000, event_ms = 1000 }
module = "builtin:routing-method"
[filters.round_robin]
limits = { request_ms = 1000, event_ms = 1000 }
module = "builtin:routing-method"
config = { default = "round_robin", sticky = false }
[filters.random]
limits = { request_ms = 1000, event_ms = 1000 }
module = "builtin:routing-method"
config = { default = "random", sticky = false }
[filters.power_of_two]
limits = { request_ms = 1000, event_ms = 1000 }
module = "builtin:routing-method"
config = { default = "power_of_two", sticky = false, power_of_two = { comparator = "ttft" } }
[filters.groq_multiregion]
limits = { request_ms = 1000, event_ms = 1000 }
module = "builtin:routing-method"
config = { default = "groq_multiregion" }
[filters.pulsar]
limits = { request_ms = 1000, event_ms = 1000 }
module = "builtin:routing-method"
config = { default = "pulsar" }
[filters.pulsar_escape]
limits = { request_ms = 1000, event_ms = 1000 }
module = "builtin:routing-method"
config = { default = "pulsar", pulsar = { ttft_penalty_ms = 5000 } }
# All are looked at each time: nobody answers within the penalty, which all keep of the best.
[filters.pulsar_crowded]
limits = { request_ms = 1000, event_ms = 1000 }
module = "builtin:routing-method"
config = { default = "pulsar", pulsar = { ttft_penalty_ms = 2.5 } }
[filters.pulsar_multiregion]
limits = { request_ms = 1000, event_ms = 1000 }
module = "builtin:routing-method"
config = { default = "pulsar_multiregion" }
[filters.passing]
limits = { request_ms = 1000, event_ms = 1000 }
module = "passing.wasm"
"#;
