//! What a tunnel costs against a direct connection: `cargo run --release -p weir-tunnel --example overhead`.
//!
//! In one process and by turns: small exchanges over connections that stay, over new ones, and
//! the rate of one large body. Prints medians, 99th percentiles and processor time.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a page to read, not part of the program"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use weir_tunnel::agent::connect;
use weir_tunnel::gateway::{Listener, Tunnel};
use weir_tunnel::{
    Congestion, Hello, ServerTls, Settings, Socket, Trust, Undelivered, Welcome, splice,
};

const REQUEST: [u8; 200] = [1; 200];
const ANSWER: [u8; 400] = [2; 400];
const CONCURRENT: usize = 16;
const EXCHANGES: usize = 1000;
const BODY_BYTES: usize = 256 << 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let congestion = match std::env::args().nth(1).as_deref() {
            Some("bbr") => Congestion::Bbr,
            _ => Congestion::Cubic,
        };
        let settings = Settings {
            congestion,
            ..Settings::default()
        };
        let server = model_server().await;
        let (tunnel, _held) = tunnel(server, settings).await;
        let direct = Way::Direct(server);
        let tunnelled = Way::Tunnel(tunnel);
        for round in 0..3 {
            println!("round {round}");
            for (name, way) in [("direct", &direct), ("tunnel", &tunnelled)] {
                exchanges(name, way, true).await;
                exchanges(name, way, false).await;
            }
            for (name, way) in [("direct", &direct), ("tunnel", &tunnelled)] {
                body(name, way).await;
            }
        }
    });
}

#[derive(Clone)]
enum Way {
    Direct(SocketAddr),
    Tunnel(Tunnel),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Way {
    async fn open(&self) -> Box<dyn Stream> {
        match self {
            Self::Direct(address) => {
                let socket = TcpStream::connect(address).await.unwrap();
                socket.set_nodelay(true).unwrap();
                Box::new(socket)
            }
            Self::Tunnel(tunnel) => Box::new(tunnel.open().await.unwrap()),
        }
    }
}

async fn exchanges(name: &str, way: &Way, keep: bool) {
    let (began, cpu) = (Instant::now(), cpu());
    let mut tasks = JoinSet::new();
    for _ in 0..CONCURRENT {
        let way = way.clone();
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(EXCHANGES);
            let mut stream = way.open().await;
            let mut answer = [0; ANSWER.len()];
            for _ in 0..EXCHANGES {
                let sent = Instant::now();
                if !keep {
                    stream = way.open().await;
                }
                stream.write_all(&REQUEST).await.unwrap();
                stream.read_exact(&mut answer).await.unwrap();
                times.push(sent.elapsed());
            }
            times
        });
    }
    let mut times = tasks.join_all().await.concat();
    times.sort_unstable();
    let kind = if keep { "kept" } else { "new" };
    println!(
        "  {name} {kind:>4}: p50 {:>4} us, p99 {:>5} us, {:>6.0} a second, {:>4.0} us of processor each",
        times[times.len() / 2].as_micros(),
        times[times.len() * 99 / 100].as_micros(),
        times.len() as f64 / began.elapsed().as_secs_f64(),
        (self::cpu() - cpu).as_micros() as f64 / times.len() as f64,
    );
}

async fn body(name: &str, way: &Way) {
    let (began, cpu) = (Instant::now(), cpu());
    let stream = way.open().await;
    let (mut read, mut write) = tokio::io::split(stream);
    let mut sender = JoinSet::new();
    sender.spawn(async move {
        // The first byte says what is wanted.
        let part = vec![9; 64 * 1024];
        for _ in 0..BODY_BYTES / part.len() {
            write.write_all(&part).await.unwrap();
        }
        write.shutdown().await.unwrap();
    });
    let mut count = [0; 8];
    read.read_exact(&mut count).await.unwrap();
    assert_eq!(u64::from_le_bytes(count), BODY_BYTES as u64);
    println!(
        "  {name} body: {:>5.0} MiB/s, {:>4.1} ms of processor a MiB",
        (BODY_BYTES >> 20) as f64 / began.elapsed().as_secs_f64(),
        (self::cpu() - cpu).as_secs_f64() * 1000.0 / (BODY_BYTES >> 20) as f64,
    );
}

/// Answers small requests one by one; of a body it counts the bytes.
async fn model_server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    std::mem::forget(tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            connections.spawn(serve(socket));
            while connections.try_join_next().is_some() {}
        }
    }));
    address
}

async fn serve(mut socket: TcpStream) {
    socket.set_nodelay(true).unwrap();
    let mut first = [0];
    while socket.read_exact(&mut first).await.is_ok() {
        if first == [9] {
            let mut count = 1;
            let mut part = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = socket.read(&mut part).await {
                count += read as u64;
            }
            let _ = socket.write_all(&count.to_le_bytes()).await;
            return;
        }
        let mut rest = [0; REQUEST.len() - 1];
        if socket.read_exact(&mut rest).await.is_err() || socket.write_all(&ANSWER).await.is_err() {
            return;
        }
    }
}

async fn tunnel(server: SocketAddr, settings: Settings) -> (Tunnel, impl Sized) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    let tls = ServerTls::from_pem(made.cert.pem().as_bytes(), key.as_bytes()).unwrap();
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = Listener::bind(any, &tls, settings.clone()).unwrap();
    let address = listener.local_addr().unwrap();
    let hello = Hello::new("worker", 1, "");
    let (agent, gateway) = tokio::join!(
        connect(address, "localhost", &Trust::Anyone, hello, &settings),
        async {
            let pending = listener.accept().await.unwrap();
            pending.welcome(Welcome::default()).await.unwrap()
        }
    );
    let (agent, (tunnel, events)) = (agent.unwrap(), gateway);
    let mut arrivals = agent.arrivals;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut streams = JoinSet::new();
        while let Some(arrival) = arrivals.next().await {
            streams.spawn(async move {
                // A stream that was opened and never used has no preamble.
                let Ok(accepted) = arrival.accept().await else {
                    return;
                };
                match TcpStream::connect(server).await {
                    Ok(socket) => {
                        socket.set_nodelay(true).unwrap();
                        splice(accepted.into_stream(), Socket::Tcp(socket)).await;
                    }
                    Err(_) => accepted.refuse(Undelivered::ConnectFailed),
                }
            });
            while streams.try_join_next().is_some() {}
        }
    });
    (tunnel, (listener, events, agent.link, agent.notices, tasks))
}

/// Processor time of this process, user and system, in ticks of 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
