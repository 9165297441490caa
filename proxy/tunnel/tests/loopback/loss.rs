//! Peers that vanish: noticed at once when they say so, by silence when they cannot.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use weir_tunnel::agent::{Notice, connect};
use weir_tunnel::gateway::Event;
use weir_tunnel::{CloseCode, Loss, Settings, is_undelivered};

use crate::rig::{NAME, Rig, hello, loopback, welcome, within};

/// A UDP relay in front of a listener; dropping it is a cut cable.
async fn relay(gateway: std::net::SocketAddr) -> (JoinSet<()>, std::net::SocketAddr) {
    let front = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
    let back = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
    back.connect(gateway).await.unwrap();
    let address = front.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut there, mut back_again) = (vec![0; 65536], vec![0; 65536]);
        let mut agent = None;
        loop {
            tokio::select! {
                Ok((bytes, from)) = front.recv_from(&mut there) => {
                    agent = Some(from);
                    let _ = back.send(&there[..bytes]).await;
                }
                Ok(bytes) = back.recv(&mut back_again) => {
                    if let Some(agent) = agent {
                        let _ = front.send_to(&back_again[..bytes], agent).await;
                    }
                }
            }
        }
    });
    (tasks, address)
}

#[tokio::test]
async fn a_cut_link_is_noticed_by_silence_on_both_sides() {
    let rig = Rig::with(Settings {
        keep_alive: Duration::from_millis(50),
        idle: Duration::from_millis(300),
        ..Settings::default()
    });
    let (cable, address) = relay(rig.address).await;
    let (agent, gateway) = within(async {
        tokio::join!(
            connect(address, NAME, &rig.trust, hello(), &rig.settings),
            async {
                rig.listener
                    .accept()
                    .await
                    .unwrap()
                    .welcome(welcome())
                    .await
            }
        )
    })
    .await;
    let (mut agent, (tunnel, mut events)) = (agent.unwrap(), gateway.unwrap());
    let mut stream = within(tunnel.open()).await.unwrap();
    stream.write_all(b"request").await.unwrap();
    let _arrival = within(agent.arrivals.next()).await.unwrap();

    drop(cable);
    assert_eq!(within(events.next()).await, Event::Closed(Loss::Silent));
    assert_eq!(
        within(agent.notices.next()).await,
        Notice::Closed(Loss::Silent)
    );
    let broken = within(stream.read_u8()).await.unwrap_err();
    assert!(
        !is_undelivered(&broken),
        "bytes may have been delivered: {broken}"
    );
}

#[tokio::test]
async fn a_quiet_tunnel_stays() {
    let rig = Rig::with(Settings {
        keep_alive: Duration::from_millis(20),
        idle: Duration::from_millis(200),
        ..Settings::default()
    });
    let (_agent, tunnel, _events) = rig.tunnel().await;
    let lost = tokio::time::timeout(Duration::from_millis(600), tunnel.closed()).await;
    assert!(lost.is_err(), "closed: {lost:?}");
}

#[tokio::test]
async fn an_agent_that_is_dropped_is_noticed_at_once() {
    // The silence would take longer than the deadline of the test.
    let rig = Rig::with(Settings {
        idle: Duration::from_secs(600),
        ..Settings::default()
    });
    let (agent, _tunnel, mut events) = rig.tunnel().await;
    drop(agent);
    match within(events.next()).await {
        Event::Closed(Loss::Closed { code, .. }) => assert_eq!(code, CloseCode::Done),
        other => panic!("not closed: {other:?}"),
    }
}

#[tokio::test]
async fn a_listener_that_closes_tells_its_agents_why() {
    let rig = Rig::new();
    let (mut agent, _tunnel, _events) = rig.tunnel().await;
    within(rig.listener.close(CloseCode::Drained, "the gateway ends")).await;
    let closed = Loss::Closed {
        code: CloseCode::Drained,
        reason: "the gateway ends".to_owned(),
    };
    assert_eq!(within(agent.notices.next()).await, Notice::Closed(closed));
    assert!(within(rig.listener.accept()).await.is_none());
}
