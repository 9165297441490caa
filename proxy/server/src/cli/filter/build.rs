//! `weir filter build`: a filter crate to a Wasm module.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::cli::filter::module_file;
use crate::cli::module_cache;
use crate::cli::output::{OK, complain, errors_found, misused, say};

/// Runs `cargo build --release` for `wasm32-unknown-unknown`, loads the module as the gateway
/// does, and prints its path, size, phases and imports.
///
/// Any other way to build a component does as well: the gateway takes every `.wasm` file that
/// exports the contract.
#[derive(clap::Args)]
pub(crate) struct BuildArgs {
    /// The folder of the crate
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Carries the command out.
pub(crate) fn build(args: &BuildArgs) -> ExitCode {
    if !args.dir.is_dir() {
        complain(format_args!("`{}` is no folder", args.dir.display()));
        return misused();
    }
    let found = match module_file::find(&args.dir.to_string_lossy()) {
        Ok(found) => found,
        Err(error) => {
            complain(error);
            return errors_found();
        }
    };
    let host = match module_cache::host(module_cache::users()) {
        Ok(host) => host,
        Err(error) => {
            complain(error);
            return misused();
        }
    };
    match host.load(&found.bytes) {
        Ok(module) => {
            say(&found.name);
            say(format_args!("  size     {} bytes", module.size));
            say(format_args!("  phases   {}", module.exports.join(", ")));
            say(format_args!("  imports  {}", module.imports.join(", ")));
            OK
        }
        Err(error) => {
            complain(format_args!(
                "{} is built, but the gateway would refuse it: {error}",
                found.name
            ));
            errors_found()
        }
    }
}

/// Builds the crate in `dir` and gives the path of its module.
pub(crate) fn cargo(dir: &Path) -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let output = Command::new(cargo)
        .current_dir(dir)
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "--message-format=json-render-diagnostics",
        ])
        // What came of it is read; what the compiler says goes to the terminal.
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}; install Rust with rustup"))?;
    if !output.status.success() {
        return Err(format!(
            "`{}` does not build; if the target is missing: rustup target add {TARGET}",
            dir.display()
        ));
    }
    let modules: Vec<PathBuf> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .flat_map(modules_of)
        .collect();
    match modules.as_slice() {
        [module] => Ok(module.clone()),
        [] => Err(format!(
            "`{}` makes no module: add `[lib] crate-type = [\"cdylib\"]` to its Cargo.toml",
            dir.display()
        )),
        _ => Err(format!(
            "`{}` makes {} modules: name the folder of one crate",
            dir.display(),
            modules.len()
        )),
    }
}

/// The `.wasm` files of one of cargo's messages.
fn modules_of(message: &str) -> Vec<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Artifact {
        reason: String,
        #[serde(default)]
        filenames: Vec<PathBuf>,
    }
    let artifact = serde_json::from_str::<Artifact>(message)
        .ok()
        .filter(|of| of.reason == "compiler-artifact");
    let files = artifact
        .map(|artifact| artifact.filenames)
        .unwrap_or_default();
    files
        .into_iter()
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "wasm")
        })
        .collect()
}

const TARGET: &str = "wasm32-unknown-unknown";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_read_from_messages() {
        let table = [
            (
                r#"{"reason":"compiler-artifact","filenames":["a/x.wasm","a/x.d"]}"#,
                1,
            ),
            (
                r#"{"reason":"compiler-artifact","filenames":["a/libserde.rlib"]}"#,
                0,
            ),
            (r#"{"reason":"build-finished","success":true}"#, 0),
            ("not JSON", 0),
        ];
        for (message, expected) in table {
            assert_eq!(modules_of(message).len(), expected, "{message}");
        }
    }
}
