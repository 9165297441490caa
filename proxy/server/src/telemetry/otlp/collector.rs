//! One export: a request to the collector, over HTTP or gRPC, and what it says to it.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::ALPN;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use prost::Message;
use weir_config::{OtlpEndpoint, OtlpProtocol, OtlpTable};

/// What a collector can be asked to take.
pub(super) trait Export: Message {
    /// `metrics` or `traces`.
    const SIGNAL: &'static str;
    /// Path of OTLP over HTTP.
    const HTTP_PATH: &'static str;
    /// Path of OTLP over gRPC.
    const GRPC_PATH: &'static str;

    /// How many items the collector has not taken although it took the request, and why.
    fn rejected(answer: &[u8]) -> Option<(i64, String)>;
}

impl Export for ExportTraceServiceRequest {
    const SIGNAL: &'static str = "traces";
    const HTTP_PATH: &'static str = "/v1/traces";
    const GRPC_PATH: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn rejected(answer: &[u8]) -> Option<(i64, String)> {
        let answer = ExportTraceServiceResponse::decode(answer).ok()?;
        let partial = answer.partial_success?;
        Some((partial.rejected_spans, partial.error_message))
    }
}

impl Export for ExportMetricsServiceRequest {
    const SIGNAL: &'static str = "metrics";
    const HTTP_PATH: &'static str = "/v1/metrics";
    const GRPC_PATH: &'static str =
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

    fn rejected(answer: &[u8]) -> Option<(i64, String)> {
        let answer = ExportMetricsServiceResponse::decode(answer).ok()?;
        let partial = answer.partial_success?;
        Some((partial.rejected_data_points, partial.error_message))
    }
}

/// Why an export has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// Nobody there, or no answer.
    #[error("{endpoint}: {reason}")]
    Unreachable {
        /// The collector.
        endpoint: OtlpEndpoint,
        /// What happened.
        reason: String,
    },
    /// An answer that is no success.
    #[error("{endpoint} answers {status}")]
    Refused {
        /// The collector.
        endpoint: OtlpEndpoint,
        /// HTTP status, or `grpc-status` and message.
        status: String,
        /// Whether the same may be taken later.
        later: bool,
    },
}

impl ExportError {
    /// Whether it is worth to send the same again.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { later, .. } => *later,
        }
    }
}

/// Where exports go.
pub(super) struct Collector {
    endpoint: OtlpEndpoint,
    protocol: OtlpProtocol,
    headers: HeaderMap,
    timeout: Duration,
}

