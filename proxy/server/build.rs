//! Builds the filters inside the binary from `filters/`, for `src/builtin.rs` to include.
//!
//! `WEIR_BUILTIN_FILTERS=DIR` takes `DIR/NAME.wasm` instead, for those who package without the
//! Wasm target.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Folder of each filter below `filters/`, and its name as `builtin:NAME`.
const FILTERS: [&str; 4] = ["auth", "token-limit", "session-affinity", "routing-method"];

/// No WASI: a filter that asks for nothing from outside runs with no grant for it.
const TARGET: &str = "wasm32-unknown-unknown";

/// Ready-made modules.
const READY_MADE: &str = "WEIR_BUILTIN_FILTERS";

fn main() -> ExitCode {
    println!("cargo:rerun-if-env-changed={READY_MADE}");
    println!("cargo:rerun-if-changed=build.rs");
    let built = match env::var_os(READY_MADE).filter(|dir| !dir.is_empty()) {
        Some(dir) => ready_made(Path::new(&dir)),
        None => build(),
    };
    match built {
        Ok(modules) => {
            for (name, path) in FILTERS.iter().zip(modules) {
                let variable = name.replace('-', "_").to_uppercase();
                println!("cargo:rustc-env=WEIR_FILTER_{variable}={}", path.display());
            }
            ExitCode::SUCCESS
        }
        Err(message) => {
            // Shown by cargo above the output of the script that failed.
            for line in message.lines() {
                println!("cargo:warning={line}");
            }
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn ready_made(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let module = |name: &&str| {
        let path = dir.join(format!("{name}.wasm"));
        println!("cargo:rerun-if-changed={}", path.display());
        let absolute = path.canonicalize();
        absolute.map_err(|error| format!("{READY_MADE}: `{}`: {error}", path.display()))
    };
    FILTERS.iter().map(module).collect()
}

fn build() -> Result<Vec<PathBuf>, String> {
    let workspace = variable("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)?
        .join("../../filters");
    let target_dir = variable("OUT_DIR").map(PathBuf::from)?.join("filters");
    watch(&workspace);
    require_target()?;
    // Offline first: this runs often, and mostly everything is there.
    let built = cargo(&workspace, &target_dir, &["--locked", "--offline"])
        .or_else(|_| cargo(&workspace, &target_dir, &["--locked"]))
        .or_else(|_| cargo(&workspace, &target_dir, &[]));
    built.map_err(|output| format!("the filters in `filters/` do not build:\n{output}"))?;
    let module = |name: &&str| {
        let file = format!("weir_filter_{}.wasm", name.replace('-', "_"));
        target_dir.join(TARGET).join("release").join(file)
    };
    Ok(FILTERS.iter().map(module).collect())
}

/// What the modules are made from. A path that does not exist would make cargo run this each time.
fn watch(workspace: &Path) {
    let mut paths = vec![
        workspace.join("Cargo.toml"),
        workspace.join("Cargo.lock"),
        workspace.join("../wit"),
    ];
    for name in FILTERS.iter().chain(&["sdk"]) {
        paths.push(workspace.join(name).join("Cargo.toml"));
        paths.push(workspace.join(name).join("src"));
    }
    for path in paths.iter().filter(|path| path.exists()) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}

fn require_target() -> Result<(), String> {
    let rustc = variable("RUSTC")?;
    let output = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|error| format!("{}: {error}", rustc.display()))?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let is_there = output.status.success()
        && folder
            .read_dir()
            .is_ok_and(|mut files| files.next().is_some());
    if is_there {
        return Ok(());
    }
    Err(format!(
        "the Rust target {TARGET} is missing, which the built-in filters need. Install it with\n    \
         rustup target add {TARGET}\nor give ready-made modules in {READY_MADE}=DIR"
    ))
}

fn cargo(workspace: &Path, target_dir: &Path, flags: &[&str]) -> Result<(), String> {
    let mut command = Command::new(variable("CARGO")?);
    command
        .current_dir(workspace)
        .args(["build", "--release", "--target", TARGET, "--target-dir"])
        .arg(target_dir)
        .args(flags);
    for name in FILTERS {
        command.arg("--package").arg(format!("weir-filter-{name}"));
    }
    // What cargo, clippy or a coverage tool set for the gateway is not meant for the guests.
    for (name, _) in env::vars_os() {
        if is_ours_alone(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", "");
    let output = command
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Variables that say how the gateway is built; those that say where things are stay.
fn is_ours_alone(name: &str) -> bool {
    let kept = [
        "CARGO_HOME",
        "CARGO_HTTP",
        "CARGO_MAKEFLAGS",
        "CARGO_NET",
        "CARGO_REGISTR",
        "CARGO_SOURCE",
    ];
    match name {
        "RUSTFLAGS"
        | "RUSTDOCFLAGS"
        | "RUSTC_WRAPPER"
        | "RUSTC_WORKSPACE_WRAPPER"
        | "CLIPPY_ARGS" => true,
        _ => name.starts_with("CARGO_") && !kept.iter().any(|start| name.starts_with(start)),
    }
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this is run by cargo"))
}
