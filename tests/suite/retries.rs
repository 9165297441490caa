//! Backends that fail before an answer has begun: the next one is asked, and the bad one left out.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use weir_tests::caller::{Caller, chat, send, with_header};
use weir_tests::config_text::{ConfigText, KEY};
use weir_tests::gateway::Gateway;
use weir_tests::simulated::{Settings, Simulated};
use weir_tests::upstream::{Connection, Upstream, answer, completion, refusing};

const NEVER_EJECT: &str = "[clusters.sim.ejection]\nconsecutive_failures = 0";
/// Rather twice than not at all.
const RESEND: &str = "resend = \"unanswered\"\n[clusters.sim.ejection]\nconsecutive_failures = 0";

async fn gateway(endpoints: &[SocketAddr], cluster: &str) -> Gateway {
    Gateway::start(&ConfigText::new(endpoints).cluster(cluster).text()).await
}

/// What `/clusters` says of a backend.
async fn backend(gateway: &Gateway, address: SocketAddr) -> Value {
    let clusters = gateway.admin_json("/clusters").await;
    let backends = clusters["sim"]["backends"].as_array().unwrap();
    let found = backends
        .iter()
        .find(|backend| backend["address"] == address.to_string());
    found
        .unwrap_or_else(|| panic!("no {address} in {clusters}"))
        .clone()
}

/// Backends that take a whole request and break off: they may have worked on it.
async fn breaking_off() -> Vec<(&'static str, Upstream)> {
    let half =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"id";
    let reset = Upstream::scripted(async |mut connection: Connection| {
        if connection.request().await.is_ok() {
            connection.reset();
        }
    });
    let bad_gateway = answer("502 Bad Gateway", "application/json", "{}");
    let gateway_timeout = answer("504 Gateway Timeout", "application/json", "{}");
    vec![
        ("closes before the head", Upstream::fixed("").await),
        ("resets", reset.await),
        (
            "sends garbage",
            Upstream::fixed("this is no HTTP\r\n\r\n").await,
        ),
        (
            "closes in the middle of the body",
            Upstream::fixed(half).await,
        ),
        ("answers 502", Upstream::fixed(bad_gateway).await),
        ("answers 504", Upstream::fixed(gateway_timeout).await),
    ]
}

/// Backends that say themselves that they do not serve a request.
async fn declining() -> Vec<(&'static str, Upstream)> {
    let says_so = |status: &str, header: &str| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{header}: true\r\n\
             content-length: 2\r\n\r\n{{}}"
        )
    };
    let unavailable = answer("503 Service Unavailable", "application/json", "{}");
    let busy = says_so("429 Too Many Requests", "x-weir-retryable");
    let behind = says_so("502 Bad Gateway", "X-Stargate-Retryable");
    vec![
        ("answers 503", Upstream::fixed(unavailable).await),
        ("is busy", Upstream::fixed(busy).await),
        ("could not pass it on", Upstream::fixed(behind).await),
    ]
}

