//! A process from its config to its end: listeners, background tasks, drain.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::HttpServerOptions;
use pingora::listeners::tls::TlsSettings;
use pingora::proxy::ProxyServiceBuilder;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora::services::background::{BackgroundService, background_service};
use pingora::services::listening::Service;
use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use weir_config::{Config, ConfigError, SimulatorTable};
use weir_host::{Host, HostOptions};
use weir_routing::Fleet;
use weir_simulator::{Settings, Simulator};

use crate::admin::Admin;
use crate::compile::{Compiler, Origin, located};
use crate::complete;
use crate::gateway::Gateway;
use crate::health_check;
use crate::names::{self, Names};
use crate::outbound::Messenger;
use crate::reload::{Ask, Reloader, watch};
use crate::runtime::{self, Completion, Runtime};
use crate::telemetry::{Exporter, Exporting, Metrics};
use crate::tls::LiveCertificate;
use crate::upstream::IdleByAddress;
use crate::workers::beside::Beside;
use crate::workers::listen::WorkerListener;
use crate::workers::registry::Workers;

/// Asks the reloader may be behind with.
const ASKS_MAX: usize = 64;
/// After a signal to end, answers say `connection: close` this long before idle connections are
/// closed, so that callers who are busy move over by themselves.
const LINGER: Duration = Duration::from_millis(500);
/// How often a draining process looks whether it has finished.
const DRAIN_TICK: Duration = Duration::from_millis(50);

/// The last export gets what is left of the drain, but no less and no more than this: pingora ends
/// the process a second after the limit, and a collector that is down shall not keep it.
const EXPORT_MIN: Duration = Duration::from_millis(500);
const EXPORT_MAX: Duration = Duration::from_secs(3);

/// Why a process cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// What the config says is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<ConfigError>),
    /// What the machine refuses.
    #[error("{0}")]
    Machine(String),
}

/// What is to be run.
pub(crate) struct Plan {
    /// The config file; none: the embedded config.
    pub(crate) file: Option<PathBuf>,
    /// Its content.
    pub(crate) config: Config,
    /// Its text.
    pub(crate) text: String,
    /// Take the listening sockets over from a process that is told to hand them over.
    pub(crate) upgrade: bool,
}

/// Runs until the process is told to end.
///
/// # Errors
/// When it cannot start.
pub(crate) fn run(plan: Plan) -> Result<(), BootError> {
    let origin = plan
        .file
        .as_deref()
        .map_or_else(Origin::embedded, Origin::of);
    let Begun {
        runtime,
        completions,
        exporter,
    } = begin(&plan, &origin)?;
    if runtime
        .host
        .services()
        .outbound
        .set(Messenger::new(&runtime))
        .is_err()
    {
        return Err(BootError::Machine(
            "the host has a messenger already".into(),
        ));
    }
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let tripping = asks.clone();
    runtime.host.on_trip(move |filter| {
        // A full queue means that trips are being dealt with already.
        _ = tripping.try_send(Ask::Tripped {
            filter: Arc::clone(filter),
        });
    });
    let config = &plan.config;
    let mut server = Server::new_with_opt_and_conf(
        Some(Opt {
            upgrade: plan.upgrade,
            ..Opt::default()
        }),
        server_conf(config),
    );
    let certificates = certificates(config, &plan.text, &origin)?;
    server.add_service(background_service(
        "simulators",
        Simulators {
            tables: config.simulators.clone(),
        },
    ));
    let mut workers = config
        .workers
        .listen
        .map(|address| WorkerListener::new(Arc::clone(&runtime), origin.clone(), address));
    for listener in &config.listeners {
        let gateway = Gateway::new(Arc::clone(&runtime), listener.idle_timeout_ms);
        let mut options = HttpServerOptions::default();
        options.h2c = listener.h2c;
        let mut service = ProxyServiceBuilder::new(&server.configuration, gateway)
            .name(&listener.name)
            .server_options(options)
            .build();
        let address = listener.listen.to_string();
        match certificates.get(&listener.name) {
            Some(certificate) => {
                let settings = tls_settings(Arc::clone(certificate))?;
                service.add_tls_with_settings(&address, None, settings);
            }
            None => service.add_tcp(&address),
        }
        match workers.take() {
            Some(workers) => server.add_service(Beside::new(service, workers)),
            None => server.add_service(service),
        };
    }
    let mut admin = Service::new(
        "admin".into(),
        Admin::new(Arc::clone(&runtime), asks.clone()),
    );
    admin.add_tcp(&config.admin.listen.to_string());
    server.add_service(admin);
    let reloader = Reloader::new(Arc::clone(&runtime), plan.file.clone(), certificates);
    let background = Background {
        runtime: Arc::clone(&runtime),
        parts: Mutex::new(Some(Parts {
            reloader,
            asks,
            asked,
            completions,
            exporter,
        })),
        drain: Duration::from_millis(config.server.drain_timeout_ms),
    };
    server.add_service(background_service("background", background));
    // Takes over sockets, or opens its own.
    server.bootstrap();
    server.run(RunArgs {
        shutdown_signal: Box::new(Signals { runtime }),
    });
    Ok(())
}

