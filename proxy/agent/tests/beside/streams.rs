//! Requests through the agent, and its end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use weir_agent::Upstream;
use weir_tunnel::{Status, Undelivered, undelivered};

use crate::rig::{Agent, Gateway, ModelServer, loopback, rules, settings, within};

#[tokio::test]
async fn a_request_reaches_the_model_server() {
    let server = ModelServer::start().await;
    server.answers.set("/echo", 200, "");
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let _agent = Agent::start(settings(&server, &[gateway.address]));
    gateway.until_status(Status::Active).await;
    let mut stream = within(gateway.tunnel().open()).await.unwrap();
    let request =
        "POST /echo HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_model_server_on_a_unix_socket_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let mut settings = settings(&server, &[gateway.address]);
    settings.upstream = Upstream::Unix(path);
    settings.models = vec!["m".to_owned()];
    let _agent = Agent::start(settings);
    gateway
        .until("the tunnel is up", |book| !book.tunnels.is_empty())
        .await;
    let mut stream = within(gateway.tunnel().open()).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    // The agent asks for the server's health by the same socket.
    let mut socket = within(async {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut first = [0; 4];
            socket.read_exact(&mut first).await.unwrap();
            if &first == b"ping" {
                return socket;
            }
        }
    })
    .await;
    socket.write_all(b"pong").await.unwrap();
    let mut answer = [0; 4];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"pong");
}

#[tokio::test]
async fn a_model_server_that_is_gone_leaves_requests_undelivered_and_is_told() {
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let mut settings = settings(&server, &[gateway.address]);
    // Only the failed request makes it ask again this soon.
    settings.health.interval = Duration::from_secs(3600);
    let _agent = Agent::start(settings);
    gateway.until_status(Status::Active).await;
    drop(server);
    let mut stream = within(gateway.tunnel().open()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = within(stream.read_u8()).await.unwrap_err();
    assert_eq!(
        undelivered(&error),
        Some(Undelivered::ConnectFailed),
        "{error}"
    );
    gateway.until_status(Status::Inactive).await;
}

#[tokio::test]
async fn no_more_streams_are_carried_than_may() {
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let mut settings = settings(&server, &[gateway.address]);
    settings.streams_max = 1;
    let _agent = Agent::start(settings);
    gateway.until_status(Status::Active).await;
    let mut first = within(gateway.tunnel().open()).await.unwrap();
    let request = b"GET /health HTTP/1.1\r\nhost: m\r\n\r\n";
    first.write_all(request).await.unwrap();
    within(first.read_u8()).await.unwrap();
    let mut second = within(gateway.tunnel().open()).await.unwrap();
    second.write_all(request).await.unwrap();
    let error = within(second.read_u8()).await.unwrap_err();
    assert_eq!(undelivered(&error), Some(Undelivered::Busy), "{error}");
    drop(first);
    // The place is free again once the agent has noticed.
    within(async {
        loop {
            let mut third = gateway.tunnel().open().await.unwrap();
            third.write_all(request).await.unwrap();
            if third.read_u8().await.is_ok() {
                return;
            }
        }
    })
    .await;
}

/// An agent with one stream that is not at its end, and the socket at its other side.
async fn carrying(
    drain_timeout: Duration,
) -> (
    Agent,
    Gateway,
    weir_tunnel::TunnelStream,
    tokio::net::TcpStream,
    ModelServer,
) {
    let server = ModelServer::start().await;
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let mut settings = settings(&server, &[gateway.address]);
    settings.upstream = Upstream::Tcp(listener.local_addr().unwrap().to_string());
    settings.models = vec!["m".to_owned()];
    settings.drain_timeout = drain_timeout;
    let agent = Agent::start(settings);
    gateway
        .until("the tunnel is up", |book| !book.tunnels.is_empty())
        .await;
    let mut stream = within(gateway.tunnel().open()).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let socket = within(async {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut first = [0; 4];
            socket.read_exact(&mut first).await.unwrap();
            if &first == b"ping" {
                return socket;
            }
        }
    })
    .await;
    (agent, gateway, stream, socket, server)
}

#[tokio::test]
async fn a_drain_cuts_no_stream() {
    let (mut agent, mut gateway, mut stream, mut socket, _server) =
        carrying(Duration::from_secs(600)).await;
    agent.handle.drain();
    gateway
        .until("the agent says that it drains", |book| book.drained)
        .await;
    gateway.until_status(Status::Inactive).await;

    let mut late = within(gateway.tunnel().open()).await.unwrap();
    late.write_all(b"late").await.unwrap();
    let error = within(late.read_u8()).await.unwrap_err();
    assert_eq!(undelivered(&error), Some(Undelivered::Draining), "{error}");

    // Bytes still pass both ways.
    for round in 0..20_u8 {
        stream.write_all(&[round]).await.unwrap();
        assert_eq!(within(socket.read_u8()).await.unwrap(), round);
        socket.write_all(&[round]).await.unwrap();
        assert_eq!(within(stream.read_u8()).await.unwrap(), round);
    }
    assert!(agent.is_running(), "it waits for the stream");
    drop(socket);
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    drop(stream);
    agent.ended().await.unwrap();
    gateway
        .until("the tunnel is closed", |book| book.lost == 1)
        .await;
}

#[tokio::test]
async fn a_drain_is_bounded() {
    let (agent, mut gateway, mut stream, _socket, _server) =
        carrying(Duration::from_millis(100)).await;
    agent.handle.drain();
    agent.ended().await.unwrap();
    gateway
        .until("the tunnel is closed", |book| book.lost == 1)
        .await;
    assert!(within(stream.read_u8()).await.is_err());
}

#[tokio::test]
async fn a_second_wish_ends_at_once() {
    let (agent, mut gateway, _stream, _socket, _server) = carrying(Duration::from_secs(600)).await;
    agent.handle.drain();
    gateway
        .until("the agent says that it drains", |book| book.drained)
        .await;
    agent.handle.end();
    agent.ended().await.unwrap();
}
