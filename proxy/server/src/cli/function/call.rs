//! One request to the admin listener of a running gateway.

use std::net::ToSocketAddrs;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, StatusCode, Uri};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use serde_json::Value;

/// Long enough for a configuration to be compiled.
const DEADLINE: Duration = Duration::from_secs(120);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What the gateway answered.
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its body; null when it is empty.
    pub(crate) body: Value,
}

/// Sends a request and waits for the answer.
///
/// # Errors
/// When no gateway answers at the address.
pub(crate) fn call(
    admin: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let exchange = async {
        let answer = tokio::time::timeout(DEADLINE, send(admin, method, path, body)).await;
        answer.map_err(|_| format!("{admin} has not answered in {} s", DEADLINE.as_secs()))?
    };
    runtime.block_on(exchange)
}

async fn send(
    admin: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Answer, String> {
    let authority = authority(admin)?;
    let unreachable = |error: String| {
        format!(
            "no gateway answers at {admin}: {error}; is it running, and is this its `admin.listen`?"
        )
    };
    let address = authority
        .to_socket_addrs()
        .map_err(|error| unreachable(error.to_string()))?
        .next()
        .ok_or_else(|| unreachable("the name has no address".into()))?;
    let mut peer = HttpPeer::new(address, false, String::new());
    peer.options.connection_timeout = Some(CONNECT_DEADLINE);
    let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    let head = head(method, path, &authority, body.len())?;
    let failed = |error: Box<pingora::Error>| unreachable(error.to_string());
    let (mut session, _) = Connector::new(None)
        .get_http_session(&peer)
        .await
        .map_err(failed)?;
    session
        .write_request_header(Box::new(head))
        .await
        .map_err(failed)?;
    if !body.is_empty() {
        session
            .write_request_body(body, true)
            .await
            .map_err(failed)?;
    }
    session.finish_request_body().await.map_err(failed)?;
    session.read_response_header().await.map_err(failed)?;
    let mut read = BytesMut::new();
    while let Some(chunk) = session.read_response_body().await.map_err(failed)? {
        if read.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("{admin} answers with too much"));
        }
        read.extend_from_slice(&chunk);
    }
    let status = session.response_header().map(|head| head.status);
    let status = status.ok_or_else(|| unreachable("there is no answer".into()))?;
    let body = if read.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&read).map_err(|_| {
            format!("{admin} answers {status}, and not as a gateway's admin listener")
        })?
    };
    Ok(Answer { status, body })
}

fn head(
    method: Method,
    path: &str,
    authority: &str,
    length: usize,
) -> Result<RequestHeader, String> {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    let has_body = matches!(method, Method::POST | Method::PUT);
    parts.method = method;
    parts.uri = path
        .parse()
        .map_err(|_| format!("`{path}` cannot be asked for: an id holds a character it may not"))?;
    let host = HeaderValue::from_str(authority).map_err(|error| error.to_string())?;
    parts.headers.insert(HOST, host);
    let json = HeaderValue::from_static("application/json");
    parts.headers.insert(ACCEPT, json.clone());
    if has_body {
        parts.headers.insert(CONTENT_TYPE, json);
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(RequestHeader::from(parts))
}

/// Host and port of `http://HOST:PORT`, or of `HOST:PORT`.
fn authority(admin: &str) -> Result<String, String> {
    let wrong =
        || format!("`{admin}` is not the address of an admin listener: write http://HOST:PORT");
    let whole = if admin.contains("://") {
        admin.to_owned()
    } else {
        format!("http://{admin}")
    };
    let uri: Uri = whole.parse().map_err(|_| wrong())?;
    let bare = uri.path() == "/" && uri.scheme_str() == Some("http");
    let authority = uri.authority().filter(|_| bare).ok_or_else(wrong)?;
    let port = authority.port_u16().unwrap_or(80);
    Ok(format!("{}:{port}", authority.host()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (admin, expected) in [
            ("http://127.0.0.1:9901", Some("127.0.0.1:9901")),
            ("http://127.0.0.1:9901/", Some("127.0.0.1:9901")),
            ("localhost:9901", Some("localhost:9901")),
            ("http://[::1]:9901", Some("[::1]:9901")),
            ("http://gateway", Some("gateway:80")),
            ("https://127.0.0.1:9901", None),
            ("http://127.0.0.1:9901/v2", None),
            ("", None),
        ] {
            assert_eq!(authority(admin).ok().as_deref(), expected, "{admin}");
        }
    }
}
