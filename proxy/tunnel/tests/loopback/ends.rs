//! How streams end: half-close, abort, refusal, breakage; and what may be sent again.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use weir_tunnel::{
    CloseCode, Error, Settings, SpliceEnd, Undelivered, is_undelivered, undelivered,
};

use crate::rig::{Carrier, Rig, carry, model_server, within};

/// A tunnel, one stream through it, and the socket at which it arrives.
struct Pair {
    tunnel: weir_tunnel::gateway::Tunnel,
    stream: weir_tunnel::TunnelStream,
    socket: TcpStream,
    carrier: Carrier,
    _agent: weir_tunnel::agent::AgentLink,
    _events: weir_tunnel::gateway::Events,
}

async fn pair() -> Pair {
    let rig = Rig::new();
    let (agent, tunnel, events) = rig.tunnel().await;
    let (listener, address) = model_server().await;
    let carrier = carry(agent.arrivals, address);
    let mut stream = within(tunnel.open()).await.unwrap();
    stream.write_all(b"request").await.unwrap();
    let (mut socket, _) = within(listener.accept()).await.unwrap();
    let mut seen = [0; 7];
    within(socket.read_exact(&mut seen)).await.unwrap();
    assert_eq!(&seen, b"request");
    Pair {
        tunnel,
        stream,
        socket,
        carrier,
        _agent: agent.link,
        _events: events,
    }
}

