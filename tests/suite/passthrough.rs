//! Routes: any path as it is, WebSocket, gRPC.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use weir_tests::caller::{
    Body, connect, get, post, read_until, request, send, send_http2, whole, with_header,
};
use weir_tests::config_text::{ConfigText, KEY};
use weir_tests::gateway::Gateway;
use weir_tests::upstream::{answer, refusing};

use crate::demo::{Speaks, demo_with};

const ROUTES: &str = r#"
[[routes]]
path_prefix = "/echo"
cluster = "sim"
[[routes]]
path_prefix = "/echo/guarded"
cluster = "sim"
pipeline = "headers"
[[routes]]
path_prefix = "/outside"
cluster = "sim"
strip_prefix = true
[[routes]]
path_prefix = "/hosted"
host = "Special.example"
cluster = "sim"
strip_prefix = true
[[routes]]
path_prefix = "/ws"
cluster = "sim"
pipeline = "headers"
"#;

#[tokio::test]
async fn any_request_as_it_is() {
    let (gateway, _simulated) = demo_with(|config| config.more(ROUTES)).await;
    for speaks in Speaks::BOTH {
        for method in [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
        ] {
            let body = vec![b'x'; if method == Method::GET { 0 } else { 300_000 }];
            let sent = request(
                method.clone(),
                "/echo/a%20b/../c?x=1&y=%2F",
                whole(body.clone()),
            );
            let answer = speaks
                .ask(&gateway, with_header(sent, "x-custom", Some("kept")))
                .await;
            assert_eq!(answer.status, 200, "{speaks:?} {method}: {}", answer.text());
            let echo = answer.json();
            assert_eq!(echo["method"], method.as_str());
            assert_eq!(echo["path"], "/echo/a%20b/../c?x=1&y=%2F");
            assert_eq!(echo["body_bytes"], body.len());
            assert_eq!(echo["headers"]["x-custom"], "kept");
            assert!(!answer.header("x-request-id").is_empty());
        }
    }
}

#[tokio::test]
async fn headers_of_routes() {
    let (gateway, _simulated) = demo_with(|config| config.more(ROUTES)).await;
    let cases = [
        ("x-weir-anything", "1", None),
        ("x-stargate-anything", "1", None),
        ("x-inference-server-url", "http://elsewhere", None),
        ("cookie", "a=b", None),
        ("x-api-key", "k", None),
        ("proxy-authorization", "Basic eDp5", None),
        ("x-request-id", "mine-3", Some("mine-3")),
        ("accept-encoding", "gzip", Some("gzip")),
        ("range", "bytes=0-1", Some("bytes=0-1")),
    ];
    for (name, value, expected) in cases {
        let answer = send(
            gateway.address(),
            with_header(get("/echo"), name, Some(value)),
        )
        .await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert_eq!(answer.json()["headers"][name].as_str(), expected, "{name}");
        assert_eq!(
            answer.json()["headers"]["authorization"].as_str(),
            None,
            "{name}"
        );
    }
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = send(
        gateway.address(),
        with_header(get("/echo"), "traceparent", Some(trace)),
    )
    .await;
    let joined = answer.json()["headers"]["traceparent"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        joined.contains("0af7651916cd43dd8448eb211c80319c") && joined != trace,
        "{joined}"
    );
}

#[tokio::test]
async fn which_route() {
    let (gateway, simulated) = demo_with(|config| config.more(ROUTES)).await;
    let path = async |request: Request<Body>| {
        let answer = send(gateway.address(), request).await;
        match answer.status {
            200 => answer.json()["path"].as_str().unwrap().to_owned(),
            status => format!("{status} {}", answer.code()),
        }
    };
    let hosted = |host: &str| with_header(get("/hosted/echo"), "host", Some(host));
    let keyless = |path: &str| with_header(get(path), "authorization", None);
    assert_eq!(
        path(get("/outside/echo/x?y=1")).await,
        "/echo/x?y=1",
        "the prefix is taken off"
    );
    assert_eq!(path(hosted("special.example")).await, "/echo");
    assert_eq!(path(hosted("SPECIAL.example:8080")).await, "/echo");
    assert_eq!(path(hosted("other.example")).await, "404 path_not_found");
    assert_eq!(path(keyless("/echo/open")).await, "/echo/open");
    assert_eq!(
        path(keyless("/echo/guarded")).await,
        "401 missing_api_key",
        "the longest prefix wins"
    );
    assert_eq!(path(get("/echo/guarded")).await, "/echo/guarded");
    let before = simulated.count("/requests/~1echo").await;
    let wrong = with_header(
        post("/echo/guarded", "x"),
        "authorization",
        Some("Bearer wrong"),
    );
    assert_eq!(path(wrong).await, "401 invalid_api_key");
    assert_eq!(
        simulated.count("/requests/~1echo").await,
        before,
        "refused before anything is sent on"
    );
}

#[tokio::test]
async fn a_route_to_nobody() {
    let config = ConfigText::new(&[refusing()]).more(ROUTES).text();
    let gateway = Gateway::start(&config).await;
    let answer = send(gateway.address(), get("/echo")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (502, "upstream_unreachable"),
        "{}",
        answer.text()
    );
    assert!(!answer.header("x-request-id").is_empty());
}

