//! Two gateways and four workers, each on a host of its own, over paths that delay and lose: what is
//! killed costs nobody a request that could still be sent elsewhere.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;
use weir_tests::agent::{TOKEN, workers};
use weir_tests::caller::{self, Answer, Caller, chat, next_bytes, with_header};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::{program, wait_until};
use weir_tests::network::{Host, Network};
use weir_tests::process::Process;
use weir_tests::relay::{Path, Relay};

const PATH: Path = Path {
    delay: Duration::from_millis(5),
    loss_permille: 10,
};
const GATEWAYS: usize = 2;
const WORKERS: usize = 4;
const CALLERS_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9901;
const WORKERS_PORT: u16 = 50_072;
const MODEL_PORT: u16 = 8000;

struct GatewayHost {
    address: Ipv4Addr,
    process: Option<Process>,
}

struct WorkerHost {
    server: Option<Process>,
    agent: Option<Process>,
    /// To each gateway.
    paths: Vec<Relay>,
}

struct Fleet {
    gateways: Vec<GatewayHost>,
    workers: Vec<WorkerHost>,
    network: Network,
    files: TempDir,
}

impl Fleet {
    async fn start(network: Network) -> Self {
        let mut fleet = Self {
            gateways: Vec::new(),
            workers: Vec::new(),
            files: TempDir::new().unwrap(),
            network,
        };
        for number in 0..GATEWAYS {
            let host = fleet.network.host(number).clone();
            let process = fleet.gateway(&host).await;
            fleet.gateways.push(GatewayHost {
                address: host.address,
                process: Some(process),
            });
        }
        for number in 0..WORKERS {
            let mut paths = Vec::new();
            for gateway in &fleet.gateways {
                let target = SocketAddr::from((gateway.address, WORKERS_PORT));
                let own = fleet.network.own_address();
                paths.push(Relay::start(own, target, PATH).await.unwrap());
            }
            let host = fleet.network.host(GATEWAYS + number).clone();
            let mut worker = WorkerHost {
                server: Some(server(&host)),
                agent: None,
                paths,
            };
            worker.agent = Some(agent(&host, number, &worker.paths));
            fleet.workers.push(worker);
        }
        fleet
    }

    async fn gateway(&self, host: &Host) -> Process {
        let admin = SocketAddr::from((host.address, ADMIN_PORT));
        let config = ConfigText::new(&[])
            .cluster("workers = true\nretries = 4")
            .more(&workers(SocketAddr::from((host.address, WORKERS_PORT))))
            .text()
            .replace("{listen}", &format!("{}:{CALLERS_PORT}", host.address))
            .replace("{admin}", &admin.to_string());
        let file = self.files.path().join(format!("{}.toml", host.address));
        fs::write(&file, config).unwrap();
        let mut command = host.command(program("weir", "WEIR_BIN"));
        command.arg("run").arg("--config").arg(&file);
        command.env("XDG_CACHE_HOME", self.files.path().join("cache"));
        let mut process = Process::spawn(&mut command).unwrap();
        let ready = process
            .wait_until_answers(admin, "/readyz", Duration::from_secs(120))
            .await;
        ready.unwrap_or_else(|error| panic!("{error}"));
        process
    }

    /// Gateways that run.
    fn running(&self) -> Vec<Ipv4Addr> {
        let running = self.gateways.iter().filter(|host| host.process.is_some());
        running.map(|host| host.address).collect()
    }

    /// Waits until every gateway that runs has so many workers; says how long it took.
    async fn settled(&self, what: &str, workers: usize) {
        let begun = Instant::now();
        for gateway in self.running() {
            let admin = SocketAddr::from((gateway, ADMIN_PORT));
            let settled = async || active(admin).await == workers;
            wait_until(&format!("{what}: {workers} workers"), settled).await;
        }
        eprintln!(
            "{what}: {workers} workers at every gateway after {:?}",
            begun.elapsed()
        );
    }

    /// Asks the gateways in turn, all at once.
    async fn ask(&self, count: usize) -> Vec<Answer> {
        let gateways = self.running();
        let mut asking = JoinSet::new();
        for number in 0..count {
            let address = SocketAddr::from((gateways[number % gateways.len()], CALLERS_PORT));
            asking.spawn(async move { caller::send(address, chat("")).await });
        }
        asking.join_all().await
    }

    /// The same, and every request must be answered.
    #[track_caller]
    fn all_well(what: &str, answers: &[Answer]) {
        for answer in answers {
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        }
    }
}

