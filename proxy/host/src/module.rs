//! A compiled Wasm component and what it imports and exports.

use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, ComponentExportIndex};

use crate::engine::{EngineError, Host, Running};

/// The code of a filter, compiled. Shared by every filter that uses the same bytes.
pub struct Module {
    /// SHA-256 of the bytes as given, in hexadecimal.
    pub sha256: String,
    /// Their number.
    pub size: usize,
    /// Interfaces it imports.
    pub imports: Vec<String>,
    /// Phases it exports, `on-` left out.
    pub exports: Vec<&'static str>,
    /// Milliseconds of compilation, or of loading from the cache.
    pub compile_ms: u64,
    /// Whether it came from the cache.
    pub cached: bool,
    pub(crate) component: Component,
    pub(crate) indices: Indices,
}

/// Why a file is not a filter.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Neither a component nor a core module with component type information.
    #[error("not a WebAssembly component: {0}")]
    NotAComponent(String),
    /// Valid, but not for us.
    #[error("does not compile: {0}")]
    Compile(String),
    /// It exports no filter.
    #[error("exports no `{LIFECYCLE}`: not a filter, or one of another version of the contract")]
    NoLifecycle,
    /// An export of ours with another type, or without its function.
    #[error("export `{0}` is incomplete")]
    Incomplete(String),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Where the functions of the exported interfaces are.
#[derive(Clone)]
pub(crate) struct Indices {
    pub(crate) describe: ComponentExportIndex,
    pub(crate) validate: ComponentExportIndex,
    pub(crate) init: ComponentExportIndex,
    pub(crate) request_headers: Option<ComponentExportIndex>,
    pub(crate) authorize: Option<ComponentExportIndex>,
    pub(crate) request: Option<ComponentExportIndex>,
    pub(crate) affinity: Option<ComponentExportIndex>,
    pub(crate) route: Option<ComponentExportIndex>,
    pub(crate) response_headers: Option<ComponentExportIndex>,
    pub(crate) events: Option<ComponentExportIndex>,
    pub(crate) complete: Option<ComponentExportIndex>,
    pub(crate) tick: Option<ComponentExportIndex>,
}

impl Host {
    /// Compiles a filter, or takes it from the cache. Slow (tenths of a second to many seconds):
    /// not for a thread that serves. The same bytes give the same module while it is in use.
    ///
    /// # Errors
    /// When the bytes are not a filter.
    pub fn load(self: &Arc<Self>, bytes: &[u8]) -> Result<Arc<Module>, LoadError> {
        let running = self.running()?;
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(known) = self
            .modules
            .lock()
            .get(&digest)
            .and_then(std::sync::Weak::upgrade)
        {
            return Ok(known);
        }
        let _one = self.compiling.lock();
        if let Some(known) = self
            .modules
            .lock()
            .get(&digest)
            .and_then(std::sync::Weak::upgrade)
        {
            return Ok(known);
        }
        let sha256 = digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        let module = Arc::new(Module::build(running, bytes, sha256)?);
        let mut modules = self.modules.lock();
        modules.retain(|_, module| module.strong_count() > 0);
        modules.insert(digest, Arc::downgrade(&module));
        Ok(module)
    }
}

impl Module {
    fn build(running: &Running, bytes: &[u8], sha256: String) -> Result<Self, LoadError> {
        let began = Instant::now();
        let found = running
            .cache
            .as_ref()
            .and_then(|cache| cache.load(&running.engine, &sha256));
        let cached = found.is_some();
        let component = match found {
            Some(component) => component,
            None => {
                let component = compile_apart(running, bytes)?;
                if let Some(cache) = &running.cache {
                    cache.store(&component, &sha256);
                }
                component
            }
        };
        let kind = component.component_type();
        let imports = kind
            .imports(&running.engine)
            .map(|(name, _)| name.to_owned())
            .collect();
        let (indices, exports) = Indices::find(&component)?;
        let compile_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Self {
            sha256,
            size: bytes.len(),
            imports,
            exports,
            compile_ms,
            cached,
            component,
            indices,
        })
    }
}

impl Indices {
    fn find(component: &Component) -> Result<(Self, Vec<&'static str>), LoadError> {
        let function = |interface: &str, function: &str| {
            let instance = component.get_export_index(None, interface)?;
            Some(component.get_export_index(Some(&instance), function))
        };
        let lifecycle = |name: &str| match function(LIFECYCLE, name) {
            Some(Some(index)) => Ok(index),
            Some(None) => Err(LoadError::Incomplete(LIFECYCLE.to_owned())),
            None => Err(LoadError::NoLifecycle),
        };
        let mut exports = Vec::new();
        let mut phase = |name: &'static str, call: &str| {
            let interface = format!("weir:filter/on-{name}@{VERSION}");
            match function(&interface, call) {
                Some(Some(index)) => {
                    exports.push(name);
                    Ok(Some(index))
                }
                Some(None) => Err(LoadError::Incomplete(interface)),
                None => Ok(None),
            }
        };
        let found = Self {
            describe: lifecycle("describe")?,
            validate: lifecycle("validate")?,
            init: lifecycle("init")?,
            request_headers: phase("request-headers", "handle")?,
            authorize: phase("authorize", "authorize")?,
            request: phase("request", "handle")?,
            affinity: phase("affinity", "derive")?,
            route: phase("route", "route")?,
            response_headers: phase("response-headers", "handle")?,
            events: phase("events", "handle")?,
            complete: phase("complete", "complete")?,
            tick: phase("tick", "tick")?,
        };
        Ok((found, exports))
    }
}

/// On a thread of its own, of low priority, with room for the compiler's recursion.
fn compile_apart(running: &Running, bytes: &[u8]) -> Result<Component, LoadError> {
    std::thread::scope(|scope| {
        let work = || {
            // Best effort: without it compilation only competes more.
            let _ = rustix::process::setpriority_process(None, 10);
            compile(running, bytes)
        };
        let thread = std::thread::Builder::new()
            .name("weir-compile".into())
            .stack_size(8 << 20)
            .spawn_scoped(scope, work);
        let thread = thread.map_err(|error| LoadError::Compile(error.to_string()))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(LoadError::Compile("the compiler panicked".to_owned())))
    })
}

fn compile(running: &Running, bytes: &[u8]) -> Result<Component, LoadError> {
    let encoded;
    let bytes = match bytes.get(4..8) {
        // Core module, version 1, layer 0.
        Some([1, 0, 0, 0]) => {
            let module = wit_component::ComponentEncoder::default()
                .validate(true)
                .module(bytes);
            let component = module.and_then(|mut encoder| encoder.encode());
            encoded = component.map_err(|error| LoadError::NotAComponent(format!("{error:#}")))?;
            &encoded
        }
        _ => bytes,
    };
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError::NotAComponent("no WebAssembly file".to_owned()));
    }
    Component::from_binary(&running.engine, bytes)
        .map_err(|error| LoadError::Compile(format!("{error:#}")))
}

const LIFECYCLE: &str = "weir:filter/lifecycle@0.1.0";
const VERSION: &str = "0.1.0";
