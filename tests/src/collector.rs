//! An OpenTelemetry collector: takes OTLP over HTTP and gRPC, and keeps what it got.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a kit for tests: what goes wrong here ends the test that asked"
)]

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
pub use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
pub use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
pub use opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint;
use opentelemetry_proto::tonic::metrics::v1::Metric;
pub use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::gateway::wait_until;

/// A collector on a free port. Dropping it cuts its connections.
pub struct Collector {
    address: SocketAddr,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    status: AtomicU16,
    requests: Mutex<Vec<(String, HeaderMap)>>,
    metrics: Mutex<Vec<ExportMetricsServiceRequest>>,
    traces: Mutex<Vec<ExportTraceServiceRequest>>,
}

impl Collector {
    /// One that takes everything.
    pub async fn start() -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// One at an address.
    pub async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        seen.status.store(200, Ordering::SeqCst);
        let mut serving = JoinSet::new();
        let shared = Arc::clone(&seen);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let seen = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&seen), request));
                    let server = auto::Builder::new(TokioExecutor::new());
                    // That the gateway closes its end is no error.
                    _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            seen,
            _serving: serving,
        }
    }

    /// What to write into the config.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers with this status from now on.
    pub fn answer_with(&self, status: u16) {
        self.seen.status.store(status, Ordering::SeqCst);
    }

    /// Paths and headers of all requests.
    pub fn requests(&self) -> Vec<(String, HeaderMap)> {
        locked(&self.seen.requests)
    }

    /// All exports of metrics that were taken.
    pub fn metrics(&self) -> Vec<ExportMetricsServiceRequest> {
        locked(&self.seen.metrics)
    }

    /// All exports of spans that were taken.
    pub fn traces(&self) -> Vec<ExportTraceServiceRequest> {
        locked(&self.seen.traces)
    }

    /// All spans that were taken.
    pub fn spans(&self) -> Vec<Span> {
        let resources = self
            .traces()
            .into_iter()
            .flat_map(|taken| taken.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// A metric as it was told last.
    pub fn metric(&self, name: &str) -> Option<Metric> {
        let exports = self.metrics().into_iter().rev();
        let resources = exports.flat_map(|taken| taken.resource_metrics);
        let scopes = resources.flat_map(|resource| resource.scope_metrics);
        let mut metrics = scopes.flat_map(|scope| scope.metrics);
        metrics.find(|metric| metric.name == name)
    }

    /// The points of a histogram as they were told last; none when there is none.
    ///
    /// # Panics
    /// When it is something else.
    pub fn histogram(&self, name: &str) -> Vec<HistogramDataPoint> {
        let Some(metric) = self.metric(name) else {
            return Vec::new();
        };
        match metric.data {
            Some(Data::Histogram(histogram)) => histogram.data_points,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// Waits for so many spans, and no more.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn wait_for_spans(&self, count: usize) -> Vec<Span> {
        let what = format!("{count} spans");
        wait_until(&what, async || self.spans().len() >= count).await;
        let spans = self.spans();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

/// An attribute in words; empty without one.
pub fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.clone()?.value);
    match value {
        None => String::new(),
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::ArrayValue(array)) => {
            let texts = array.values.into_iter().map(|value| match value.value {
                Some(Value::StringValue(text)) => text,
                other => panic!("{key} holds {other:?}"),
            });
            texts.collect::<Vec<_>>().join(",")
        }
        other => panic!("{key} is {other:?}"),
    }
}

fn locked<T: Clone>(of: &Mutex<Vec<T>>) -> Vec<T> {
    of.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn keep<T>(of: &Mutex<Vec<T>>, value: T) {
    of.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(value);
}

type Answered =
    Response<StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>>;

async fn answer(seen: Arc<Seen>, request: Request<Incoming>) -> Result<Answered, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let grpc =
        head.headers.get("content-type") == Some(&HeaderValue::from_static("application/grpc"));
    let message = if grpc { body.slice(5..) } else { body };
    let path = head.uri.path().to_owned();
    let status = seen.status.load(Ordering::SeqCst);
    if status == 200 {
        match path.as_str() {
            "/v1/metrics" | "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => {
                keep(&seen.metrics, Message::decode(message).unwrap());
            }
            "/v1/traces" | "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => {
                keep(&seen.traces, Message::decode(message).unwrap());
            }
            other => panic!("an export to {other}"),
        }
    }
    keep(&seen.requests, (path, head.headers));
    let mut frames = Vec::new();
    if grpc {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        // An empty message, and its frame.
        frames.push(Ok(Frame::data(Bytes::from_static(&[0; 5]))));
        frames.push(Ok(Frame::trailers(trailers)));
    }
    let mut answer = Response::new(StreamBody::new(stream::iter(frames)));
    *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
    let kind = if grpc {
        "application/grpc"
    } else {
        "application/x-protobuf"
    };
    answer
        .headers_mut()
        .insert("content-type", HeaderValue::from_static(kind));
    Ok(answer)
}
