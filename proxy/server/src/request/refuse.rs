//! Every refusal: its status, its stable code, and its words in the caller's own API.
//! Nothing else knows status codes of ours. `docs/errors.md` lists the codes.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType};
use weir_dialect::{Api, Fault, ModelError, PeekError, openai_type, render_fault};
use weir_pipeline::chain::Stop;
use weir_pipeline::facts::Transport;
use weir_pipeline::verdict::{End, FilterFailure, LocalResponse};

use crate::request::events::Broken;
use crate::request::exchange::Exchange;
use crate::request::headers::{REQUEST_ID, X_REQUEST_ID};
use crate::request::limit_headers;
use crate::request::serve::Connection;
use crate::request::sessions::BadSession;
use crate::request::{opening, stream};

/// How long a refused caller may go on sending its body before the connection is closed; closing
/// at once would reset the connection and lose the answer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why an exchange is refused. Boxed: refusals are rare, and every step's result has room for one.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Reason>);

/// What a [`Refusal`] holds.
#[derive(Debug)]
pub(crate) struct Reason {
    status: StatusCode,
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    error_type: Cow<'static, str>,
    param: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<Bytes>,
    grpc_status: Option<u16>,
    end: End,
    /// The body was not read to its end: the connection cannot be used again.
    unread: bool,
    /// There is nobody to tell.
    silent: bool,
}

impl Deref for Refusal {
    type Target = Reason;

    fn deref(&self) -> &Reason {
        &self.0
    }
}

impl DerefMut for Refusal {
    fn deref_mut(&mut self) -> &mut Reason {
        &mut self.0
    }
}

