//! Which gateways an agent has a tunnel to, and when again.

use weir_tunnel::Status;

use crate::rig::{Agent, Gateway, ModelServer, loopback, rules, settings, within};

#[tokio::test]
async fn peers_are_dialled_and_followed() {
    let server = ModelServer::start().await;
    let mut second = Gateway::start(loopback(), rules("B")).await;
    let mut third = Gateway::start(loopback(), rules("C")).await;
    let mut known = rules("A");
    known.peers = vec![second.address.to_string()];
    let mut first = Gateway::start(loopback(), known).await;
    let _agent = Agent::start(settings(&server, &[first.address]));
    first.until_status(Status::Active).await;
    second.until_status(Status::Active).await;
    first
        .tunnel()
        .send_peers(vec![third.address.to_string()])
        .await
        .unwrap();
    third.until_status(Status::Active).await;

    // Not announced any more, but reachable: it stays.
    assert!(!second.tunnel().is_closed());
    let dead = second.stop().await;
    let mut second = Gateway::start(dead, rules("B")).await;
    let lost = first.book.borrow().hellos.len();
    // Not reachable and not announced: it is forgotten, while the others are kept.
    first
        .tunnel()
        .send_peers(vec![third.address.to_string()])
        .await
        .unwrap();
    third.tunnel().close(weir_tunnel::CloseCode::Done, "");
    third
        .until("it comes back", |book| book.tunnels.len() == 2)
        .await;
    assert!(
        second.book.borrow_and_update().hellos.is_empty(),
        "it was dialled again"
    );
    assert_eq!(first.book.borrow().hellos.len(), lost);
}

#[tokio::test]
async fn a_gateway_that_comes_back_is_dialled_again() {
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let _agent = Agent::start(settings(&server, &[gateway.address]));
    gateway.until_status(Status::Active).await;
    let before = gateway.book.borrow().hellos[0].epoch;
    let address = gateway.stop().await;
    let mut gateway = Gateway::start(address, rules("A")).await;
    gateway.until_status(Status::Active).await;
    assert!(
        gateway.book.borrow().hellos[0].epoch > before,
        "its connection is newer"
    );
}

#[tokio::test]
async fn one_gateway_by_two_addresses_gets_one_tunnel() {
    let server = ModelServer::start().await;
    let mut rules = rules("A");
    let mut gateway = Gateway::start(loopback(), rules.clone()).await;
    let address = gateway.stop().await;
    rules.peers = vec![format!("localhost:{}", address.port())];
    gateway = Gateway::start(address, rules).await;
    let _agent = Agent::start(settings(&server, &[address]));
    gateway
        .until("it is dialled by both", |book| book.hellos.len() >= 2)
        .await;
    let second = gateway.book.borrow().hellos[1].clone();
    assert_eq!(second.connected_gateways, ["A"]);
    gateway.until_status(Status::Active).await;
    assert_eq!(gateway.book.borrow().tunnels.len(), 1);
    assert!(!gateway.tunnel().is_closed());
}

#[tokio::test]
async fn a_gateway_that_is_never_there_does_no_harm() {
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let gone = Gateway::start(loopback(), rules("B")).await.stop().await;
    let agent = Agent::start(settings(&server, &[gone, gateway.address]));
    gateway.until_status(Status::Active).await;
    agent.handle.drain();
    within(agent.ended()).await.unwrap();
}
