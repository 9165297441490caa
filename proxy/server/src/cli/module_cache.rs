//! The host of a command, with the cache of compiled filters that `weir run` uses.

use std::path::PathBuf;
use std::sync::Arc;

use weir_config::Config;
use weir_host::{EngineError, Host, HostOptions};

use crate::boot;

/// A host of its own for one command, with the cache in `dir`.
pub(crate) fn host(dir: Option<PathBuf>) -> Result<Arc<Host>, EngineError> {
    Host::new(HostOptions {
        cache_dir: dir,
        ..HostOptions::default()
    })
}

/// The folder a configuration names, else the user's; none when there is neither.
pub(crate) fn of(config: &Config) -> Option<PathBuf> {
    boot::cache_dir(&config.server.cache_dir)
}

/// The cache folder of the user, unless the environment has no home.
pub(crate) fn users() -> Option<PathBuf> {
    boot::cache_dir("")
}
