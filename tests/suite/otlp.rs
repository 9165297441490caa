//! Metrics and spans as a collector gets them; and collectors that are not there.

use std::net::SocketAddr;

use http::Request;
use serde_json::Value;
use weir_tests::caller::{Body, chat, get, post, send, with_header};
use weir_tests::collector::{Collector, Data, HistogramDataPoint, SpanKind, attribute};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::{DEADLINE, Gateway};
use weir_tests::process::Signal;
use weir_tests::simulated::Simulated;
use weir_tests::upstream::{Upstream, answer, completion, refusing};

const CALLERS_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLERS_SPAN: &str = "b7ad6b7169203331";

/// A gateway that exports to `url`.
async fn exporting(backend: SocketAddr, url: &str, more: &str) -> Gateway {
    let table = format!("[telemetry.otlp]\nendpoint = \"{url}\"\n{more}");
    Gateway::start(&ConfigText::new(&[backend]).more(&table).text()).await
}

/// A backend that answers every request with this.
async fn always(answer: String) -> Upstream {
    Upstream::scripted(move |mut connection| {
        let answer = answer.clone();
        async move {
            while connection.request().await.is_ok() {
                connection.send(&answer).await;
            }
        }
    })
    .await
}

fn traced(request: Request<Body>, flags: &str) -> Request<Body> {
    let parent = format!("00-{CALLERS_TRACE}-{CALLERS_SPAN}-{flags}");
    with_header(request, "traceparent", Some(&parent))
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `traceparent` that the backend got last.
async fn sent_up(backend: &Simulated) -> String {
    let seen = backend.last_request().await;
    let header = seen.pointer("/headers/traceparent").and_then(Value::as_str);
    header
        .unwrap_or_else(|| panic!("none in {seen}"))
        .to_owned()
}

#[tokio::test]
async fn metrics_are_exported_over_both_protocols() {
    for (protocol, path) in [
        ("http/protobuf", "/v1/metrics"),
        (
            "grpc",
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        ),
    ] {
        let whole = answer("200 OK", "application/json", &completion("hi"));
        let (backend, collector) = (always(whole).await, Collector::start().await);
        let table = format!(
            r#"protocol = "{protocol}"
            interval_ms = 100
            headers = {{ x-key = "of the collector" }}
            resource = {{ "deployment.environment.name" = "test" }}"#
        );
        let gateway = exporting(backend.address(), &collector.url(), &table).await;
        assert_eq!(send(gateway.address(), chat("")).await.status, 200);
        let name = "gen_ai.client.token.usage";
        let told = async |_: &Gateway| !collector.histogram(name).is_empty();
        gateway.wait_for("the tokens to be told", told).await;

        let (metric, points) = (collector.metric(name).unwrap(), collector.histogram(name));
        assert_eq!(metric.unit, "{token}");
        for (kind, tokens) in [("input", 7.0), ("output", 3.0)] {
            let is_kind = |point: &&HistogramDataPoint| {
                attribute(&point.attributes, "gen_ai.token.type") == kind
            };
            let point = points.iter().find(is_kind).unwrap();
            assert_eq!((point.count, point.sum), (1, Some(tokens)), "{kind}");
            assert_eq!(point.bucket_counts.iter().sum::<u64>(), 1, "{kind}");
            assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
            assert!(point.start_time_unix_nano < point.time_unix_nano);
            for (key, expected) in [
                ("gen_ai.operation.name", "chat"),
                ("gen_ai.provider.name", "openai"),
                ("gen_ai.request.model", "sim"),
                ("weir.function", "demo"),
                ("weir.tenant", "demo"),
                ("error.type", ""),
            ] {
                assert_eq!(attribute(&point.attributes, key), expected, "{key}");
            }
        }
        let duration = collector.metric("gen_ai.server.request.duration").unwrap();
        assert_eq!(duration.unit, "s");
        let own = collector.metric("weir_requests_total").unwrap();
        assert!(matches!(own.data, Some(Data::Sum(_))), "{own:?}");

        let export = collector.metrics().pop().unwrap();
        let resource = export.resource_metrics[0].resource.clone().unwrap();
        let of_resource = |key: &str| attribute(&resource.attributes, key);
        assert_eq!(of_resource("service.name"), "weir");
        assert_eq!(of_resource("service.instance.id").len(), 36);
        assert_eq!(of_resource("deployment.environment.name"), "test");
        assert!(!of_resource("service.version").is_empty());
        let mut requests = collector.requests().into_iter();
        let (_, headers) = requests.find(|(to, _)| to == path).unwrap();
        assert_eq!(headers["x-key"], "of the collector");
        let counted = async |gateway: &Gateway| {
            let labels = [r#"signal="metrics""#, r#"result="ok""#];
            gateway.metric("weir_otlp_exports_total", &labels).await >= 1.0
        };
        gateway.wait_for("the export to be counted", counted).await;
    }
}

#[tokio::test]
async fn spans_tell_what_was_asked_and_what_came() {
    for protocol in ["http/protobuf", "grpc"] {
        let (backend, collector) = (Simulated::start().await, Collector::start().await);
        let table = format!("protocol = \"{protocol}\"\ninterval_ms = 100");
        let gateway = exporting(backend.address(), &collector.url(), &table).await;
        let request = traced(chat(r#""stream":true,"max_tokens":5"#), "01");
        let request = with_header(request, "tracestate", Some("vendor=1"));
        assert_eq!(send(gateway.address(), request).await.status, 200);
        let span = collector.wait_for_spans(1).await.remove(0);
        let up = sent_up(&backend).await;
        let (trace, own) = (hex(&span.trace_id), hex(&span.span_id));
        assert_eq!(
            up,
            format!("00-{trace}-{own}-01"),
            "the upstream is below this span"
        );
        assert_eq!(trace, CALLERS_TRACE);
        assert_eq!(hex(&span.parent_span_id), CALLERS_SPAN);
        assert_eq!(span.trace_state, "vendor=1");
        assert_eq!(span.name, "chat sim");
        assert_eq!(span.kind(), SpanKind::Client);
        assert_eq!(span.status, None);
        assert!(span.start_time_unix_nano < span.end_time_unix_nano);
        let of = |key: &str| attribute(&span.attributes, key);
        for (key, expected) in [
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "openai"),
            ("openai.api.type", "chat_completions"),
            ("gen_ai.request.model", "sim"),
            ("gen_ai.request.stream", "true"),
            ("gen_ai.request.max_tokens", "5"),
            ("gen_ai.usage.output_tokens", "5"),
            ("gen_ai.response.model", "sim"),
            ("gen_ai.response.finish_reasons", "length"),
            ("server.address", "127.0.0.1"),
            ("server.port", &backend.address().port().to_string()),
            ("http.response.status_code", "200"),
            ("weir.function", "demo"),
            ("weir.cluster", "sim"),
            ("weir.tenant", "demo"),
            ("weir.tries", "1"),
            ("error.type", ""),
        ] {
            assert_eq!(of(key), expected, "{key} of {span:#?}");
        }
        let input: f64 = of("gen_ai.usage.input_tokens").parse().unwrap();
        let told = [r#"gen_ai_token_type="input""#];
        assert_eq!(
            gateway.metric("gen_ai_client_token_usage_sum", &told).await,
            input
        );
        let first: f64 = of("gen_ai.response.time_to_first_chunk").parse().unwrap();
        let sum = gateway
            .metric("gen_ai_server_time_to_first_token_seconds_sum", &[])
            .await;
        assert!((first - sum).abs() < 1e-6, "{first} and {sum}");
        let counted = async |gateway: &Gateway| {
            let labels = [r#"result="sent""#];
            gateway.metric("weir_otlp_spans_total", &labels).await == 1.0
        };
        gateway.wait_for("the span to be counted", counted).await;
    }
}

#[tokio::test]
async fn every_kind_of_exchange_has_its_span() {
    let (backend, collector) = (Simulated::start().await, Collector::start().await);
    let routes = "interval_ms = 100\n[[routes]]\npath_prefix = \"/v1/audio\"\ncluster = \"sim\"";
    let gateway = exporting(backend.address(), &collector.url(), routes).await;
    let embeddings = r#"{"model":"demo/sim","input":"hi"}"#;
    let unknown = r#"{"model":"demo/none","input":"hi"}"#;
    for (place, (request, name, expected)) in [
        (
            post("/v1/embeddings", embeddings),
            "embeddings sim",
            [("gen_ai.usage.output_tokens", ""), ("error.type", "")],
        ),
        (
            with_header(chat(""), "authorization", Some("Bearer wrong")),
            "chat sim",
            [("error.type", "denied"), ("weir.code", "invalid_api_key")],
        ),
        (
            post("/v1/responses", unknown),
            "chat",
            [("error.type", "denied"), ("weir.code", "model_not_found")],
        ),
        (
            get("/v1/models"),
            "GET /v1/models",
            [("http.request.method", "GET"), ("error.type", "")],
        ),
        (
            get("/v1/audio/voices"),
            "GET",
            [("url.path", "/v1/audio/voices"), ("error.type", "404")],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        send(gateway.address(), request).await;
        let spans = collector.wait_for_spans(place + 1).await;
        let span = spans.last().unwrap();
        assert_eq!(span.name, name);
        assert!(span.parent_span_id.is_empty(), "it begins the trace");
        for (key, expected) in expected {
            assert_eq!(
                attribute(&span.attributes, key),
                expected,
                "{key} of {span:#?}"
            );
        }
        let failed = !attribute(&span.attributes, "error.type").is_empty();
        assert_eq!(span.status.is_some(), failed, "{span:#?}");
    }
}

#[tokio::test]
async fn the_callers_decision_about_sampling_is_kept() {
    let (backend, collector) = (Simulated::start().await, Collector::start().await);
    let table = "interval_ms = 100\nsample_ratio = 0.0";
    let gateway = exporting(backend.address(), &collector.url(), table).await;
    send(gateway.address(), chat("")).await;
    assert!(sent_up(&backend).await.ends_with("-00"), "not sampled here");
    send(gateway.address(), traced(chat(""), "00")).await;
    let up = sent_up(&backend).await;
    assert!(up.starts_with(&format!("00-{CALLERS_TRACE}-")), "{up}");
    assert!(up.ends_with("-00"), "{up}");
    send(gateway.address(), traced(chat(""), "01")).await;
    let spans = collector.wait_for_spans(1).await;
    assert_eq!(hex(&spans[0].parent_span_id), CALLERS_SPAN);
}

#[tokio::test]
async fn a_collector_that_is_down_fails_no_request_and_gets_its_spans_later() {
    let (backend, address) = (Simulated::start().await, refusing());
    let table = "interval_ms = 100";
    let gateway = exporting(backend.address(), &format!("http://{address}"), table).await;
    for _ in 0..20 {
        assert_eq!(send(gateway.address(), chat("")).await.status, 200);
    }
    let failed = async |gateway: &Gateway| {
        let labels = [r#"signal="traces""#, r#"result="failed""#];
        gateway.metric("weir_otlp_exports_total", &labels).await >= 1.0
    };
    gateway.wait_for("an export to fail", failed).await;
    let collector = Collector::at(address).await;
    collector.wait_for_spans(20).await;
    let dropped = [r#"result="queue_full""#];
    assert_eq!(gateway.metric("weir_otlp_spans_total", &dropped).await, 0.0);
    assert!(gateway.log().contains("exports fail"));
}

#[tokio::test]
async fn what_does_not_fit_into_the_queue_is_dropped_and_counted() {
    let (backend, hung) = (Simulated::start().await, Upstream::silent().await);
    let url = format!("http://{}", hung.address());
    let table = "interval_ms = 100\nqueue_max = 4\nmetrics = false";
    let gateway = exporting(backend.address(), &url, table).await;
    assert_eq!(send(gateway.address(), chat("")).await.status, 200);
    let asked = async |_: &Gateway| hung.requests() >= 1;
    gateway.wait_for("an export that hangs", asked).await;
    for _ in 0..10 {
        assert_eq!(send(gateway.address(), chat("")).await.status, 200);
    }
    let dropped = async |gateway: &Gateway| {
        let labels = [r#"result="queue_full""#];
        gateway.metric("weir_otlp_spans_total", &labels).await == 6.0
    };
    gateway.wait_for("six of ten to be dropped", dropped).await;
}

#[tokio::test]
async fn what_the_collector_refuses_for_good_is_not_sent_again() {
    let (backend, collector) = (Simulated::start().await, Collector::start().await);
    collector.answer_with(400);
    let table = "interval_ms = 100\nmetrics = false";
    let gateway = exporting(backend.address(), &collector.url(), table).await;
    send(gateway.address(), chat("")).await;
    let rejected = async |gateway: &Gateway| {
        let labels = [r#"result="rejected""#];
        gateway.metric("weir_otlp_spans_total", &labels).await == 1.0
    };
    gateway.wait_for("the span to be given up", rejected).await;
    collector.answer_with(200);
    send(gateway.address(), chat("")).await;
    collector.wait_for_spans(1).await;
    assert_eq!(collector.requests().len(), 2);
}

#[tokio::test]
async fn the_end_of_the_process_is_told_too() {
    let (backend, collector) = (Simulated::start().await, Collector::start().await);
    let table = "interval_ms = 3600000";
    let mut gateway = exporting(backend.address(), &collector.url(), table).await;
    assert_eq!(send(gateway.address(), chat("")).await.status, 200);
    assert!(collector.requests().is_empty(), "the interval is an hour");
    gateway.process().signal(Signal::TERM).unwrap();
    let status = gateway.process().wait_for_exit(DEADLINE).await.unwrap();
    assert!(status.success(), "{}", gateway.log());
    assert_eq!(collector.spans().len(), 1, "{}", gateway.log());
    let duration = collector.histogram("gen_ai.server.request.duration");
    assert_eq!(duration.iter().map(|point| point.count).sum::<u64>(), 1);
}