/// What serves, and what works for it in the background.
struct Begun {
    runtime: Arc<Runtime>,
    completions: mpsc::Receiver<Completion>,
    exporter: Option<Exporter>,
}

fn begin(plan: &Plan, origin: &Origin) -> Result<Begun, BootError> {
    let machine = |error: String| BootError::Machine(error);
    let registry = prometheus::Registry::new();
    let cache_dir = cache_dir(&plan.config.server.cache_dir);
    let host = Host::new(HostOptions {
        cache_dir,
        registry: registry.clone(),
    })
    .map_err(|error| machine(error.to_string()))?;
    let otlp = &plan.config.telemetry.otlp;
    let (spans, exporter) = Exporter::new(otlp, &registry).map_err(|error| {
        let key = "telemetry.otlp.headers";
        let remedy = "use letters, digits and `-` in names, and printable text in values";
        let message = error.to_string();
        BootError::Config(vec![located(
            &plan.text,
            &origin.file,
            key,
            message,
            remedy,
        )])
    })?;
    let metrics = Metrics::new(registry).map_err(|error| machine(error.to_string()))?;
    let fleet = Fleet::new();
    let workers = Workers::default();
    let names = Names::default();
    let idle = Arc::<IdleByAddress>::default();
    let compiler = Compiler {
        host: &host,
        fleet: &fleet,
        workers: &workers,
        names: &names,
        idle: &idle,
        origin,
        previous: None,
    };
    let snapshot = compiler
        .compile(plan.config.clone(), Arc::from(plan.text.as_str()), 1)
        .map_err(BootError::Config)?;
    host.services()
        .key_tables
        .store(Arc::clone(&snapshot.key_tables));
    host.services()
        .key_sets
        .store(Arc::clone(&snapshot.key_sets));
    metrics.reloaded("applied", 1);
    let parts = runtime::Parts {
        host,
        fleet,
        workers,
        names,
        idle,
        metrics,
        spans,
    };
    let (runtime, completions) = Runtime::new(parts, snapshot);
    Ok(Begun {
        runtime,
        completions,
        exporter,
    })
}

/// The configured folder, else the user's cache folder; none when there is neither.
pub(crate) fn cache_dir(configured: &str) -> Option<PathBuf> {
    if !configured.is_empty() {
        return Some(PathBuf::from(configured));
    }
    let of = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("weir").join("modules"))
}

fn server_conf(config: &Config) -> ServerConf {
    let threads = match config.server.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let mut conf = ServerConf {
        threads,
        upstream_keepalive_pool_size: 1024,
        ..ServerConf::default()
    };
    if !config.server.upgrade_socket.is_empty() {
        conf.upgrade_sock.clone_from(&config.server.upgrade_socket);
    }
    // The drain task ends the process as soon as the last exchange has; this is the limit.
    conf.grace_period_seconds = Some(config.server.drain_timeout_ms.div_ceil(1000) + 1);
    conf.graceful_shutdown_timeout_seconds = Some(1);
    conf
}

fn certificates(
    config: &Config,
    text: &str,
    origin: &Origin,
) -> Result<BTreeMap<String, Arc<LiveCertificate>>, BootError> {
    let mut certificates = BTreeMap::new();
    for (place, listener) in config.listeners.iter().enumerate() {
        let Some(tls) = &listener.tls else { continue };
        let path = |path: &Path| weir_config::resolve(&origin.folder, path);
        let certificate =
            LiveCertificate::read(&path(&tls.cert), &path(&tls.key)).map_err(|error| {
                let remedy = "give the PEM files of a certificate chain and its key";
                BootError::Config(vec![located(
                    text,
                    &origin.file,
                    &format!("listeners[{place}].tls"),
                    error.to_string(),
                    remedy,
                )])
            })?;
        certificates.insert(listener.name.clone(), certificate);
    }
    Ok(certificates)
}

fn tls_settings(certificate: Arc<LiveCertificate>) -> Result<TlsSettings, BootError> {
    let mut settings =
        TlsSettings::intermediate("", "").map_err(|error| BootError::Machine(error.to_string()))?;
    settings.set_cert_resolver(certificate);
    settings.enable_h2();
    Ok(settings)
}

/// The in-process model servers. They serve until the process is gone: exchanges that drain need
/// them.
struct Simulators {
    tables: Vec<SimulatorTable>,
}

