//! Model servers that dial in: who counts, what they serve, how they are lost and come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use weir_tests::agent::{Agent, TOKEN, free_udp, workers};
use weir_tests::caller::{
    Answer, Caller, chat, chat_body, get, next_bytes, post, send, with_header,
};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::Gateway;
use weir_tests::process::Signal;
use weir_tests::simulated::{Settings, Simulated};
use weir_tests::upstream::{Connection, Upstream, answer, completion, refusing};

/// A gateway whose model `demo/sim` is served by workers that dial `listen`.
async fn gateway(listen: SocketAddr, cluster: &str) -> Gateway {
    let config = ConfigText::new(&[])
        .cluster("workers = true")
        .cluster(cluster)
        .more(&workers(listen));
    Gateway::start(&config.text()).await
}

/// A gateway with one worker that serves, beside this model server.
async fn worker_beside(upstream: SocketAddr, cluster: &str) -> (Gateway, Agent) {
    let listen = free_udp();
    let gateway = gateway(listen, cluster).await;
    let agent = Agent::start("w1", upstream, &[listen]);
    serving(&gateway, 1).await;
    (gateway, agent)
}

/// The same beside a simulator.
async fn one_worker(cluster: &str, settings: Settings) -> (Gateway, Simulated, Agent) {
    let simulated = Simulated::with(settings).await;
    let (gateway, agent) = worker_beside(simulated.address(), cluster).await;
    (gateway, simulated, agent)
}

/// A stream that came to its end.
#[track_caller]
fn assert_whole(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer.text().ends_with("data: [DONE]\n\n"),
        "{}",
        answer.text()
    );
}

/// The workers a gateway knows.
async fn listed(gateway: &Gateway) -> Vec<Value> {
    let workers = gateway.admin_json("/workers").await;
    workers["workers"].as_array().unwrap().clone()
}

/// Waits until so many workers serve the model.
async fn serving(gateway: &Gateway, count: usize) {
    let what = format!("{count} workers to serve");
    let serving = async |gateway: &Gateway| {
        let workers = listed(gateway).await;
        let active = workers
            .iter()
            .filter(|worker| worker["models"]["sim"] == "active" && worker["draining"] == false);
        active.count() == count
    };
    gateway.wait_for(&what, serving).await;
}