#[tokio::test]
async fn another_backend_answers() {
    let (breaking_off, declining) = (breaking_off().await, declining().await);
    let addresses = |of: &[(&'static str, Upstream)]| -> Vec<(&'static str, SocketAddr)> {
        of.iter()
            .map(|(what, upstream)| (*what, upstream.address()))
            .collect()
    };
    let mut cases = vec![("refuses", refusing())];
    cases.extend(addresses(&declining));
    let undelivered = cases.iter().map(|case| (*case, NEVER_EJECT));
    let unanswered = addresses(&breaking_off);
    let unanswered = cases.iter().copied().chain(unanswered);
    let cases: Vec<_> = undelivered
        .chain(unanswered.map(|case| (case, RESEND)))
        .collect();
    for ((what, bad), cluster) in cases {
        let good = Simulated::start().await;
        let gateway = gateway(&[bad, good.address()], cluster).await;
        for _ in 0..6 {
            let answer = send(gateway.address(), chat("")).await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        }
        assert_eq!(good.chats().await, 6, "{what}");
        let tried = gateway
            .metric("weir_upstream_retries_total", &[r#"cluster="sim""#])
            .await;
        assert!(tried >= 1.0, "{what}: {tried} retries");
        // Who has too much to do is not ill.
        let failures = backend(&gateway, bad).await["failures"].as_u64();
        assert_eq!(failures >= Some(1), what != "is busy", "{what}");
    }
}

#[tokio::test]
async fn what_may_have_run_is_not_run_again() {
    for (what, bad) in breaking_off().await {
        let other = Simulated::start().await;
        let gateway = gateway(&[bad.address(), other.address()], NEVER_EJECT).await;
        let mut statuses = Vec::new();
        for _ in 0..6 {
            statuses.push(send(gateway.address(), chat("")).await.status);
        }
        let good = statuses.iter().filter(|status| **status == 200).count();
        assert!(
            statuses
                .iter()
                .all(|status| matches!(status, 200 | 502 | 504)),
            "{what}: {statuses:?}"
        );
        assert!(bad.requests() > 0, "{what}");
        assert_eq!(
            bad.requests() as u64 + other.chats().await,
            statuses.len() as u64,
            "{what}: every request was sent once"
        );
        assert_eq!(other.chats().await, good as u64, "{what}");
        let tried = gateway.metric("weir_upstream_retries_total", &[]).await;
        assert_eq!(tried, 0.0, "{what}");
    }
}

#[tokio::test]
async fn nobody_answers() {
    let closing = Upstream::fixed("").await;
    let silent = Upstream::silent().await;
    let cases = [
        ("refused", refusing(), 502, "upstream_unreachable"),
        ("closed", closing.address(), 502, "upstream_failed"),
        ("silent", silent.address(), 504, "upstream_timeout"),
    ];
    for (what, bad, status, code) in cases {
        let cluster = format!("first_byte_timeout_ms = 200\n{NEVER_EJECT}");
        let gateway = gateway(&[bad], &cluster).await;
        let answer = send(gateway.address(), chat("")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{what}: {}",
            answer.text()
        );
        assert!(!answer.header("x-request-id").is_empty(), "{what}");
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            !message.contains(&bad.to_string()),
            "{what}: addresses are for the log: {message}"
        );
    }
}

/// A listener that takes no connection: the kernel's queue is full.
async fn full_queue() -> (tokio::net::TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        queued.push(stream);
        assert!(queued.len() < 100, "the queue never fills");
    }
    (listener, queued)
}

#[tokio::test]
async fn a_backend_that_takes_no_connection() {
    let (listener, _queued) = full_queue().await;
    let full = listener.local_addr().unwrap();
    let cluster = format!("connect_timeout_ms = 200\n{NEVER_EJECT}");
    let gateway = gateway(&[full], &cluster).await;
    let answer = send(gateway.address(), chat("")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (504, "upstream_connect_timeout"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn the_last_backends_own_words() {
    let words =
        r#"{"error":{"message":"no room","type":"server_error","param":null,"code":"busy"}}"#;
    let busy = Upstream::fixed(answer("503 Service Unavailable", "application/json", words)).await;
    let too = Upstream::fixed(answer("503 Service Unavailable", "application/json", words)).await;
    let gateway = gateway(&[busy.address(), too.address()], NEVER_EJECT).await;
    let answer = send(gateway.address(), chat("")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "busy"),
        "{}",
        answer.text()
    );
    assert_eq!(busy.requests() + too.requests(), 2);
}

#[tokio::test]
async fn what_is_not_tried_again() {
    let words = r#"{"error":{"message":"no","type":"server_error","param":null,"code":"c"}}"#;
    for status in [
        "400 Bad Request",
        "429 Too Many Requests",
        "500 Internal Server Error",
    ] {
        let one = Upstream::fixed(answer(status, "application/json", words)).await;
        let other = Upstream::fixed(answer(status, "application/json", words)).await;
        let gateway = gateway(&[one.address(), other.address()], NEVER_EJECT).await;
        let answer = send(gateway.address(), chat("")).await;
        assert_eq!(answer.status.to_string(), status[..3], "{}", answer.text());
        assert_eq!(answer.text(), words, "{status}: the backend's own words");
        assert_eq!(one.requests() + other.requests(), 1, "{status}");
    }
    let bad = Upstream::fixed("").await;
    let good = Simulated::start().await;
    let gateway = gateway(
        &[bad.address(), good.address()],
        &format!("retries = 0\n{NEVER_EJECT}"),
    )
    .await;
    let statuses = [
        send(gateway.address(), chat("")).await.status,
        send(gateway.address(), chat("")).await.status,
    ];
    assert!(
        statuses.contains(&502) && statuses.contains(&200),
        "{statuses:?}"
    );
}

#[tokio::test]
async fn kept_connections_that_the_backend_has_closed() {
    // Answers one request per connection, and closes when the second one comes: to the gateway
    // the connection looked alive until then. That such a request has not run is what it is told here.
    let upstream = Upstream::scripted(async |mut connection: Connection| {
        if connection.request().await.is_ok() {
            connection
                .send(answer("200 OK", "application/json", &completion("ok")))
                .await;
            _ = connection.request().await;
        }
    })
    .await;
    let gateway = gateway(&[upstream.address()], &format!("retries = 0\n{RESEND}")).await;
    for round in 0..5 {
        let answer = send(gateway.address(), chat("")).await;
        assert_eq!(answer.status, 200, "{round}: {}", answer.text());
    }
    assert!(
        upstream.requests() > 5,
        "connections were kept: {}",
        upstream.requests()
    );
    assert_eq!(
        backend(&gateway, upstream.address()).await["failures"],
        0,
        "it is no failure of the backend"
    );
}

#[tokio::test]
async fn all_kept_connections_are_dead() {
    // As after a restart of the backend, of which no connection has told yet.
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let upstream = Upstream::scripted(move |mut connection: Connection| {
        let gate = Arc::clone(&opened);
        async move {
            if connection.request().await.is_ok() {
                let Ok(_permit) = gate.acquire().await else {
                    return;
                };
                connection
                    .send(answer("200 OK", "application/json", &completion("ok")))
                    .await;
                _ = connection.request().await;
            }
        }
    })
    .await;
    let gateway = gateway(&[upstream.address()], &format!("retries = 0\n{RESEND}")).await;
    let address = gateway.address();
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        callers.spawn(async move { send(address, chat("")).await.status });
    }
    gateway
        .wait_for("four connections", async |_| upstream.requests() == 4)
        .await;
    gate.add_permits(1_000);
    assert_eq!(callers.join_all().await, [200; 4]);
    let answer = send(gateway.address(), chat("")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn backends_that_fail_are_left_out() {
    let bad = refusing();
    let good = Simulated::start().await;
    let ejection = "[clusters.sim.ejection]\nconsecutive_failures = 2\nbase_ms = 60000";
    let gateway = gateway(&[bad, good.address()], ejection).await;
    let ejected = async |gateway: &Gateway| {
        assert_eq!(send(gateway.address(), chat("")).await.status, 200);
        backend(gateway, bad).await["ejected_for_ms"].as_u64() > Some(0)
    };
    gateway.wait_for("the ejection", ejected).await;
    let state = backend(&gateway, bad).await;
    assert_eq!(
        (&state["eligible"], &state["failures"]),
        (&false.into(), &2.into()),
        "{state}"
    );
    assert_eq!(backend(&gateway, good.address()).await["eligible"], true);
    let before = gateway.metric("weir_upstream_retries_total", &[]).await;
    for _ in 0..10 {
        assert_eq!(send(gateway.address(), chat("")).await.status, 200);
    }
    assert_eq!(
        gateway.metric("weir_upstream_retries_total", &[]).await,
        before,
        "it is not asked any more"
    );
}

#[tokio::test]
async fn backends_are_looked_after() {
    let one = Simulated::start().await;
    let other = Simulated::start().await;
    let address = other.address();
    let health = "[clusters.sim.health]\ninterval_ms = 50\ntimeout_ms = 500\nhealthy_after = 1\nunhealthy_after = 1";
    let gateway = gateway(
        &[one.address(), address],
        &format!("{NEVER_EJECT}\n{health}"),
    )
    .await;
    let is = async |state: &str| {
        let wanted = state.to_owned();
        gateway
            .wait_for(state, async |gateway| {
                backend(gateway, address).await["health"] == wanted
            })
            .await;
    };
    is("healthy").await;
    drop(other);
    is("unhealthy").await;
    assert_eq!(backend(&gateway, address).await["eligible"], false);
    for _ in 0..4 {
        assert_eq!(send(gateway.address(), chat("")).await.status, 200);
    }
    assert_eq!(
        gateway.metric("weir_upstream_retries_total", &[]).await,
        0.0,
        "nobody had to find out"
    );
    let back = Simulated::at(address, Settings::default()).await;
    is("healthy").await;
    gateway
        .wait_for("requests to come back", async |gateway| {
            assert_eq!(send(gateway.address(), chat("")).await.status, 200);
            back.chats().await > 0
        })
        .await;
}

#[tokio::test]
async fn a_callers_own_fault_takes_no_backend_out() {
    let event = "data: {\"error\":{\"message\":\"too long\",\"type\":\"invalid_request_error\",\"code\":\"context_length_exceeded\"}}\n\n";
    let upstream = Upstream::fixed(answer("200 OK", "text/event-stream", event)).await;
    let ejection = "[clusters.sim.ejection]\nconsecutive_failures = 2\nbase_ms = 60000";
    let gateway = gateway(&[upstream.address()], ejection).await;
    for _ in 0..4 {
        let told = send(gateway.address(), chat(r#""stream":true"#)).await;
        assert!(
            told.text().contains("context_length_exceeded"),
            "{}",
            told.text()
        );
    }
    let backend = backend(&gateway, upstream.address()).await;
    assert_eq!(
        (&backend["failures"], &backend["ejected_for_ms"]),
        (&0.into(), &0.into()),
        "{backend}"
    );
}

#[tokio::test]
async fn every_backend_is_unhealthy() {
    let bad = refusing();
    let health = "[clusters.sim.health]\ninterval_ms = 50\ntimeout_ms = 500\nunhealthy_after = 1";
    let gateway = gateway(&[bad], health).await;
    gateway
        .wait_for("the check", async |gateway| {
            backend(gateway, bad).await["health"] == "unhealthy"
        })
        .await;
    let answer = send(gateway.address(), chat("")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "no_eligible_candidates"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn every_backend_is_busy() {
    let simulated = Simulated::start().await;
    let gateway = gateway(&[simulated.address()], "max_concurrency = 1").await;
    let slow = with_header(chat(""), "x-sim-ttft-ms", Some("60000"));
    let mut caller = Caller::http1(gateway.address()).await.unwrap();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { caller.ask(slow).await });
    simulated.wait_for("/active", 1).await;
    let answer = send(gateway.address(), chat("")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "overloaded"),
        "{}",
        answer.text()
    );
    drop(waiting);
    gateway
        .wait_for("room", async |gateway| {
            send(gateway.address(), chat("")).await.status == 200
        })
        .await;
}

#[tokio::test]
async fn who_waits_is_served_in_the_order_of_arrival() {
    let gate = Arc::new(Semaphore::new(0));
    let served = Arc::new(Mutex::new(Vec::new()));
    let (opened, noted) = (Arc::clone(&gate), Arc::clone(&served));
    let upstream = Upstream::scripted(move |mut connection: Connection| {
        let (gate, served) = (Arc::clone(&opened), Arc::clone(&noted));
        async move {
            while let Ok(request) = connection.request().await {
                let numbered = request
                    .head
                    .lines()
                    .find_map(|line| line.strip_prefix("x-number: "));
                served.lock().unwrap().push(numbered.unwrap().to_owned());
                let Ok(permit) = gate.acquire().await else {
                    return;
                };
                permit.forget();
                connection
                    .send(answer("200 OK", "application/json", &completion("ok")))
                    .await;
            }
        }
    })
    .await;
    let lines = "max_concurrency = 1\nmax_wait_ms = 60000";
    let gateway = gateway(&[upstream.address()], lines).await;
    let address = gateway.address();
    let mut callers = JoinSet::new();
    let numbers: Vec<String> = (0..12).map(|number| number.to_string()).collect();
    for (before, number) in numbers.iter().enumerate() {
        let request = with_header(chat(""), "x-number", Some(number));
        callers.spawn(async move { send(address, request).await.status });
        gateway
            .wait_for("the request to be in line", async |gateway| {
                served.lock().unwrap().len() == 1 && in_line(gateway).await == before as u64
            })
            .await;
    }
    assert_eq!(*served.lock().unwrap(), ["0"], "the others wait");
    gate.add_permits(numbers.len());
    let answers = callers.join_all().await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    assert_eq!(*served.lock().unwrap(), numbers);
}

/// How many wait for a slot.
async fn in_line(gateway: &Gateway) -> u64 {
    let clusters = gateway.admin_json("/clusters").await;
    clusters["sim"]["waiting"].as_u64().unwrap()
}

#[tokio::test]
async fn trusted_callers_say_how_long_they_wait() {
    let simulated = Simulated::start().await;
    let key = "[[key_tables.demo.keys]]\nid = \"router\"\nkey = \"router-key\"\ntenant = \"demo\"\nscopes = [\"routing\"]\n";
    let config = ConfigText::new(&[simulated.address()])
        .cluster("max_concurrency = 1")
        .more(key);
    let gateway = Gateway::start(&config.text()).await;
    let address = gateway.address();
    let occupy = || {
        let slow = with_header(chat(""), "x-sim-ttft-ms", Some("60000"));
        let mut occupying = JoinSet::new();
        occupying.spawn(async move { send(address, slow).await });
        occupying
    };
    let wait = |ms: &str, key: &str| {
        let request = with_header(chat(""), "x-max-wait-ms", Some(ms));
        with_header(request, "authorization", Some(&format!("Bearer {key}")))
    };
    let occupying = occupy();
    simulated.wait_for("/active", 1).await;
    // Of others it is not looked at, and a trusted one is refused once its time is over.
    for (ms, key, expected) in [
        ("60000", KEY, (503, "overloaded")),
        ("soon", KEY, (503, "overloaded")),
        ("50", "router-key", (503, "overloaded")),
        ("0", "router-key", (503, "overloaded")),
        ("soon", "router-key", (400, "invalid_header")),
        ("-1", "router-key", (400, "invalid_header")),
    ] {
        let answer = send(address, wait(ms, key)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            expected,
            "{ms} {key}: {}",
            answer.text()
        );
    }
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { send(address, wait("99999999", "router-key")).await });
    gateway
        .wait_for("the request to be in line", async |gateway| {
            in_line(gateway).await == 1
        })
        .await;
    drop(occupying);
    assert_eq!(waiting.join_all().await[0].status, 200);
    let sent = simulated.last_request().await;
    assert!(sent["headers"]["x-max-wait-ms"].is_null(), "{sent}");
}

#[tokio::test]
async fn nobody_else_is_tried_once_the_time_is_over() {
    let simulated = Simulated::start().await;
    let key = "[[key_tables.demo.keys]]\nid = \"router\"\nkey = \"router-key\"\ntenant = \"demo\"\nscopes = [\"routing\"]\n";
    let config = ConfigText::new(&[refusing(), refusing(), simulated.address()])
        .cluster("retries = 3\n[clusters.sim.ejection]\nconsecutive_failures = 0")
        .more(key);
    let gateway = Gateway::start(&config.text()).await;
    let ask = async |budget_ms| {
        let request = with_header(chat(""), "x-stargate-max-wait-ms", budget_ms);
        let request = with_header(request, "authorization", Some("Bearer router-key"));
        send(gateway.address(), request).await.status
    };
    for _ in 0..3 {
        assert_eq!(ask(None).await, 200);
        assert_eq!(ask(Some("60000")).await, 200);
    }
    let mut failed = 0;
    for _ in 0..6 {
        failed += usize::from(ask(Some("0")).await == 502);
    }
    assert_eq!(
        failed, 4,
        "two of three are not there, and no other is tried"
    );
}
