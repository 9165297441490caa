//! Who registers with what: models, health, tokens.

use weir_agent::Token;
use weir_tunnel::Status;

use crate::rig::{Agent, Gateway, ModelServer, loopback, rules, settings, status_of};

#[tokio::test]
async fn a_worker_registers_with_what_it_is() {
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let mut settings = settings(&server, &[gateway.address]);
    settings.cluster_id = "rack-7".to_owned();
    settings.region = "eu-north".to_owned();
    settings.models = vec!["org/one".to_owned(), "two".to_owned()];
    settings.slots = 32;
    let _agent = Agent::start(settings);
    gateway
        .until("both models are active", |book| {
            ["org/one", "two"]
                .iter()
                .all(|model| status_of(book, model) == Some(Status::Active))
        })
        .await;
    let book = gateway.book.borrow();
    let (hello, heartbeat) = (&book.hellos[0], book.heartbeat.as_ref().unwrap());
    assert_eq!(hello.worker_id, "worker-1");
    assert_eq!(hello.agent, "weir-agent");
    assert!(hello.epoch > 1_600_000_000_000_000);
    assert_eq!(heartbeat.cluster_id, "rack-7");
    assert_eq!(heartbeat.region, "eu-north");
    let stats = heartbeat.models["two"].stats.as_ref().unwrap();
    assert_eq!(stats.last_mean_input_tps, Some(1000.0));
    assert_eq!(stats.max_engine_concurrency, 32);
    assert_eq!(stats.stats_sources, ["configured"]);
    assert_eq!(
        server.answers.count("/v1/models"),
        0,
        "the models were given"
    );
}

#[tokio::test]
async fn models_are_discovered_and_followed() {
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let _agent = Agent::start(settings(&server, &[gateway.address]));
    gateway.until_status(Status::Active).await;
    server
        .answers
        .set("/v1/models", 200, r#"{"data":[{"id":"n"}]}"#);
    gateway
        .until("n is there and m is not", |book| {
            status_of(book, "n") == Some(Status::Active) && status_of(book, "m").is_none()
        })
        .await;
    // A server that does not say keeps what it said.
    server.answers.set("/v1/models", 500, "");
    let asked = server.answers.count("/v1/models");
    let answers = server.answers.clone();
    gateway
        .until("asked again", |_| answers.count("/v1/models") > asked + 2)
        .await;
    assert_eq!(status_of(&gateway.book.borrow(), "n"), Some(Status::Active));
}

#[tokio::test]
async fn health_down_and_up_is_told() {
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let mut settings = settings(&server, &[gateway.address]);
    // The pace of heartbeats is the gateway's; news do not wait for it.
    settings.health.paths = vec!["/nowhere".to_owned(), "/health".to_owned()];
    let _agent = Agent::start(settings);
    gateway.until_status(Status::Active).await;
    assert_eq!(
        server.answers.count("/nowhere"),
        1,
        "the path that answers is kept"
    );
    server.answers.set("/health", 503, "");
    gateway.until_status(Status::Inactive).await;
    server.answers.set("/health", 200, "");
    gateway.until_status(Status::Active).await;
}

#[tokio::test]
async fn a_model_server_that_comes_late_is_waited_for() {
    let server = ModelServer::start().await;
    server.answers.set("/health", 503, "");
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let _agent = Agent::start(settings(&server, &[gateway.address]));
    gateway
        .until("a heartbeat without models", |book| {
            book.heartbeat.is_some()
        })
        .await;
    assert_eq!(status_of(&gateway.book.borrow(), "m"), None);
    server.answers.set("/health", 200, "");
    gateway.until_status(Status::Active).await;
}

#[tokio::test]
async fn a_token_that_is_replaced_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "stale\n").unwrap();
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let mut settings = settings(&server, &[gateway.address]);
    settings.token = Token::File(file.clone());
    let _agent = Agent::start(settings);
    gateway
        .until("it was refused twice", |book| book.hellos.len() >= 2)
        .await;
    assert!(gateway.book.borrow().tunnels.is_empty());
    std::fs::write(&file, "good\n").unwrap();
    gateway.until_status(Status::Active).await;
}