/// A model server that only its own host can reach.
fn server(host: &Host) -> Process {
    let mut command = host.command(program("weir", "WEIR_BIN"));
    command.args(["simulate", "--listen", &format!("127.0.0.1:{MODEL_PORT}")]);
    command.args(["--ttft-ms", "5", "--tokens-per-second", "100"]);
    Process::spawn(&mut command).unwrap()
}

fn agent(host: &Host, number: usize, paths: &[Relay]) -> Process {
    let mut command: Command = host.command(program("weir-agent", "WEIR_AGENT_BIN"));
    command
        .args(["--upstream", &format!("http://127.0.0.1:{MODEL_PORT}")])
        .args(["--worker-id", &format!("w{number}"), "--model", "sim"])
        .args(["--quic-insecure", "--initial-input-tps", "10000"])
        .args(["--health-interval-ms", "200", "--token", TOKEN]);
    for path in paths {
        command.args(["--gateway", &path.address().to_string()]);
    }
    Process::spawn(&mut command).unwrap()
}

/// How many workers serve the model at a gateway.
async fn active(admin: SocketAddr) -> usize {
    let workers = caller::send(admin, caller::get("/workers")).await.json();
    let workers = workers["workers"].as_array().cloned().unwrap_or_default();
    let serves = |worker: &&Value| worker["models"]["sim"] == "active";
    workers.iter().filter(serves).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_loses_nothing_it_need_not() {
    let hosts = u8::try_from(GATEWAYS + WORKERS).unwrap();
    let network = match Network::new(hosts) {
        Ok(network) => network,
        Err(error) => {
            eprintln!("SKIPPED: no network namespaces can be made here: {error}");
            return;
        }
    };
    let mut fleet = Fleet::start(network).await;
    fleet.settled("the fleet joins", WORKERS).await;
    Fleet::all_well("all are there", &fleet.ask(80).await);

    // A stream through the worker that will die; whichever it is, one of all of them.
    let gateway = SocketAddr::from((fleet.gateways[0].address, CALLERS_PORT));
    let mut streams = Vec::new();
    for _ in 0..2 * WORKERS {
        let mut caller = Caller::http1(gateway).await.unwrap();
        let request = with_header(chat(r#""stream":true"#), "x-sim-tokens", Some("400"));
        let mut response = caller.open(request).await.unwrap();
        let first = next_bytes(&mut response).await.unwrap();
        assert!(first.is_some(), "the stream has begun");
        streams.push((caller, response));
    }
    fleet.workers[3].agent = None;
    let mut broken = 0;
    for (_caller, mut response) in streams {
        let mut text = String::new();
        while let Ok(Some(bytes)) = next_bytes(&mut response).await {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        let whole = text.ends_with("data: [DONE]\n\n");
        let told = text.contains("\"error\"") && !text.contains("[DONE]");
        assert!(whole || told, "a stream ended in silence: {text}");
        broken += usize::from(told);
    }
    assert!(broken > 0, "no stream was on the worker that died");
    fleet.settled("an agent is killed", WORKERS - 1).await;
    Fleet::all_well("an agent was killed", &fleet.ask(40).await);

    let host = fleet.network.host(GATEWAYS + 2).clone();
    host.link(false).unwrap();
    fleet.settled("a cable is pulled", WORKERS - 2).await;
    Fleet::all_well("a cable was pulled", &fleet.ask(40).await);
    host.link(true).unwrap();
    fleet.settled("the cable is back", WORKERS - 1).await;

    fleet.workers[0].server = None;
    Fleet::all_well("a model server was killed", &fleet.ask(40).await);
    fleet.settled("a model server is killed", WORKERS - 2).await;
    fleet.workers[0].server = Some(server(fleet.network.host(GATEWAYS)));
    fleet.settled("the model server is back", WORKERS - 1).await;

    fleet.gateways[1].process = None;
    Fleet::all_well("a gateway was killed", &fleet.ask(40).await);
    let host = fleet.network.host(1).clone();
    let process = fleet.gateway(&host).await;
    fleet.gateways[1].process = Some(process);
    fleet.settled("the gateway is back", WORKERS - 1).await;
    Fleet::all_well("the gateway is back", &fleet.ask(40).await);
    let lost: u64 = fleet
        .workers
        .iter()
        .flat_map(|worker| &worker.paths)
        .map(Relay::dropped)
        .sum();
    assert!(lost > 0, "the paths were too good");
}