impl Refusal {
    fn new(
        status: StatusCode,
        code: &'static str,
        end: End,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Reason {
            status,
            code: Cow::Borrowed(code),
            message: message.into(),
            error_type: Cow::Borrowed(""),
            param: None,
            headers: Vec::new(),
            body: None,
            grpc_status: None,
            end,
            unread: false,
            silent: false,
        }))
    }

    /// What the caller has to correct.
    fn bad_request(code: &'static str, message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, End::Denied, message)
    }

    fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    fn about(mut self, param: Option<&'static str>) -> Self {
        self.param = param;
        self
    }

    /// The caller is gone.
    pub(crate) fn caller_gone() -> Self {
        let mut refusal = Self::new(
            StatusCode::BAD_REQUEST,
            "caller_gone",
            End::ClientGone,
            "the caller left",
        )
        .unread();
        refusal.silent = true;
        refusal
    }

    /// The body ended early, or its framing is broken.
    pub(crate) fn body_incomplete(error: &Error) -> Self {
        match error.etype() {
            ErrorType::ReadTimedout => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                End::Timeout,
                "the request body did not arrive in time; send it without pauses",
            )
            .unread(),
            ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => Self::new(
                StatusCode::BAD_REQUEST,
                "bad_framing",
                End::Denied,
                "the request body is not framed as its headers say",
            )
            .unread(),
            _ => Self::caller_gone(),
        }
    }

    /// Over `limits.body_max_bytes`.
    pub(crate) fn body_too_large(max: usize) -> Self {
        let message = format!(
            "request body is larger than {max} bytes; shorten the prompt, or ask the operator to raise limits.body_max_bytes"
        );
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            End::Denied,
            message,
        )
        .unread()
    }

    /// Over `limits.headers_max` or `limits.headers_max_bytes`.
    pub(crate) fn headers_too_large(count: usize, bytes: usize) -> Self {
        let message = format!("request headers are larger than {count} fields or {bytes} bytes");
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self::new(status, "headers_too_large", End::Denied, message).unread()
    }

    /// The body is not what the API asks for.
    pub(crate) fn bad_body(error: &PeekError) -> Self {
        let mut refusal = Self::new(StatusCode::BAD_REQUEST, "", End::Denied, error.to_string());
        refusal.code = Cow::Borrowed(error.code());
        refusal.about(error.param())
    }

    /// A header that only the gateway itself may set.
    pub(crate) fn reserved_header(name: &str) -> Self {
        let message = format!("{name} is a reserved header and cannot be set by the client");
        Self::bad_request("reserved_header", message)
    }

    /// A header of which the gateway cannot make anything.
    pub(crate) fn bad_header(name: &str, expected: &str) -> Self {
        let message = format!("{name} is not {expected}; correct it, or leave it out");
        Self::bad_request("invalid_header", message)
    }

    /// A name for the conversation that cannot be one.
    pub(crate) fn bad_session(error: &BadSession) -> Self {
        Self::bad_request("invalid_session_id", error.to_string())
    }

    /// The model string is not `function/model`.
    pub(crate) fn bad_model(error: ModelError) -> Self {
        let mut refusal = Self::new(StatusCode::BAD_REQUEST, "", End::Denied, error.to_string());
        refusal.code = Cow::Borrowed(error.code());
        refusal.about(Some("model"))
    }

    /// No such model.
    pub(crate) fn model_not_found(model: &str) -> Self {
        let message =
            format!("The model '{model}' does not exist; GET /v1/models lists those that do");
        let mut refusal = Self::new(
            StatusCode::NOT_FOUND,
            "model_not_found",
            End::Denied,
            message,
        );
        // OpenAI's own type for this 404.
        refusal.error_type = Cow::Borrowed("invalid_request_error");
        refusal.about(Some("model"))
    }

    /// The model does not answer on this path.
    pub(crate) fn endpoint_not_supported(model: &str, path: &str) -> Self {
        let message = format!("model \"{model}\" does not support {path}");
        Self::bad_request("endpoint_not_supported", message).about(Some("model"))
    }

    /// No such path.
    pub(crate) fn path_not_found(path: &str) -> Self {
        let message = format!(
            "no route for {path}; POST /v1/chat/completions and GET /v1/models are served, others need a [[routes]] entry"
        );
        Self::new(
            StatusCode::NOT_FOUND,
            "path_not_found",
            End::Denied,
            message,
        )
        .unread()
    }

    /// The path exists under another method.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("this path is served for {allow} only");
        let mut refusal = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            End::Denied,
            message,
        )
        .unread();
        refusal
            .headers
            .push((http::header::ALLOW, HeaderValue::from_static(allow)));
        refusal
    }

    /// The chain stopped the exchange.
    pub(crate) fn stopped(stop: Stop, end: End) -> Self {
        match stop {
            Stop::Respond { response, .. } => Self::local(*response, end),
            Stop::Failed(failure) => Self::filter_failed(&failure),
            Stop::NobodyAllowed => {
                let message = "no authorizer of this pipeline accepts the request; send `Authorization: Bearer KEY`";
                Self::new(
                    StatusCode::UNAUTHORIZED,
                    "invalid_api_key",
                    End::Denied,
                    message,
                )
            }
        }
    }

    fn local(response: LocalResponse, end: End) -> Self {
        let mut refusal = Self::new(response.status, "", end, response.message);
        refusal.code = Cow::Owned(response.error_code);
        refusal.error_type = Cow::Owned(response.error_type);
        refusal.headers = response.headers;
        refusal.grpc_status = response.grpc_status;
        refusal.body = (!response.body.is_empty()).then_some(response.body);
        if response.status.is_success() {
            refusal.end = End::Ok;
        }
        refusal
    }

    /// A filter failed and its policy is to deny; what went wrong is for the log only.
    pub(crate) fn filter_failed(failure: &FilterFailure) -> Self {
        tracing::warn!(filter = %failure.filter, phase = failure.phase, kind = %failure.kind, detail = %failure.detail, "request refused: filter failed");
        let message = format!("filter `{}` is unavailable, try again", failure.filter);
        let mut refusal = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "filter_unavailable",
            End::FilterFailed,
            message,
        );
        refusal
            .headers
            .push((http::header::RETRY_AFTER, HeaderValue::from_static("1")));
        refusal
    }

    /// Nobody is eligible.
    pub(crate) fn no_backend(cluster: &str) -> Self {
        let message = format!("no healthy backend in cluster `{cluster}`, try again");
        let mut refusal = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_eligible_candidates",
            End::UpstreamError,
            message,
        );
        refusal
            .headers
            .push((http::header::RETRY_AFTER, HeaderValue::from_static("1")));
        refusal
    }

    /// Nobody has ever served the model.
    pub(crate) fn never_served(model: &str) -> Self {
        let message = format!("no worker has ever served `{model}`, check the name");
        let code = "no_eligible_candidates";
        Self::new(StatusCode::NOT_FOUND, code, End::UpstreamError, message)
    }

    /// Everybody is busy.
    pub(crate) fn overloaded(cluster: &str) -> Self {
        let message =
            format!("every backend of cluster `{cluster}` is at max_concurrency, try again");
        let mut refusal = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            End::Limited,
            message,
        );
        refusal
            .headers
            .push((http::header::RETRY_AFTER, HeaderValue::from_static("1")));
        refusal
    }

    /// The upstream failed before anything reached the caller.
    pub(crate) fn upstream_failed(error: &Error) -> Self {
        match error.etype() {
            ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_connect_timeout",
                End::Timeout,
                "no backend accepted the connection in time",
            ),
            ErrorType::ReadTimedout | ErrorType::WriteTimedout => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_timeout",
                End::Timeout,
                "the backend did not answer in time",
            ),
            ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::SocketError
            | ErrorType::TLSHandshakeFailure
            | ErrorType::InvalidCert
            | ErrorType::HandshakeError
            | ErrorType::ConnectProxyFailure => Self::new(
                StatusCode::BAD_GATEWAY,
                "upstream_unreachable",
                End::UpstreamError,
                "no backend could be reached",
            ),
            _ => Self::new(
                StatusCode::BAD_GATEWAY,
                "upstream_failed",
                End::UpstreamError,
                "the backend failed before it answered",
            ),
        }
    }

    /// The backend said in a stream that it failed.
    pub(crate) fn upstream_said(message: String) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "upstream_error",
            End::UpstreamError,
            message,
        )
    }

    /// The backend failed in mid-stream, before anything of the answer reached the caller.
    pub(crate) fn broken(broken: Broken) -> Self {
        let status = match broken.end {
            End::Timeout => StatusCode::GATEWAY_TIMEOUT,
            End::FilterFailed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, broken.code, broken.end, broken.message)
    }

    /// A Responses stream without a result.
    pub(crate) fn no_terminal_event() -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "no_terminal_event",
            End::UpstreamError,
            "responses proxy stream ended without a terminal response event",
        )
    }

    /// The backend answered otherwise than by events, after the caller was promised some.
    pub(crate) fn not_a_stream(status: StatusCode, body: &[u8]) -> Self {
        if status.is_success() {
            let message =
                "the backend did not answer with a stream; send the request with `stream` false";
            return Self::upstream_said(message.into());
        }
        let mut refusal = Self::upstream_said(opening::Fault::read(body).message);
        refusal.status = status;
        refusal
    }

    /// A unary answer over `limits.response_max_bytes`.
    pub(crate) fn response_too_large(max: usize) -> Self {
        let message = format!(
            "the backend's answer is larger than {max} bytes; ask for less at a time, or stream"
        );
        Self::new(
            StatusCode::BAD_GATEWAY,
            "response_too_large",
            End::UpstreamError,
            message,
        )
    }

    /// The gateway's own fault.
    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            End::FilterFailed,
            "internal error, try again",
        )
    }

    /// How the exchange ends by it.
    pub(crate) fn end(&self) -> End {
        self.end
    }

    /// The refusal as an error of the caller's API.
    pub(crate) fn fault(&self) -> Fault<'_> {
        let status = self.status.as_u16();
        let error_type = if self.error_type.is_empty() {
            openai_type(status)
        } else {
            &self.error_type
        };
        Fault {
            status,
            error_type,
            code: &self.code,
            message: &self.message,
            param: self.param,
        }
    }
}

