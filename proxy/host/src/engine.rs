//! One engine for the process: its settings, the clock of its deadlines, its linkers.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use wasmtime::component::Linker;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::cache::Cache;
use crate::capability;
use crate::guest_state::GuestState;
use crate::limit_metrics::LimitMetrics;
use crate::metrics::HostMetrics;
use crate::module::Module;
use crate::services::Services;
use crate::tick_length::TickLength;

/// How a [`Host`] is made.
#[derive(Debug, Default)]
pub struct HostOptions {
    /// Folder for compiled modules; made if missing. `None` = compile at every start.
    pub cache_dir: Option<PathBuf>,
    /// Where metrics are registered.
    pub registry: prometheus::Registry,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The machine does not allow what the engine needs.
    #[error("cannot start the Wasm engine: {0}")]
    Engine(String),
    /// Two hosts share a registry.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

type TripHook = Box<dyn Fn(&Arc<str>) + Send + Sync>;

/// The host of filters, one per process. Its engine and its clock thread start with the first
/// module, so that it can be made before a process forks.
pub struct Host {
    services: Arc<Services>,
    pub(crate) metrics: HostMetrics,
    cache_dir: Option<PathBuf>,
    running: OnceLock<Running>,
    starting: Mutex<()>,
    pub(crate) modules: Mutex<HashMap<[u8; 32], Weak<Module>>>,
    /// One compilation at a time: each takes much memory.
    pub(crate) compiling: Mutex<()>,
    on_trip: OnceLock<TripHook>,
}

/// What exists once the first module is loaded.
pub(crate) struct Running {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<GuestState>,
    pub(crate) suspending_linker: Linker<GuestState>,
    pub(crate) cache: Option<Cache>,
    _ticker: Ticker,
}

impl Host {
    /// A host without modules.
    ///
    /// # Errors
    /// When its metrics are registered already.
    pub fn new(options: HostOptions) -> Result<Arc<Self>, EngineError> {
        let metrics = HostMetrics::new(&options.registry)?;
        let services = Services::new(options.registry);
        let limits = LimitMetrics::new(Arc::clone(&services.limiters))?;
        services.registry.register(Box::new(limits))?;
        Ok(Arc::new(Self {
            services: Arc::new(services),
            metrics,
            cache_dir: options.cache_dir,
            running: OnceLock::new(),
            starting: Mutex::new(()),
            modules: Mutex::default(),
            compiling: Mutex::new(()),
            on_trip: OnceLock::new(),
        }))
    }

    /// What filters share.
    #[must_use]
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Sets what is called, with the filter's name, when a filter goes into quarantine. Called on
    /// the thread of the exchange: it must be quick. Only the first hook is kept.
    pub fn on_trip(&self, hook: impl Fn(&Arc<str>) + Send + Sync + 'static) {
        drop(self.on_trip.set(Box::new(hook)));
    }

    pub(crate) fn tripped(&self, filter: &Arc<str>) {
        if let Some(hook) = self.on_trip.get() {
            hook(filter);
        }
    }

    pub(crate) fn running(&self) -> Result<&Running, EngineError> {
        if let Some(running) = self.running.get() {
            return Ok(running);
        }
        let _one = self.starting.lock();
        if let Some(running) = self.running.get() {
            return Ok(running);
        }
        let running = Running::start(self.cache_dir.as_deref(), self.services.tick.clone())?;
        Ok(self.running.get_or_init(|| running))
    }
}

impl Running {
    fn start(
        cache_dir: Option<&std::path::Path>,
        tick: Arc<TickLength>,
    ) -> Result<Self, EngineError> {
        let failed = |error: wasmtime::Error| EngineError::Engine(format!("{error:#}"));
        let engine = engine().map_err(failed)?;
        let linker = |suspending| {
            let mut linker = Linker::new(&engine);
            capability::add_to_linker(&mut linker, suspending)?;
            capability::wasi::add_to_linker(&mut linker, suspending)?;
            Ok(linker)
        };
        let cache = cache_dir.and_then(|dir| match Cache::open(dir, &engine) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "no cache of compiled filters");
                None
            }
        });
        Ok(Self {
            linker: linker(false).map_err(failed)?,
            suspending_linker: linker(true).map_err(failed)?,
            _ticker: Ticker::start(&engine, tick)
                .map_err(|error| EngineError::Engine(error.to_string()))?,
            engine,
            cache,
        })
    }
}

/// The settings of every engine, whatever its allocator.
fn settings() -> Config {
    let mut config = Config::new();
    // Off: it makes each entry into a component three times as dear, for WASIp3 guests only.
    config.concurrency_support(false);
    config.epoch_interruption(true);
    config.cranelift_opt_level(OptLevel::Speed);
    config.memory_init_cow(true);
    config.max_wasm_stack(512 << 10);
    config.async_stack_size(1 << 20);
    config.wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config.native_unwind_info(true);
    config
}

/// An engine with pooled memories; on machines whose address space is too small or limited, one
/// that asks the system each time.
fn engine() -> wasmtime::Result<Engine> {
    for slots in [1_000, 200] {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_component_instances(slots)
            .total_core_instances(4 * slots)
            .total_memories(slots)
            .total_tables(3 * slots)
            .total_stacks(slots)
            .max_tables_per_component(8)
            .max_memories_per_component(2)
            // Kept memory is cleared by writing zeros at every reset: dearer than giving it back.
            .linear_memory_keep_resident(0)
            .table_keep_resident(64 << 10);
        let mut config = settings();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        match Engine::new(&config) {
            Ok(engine) => return Ok(engine),
            Err(error) => {
                tracing::info!(slots, error = %format!("{error:#}"), "no memory pool of this size")
            }
        }
    }
    Engine::new(&settings())
}

/// The thread that lets deadlines pass.
struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: &Engine, tick: Arc<TickLength>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let engine = engine.weak();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("weir-epoch".into())
            .stack_size(64 << 10)
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::sleep(tick.duration());
                    match engine.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => break,
                    }
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
