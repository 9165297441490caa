//! Which configuration a command is about.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_config::{Config, ConfigError};

use crate::compile::Origin;

/// A configuration that was read and checked, and where it is from.
pub(crate) struct Found {
    /// What it says.
    pub(crate) config: Config,
    /// Its text.
    pub(crate) text: Arc<str>,
    /// Its name in errors, and the folder of its relative paths.
    pub(crate) origin: Origin,
}

/// The file given, else `config/weir.toml` below the current folder, else the built-in one.
pub(crate) fn find(given: Option<PathBuf>) -> Result<Found, Vec<ConfigError>> {
    let usual = Path::new(USUAL);
    let Some(path) = given.or_else(|| usual.is_file().then(|| usual.to_path_buf())) else {
        let origin = Origin::embedded();
        let config = weir_config::parse(weir_config::REFERENCE, &origin.file)?;
        return Ok(Found {
            config,
            text: weir_config::REFERENCE.into(),
            origin,
        });
    };
    let (config, text) = weir_config::load(&path)?;
    Ok(Found {
        config,
        text: text.into(),
        origin: Origin::of(&path),
    })
}

const USUAL: &str = "config/weir.toml";
