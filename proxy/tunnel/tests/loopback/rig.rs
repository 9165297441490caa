//! A gateway's listener, agents that dial it, and sockets that stand for a model server.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use weir_tunnel::agent::{Arrivals, Connected, connect};
use weir_tunnel::gateway::{Events, Listener, Pending, Tunnel};
use weir_tunnel::{
    Error, Hello, ServerTls, Settings, Socket, SpliceEnd, Trust, Undelivered, Welcome, splice,
};

pub(crate) const NAME: &str = "gateway.test";
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Waits for `future`, but not for ever.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the deadline passed")
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "the deadline passed: {what}");
}

/// A self-signed certificate for [`NAME`], and the trust in it.
pub(crate) fn identity() -> (ServerTls, Trust) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    let tls = ServerTls::from_pem(made.cert.pem().as_bytes(), key.as_bytes()).unwrap();
    (tls, Trust::Certificates(vec![made.cert.der().clone()]))
}

pub(crate) fn hello() -> Hello {
    Hello::new("worker-1", 7, "token-1")
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        version: 0,
        gateway_id: "gateway-1".to_owned(),
        heartbeat_ms: 250,
        peers: vec!["10.0.0.2:4433".to_owned()],
    }
}

/// A listener and what is needed to dial it.
pub(crate) struct Rig {
    pub(crate) listener: Listener,
    pub(crate) address: SocketAddr,
    pub(crate) trust: Trust,
    pub(crate) settings: Settings,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let (tls, trust) = identity();
        let listener = Listener::bind(loopback(), &tls, settings.clone()).unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            listener,
            trust,
            settings,
        }
    }

    pub(crate) async fn dial(&self, hello: Hello) -> Result<Connected, Error> {
        connect(self.address, NAME, &self.trust, hello, &self.settings).await
    }

    /// Dials while `answer` deals with the first that comes.
    pub(crate) async fn meet<A, F: Future<Output = A>>(
        &self,
        hello: Hello,
        answer: impl FnOnce(Pending) -> F,
    ) -> (Result<Connected, Error>, A) {
        within(async {
            tokio::join!(self.dial(hello), async {
                answer(self.listener.accept().await.unwrap()).await
            })
        })
        .await
    }

    /// Both ends of a welcomed tunnel.
    pub(crate) async fn tunnel(&self) -> (Connected, Tunnel, Events) {
        let (agent, gateway) = self
            .meet(hello(), |pending| pending.welcome(welcome()))
            .await;
        let (tunnel, events) = gateway.unwrap();
        (agent.unwrap(), tunnel, events)
    }
}

/// An agent that joins every stream to a socket of its model server, and reports how each ended.
pub(crate) struct Carrier {
    pub(crate) tasks: JoinSet<()>,
    pub(crate) ends: tokio::sync::mpsc::UnboundedReceiver<SpliceEnd>,
}

pub(crate) fn carry(arrivals: Arrivals, model_server: SocketAddr) -> Carrier {
    let (sender, ends) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut arrivals = arrivals;
        let mut streams = JoinSet::new();
        while let Some(arrival) = arrivals.next().await {
            let sender = sender.clone();
            streams.spawn(async move {
                let Ok(accepted) = arrival.accept().await else {
                    return;
                };
                match TcpStream::connect(model_server).await {
                    Ok(socket) => {
                        let done = splice(accepted.into_stream(), Socket::Tcp(socket)).await;
                        let _ = sender.send(done.end);
                    }
                    Err(_) => accepted.refuse(Undelivered::ConnectFailed),
                }
            });
        }
        // The tunnel is gone: its streams notice and end by themselves.
        while streams.join_next().await.is_some() {}
    });
    Carrier { tasks, ends }
}

/// A listening socket that stands for a model server.
pub(crate) async fn model_server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Sends back what comes, on every connection, and ends with its end.
pub(crate) fn echo(listener: TcpListener) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    tasks
}