#[tokio::test]
async fn another_backend_of_a_route() {
    let good = weir_tests::simulated::Simulated::start().await;
    let config = ConfigText::new(&[refusing(), good.address()])
        .more(ROUTES)
        .text();
    let gateway = Gateway::start(&config).await;
    for _ in 0..4 {
        let answer = send(gateway.address(), get("/echo")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// A masked frame with a mask of zeros: its payload reads as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![
        first,
        0x80 | u8::try_from(payload.len()).unwrap(),
        0,
        0,
        0,
        0,
    ];
    frame.extend_from_slice(payload);
    frame
}

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nhost: weir\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Connections a test may lose to a race of pingora 0.9.1: its upstream half takes the end of the
/// handshake's empty body for the end of the WebSocket when it sees the 101 first, which happens
/// when the two arrive while the thread waits for a core.
const LOST_MAX: usize = 5;

/// A WebSocket that has echoed one frame.
async fn websocket(gateway: &Gateway) -> TcpStream {
    for _ in 0..LOST_MAX {
        let mut stream = connect(gateway.address()).await.unwrap();
        let handshake = format!("{HANDSHAKE}authorization: Bearer {KEY}\r\n\r\n");
        stream.write_all(handshake.as_bytes()).await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        // The accept key of RFC 6455, section 1.3.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        if echo(&mut stream, "first").await.is_ok() {
            return stream;
        }
    }
    panic!("{LOST_MAX} times no echo; the log:\n{}", gateway.log());
}

async fn echo(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    stream.write_all(&frame(0x81, text.as_bytes())).await?;
    let mut echo = vec![0; 2 + text.len()];
    stream.read_exact(&mut echo).await?;
    assert_eq!((echo[0], usize::from(echo[1])), (0x81, text.len()));
    assert_eq!(&echo[2..], text.as_bytes());
    Ok(())
}

#[tokio::test]
async fn a_websocket() {
    let (gateway, _simulated) = demo_with(|config| config.more(ROUTES)).await;
    let mut stream = websocket(&gateway).await;
    for text in ["one", "another", ""] {
        echo(&mut stream, text).await.unwrap();
    }
    stream.write_all(&frame(0x88, &[])).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [0x88, 0], "closed by both sides");
}

#[tokio::test]
async fn a_websocket_without_a_key() {
    let (gateway, simulated) = demo_with(|config| config.more(ROUTES)).await;
    let mut stream = connect(gateway.address()).await.unwrap();
    stream
        .write_all(format!("{HANDSHAKE}\r\n").as_bytes())
        .await
        .unwrap();
    let refusal = read_until(&mut stream, "missing_api_key").await;
    assert!(refusal.starts_with("HTTP/1.1 401"), "{refusal}");
    assert_eq!(simulated.count("/requests/~1ws").await, 0);
}

/// A gRPC server that sends each message back; what it says of the call is in the trailers.
async fn grpc_server() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let served = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(echo_message));
            connections.spawn(async { _ = served.await });
        }
    });
    (address, serving)
}

async fn echo_message(
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, hyper::Error> {
    let te = request.headers().get("te").cloned();
    let body = request.into_body().collect().await?.to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("x-seen-te", te.unwrap_or(HeaderValue::from_static("none")));
    let body = Full::new(body).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed_unsync());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    Ok(response)
}

#[tokio::test]
async fn a_grpc_call() {
    let (address, _serving) = grpc_server().await;
    let config = ConfigText::new(&[address]).cluster("http2 = true").more(
        "[[routes]]\npath_prefix = \"/echo.Echo/\"\ncluster = \"sim\"\npipeline = \"headers\"",
    );
    let gateway = Gateway::start(&config.text()).await;
    let message = b"\x00\x00\x00\x00\x05hello".to_vec();
    let call = |key: Option<&str>| {
        let call = post("/echo.Echo/Say", message.clone());
        let call = with_header(call, "content-type", Some("application/grpc"));
        with_header(
            with_header(call, "te", Some("trailers")),
            "authorization",
            key,
        )
    };
    let answer = send_http2(gateway.address(), call(Some(&format!("Bearer {KEY}")))).await;
    assert_eq!(
        (answer.status, &answer.body[..]),
        (200, &message[..]),
        "{:?}",
        answer.headers
    );
    assert_eq!(answer.header("content-type"), "application/grpc");
    assert_eq!(
        answer.trailers.get("grpc-status").unwrap(),
        "0",
        "{:?}",
        answer.trailers
    );
    assert_eq!(
        answer.trailers.get("x-seen-te").unwrap(),
        "trailers",
        "gRPC servers insist on it"
    );

    let refusal = send_http2(gateway.address(), call(None)).await;
    assert_eq!(
        (refusal.status, refusal.header("grpc-status")),
        (200, "16"),
        "{:?}",
        refusal.headers
    );
    assert!(
        refusal.header("grpc-message").contains("missing_api_key"),
        "{:?}",
        refusal.headers
    );
}

#[tokio::test]
async fn an_answer_that_never_ends_is_passed_on_as_it_comes() {
    use weir_tests::caller::{Caller, next_bytes};
    use weir_tests::upstream::{Connection, STREAM_HEAD, Upstream, chunk};
    let upstream = Upstream::scripted(async |mut connection: Connection| {
        if connection.request().await.is_ok() {
            connection.send(STREAM_HEAD).await;
            connection.send(chunk("data: 1\n\n")).await;
            connection.closed().await;
        }
    })
    .await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).more(ROUTES).text()).await;
    let mut caller = Caller::http1(gateway.address()).await.unwrap();
    let mut response = caller.open(get("/echo")).await.unwrap();
    assert_eq!(
        next_bytes(&mut response).await.unwrap().unwrap(),
        "data: 1\n\n"
    );
}

#[tokio::test]
async fn the_size_of_an_answer_does_not_matter() {
    let body = "y".repeat(3_000_000);
    let upstream =
        weir_tests::upstream::Upstream::fixed(answer("200 OK", "text/plain", &body)).await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).more(ROUTES).text()).await;
    for speaks in Speaks::BOTH {
        let got = speaks.ask(&gateway, get("/echo")).await;
        assert_eq!(
            (got.status, got.body.len()),
            (200, body.len()),
            "{speaks:?}"
        );
    }
}