impl Collector {
    /// The one of a config; none when nothing is to be sent.
    ///
    /// # Errors
    /// A name or value of `headers` that no header may have, by its name.
    pub(super) fn new(table: &OtlpTable) -> Result<Option<Self>, String> {
        let Some(endpoint) = table.endpoint.clone() else {
            return Ok(None);
        };
        let mut headers = HeaderMap::with_capacity(table.headers.len());
        for (name, value) in &table.headers {
            let header = HeaderName::try_from(name).map_err(|_| name.clone())?;
            let mut value = HeaderValue::try_from(value.reveal()).map_err(|_| name.clone())?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        Ok(Some(Self {
            endpoint,
            protocol: table.protocol,
            headers,
            timeout: Duration::from_millis(table.timeout_ms),
        }))
    }

    /// Sends one request, and tells what the collector did not take of it.
    pub(super) async fn send<T: Export>(
        &self,
        connector: &Connector,
        request: &T,
    ) -> Result<Option<(i64, String)>, ExportError> {
        let unreachable = |reason: String| ExportError::Unreachable {
            endpoint: self.endpoint.clone(),
            reason,
        };
        let asking = Box::pin(self.ask(connector, T::HTTP_PATH, T::GRPC_PATH, request));
        let answer = match tokio::time::timeout(self.timeout, asking).await {
            Ok(answer) => answer.map_err(|error| unreachable(error.to_string()))?,
            Err(_) => {
                let ms = self.timeout.as_millis();
                return Err(unreachable(format!("no answer within {ms} ms")));
            }
        };
        match answer.fault(self.protocol) {
            None => Ok(T::rejected(&answer.message)),
            Some((status, later)) => Err(ExportError::Refused {
                endpoint: self.endpoint.clone(),
                status,
                later,
            }),
        }
    }

    async fn ask(
        &self,
        connector: &Connector,
        http_path: &str,
        grpc_path: &str,
        request: &impl Message,
    ) -> pingora::Result<Answer> {
        let (path, body) = match self.protocol {
            OtlpProtocol::HttpProtobuf => (
                format!("{}{http_path}", self.endpoint.path),
                Bytes::from(request.encode_to_vec()),
            ),
            OtlpProtocol::Grpc => (grpc_path.to_owned(), grpc_frame(request)),
        };
        let head = self.head(&path, body.len()).ok_or_else(|| {
            pingora::Error::explain(pingora::ErrorType::InternalError, "no request can be made")
        })?;
        let peer = self.peer().await?;
        // A connection for each export: they are seconds apart, and one that is new is not stale.
        let (mut session, _) = connector.get_http_session(&peer).await?;
        session.write_request_header(Box::new(head)).await?;
        session.write_request_body(body, true).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let mut message = BytesMut::new();
        while let Some(piece) = session.read_response_body().await? {
            // What a collector has to say fits in there; the rest is read and left.
            let room = ANSWER_BYTES_MAX.saturating_sub(message.len());
            message.extend(piece.iter().take(room));
        }
        let trailers = match &mut session {
            HttpSession::H2(session) => session.read_trailers().await?,
            _ => None,
        };
        let head = session.response_header();
        let answer = Answer {
            status: head.map_or(StatusCode::BAD_GATEWAY, |head| head.status),
            headers: head.map(|head| head.headers.clone()).unwrap_or_default(),
            trailers: trailers.unwrap_or_default(),
            message: match self.protocol {
                OtlpProtocol::HttpProtobuf => message.freeze(),
                OtlpProtocol::Grpc => message.split_off(message.len().min(GRPC_PREFIX)).freeze(),
            },
        };
        session.shutdown().await;
        Ok(answer)
    }

    /// The collector's name is looked up for each export: it may move.
    async fn peer(&self) -> pingora::Result<HttpPeer> {
        let wanted = (self.endpoint.host.as_str(), self.endpoint.port);
        let unknown = |error| {
            let what = format!("looking up {}", self.endpoint.host);
            pingora::Error::because(pingora::ErrorType::ConnectNoRoute, what, error)
        };
        let mut found = tokio::net::lookup_host(wanted).await.map_err(unknown)?;
        let address = found
            .next()
            .ok_or_else(|| unknown(std::io::ErrorKind::NotFound.into()))?;
        let mut peer = HttpPeer::new(address, self.endpoint.tls, self.endpoint.host.clone());
        let options = &mut peer.options;
        options.connection_timeout = Some(self.timeout);
        options.total_connection_timeout = Some(self.timeout);
        options.read_timeout = Some(self.timeout);
        options.write_timeout = Some(self.timeout);
        options.alpn = match self.protocol {
            OtlpProtocol::HttpProtobuf => ALPN::H1,
            OtlpProtocol::Grpc => ALPN::H2,
        };
        Ok(peer)
    }

    fn head(&self, path: &str, length: usize) -> Option<RequestHeader> {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        let authority = self.endpoint.authority();
        parts.method = Method::POST;
        parts.headers = self.headers.clone();
        let headers = &mut parts.headers;
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_TEXT));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        match self.protocol {
            OtlpProtocol::HttpProtobuf => {
                headers.insert(HOST, HeaderValue::try_from(authority).ok()?);
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
                let protobuf = HeaderValue::from_static("application/x-protobuf");
                headers.insert(CONTENT_TYPE, protobuf);
                parts.uri = path.parse().ok()?;
            }
            OtlpProtocol::Grpc => {
                headers.insert(TE, HeaderValue::from_static("trailers"));
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                let scheme = if self.endpoint.tls { "https" } else { "http" };
                let uri = Uri::builder().scheme(scheme).authority(authority);
                parts.uri = uri.path_and_query(path).build().ok()?;
            }
        }
        Some(RequestHeader::from(parts))
    }
}

/// What a collector has answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    trailers: HeaderMap,
    message: Bytes,
}

impl Answer {
    /// What is wrong with it, and whether that may pass; nothing of a success.
    fn fault(&self, protocol: OtlpProtocol) -> Option<(String, bool)> {
        if !self.status.is_success() {
            let later = matches!(self.status.as_u16(), 408 | 429 | 502 | 503 | 504);
            return Some((self.status.to_string(), later));
        }
        if protocol == OtlpProtocol::HttpProtobuf {
            return None;
        }
        let field = |name: &str| {
            let value = self.trailers.get(name).or_else(|| self.headers.get(name));
            value.and_then(|value| value.to_str().ok())
        };
        let status = field("grpc-status").unwrap_or("2");
        let message = field("grpc-message").unwrap_or_default();
        // Those of OTLP's table that may be retried: cancelled, deadline, exhausted, aborted,
        // out of range, unavailable, data loss.
        let later = ["1", "4", "8", "10", "11", "14", "15"].contains(&status);
        (status != "0").then(|| (format!("grpc-status {status} {message}"), later))
    }
}

/// A message as gRPC frames it: not compressed, its length, itself.
fn grpc_frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(GRPC_PREFIX + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // The only error is a lack of room, and there is no end of that.
    _ = message.encode(&mut frame);
    frame.freeze()
}

/// Bytes before a message of gRPC.
const GRPC_PREFIX: usize = 5;
/// Bytes of an answer that are kept.
const ANSWER_BYTES_MAX: usize = 16 << 10;
const USER_AGENT_TEXT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));
