//! The guests of `tests/guests`, built when a test first wants one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a kit for tests: what goes wrong here ends the test that asked"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A module that should not be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Misbehaves where its config says when the header `x-evil` asks for it.
    Hostile,
    /// The same in `authorize`; otherwise it lets everyone in.
    HostileAuth,
    /// [`Guest::Hostile`] as a component that imports WASI.
    HostileWasi,
    /// A component that imports sockets.
    Connects,
    /// A core module that imports `env`.
    ImportsEnv,
}

impl Guest {
    /// Its bytes.
    ///
    /// # Panics
    /// When the guests cannot be built.
    pub fn bytes(self) -> Vec<u8> {
        let folder = built();
        let file = match self {
            Self::Hostile => "wasm32-unknown-unknown/release/hostile.wasm",
            Self::HostileAuth => "wasm32-unknown-unknown/release/hostile_auth.wasm",
            Self::HostileWasi => "wasm32-wasip2/release/hostile.wasm",
            Self::Connects => "wasm32-wasip2/release/connects.wasm",
            Self::ImportsEnv => return IMPORTS_ENV.to_vec(),
        };
        fs::read(folder.join(file)).unwrap()
    }

    /// Puts it into a folder under a name.
    pub fn put(self, folder: &Path, name: &str) {
        fs::write(folder.join(name), self.bytes()).unwrap();
    }
}

/// Builds all of them, once per process; cargo does nothing where nothing has changed.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = target_folder().join("guests");
        build(
            &folder,
            "wasm32-unknown-unknown",
            &["hostile", "hostile-auth"],
        );
        build(&folder, "wasm32-wasip2", &["hostile", "connects"]);
        folder
    })
}

fn build(folder: &Path, target: &str, packages: &[&str]) {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/Cargo.toml");
    let mut command = Command::new("cargo");
    command
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--target",
            target,
        ])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(folder);
    for package in packages {
        command.args(["--package", package]);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the guests for {target} cannot be built:\n{text}"
    );
}

/// The target folder this test was built in.
pub fn target_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // TARGET/PROFILE/deps/TEST
    test.ancestors().nth(3).unwrap().to_owned()
}

/// `(module (import "env" "x" (func)))`
const IMPORTS_ENV: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x09\x01\x03env\x01x\0\0";
