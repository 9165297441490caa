//! A filter named on the command line: a folder to build, a `.wasm` file, or `builtin:NAME`.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use crate::builtin;
use crate::cli::filter::build;

/// The code of a filter.
pub(crate) struct ModuleFile {
    /// What to call it in messages.
    pub(crate) name: String,
    /// The module or component.
    pub(crate) bytes: Cow<'static, [u8]>,
    /// The folder of its crate, or that of the file.
    pub(crate) folder: PathBuf,
}

/// Finds the code; builds it first when `named` is the folder of a crate.
pub(crate) fn find(named: &str) -> Result<ModuleFile, String> {
    if let Some(name) = named.strip_prefix("builtin:") {
        let known = weir_config::BUILTINS.join(", ");
        let bytes = builtin::module(name)
            .ok_or_else(|| format!("no built-in filter `{name}`: use one of {known}"))?;
        return Ok(ModuleFile {
            name: named.to_owned(),
            bytes: bytes.into(),
            folder: PathBuf::from("."),
        });
    }
    let path = Path::new(named);
    if path.is_dir() {
        let built = build::cargo(path)?;
        return read(&built, path);
    }
    read(path, path.parent().unwrap_or(Path::new(".")))
}

fn read(path: &Path, folder: &Path) -> Result<ModuleFile, String> {
    let bytes =
        fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(ModuleFile {
        name: path.display().to_string(),
        bytes: bytes.into(),
        folder: folder.to_owned(),
    })
}