/// Tells the caller. Nothing may have been written before.
pub(crate) async fn write(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    mut refusal: Refusal,
) -> Connection {
    exchange.progress.end = refusal.end;
    exchange.progress.code = Some(refusal.code.as_ref().into());
    if refusal.silent {
        return Connection::lost(exchange);
    }
    if exchange.progress.head_sent {
        return stream::end_with_fault(exchange, downstream, &refusal.fault()).await;
    }
    if refusal.unread {
        downstream.set_keepalive(None);
    }
    let grpc = exchange
        .facts
        .as_ref()
        .is_some_and(|facts| facts.transport == Transport::Grpc);
    if grpc {
        return write_grpc(exchange, downstream, &refusal).await;
    }
    let body = match &refusal.body {
        Some(body) => body.clone(),
        None => render_fault(exchange.api, &refusal.fault(), &exchange.request_id),
    };
    let headers = std::mem::take(&mut refusal.headers);
    let connection = write_json(exchange, downstream, refusal.status, headers, body).await;
    if refusal.unread && connection == Connection::Reusable {
        downstream.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        _ = downstream.drain_request_body().await;
    }
    connection
}

/// gRPC callers read a trailers-only answer (gRPC over HTTP/2, "Responses").
async fn write_grpc(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    refusal: &Refusal,
) -> Connection {
    exchange.progress.status = StatusCode::OK.as_u16();
    let head = || -> pingora::Result<ResponseHeader> {
        let mut head = ResponseHeader::build(StatusCode::OK, Some(4))?;
        head.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))?;
        head.insert_header("grpc-status", grpc_status(refusal).to_string())?;
        head.insert_header(
            "grpc-message",
            percent_encoded(&format!("{}: {}", refusal.code, refusal.message)),
        )?;
        head.insert_header(X_REQUEST_ID, &*exchange.request_id)?;
        Ok(head)
    };
    let Ok(head) = head() else {
        return Connection::lost(exchange);
    };
    let written = async {
        downstream.write_response_header(Box::new(head)).await?;
        downstream.write_response_body(Bytes::new(), true).await
    };
    match written.await {
        Ok(()) => Connection::Reusable,
        Err(_) => Connection::lost(exchange),
    }
}

