//! Where figures of load come from, and the admin page.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use weir_agent::{Error, StartRate, StatsStream, Upstream};
use weir_tunnel::{ModelStats, Observed, ObservedModel, Samples, Status};

use crate::rig::{Agent, Book, Gateway, ModelServer, loopback, rules, settings, within};

fn stats(book: &Book) -> Option<ModelStats> {
    book.heartbeat.as_ref()?.models.get("m")?.stats.clone()
}

fn has(book: &Book, condition: impl Fn(&ModelStats) -> bool) -> bool {
    stats(book).is_some_and(|stats| condition(&stats))
}

#[tokio::test]
async fn what_gateways_see_is_added_up() {
    let server = ModelServer::start().await;
    let mut first = Gateway::start(loopback(), rules("A")).await;
    let mut second = Gateway::start(loopback(), rules("B")).await;
    let _agent = Agent::start(settings(&server, &[first.address, second.address]));
    first.until_status(Status::Active).await;
    second.until_status(Status::Active).await;
    let seen = ObservedModel {
        running: 3,
        waiting: 1,
        waiting_input_tokens: 5000,
        waiting_tokens_by_priority: BTreeMap::from([(0, 5000)]),
        running_input_tokens: 9000,
        samples: Some(Samples {
            count: 5,
            input_tokens: 5000,
            prefill_us: 1_000_000,
            output_tokens: 100,
            decode_us: 1_000_000,
        }),
    };
    let observed = Observed {
        models: BTreeMap::from([("m".to_owned(), seen)]),
    };
    for gateway in [&first, &second] {
        gateway
            .tunnel()
            .send_observed(observed.clone())
            .await
            .unwrap();
    }
    first
        .until("both are counted", |book| {
            has(book, |stats| {
                stats.num_running_queries == Some(6)
                    && stats.queued_input_size == Some(10_000)
                    && stats.last_mean_input_tps == Some(5000.0)
                    && stats.queue_time_estimate_ms_by_priority == BTreeMap::from([(0, 2000)])
            })
        })
        .await;
    // A gateway that is lost has nothing in flight any more.
    second.stop().await;
    first
        .until("one is left", |book| {
            has(book, |stats| stats.num_running_queries == Some(3))
        })
        .await;
}

#[tokio::test]
async fn metrics_of_the_engine_are_read() {
    let server = ModelServer::start().await;
    server.answers.set(
        "/metrics",
        200,
        concat!(
            "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 7.0\n",
            "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 2.0\n",
            "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25\n",
            "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"500\"} 1.0\n",
        ),
    );
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let mut settings = settings(&server, &[gateway.address]);
    settings.metrics_path = Some("/metrics".to_owned());
    let _agent = Agent::start(settings);
    gateway
        .until("they are told", |book| {
            has(book, |stats| {
                stats.num_running_queries == Some(7)
                    && stats.queue_size == Some(2)
                    && stats.kv_cache_capacity_tokens == Some(8000)
                    && stats.kv_cache_free_tokens == Some(6000)
            })
        })
        .await;
}

