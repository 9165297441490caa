//! A model server that does what a test says, a gateway that keeps what it hears, and an agent.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use weir_agent::{Error, Settings, Shutdown, ShutdownHandle, StartRate, Token, Upstream, run};
use weir_tunnel::gateway::{Event, Events, Listener, Tunnel};
use weir_tunnel::{Heartbeat, Hello, RefusalCode, Refused, ServerTls, Status, Trust, Welcome};

const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the deadline passed")
}

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Answers by path, as a test sets them; every request is counted.
#[derive(Clone, Default)]
pub(crate) struct Answers(
    Arc<Mutex<HashMap<String, (u16, String)>>>,
    Arc<Mutex<HashMap<String, usize>>>,
);

impl Answers {
    pub(crate) fn set(&self, path: &str, status: u16, body: impl Into<String>) {
        self.0.lock().insert(path.to_owned(), (status, body.into()));
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        self.1.lock().get(path).copied().unwrap_or_default()
    }

    fn answer(&self, path: &str) -> (u16, String) {
        *self.1.lock().entry(path.to_owned()).or_default() += 1;
        let answer = self.0.lock().get(path).cloned();
        answer.unwrap_or((404, String::new()))
    }
}

/// A model server that is well and has the model `m`.
pub(crate) struct ModelServer {
    pub(crate) address: SocketAddr,
    pub(crate) answers: Answers,
    _task: JoinSet<()>,
}

impl ModelServer {
    pub(crate) async fn start() -> Self {
        let answers = Answers::default();
        answers.set("/health", 200, "");
        answers.set(
            "/v1/models",
            200,
            r#"{"object":"list","data":[{"id":"m"}]}"#,
        );
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut task, shared) = (JoinSet::new(), answers.clone());
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let answers = shared.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let answers = answers.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        let sent = request.into_body().collect().await;
                        let (status, mut body) = answers.answer(&path);
                        if path == "/echo" {
                            let sent = sent.map(|sent| sent.to_bytes()).unwrap_or_default();
                            body = String::from_utf8_lossy(&sent).into_owned();
                        }
                        let mut response = Response::new(Full::<Bytes>::from(body));
                        *response.status_mut() = StatusCode::from_u16(status).unwrap();
                        Ok::<_, Infallible>(response)
                    }
                });
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self {
            address,
            answers,
            _task: task,
        }
    }

    pub(crate) fn upstream(&self) -> Upstream {
        Upstream::Tcp(self.address.to_string())
    }
}

/// What a gateway knows of its workers, newest last.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) hellos: Vec<Hello>,
    pub(crate) tunnels: Vec<Tunnel>,
    pub(crate) heartbeat: Option<Heartbeat>,
    pub(crate) drained: bool,
    pub(crate) lost: usize,
}

/// The rules of a gateway.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) peers: Vec<String>,
}

/// A gateway that welcomes those with the right token.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) book: watch::Receiver<Book>,
    listener: Arc<Listener>,
    tasks: JoinSet<()>,
}

impl Gateway {
    pub(crate) async fn start(address: SocketAddr, rules: Rules) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = made.signing_key.serialize_pem();
        let tls = ServerTls::from_pem(made.cert.pem().as_bytes(), key.as_bytes()).unwrap();
        // The address of a gateway before may be free only in a moment.
        let listener = within(async {
            loop {
                match Listener::bind(address, &tls, weir_tunnel::Settings::default()) {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await;
        let listener = Arc::new(listener);
        let address = listener.local_addr().unwrap();
        let (sender, book) = watch::channel(Book::default());
        let (mut tasks, accepting) = (JoinSet::new(), Arc::clone(&listener));
        tasks.spawn(async move {
            let mut workers = JoinSet::new();
            let sender = Arc::new(sender);
            while let Some(pending) = accepting.accept().await {
                sender.send_modify(|book| book.hellos.push(pending.hello().clone()));
                if pending.hello().token != rules.token {
                    let refused = Refused::new(RefusalCode::Unauthenticated, "the token is wrong");
                    pending.refuse(refused).await;
                    continue;
                }
                let welcome = Welcome {
                    version: 0,
                    gateway_id: rules.id.clone(),
                    heartbeat_ms: 50,
                    peers: rules.peers.clone(),
                };
                if let Ok((tunnel, events)) = pending.welcome(welcome).await {
                    sender.send_modify(|book| book.tunnels.push(tunnel));
                    workers.spawn(listen(events, Arc::clone(&sender)));
                }
            }
        });
        Self {
            address,
            book,
            listener,
            tasks,
        }
    }

    /// Waits until the book is as `condition` says.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&Book) -> bool) {
        let waited =
            tokio::time::timeout(DEADLINE, self.book.wait_for(|book| condition(book))).await;
        assert!(matches!(waited, Ok(Ok(_))), "the deadline passed: {what}");
    }

    /// Waits until the model `m` has `status`.
    pub(crate) async fn until_status(&mut self, status: Status) {
        let what = format!("m is {status:?}");
        self.until(&what, |book| status_of(book, "m") == Some(status))
            .await;
    }

    pub(crate) fn tunnel(&self) -> Tunnel {
        self.book.borrow().tunnels.last().unwrap().clone()
    }

    /// Closes at once, as a process that dies.
    pub(crate) async fn stop(mut self) -> SocketAddr {
        self.listener.close(weir_tunnel::CloseCode::Done, "").await;
        self.tasks.shutdown().await;
        self.address
    }
}

pub(crate) fn status_of(book: &Book, model: &str) -> Option<Status> {
    let model = book.heartbeat.as_ref()?.models.get(model)?;
    Some(model.status())
}

async fn listen(mut events: Events, book: Arc<watch::Sender<Book>>) {
    loop {
        match events.next().await {
            Event::Heartbeat(heartbeat) => {
                book.send_modify(|book| book.heartbeat = Some(heartbeat))
            }
            Event::Draining(_) => book.send_modify(|book| book.drained = true),
            Event::Closed(_) => {
                book.send_modify(|book| book.lost += 1);
                return;
            }
        }
    }
}

pub(crate) fn rules(id: &str) -> Rules {
    Rules {
        id: id.to_owned(),
        token: "good".to_owned(),
        peers: Vec::new(),
    }
}

/// Settings in which all is fast.
pub(crate) fn settings(server: &ModelServer, gateways: &[SocketAddr]) -> Settings {
    let mut settings = Settings::new(
        server.upstream(),
        "worker-1",
        Trust::Anyone,
        StartRate::Given(1000.0),
    );
    settings.gateways = gateways.iter().map(ToString::to_string).collect();
    settings.token = Token::Text("good".to_owned());
    settings.health.interval = Duration::from_millis(20);
    settings.discover_interval = Duration::from_millis(20);
    settings.metrics_interval = Duration::from_millis(20);
    settings
}

/// An agent that runs.
pub(crate) struct Agent {
    pub(crate) handle: ShutdownHandle,
    task: JoinSet<Result<(), Error>>,
}

impl Agent {
    pub(crate) fn start(settings: Settings) -> Self {
        let (handle, shutdown): (_, Shutdown) = ShutdownHandle::new();
        let mut task = JoinSet::new();
        task.spawn(run(settings, shutdown));
        Self { handle, task }
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Result<(), Error> {
        within(self.task.join_next()).await.unwrap().unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.task.try_join_next().is_none()
    }
}