/// The filter's own, else by the table of gRPC's HTTP mapping, with the finer ones where we know.
fn grpc_status(refusal: &Refusal) -> u16 {
    refusal
        .grpc_status
        .unwrap_or(match refusal.status.as_u16() {
            400 => 3,
            401 => 16,
            403 => 7,
            404 => 5,
            408 | 504 => 4,
            413 | 429 | 431 => 8,
            405 | 501 => 12,
            502 | 503 => 14,
            500 => 13,
            _ => 2,
        })
}

/// gRPC's rule for `grpc-message`: percent-encoding of all but printable ASCII, and of `%`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Writes an answer of the gateway's own; JSON unless `headers` says otherwise.
pub(crate) async fn write_json(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
    status: StatusCode,
    mut headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
) -> Connection {
    limit_headers::onto_refusal(exchange.api, &exchange.ledger, &mut headers);
    exchange.progress.status = status.as_u16();
    exchange.progress.response_bytes = body.len() as u64;
    let head = head(status, headers, exchange, body.len());
    let Ok(head) = head else {
        return Connection::lost(exchange);
    };
    let written = async {
        downstream.write_response_header(Box::new(head)).await?;
        downstream.write_response_body(body, true).await
    };
    match written.await {
        Ok(()) => Connection::Reusable,
        Err(_) => Connection::lost(exchange),
    }
}

fn head(
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    exchange: &Exchange,
    length: usize,
) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(status, Some(headers.len() + 4))?;
    head.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/json"))?;
    for (name, value) in headers {
        if name == CONTENT_TYPE {
            head.insert_header(name, value)?;
        } else if name != CONTENT_LENGTH {
            head.append_header(name, value)?;
        }
    }
    head.insert_header(CONTENT_LENGTH, HeaderValue::from(length))?;
    if exchange.api == Api::Messages {
        head.insert_header(REQUEST_ID, &*exchange.request_id)?;
    }
    head.insert_header(X_REQUEST_ID, &*exchange.request_id)?;
    Ok(head)
}