/// A model server by hand, whose stats stream says `lines` and stays open.
async fn streaming(lines: &'static str) -> (Upstream, JoinSet<()>) {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let upstream = Upstream::Tcp(listener.local_addr().unwrap().to_string());
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                if head.starts_with(b"GET /stats ") {
                    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
                    socket.write_all(head.as_bytes()).await.unwrap();
                    socket.write_all(lines.as_bytes()).await.unwrap();
                    let _ = socket.read_u8().await;
                } else {
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (upstream, task)
}

#[tokio::test]
async fn the_stream_of_the_engine_is_read() {
    let (upstream, _task) = streaming(concat!(
        "{\"v\":1,\"type\":\"ping\"}\n",
        "{\"v\":1,\"type\":\"stats\",\"request_id\":\"a\",\"model\":\"m\",\"tokens_processed\":10,\"tokens_generated\":0}\n",
        "nonsense\n",
        "{\"v\":1,\"type\":\"stats\",\"request_id\":\"b\",\"model\":\"m\",\"tokens_processed\":10,\"tokens_generated\":40}\n",
        "{\"v\":1,\"type\":\"stats\",\"request_id\":\"c\",\"model\":\"m\",\"tokens_processed\":10,\"tokens_generated\":9,\"finished\":true}\n",
    ))
    .await;
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let mut settings = settings(&server, &[gateway.address]);
    settings.upstream = upstream;
    settings.models = vec!["m".to_owned()];
    settings.stats_stream = StatsStream::Required;
    settings.stats_path = "/stats".to_owned();
    let _agent = Agent::start(settings);
    gateway
        .until("it is told", |book| {
            has(book, |stats| {
                stats.num_running_queries == Some(2)
                    && stats.queue_size == Some(1)
                    && stats.output_generation_queries == Some(1)
                    && stats.max_output_tps.is_some_and(|rate| rate >= 49.0)
                    && stats.stats_sources.contains(&"stream".to_owned())
            })
        })
        .await;
}

#[tokio::test]
async fn a_stream_that_is_not_there_is_done_without_or_an_error() {
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let mut settings = settings(&server, &[gateway.address]);
    settings.stats_stream = StatsStream::Auto;
    let _agent = Agent::start(settings.clone());
    gateway.until_status(Status::Active).await;
    settings.stats_stream = StatsStream::Required;
    settings.worker_id = "worker-2".to_owned();
    match Agent::start(settings).ended().await {
        Err(Error::NoStatsStream { status, .. }) => assert_eq!(status, 404),
        other => panic!("it went on: {other:?}"),
    }
}

#[tokio::test]
async fn calibration_comes_before_a_model_is_active() {
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let mut settings = settings(&server, &[gateway.address]);
    settings.start_rate = StartRate::Calibrate;
    let path = "/v1/chat/completions";
    server.answers.set(
        path,
        200,
        r#"{"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":1}}"#,
    );
    let _agent = Agent::start(settings);
    gateway.until_status(Status::Active).await;
    assert_eq!(server.answers.count(path), 5);
    let stats = stats(&gateway.book.borrow()).unwrap();
    let rate = stats.last_mean_input_tps.unwrap();
    assert!(rate > 0.0 && rate <= 100_000.0, "{rate}");
    assert_eq!(stats.stats_sources, ["calibration"]);
}

#[tokio::test]
async fn the_admin_page_tells_how_it_goes() {
    let server = ModelServer::start().await;
    let mut gateway = Gateway::start(loopback(), rules("A")).await;
    let free = TcpListener::bind(loopback())
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let mut settings = settings(&server, &[gateway.address]);
    settings.admin = Some(free);
    settings.drain_timeout = Duration::from_secs(60);
    let agent = Agent::start(settings);
    gateway.until_status(Status::Active).await;
    assert_eq!(get(free, "/healthz").await.0, 200);
    assert_eq!(get(free, "/readyz").await.0, 200);
    let (_, text) = get(free, "/metrics").await;
    for line in [
        format!(
            "weir_agent_tunnel_up{{gateway=\"A\",address=\"{}\"}} 1",
            gateway.address
        ),
        "weir_agent_model_active{model=\"m\"} 1".to_owned(),
        "weir_agent_model_input_tokens_per_second{model=\"m\"} 1000".to_owned(),
        "weir_agent_tunnels_total 1".to_owned(),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    server.answers.set("/health", 500, "");
    gateway.until_status(Status::Inactive).await;
    assert_eq!(get(free, "/readyz").await.0, 503);
    agent.handle.drain();
    agent.ended().await.unwrap();
}

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    within(async {
        let socket = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ = connection.await;
        });
        let request = http::Request::get(path).header("host", "agent");
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    })
    .await
}
