//! What these tests begin with: a gateway with a filter from a file, and who else may run meanwhile.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use weir_tests::caller::{self, Answer};
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::{self, Gateway};
use weir_tests::guests::{Guest, target_folder};

static MACHINE: RwLock<()> = RwLock::const_new(());

/// For tests beside which others may run.
pub(crate) async fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}

/// For tests that measure: none of this program runs beside them.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}

/// A filter in a config.
#[derive(Clone, Debug)]
pub(crate) struct Evil {
    /// Its name.
    pub(crate) name: String,
    /// Its `config`, the content of an inline table.
    pub(crate) config: String,
    /// More lines of its table.
    pub(crate) lines: String,
}

impl Evil {
    pub(crate) fn new(name: &str, config: &str) -> Self {
        Self {
            name: name.to_owned(),
            config: config.to_owned(),
            lines: String::new(),
        }
    }

    pub(crate) fn lines(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.lines);
        self
    }
}

/// A config whose model calls pass these filters, all of the module `evil.wasm` beside the config,
/// after `auth`.
pub(crate) fn evil_config(upstream: SocketAddr, filters: &[Evil]) -> String {
    let mut tables = String::new();
    let mut names = vec!["\"auth\"".to_owned()];
    for filter in filters {
        let Evil {
            name,
            config,
            lines,
        } = filter;
        _ = write!(
            tables,
            "[filters.{name}]\nmodule = \"evil.wasm\"\nconfig = {{ {config} }}\n{lines}\n"
        );
        if !lines.contains("grants") {
            _ = writeln!(tables, "grants = {{ read_headers = [\"x-evil\"] }}");
        }
        names.push(format!("\"{name}\""));
    }
    names.extend(
        ["token-limit", "session-affinity", "routing-method"].map(|name| format!("\"{name}\"")),
    );
    let config = ConfigText::new(&[upstream]).more(&tables).text();
    let changed = config.replace(PIPELINE, &format!("filters = [{}]", names.join(", ")));
    assert_ne!(config, changed, "the pipeline is still called so");
    changed
}

/// A folder with a guest as `evil.wasm`.
pub(crate) fn folder_with(guest: Guest) -> TempDir {
    let folder = TempDir::new().unwrap();
    guest.put(folder.path(), EVIL);
    folder
}

/// A chat completion that asks the hostile filter for a deed.
pub(crate) async fn evil_chat(gateway: &Gateway, deed: &str) -> Answer {
    let request = caller::with_header(caller::chat(""), "x-evil", Some(deed));
    caller::send(gateway.address(), request).await
}

/// A plain chat completion.
pub(crate) async fn chat(gateway: &Gateway) -> Answer {
    caller::send(gateway.address(), caller::chat("")).await
}

/// Waits until the log says something; it is read by another thread.
pub(crate) async fn logged(gateway: &Gateway, text: &str) {
    let says = async |gateway: &Gateway| gateway.log().contains(text);
    gateway
        .wait_for(&format!("{text:?} in the log"), says)
        .await;
}

/// `weir check` of a config: its exit code and what it says.
pub(crate) fn check(config: &Path) -> (i32, String) {
    weir(&["check", "--config", config.to_str().unwrap()])
}

/// Runs a command of the binary to its end: exit code, and what it says on both outputs.
pub(crate) fn weir(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(gateway::binary())
        .args(arguments)
        .env("XDG_CACHE_HOME", target_folder().join("test-cache"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

/// The module the filters of [`evil_config`] are made of.
pub(crate) const EVIL: &str = "evil.wasm";
/// The pipeline of [`ConfigText`].
pub(crate) const PIPELINE: &str =
    r#"filters = ["auth", "token-limit", "session-affinity", "routing-method"]"#;
