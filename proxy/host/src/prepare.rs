//! From a module and its table in the config to a filter that can be called: every check that can
//! be made before it serves.

use std::sync::Arc;

use wasmtime::component::InstancePre;
use weir_config::{FilterTable, OnError};
use weir_pipeline::edits::EditGrants;
use weir_pipeline::filter::{self, Phases};

use crate::breaker::Breaker;
use crate::capability::wasi::allowed_import;
use crate::engine::{EngineError, Host, Running};
use crate::failure::Fault;
use crate::filter::WasmFilter;
use crate::guest_state::{FilterIdentity, GuestState};
use crate::instance::Blueprint;
use crate::manifest::{EventNeed, Manifest, MissingGrant};
use crate::module::Module;
use crate::pool::Pool;

/// Why a filter cannot serve with its config.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It wants what no filter gets, or what it was not granted.
    #[error("imports {}, which it may not: WASI needs grants.wasi = \"minimal\", and is then clocks, randomness and output only", .0.join(", "))]
    Imports(Vec<String>),
    /// Imports or exports that do not fit the contract.
    #[error("does not fit the contract: {0}")]
    Contract(String),
    /// It says that it needs more than it was granted.
    #[error("needs grants: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Grants(Vec<MissingGrant>),
    /// It refuses its config.
    #[error("refuses its config: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Config(Vec<ConfigFault>),
    /// One of the calls before service failed.
    #[error("{call} failed: {fault}")]
    Call {
        /// `describe`, `validate` or `init`.
        call: &'static str,
        /// How.
        fault: Fault,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// One complaint of a filter about its config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// RFC 6901 pointer into the filter's `config` table.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "config{}: {}", self.pointer, self.message)
    }
}

impl Host {
    /// Makes a filter of a module: checks its imports, asks it to describe itself and to validate
    /// its config, compares its needs with its grants, and starts a first instance.
    ///
    /// # Errors
    /// The first check that fails, with everything that check found.
    pub fn prepare(
        self: &Arc<Self>,
        name: &str,
        module: &Arc<Module>,
        table: &FilterTable,
    ) -> Result<Arc<WasmFilter>, PrepareError> {
        let running = self.running()?;
        let refused: Vec<String> = module
            .imports
            .iter()
            .filter(|import| !allowed_import(import, table.grants.wasi))
            .cloned()
            .collect();
        if !refused.is_empty() {
            return Err(PrepareError::Imports(refused));
        }
        let suspends = !table.grants.clusters.is_empty()
            && module
                .imports
                .iter()
                .any(|import| import.starts_with(HTTP_CLIENT));
        let identity = Arc::new(FilterIdentity::new(
            name,
            table.grants.clone(),
            table.limits.clone(),
        ));
        let config: Arc<str> = table.config.to_string().into();
        let blueprint = |suspending| -> Result<Blueprint, PrepareError> {
            Ok(Blueprint {
                identity: identity.clone(),
                services: self.services().clone(),
                module: module.clone(),
                pre: pre(running, module, suspending)?,
                suspending,
                config: config.clone(),
            })
        };
        let limits = &table.limits;
        self.services().tick.serve(limits.request_ms);
        if module.indices.events.is_some() {
            self.services().tick.serve(limits.event_ms);
        }
        let sync = blueprint(false)?;
        let manifest = checked(&sync, &identity)?;
        let meters = self.metrics.of(name);
        let suspending = if suspends {
            Some(Pool::new(blueprint(true)?, meters.started.clone()))
        } else {
            None
        };
        let pool = Pool::new(sync, meters.started.clone());
        // The first instance shows that `init` works, and stays warm.
        let first = pool.fresh().map_err(|fault| PrepareError::Call {
            call: "init",
            fault,
        })?;
        first.give_back(std::time::Instant::now());
        Ok(Arc::new(WasmFilter {
            phases: phases(module, &manifest),
            edit_grants: edit_grants(table),
            on_error: if table.on_error == OnError::Allow {
                filter::OnError::Allow
            } else {
                filter::OnError::Deny
            },
            retry_fresh: table.on_error == OnError::RetryFresh,
            module: module.clone(),
            breaker: Breaker::default(),
            host: self.clone(),
            identity,
            manifest,
            suspending,
            pool,
            meters,
        }))
    }
}

fn pre(
    running: &Running,
    module: &Module,
    suspending: bool,
) -> Result<InstancePre<GuestState>, PrepareError> {
    let linker = if suspending {
        &running.suspending_linker
    } else {
        &running.linker
    };
    linker
        .instantiate_pre(&module.component)
        .map_err(|error| PrepareError::Contract(format!("{error:#}")))
}

fn checked(blueprint: &Blueprint, identity: &FilterIdentity) -> Result<Manifest, PrepareError> {
    let manifest = blueprint.describe().map_err(|fault| PrepareError::Call {
        call: "describe",
        fault,
    })?;
    let missing = manifest.missing(identity);
    if !missing.is_empty() {
        return Err(PrepareError::Grants(missing));
    }
    match blueprint.validate().map_err(|fault| PrepareError::Call {
        call: "validate",
        fault,
    })? {
        Ok(()) => Ok(manifest),
        Err(faults) => {
            let fault = |from: crate::bindings::exports::weir::filter::lifecycle::ConfigError| {
                ConfigFault {
                    pointer: from.pointer,
                    message: from.message,
                }
            };
            Err(PrepareError::Config(
                faults.into_iter().map(fault).collect(),
            ))
        }
    }
}

fn phases(module: &Module, manifest: &Manifest) -> Phases {
    let at = &module.indices;
    let events = at.events.is_some();
    Phases {
        request_headers: at.request_headers.is_some(),
        authorize: at.authorize.is_some(),
        request: at.request.is_some(),
        affinity: at.affinity.is_some(),
        route: at.route.is_some(),
        response_headers: at.response_headers.is_some(),
        events: events && manifest.events == EventNeed::Every,
        first_event: events && manifest.events == EventNeed::First,
        complete: at.complete.is_some(),
        tick_ms: if at.tick.is_some() {
            manifest.tick_ms
        } else {
            0
        },
        affinity_by_session_key: manifest.affinity_by_session_key,
        response_headers_after_scratch: manifest.response_headers_after_scratch,
    }
}

fn edit_grants(table: &FilterTable) -> EditGrants {
    EditGrants {
        write_headers: table.grants.write_headers.clone(),
        write_json: table.grants.write_json.clone(),
        attributes: table.grants.attributes,
        edits_max: table.limits.edits_max as usize,
    }
}

const HTTP_CLIENT: &str = "weir:filter/http-client@";