#[async_trait]
impl BackgroundService for Simulators {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let mut serving = JoinSet::new();
        for table in &self.tables {
            match simulator(table) {
                Ok(simulator) => {
                    tracing::info!(address = %simulator.local_addr(), model = table.model, "simulated model server");
                    serving.spawn(simulator.serve(std::future::pending()));
                }
                Err(error) => {
                    tracing::error!(address = %table.listen, %error, "simulated model server cannot listen")
                }
            }
        }
        while serving.join_next().await.is_some() {}
        std::future::pending::<()>().await;
    }
}

fn simulator(table: &SimulatorTable) -> std::io::Result<Simulator> {
    let socket = if table.listen.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    // A process that is upgraded in place and its successor simulate at the same time for a while.
    socket.set_reuseport(true)?;
    socket.bind(table.listen)?;
    let listener = socket.listen(1024)?.into_std()?;
    let settings = Settings {
        seed: table.seed,
        model: table.model.clone(),
        ttft_ms: table.ttft_ms,
        tokens_per_second: table.tokens_per_second,
        jitter: table.jitter,
        error_rate: table.error_rate,
        disconnect_rate: table.disconnect_rate,
        slots: table.slots,
        kv_tokens: table.kv_tokens,
        ..Settings::default()
    };
    Simulator::from_listener(listener, settings)
}

struct Parts {
    reloader: Reloader,
    asks: mpsc::Sender<Ask>,
    asked: mpsc::Receiver<Ask>,
    completions: mpsc::Receiver<Completion>,
    exporter: Option<Exporter>,
}

/// Reloads, health checks, lookups, ticks, completions, exports; and the end.
struct Background {
    runtime: Arc<Runtime>,
    parts: Mutex<Option<Parts>>,
    drain: Duration,
}

#[async_trait]
impl BackgroundService for Background {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Some(parts) = self.parts.lock().take() else {
            return;
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(parts.reloader.run(parts.asked));
        tasks.spawn(watch(Arc::clone(&self.runtime), parts.asks));
        tasks.spawn(health_check::run(Arc::clone(&self.runtime)));
        tasks.spawn(names::refresh(Arc::clone(&self.runtime)));
        tasks.spawn(complete::deliver(parts.completions));
        tasks.spawn(complete::tick(Arc::clone(&self.runtime)));
        let exporting = parts.exporter.map(|exporter| exporter.start(&self.runtime));
        while !*shutdown.borrow_and_update() {
            if shutdown.changed().await.is_err() {
                break;
            }
        }
        drained(&self.runtime, self.drain, exporting).await;
    }
}

/// Waits for the last exchange, tells of it, then ends the process: pingora itself would sleep out
/// the limit.
async fn drained(runtime: &Runtime, limit: Duration, exporting: Option<Exporting>) {
    runtime.draining.store(true, Ordering::Relaxed);
    let begun = tokio::time::Instant::now();
    let cut = loop {
        let active = runtime.metrics.active_count();
        if active == 0 || begun.elapsed() >= limit {
            break active;
        }
        tokio::time::sleep(DRAIN_TICK).await;
    };
    if let Some(exporting) = exporting {
        let left = limit.saturating_sub(begun.elapsed());
        exporting.finish(left.clamp(EXPORT_MIN, EXPORT_MAX)).await;
    }
    tracing::info!(
        cut,
        after_ms = begun.elapsed().as_millis(),
        "drained, exiting"
    );
    #[allow(
        clippy::disallowed_methods,
        reason = "the end of the process, nothing is left to unwind"
    )]
    std::process::exit(0);
}

/// Unix signals: TERM drains, QUIT hands the sockets over and drains, INT ends at once.
struct Signals {
    runtime: Arc<Runtime>,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let listen = |kind| {
            signal(kind).inspect_err(|error| tracing::error!(%error, "a signal cannot be heard"))
        };
        let (Ok(mut quit), Ok(mut term), Ok(mut int)) = (
            listen(SignalKind::quit()),
            listen(SignalKind::terminate()),
            listen(SignalKind::interrupt()),
        ) else {
            return std::future::pending().await;
        };
        let chosen = tokio::select! {
            _ = quit.recv() => ShutdownSignal::GracefulUpgrade,
            _ = term.recv() => ShutdownSignal::GracefulTerminate,
            _ = int.recv() => ShutdownSignal::FastShutdown,
        };
        tracing::info!(signal = ?chosen, "told to end");
        self.runtime.draining.store(true, Ordering::Relaxed);
        if matches!(chosen, ShutdownSignal::GracefulTerminate) {
            tokio::time::sleep(LINGER).await;
        }
        chosen
    }
}
