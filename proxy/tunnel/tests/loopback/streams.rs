//! Bytes through many streams, one by one and at once.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use weir_tunnel::TunnelStream;

use crate::rig::{Rig, carry, echo, model_server, until, within};

/// A stream must fit wherever a TCP connection does.
const _: fn() = || {
    fn fits<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + Sync>() {}
    fits::<TunnelStream>();
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_at_once() {
    const STREAMS: usize = 1000;
    let rig = Rig::new();
    let (agent, tunnel, _events) = rig.tunnel().await;
    let (listener, address) = model_server().await;
    let _model_server = echo(listener);
    let _carrier = carry(agent.arrivals, address);
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let mut stream = within(tunnel.open()).await.unwrap();
        stream
            .write_all(format!("request {number:06}").as_bytes())
            .await
            .unwrap();
        streams.push((number, stream));
    }
    let mut answers = JoinSet::new();
    for (number, mut stream) in streams {
        answers.spawn(async move {
            let mut first = [0; 14];
            stream.read_exact(&mut first).await.unwrap();
            assert_eq!(first, *format!("request {number:06}").as_bytes());
            (number, stream)
        });
    }
    // All are open now, each with an answer begun: none waits for another to end.
    let open: Vec<_> = within(answers.join_all()).await;
    assert_eq!(tunnel.stream_count(), STREAMS);
    let mut ends = JoinSet::new();
    for (number, mut stream) in open {
        ends.spawn(async move {
            let rest = format!("rest of {number}").repeat(50);
            stream.write_all(rest.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut seen = String::new();
            stream.read_to_string(&mut seen).await.unwrap();
            assert_eq!(seen, rest);
        });
    }
    within(ends.join_all()).await;
    until("all streams end", || tunnel.stream_count() == 0).await;
    until("the agent's too", || agent.link.stream_count() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_passes_unchanged() {
    const BYTES: usize = 64 << 20;
    let rig = Rig::new();
    let (agent, tunnel, _events) = rig.tunnel().await;
    let (listener, address) = model_server().await;
    let _model_server = echo(listener);
    let _carrier = carry(agent.arrivals, address);
    let body: Vec<u8> = (0..BYTES / 8)
        .flat_map(|n| (n as u64).to_le_bytes())
        .collect();
    let stream = within(tunnel.open()).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sent = body.clone();
    let mut sender = JoinSet::new();
    sender.spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut seen = Vec::with_capacity(BYTES);
    within(read.read_to_end(&mut seen)).await.unwrap();
    assert!(seen == body, "the bytes differ");
}

#[tokio::test]
async fn streams_come_and_go_beyond_the_bound_of_those_at_once() {
    let rig = Rig::with(weir_tunnel::Settings {
        streams_max: 4,
        ..weir_tunnel::Settings::default()
    });
    let (agent, tunnel, _events) = rig.tunnel().await;
    let (listener, address) = model_server().await;
    let _model_server = echo(listener);
    let _carrier = carry(agent.arrivals, address);
    for number in 0..50_u8 {
        let mut stream = within(tunnel.open()).await.unwrap();
        stream.write_all(&[number]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut seen = Vec::new();
        within(stream.read_to_end(&mut seen)).await.unwrap();
        assert_eq!(seen, [number]);
    }
}