#[tokio::test]
async fn a_model_is_served_by_whoever_dials_in() {
    let listen = free_udp();
    let gateway = gateway(listen, "").await;
    let nobody = send(gateway.address(), chat("")).await;
    assert_eq!(
        (nobody.status, nobody.code().as_str()),
        (404, "no_eligible_candidates"),
        "nobody has ever served it: {}",
        nobody.text()
    );
    let simulated = Simulated::start().await;
    let agent = Agent::start("w1", simulated.address(), &[listen]);
    serving(&gateway, 1).await;
    for members in ["", r#""stream":true"#, r#""stream":true,"max_tokens":300"#] {
        let answer = send(gateway.address(), chat(members)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        if members.contains("stream") {
            assert_whole(&answer);
        }
    }
    assert_eq!(simulated.chats().await, 3);
    let worker = &listed(&gateway).await[0];
    assert_eq!(
        (&worker["worker"], &worker["function"], &worker["token"]),
        (&"w1".into(), &"demo".into(), &"team".into()),
        "{worker}"
    );
    drop(agent);
    gateway
        .wait_for("the loss to be noticed", async |gateway| {
            let answer = send(gateway.address(), chat("")).await;
            (answer.status, answer.code().as_str()) == (503, "no_eligible_candidates")
        })
        .await;
    assert!(listed(&gateway).await.is_empty());
}

#[tokio::test]
async fn one_connection_serves_request_after_request() {
    let most = Arc::new(AtomicUsize::new(0));
    let served = Arc::clone(&most);
    let upstream = Upstream::scripted(move |mut connection: Connection| {
        let served = Arc::clone(&served);
        async move {
            let mut chats = 0;
            while let Ok(request) = connection.request().await {
                chats += usize::from(request.head.starts_with("POST"));
                served.fetch_max(chats, Relaxed);
                let whole = answer("200 OK", "application/json", &completion("x"));
                connection.send(whole).await;
            }
        }
    })
    .await;
    let (gateway, _agent) = worker_beside(upstream.address(), "").await;
    for _ in 0..10 {
        let answer = send(gateway.address(), chat("")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // A connection is kept once its answer has been passed on, which the next request may come before:
    // then there are two, and one of them serves half at least.
    assert!(most.load(Relaxed) >= 5, "{most:?}");
}

#[tokio::test]
async fn a_model_server_that_closes_after_each_answer_loses_no_request() {
    let whole = answer("200 OK", "application/json", &completion("x"));
    let upstream = Upstream::fixed(whole).await;
    let (gateway, _agent) = worker_beside(upstream.address(), "retries = 0").await;
    for _ in 0..100 {
        let answer = send(gateway.address(), chat("")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn http2_passes_through_a_tunnel() {
    let (gateway, _simulated, _agent) = one_worker("http2 = true", Settings::default()).await;
    let mut asking = JoinSet::new();
    let address = gateway.address();
    for _ in 0..20 {
        asking.spawn(async move { send(address, chat(r#""stream":true"#)).await });
    }
    for answer in asking.join_all().await {
        assert_whole(&answer);
    }
}

#[tokio::test]
async fn only_tokens_of_the_config_count_and_only_while_they_are_there() {
    let listen = free_udp();
    let gateway = gateway(listen, "").await;
    let simulated = Simulated::start().await;
    let _stranger = Agent::with("w0", simulated.address(), &[listen], &["--token", "guess"]);
    gateway
        .wait_for("the refusal", async |gateway| {
            let labels = [r#"reason="unauthenticated""#];
            gateway.metric("weir_workers_refused_total", &labels).await >= 1.0
        })
        .await;
    assert!(listed(&gateway).await.is_empty());
    let _agent = Agent::start("w1", simulated.address(), &[listen]);
    serving(&gateway, 1).await;
    // Another function is another's: what the workers of this one announce is not its.
    gateway.edit(|config| config.replace("function = \"demo\"", "function = \"other\""));
    serving(&gateway, 0).await;
    gateway
        .wait_for("the worker to serve the other function", async |gateway| {
            let workers = listed(gateway).await;
            workers.iter().any(|worker| worker["function"] == "other")
        })
        .await;
    assert_ne!(send(gateway.address(), chat("")).await.status, 200);
    gateway.edit(|config| config.replace(TOKEN, "changed"));
    gateway
        .wait_for("the worker to be sent away", async |gateway| {
            listed(gateway).await.is_empty()
        })
        .await;
}

#[tokio::test]
async fn a_newer_connection_takes_the_place_of_the_older_one() {
    let listen = free_udp();
    let gateway = gateway(listen, "").await;
    let (one, two) = (Simulated::start().await, Simulated::start().await);
    let mut older = Agent::start("same", one.address(), &[listen]);
    serving(&gateway, 1).await;
    // As after a machine has come back that nobody saw go.
    older.process().signal(Signal::STOP).unwrap();
    let _newer = Agent::start("same", two.address(), &[listen]);
    gateway
        .wait_for("the newer one to serve", async |gateway| {
            send(gateway.address(), chat("")).await.status == 200 && two.chats().await > 0
        })
        .await;
    assert_eq!(listed(&gateway).await.len(), 1);
    let before = one.chats().await;
    for _ in 0..10 {
        assert_eq!(send(gateway.address(), chat("")).await.status, 200);
    }
    assert_eq!(one.chats().await, before);
}

#[tokio::test]
async fn a_worker_that_drains_finishes_its_streams_and_gets_no_more() {
    let listen = free_udp();
    let gateway = gateway(listen, "").await;
    let slow = Settings {
        tokens_per_second: 40.0,
        ..Settings::default()
    };
    let (one, two) = (Simulated::with(slow).await, Simulated::start().await);
    let mut leaving = Agent::start("leaving", one.address(), &[listen]);
    serving(&gateway, 1).await;
    let mut caller = Caller::http1(gateway.address()).await.unwrap();
    let request = with_header(chat(r#""stream":true"#), "x-sim-tokens", Some("80"));
    let mut response = caller.open(request).await.unwrap();
    let first = next_bytes(&mut response).await.unwrap();
    assert!(first.is_some(), "the stream has begun");
    let _staying = Agent::start("staying", two.address(), &[listen]);
    serving(&gateway, 2).await;
    leaving.process().signal(Signal::TERM).unwrap();
    serving(&gateway, 1).await;
    for _ in 0..6 {
        assert_eq!(send(gateway.address(), chat("")).await.status, 200);
    }
    assert_eq!((one.chats().await, two.chats().await), (1, 6));
    let mut text = String::new();
    while let Some(bytes) = next_bytes(&mut response).await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    assert!(text.ends_with("data: [DONE]\n\n"), "not cut: {text}");
    let status = leaving
        .process()
        .wait_for_exit(Duration::from_secs(30))
        .await;
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn a_stream_whose_worker_dies_ends_in_an_error() {
    let slow = Settings {
        tokens_per_second: 20.0,
        ..Settings::default()
    };
    let (gateway, simulated, agent) = one_worker("", slow).await;
    let mut caller = Caller::http1(gateway.address()).await.unwrap();
    let request = with_header(chat(r#""stream":true"#), "x-sim-tokens", Some("4000"));
    let mut response = caller.open(request).await.unwrap();
    let mut text = String::new();
    while !text.contains("\"content\":\"") {
        let bytes = next_bytes(&mut response).await.unwrap();
        text.push_str(&String::from_utf8_lossy(
            &bytes.expect("the stream goes on"),
        ));
    }
    drop(agent);
    while let Ok(Some(bytes)) = next_bytes(&mut response).await {
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    assert!(text.contains("upstream_disconnected"), "{text}");
    assert!(!text.contains("[DONE]"), "{text}");
    // Whose caller has gone is not worked for any longer.
    simulated.wait_for("/active", 0).await;
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_work() {
    let (gateway, simulated, _agent) = one_worker("", Settings::default()).await;
    let slow = with_header(chat(""), "x-sim-ttft-ms", Some("600000"));
    let mut caller = Caller::http1(gateway.address()).await.unwrap();
    let mut asking = JoinSet::new();
    asking.spawn(async move { caller.ask(slow).await });
    simulated.wait_for("/active", 1).await;
    drop(asking);
    simulated.wait_for("/active", 0).await;
}

#[tokio::test]
async fn a_model_server_that_is_gone_is_nobodys_loss() {
    let listen = free_udp();
    let config = ConfigText::new(&[])
        .cluster("workers = true")
        .more(&workers(listen))
        .more(ROUTE);
    let gateway = Gateway::start(&config.text()).await;
    let (one, two) = (Simulated::start().await, Simulated::start().await);
    let settings = [
        "--token",
        TOKEN,
        "--health-interval-ms",
        "100",
        "--health-timeout-ms",
        "500",
    ];
    let _first = Agent::with("w1", one.address(), &[listen], &settings);
    let _second = Agent::with("w2", two.address(), &[listen], &settings);
    serving(&gateway, 2).await;
    let address = one.address();
    drop(one);
    // Whatever the gateway knows yet, what did not reach the model server is sent to the other.
    for _ in 0..10 {
        for request in [chat(""), post("/echo/a", "b".to_owned())] {
            let answer = send(gateway.address(), request).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    serving(&gateway, 1).await;
    let _back = Simulated::at(address, Settings::default()).await;
    serving(&gateway, 2).await;
}

#[tokio::test]
async fn endpoints_beside_workers_are_probed() {
    let listen = free_udp();
    let table = "workers = true\nretries = 0\n[clusters.sim.ejection]\nconsecutive_failures = 0\n\
        [clusters.sim.health]\ninterval_ms = 50\ntimeout_ms = 500\nunhealthy_after = 1";
    let config = ConfigText::new(&[refusing()]).cluster(table);
    let gateway = Gateway::start(&config.more(&workers(listen)).text()).await;
    let simulated = Simulated::start().await;
    let _agent = Agent::start("w1", simulated.address(), &[listen]);
    serving(&gateway, 1).await;
    gateway
        .wait_for("the probe", async |gateway| {
            let clusters = gateway.admin_json("/clusters").await;
            clusters["sim"]["backends"][0]["health"] == "unhealthy"
        })
        .await;
    for _ in 0..6 {
        let answer = send(gateway.address(), chat("")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn agents_come_back_to_a_gateway_that_was_gone() {
    let listen = free_udp();
    let simulated = Simulated::start().await;
    let gone = gateway(listen, "").await;
    let _agent = Agent::start("w1", simulated.address(), &[listen]);
    serving(&gone, 1).await;
    drop(gone);
    let back = gateway(listen, "").await;
    serving(&back, 1).await;
    assert_eq!(send(back.address(), chat("")).await.status, 200);
}

#[tokio::test]
async fn agents_dial_the_peers_they_are_told_of() {
    let (one, two) = (free_udp(), free_udp());
    let first = gateway(one, "").await;
    let second = gateway(two, "").await;
    let simulated = Simulated::start().await;
    let _agent = Agent::start("w1", simulated.address(), &[one]);
    serving(&first, 1).await;
    assert!(listed(&second).await.is_empty());
    first
        .edit(|config| config.replace("[workers]\n", &format!("[workers]\npeers = [\"{two}\"]\n")));
    serving(&second, 1).await;
    assert_eq!(send(second.address(), chat("")).await.status, 200);
}

#[tokio::test]
async fn what_one_gateway_sends_the_others_hear_of_at_once() {
    let (one, two) = (free_udp(), free_udp());
    // No heartbeat comes in the time of a test but the first.
    let slow = |listen| {
        let config = ConfigText::new(&[]).cluster("workers = true");
        let config = config.more(&workers(listen)).text();
        config.replace("heartbeat_ms = 100", "heartbeat_ms = 60000")
    };
    let first = Gateway::start(&slow(one)).await;
    let second = Gateway::start(&slow(two)).await;
    let simulated = Simulated::start().await;
    let _agent = Agent::start("w1", simulated.address(), &[one, two]);
    serving(&first, 1).await;
    serving(&second, 1).await;
    let queued = async |gateway: &Gateway| {
        let load = &listed(gateway).await[0]["load"]["sim"];
        load["queued_input_tokens"].as_u64().unwrap()
    };
    assert_eq!(queued(&second).await, 0);
    let address = first.address();
    // At 100,000 tokens a second more than 25 ms of work.
    let long = chat_body("demo/sim", "").replace("hi", &"word ".repeat(20_000));
    let request = with_header(
        post("/v1/chat/completions", long),
        "x-sim-ttft-ms",
        Some("60000"),
    );
    let mut asking = JoinSet::new();
    asking.spawn(async move { send(address, request).await });
    second
        .wait_for("the queue of the first", async |gateway| {
            queued(gateway).await > 2_500
        })
        .await;
    drop(asking);
    second
        .wait_for("its end", async |gateway| queued(gateway).await == 0)
        .await;
}

#[tokio::test]
async fn a_thousand_streams_share_a_tunnel() {
    let (gateway, _simulated, _agent) =
        one_worker("first_byte_timeout_ms = 120000", Settings::default()).await;
    let address = gateway.address();
    let mut asking = JoinSet::new();
    for _ in 0..1_000 {
        asking.spawn(async move {
            let request = with_header(chat(r#""stream":true"#), "x-sim-ttft-ms", Some("3000"));
            send(address, request).await
        });
    }
    gateway
        .wait_for("a thousand streams at once", async |gateway| {
            let workers = listed(gateway).await;
            workers
                .first()
                .is_some_and(|worker| worker["streams"].as_u64() >= Some(1_000))
        })
        .await;
    for answer in asking.join_all().await {
        assert_whole(&answer);
    }
}

/// A route to whoever serves the model.
const ROUTE: &str =
    "[[routes]]\npath_prefix = \"/echo\"\ncluster = \"sim\"\nworkers_of = \"demo/sim\"\n";

#[tokio::test]
async fn a_route_meets_streams_that_have_ended() {
    let listen = free_udp();
    let config = ConfigText::new(&[]).cluster("workers = true");
    let config = config.more(&workers(listen)).more(ROUTE);
    let gateway = Gateway::start(&config.text()).await;
    let upstream = Upstream::scripted(async |mut connection: Connection| {
        // It does not say that it closes the connection after that.
        if connection.request().await.is_ok() {
            connection.send(answer("200 OK", "text/plain", "ok")).await;
        }
    });
    let upstream = upstream.await;
    let _agent = Agent::start("w1", upstream.address(), &[listen]);
    serving(&gateway, 1).await;
    for _ in 0..20 {
        let answer = send(gateway.address(), post("/echo", "once".to_owned())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_route_reaches_workers() {
    let listen = free_udp();
    let nobodys =
        "[[routes]]\npath_prefix = \"/echo/none\"\ncluster = \"sim\"\nworkers_of = \"demo/none\"";
    let config = ConfigText::new(&[])
        .cluster("workers = true")
        .more(&workers(listen))
        .more(ROUTE)
        .more(nobodys);
    let gateway = Gateway::start(&config.text()).await;
    let simulated = Simulated::start().await;
    let _agent = Agent::start("w1", simulated.address(), &[listen]);
    serving(&gateway, 1).await;
    for length in [0, 300_000] {
        let sent = post("/echo/a?b=c", "x".repeat(length));
        let answer = send(gateway.address(), sent).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let echo = answer.json();
        assert_eq!(
            (&echo["path"], &echo["body_bytes"]),
            (&"/echo/a?b=c".into(), &length.into())
        );
    }
    let nobody = send(gateway.address(), get("/echo/none")).await;
    assert_eq!(
        (nobody.status, nobody.code().as_str()),
        (404, "no_eligible_candidates"),
        "{}",
        nobody.text()
    );
    assert!(nobody.text().contains("demo/none"), "{}", nobody.text());
}