#[tokio::test]
async fn half_close_reaches_the_model_server() {
    let mut pair = pair().await;
    pair.stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within(pair.socket.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    // The other direction is still open.
    pair.socket.write_all(b"answer").await.unwrap();
    drop(pair.socket);
    let mut answer = Vec::new();
    within(pair.stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"answer");
    assert_eq!(
        within(pair.carrier.ends.recv()).await,
        Some(SpliceEnd::Done)
    );
}

#[tokio::test]
async fn what_comes_after_the_model_servers_end_is_undelivered() {
    let mut pair = pair().await;
    pair.socket.write_all(b"answer").await.unwrap();
    pair.socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    within(pair.stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"answer");
    let refused = within(async {
        loop {
            if let Err(error) = pair.stream.write_all(b" and more").await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(is_undelivered(&refused), "{refused}");
    assert_eq!(
        within(pair.carrier.ends.recv()).await,
        Some(SpliceEnd::Done)
    );
}

#[tokio::test]
async fn a_stream_carries_one_request_after_the_other() {
    let mut pair = pair().await;
    for round in 0..100_u8 {
        pair.socket.write_all(&[round]).await.unwrap();
        assert_eq!(within(pair.stream.read_u8()).await.unwrap(), round);
        pair.stream.write_all(&[round]).await.unwrap();
        assert_eq!(within(pair.socket.read_u8()).await.unwrap(), round);
    }
}

#[tokio::test]
async fn a_request_that_meets_a_closed_model_server_is_undelivered() {
    // Whether the gateway could have seen the end already, or not yet.
    for seen in [false, true] {
        let mut pair = pair().await;
        pair.socket.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        within(pair.stream.read_exact(&mut answer)).await.unwrap();
        drop(pair.socket);
        if seen {
            assert_eq!(within(pair.stream.read(&mut answer)).await.unwrap(), 0);
        }
        pair.stream.write_all(b"another").await.unwrap();
        let refused = within(pair.stream.read(&mut answer)).await.unwrap_err();
        assert_eq!(undelivered(&refused), Some(Undelivered::Closed));
    }
}

#[tokio::test]
async fn a_request_over_which_the_model_server_closes_may_have_been_delivered() {
    let mut pair = pair().await;
    pair.socket.write_all(b"answer").await.unwrap();
    let mut answer = [0; 6];
    within(pair.stream.read_exact(&mut answer)).await.unwrap();
    pair.stream.write_all(b"another").await.unwrap();
    let mut seen = [0; 7];
    within(pair.socket.read_exact(&mut seen)).await.unwrap();
    drop(pair.socket);
    let read = within(pair.stream.read(&mut answer)).await.unwrap();
    assert_eq!(read, 0, "an end as any, not an error that says more");
}

#[tokio::test]
async fn a_caller_that_leaves_cuts_the_model_servers_connection() {
    let Pair {
        stream,
        mut socket,
        mut carrier,
        ..
    } = pair().await;
    drop(stream);
    let cut = within(socket.read_u8()).await.unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::ConnectionReset, "{cut}");
    assert_eq!(within(carrier.ends.recv()).await, Some(SpliceEnd::Gateway));
}

#[tokio::test]
async fn a_caller_that_leaves_after_its_request_does_so_too() {
    let mut pair = pair().await;
    pair.stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within(pair.socket.read_to_end(&mut rest)).await.unwrap();
    drop(pair.stream);
    // Only writing can fail here: the end of the request was read before.
    let failed = within(async {
        loop {
            if let Err(error) = pair.socket.write_all(&[0; 1024]).await {
                return error.kind();
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(matches!(
        failed.await,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    ));
    assert_eq!(
        within(pair.carrier.ends.recv()).await,
        Some(SpliceEnd::Gateway)
    );
}

#[tokio::test]
async fn a_model_server_that_breaks_off_breaks_the_stream() {
    let mut pair = pair().await;
    pair.socket.write_all(b"half an ans").await.unwrap();
    let mut seen = [0; 11];
    within(pair.stream.read_exact(&mut seen)).await.unwrap();
    pair.socket.set_zero_linger().unwrap();
    drop(pair.socket);
    let broken = within(pair.stream.read_u8()).await.unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset, "{broken}");
    assert!(!is_undelivered(&broken), "{broken}");
    assert_eq!(
        within(pair.carrier.ends.recv()).await,
        Some(SpliceEnd::Upstream)
    );
}

#[tokio::test]
async fn a_lost_tunnel_breaks_its_streams_and_cuts_their_sockets() {
    let mut pair = pair().await;
    pair.tunnel.close(CloseCode::Superseded, "");
    let broken = within(pair.stream.read_u8()).await.unwrap_err();
    assert!(!is_undelivered(&broken), "{broken}");
    let cut = within(pair.socket.read_u8()).await.unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::ConnectionReset, "{cut}");
    let refused = within(pair.tunnel.open()).await.unwrap_err();
    assert_eq!(undelivered(&refused), Some(Undelivered::Closed));
    within(pair.carrier.tasks.join_next())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_model_server_that_is_not_there_leaves_the_request_undelivered() {
    let rig = Rig::new();
    let (agent, tunnel, _events) = rig.tunnel().await;
    let (listener, address) = model_server().await;
    drop(listener);
    let _carrier = carry(agent.arrivals, address);
    let mut stream = within(tunnel.open()).await.unwrap();
    stream.write_all(b"request").await.unwrap();
    let error = within(stream.read_u8()).await.unwrap_err();
    assert!(is_undelivered(&error), "{error}");
    assert_eq!(undelivered(&error), Some(Undelivered::ConnectFailed));
    assert!(!tunnel.is_closed(), "the tunnel has no part in it");
}

#[tokio::test]
async fn a_draining_agent_leaves_requests_undelivered_for_reader_and_writer() {
    let rig = Rig::new();
    let (mut agent, tunnel, _events) = rig.tunnel().await;
    let mut refuser = JoinSet::new();
    refuser.spawn(async move {
        while let Some(arrival) = agent.arrivals.next().await {
            arrival.refuse(Undelivered::Draining);
        }
    });
    let mut stream = within(tunnel.open()).await.unwrap();
    stream.write_all(b"request").await.unwrap();
    let error = within(stream.read_u8()).await.unwrap_err();
    assert_eq!(undelivered(&error), Some(Undelivered::Draining));

    let mut stream = within(tunnel.open()).await.unwrap();
    let error = within(async {
        loop {
            if let Err(error) = stream.write_all(&[0; 4096]).await {
                return error;
            }
        }
    });
    assert_eq!(undelivered(&error.await), Some(Undelivered::Draining));
}

#[tokio::test]
async fn a_tunnel_that_ends_before_the_first_byte_leaves_the_request_undelivered() {
    let rig = Rig::new();
    let (_agent, tunnel, _events) = rig.tunnel().await;
    let mut stream = within(tunnel.open()).await.unwrap();
    tunnel.close(CloseCode::Drained, "");
    let error = within(stream.write_all(b"request")).await.unwrap_err();
    assert_eq!(undelivered(&error), Some(Undelivered::Closed));
}

#[tokio::test]
async fn a_full_tunnel_leaves_the_request_undelivered() {
    let rig = Rig::with(Settings {
        streams_max: 1,
        open_wait: std::time::Duration::from_millis(50),
        ..Settings::default()
    });
    let (_agent, tunnel, _events) = rig.tunnel().await;
    let _first = within(tunnel.open()).await.unwrap();
    match within(tunnel.open()).await {
        Err(Error::Undelivered(reason)) => assert_eq!(reason, Undelivered::NoStream),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_caller_that_has_the_whole_answer_may_leave() {
    let mut pair = pair().await;
    pair.socket.write_all(b"answer").await.unwrap();
    pair.socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    within(pair.stream.read_to_end(&mut answer)).await.unwrap();
    drop(pair.stream);
    assert_eq!(
        within(pair.carrier.ends.recv()).await,
        Some(SpliceEnd::Done)
    );
}

#[tokio::test]
async fn a_server_that_answers_before_the_request_has_ended_is_heard() {
    let mut pair = pair().await;
    pair.socket.write_all(b"413 too large").await.unwrap();
    pair.socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    within(pair.stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"413 too large");
}
