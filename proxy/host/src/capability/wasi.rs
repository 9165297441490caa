//! WASI as far as `wasi = "minimal"` goes: clocks, randomness, and output that ends in the log.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, filesystem, random, sync};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use weir_config::WasiGrant;

use crate::bindings::weir::filter::host::Level;
use crate::capability::host::log_line;
use crate::capability::wasi_immediate;
use crate::guest_state::{FilterIdentity, GuestState};

/// What an instance with the grant has of WASI.
pub(crate) struct WasiState {
    context: WasiCtx,
    table: ResourceTable,
}

impl WasiState {
    /// No arguments, an empty environment, nothing to read, no files, no network.
    pub(crate) fn new(filter: &Arc<FilterIdentity>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let context = WasiCtx::builder()
            .stdout(LogOutput::new(filter, Level::Info))
            .stderr(LogOutput::new(filter, Level::Warn))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(RANDOM_BYTES_MAX)
            .build();
        Self { context, table }
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let filter = &self.filter;
        let wasi = self.wasi.get_or_insert_with(|| WasiState::new(filter));
        WasiCtxView {
            ctx: &mut wasi.context,
            table: &mut wasi.table,
        }
    }
}

/// Adds the interfaces of the grant. With `suspending` false what would have to wait traps
/// instead.
///
/// # Errors
/// When a name is in the linker already.
pub(crate) fn add_to_linker(
    linker: &mut Linker<GuestState>,
    suspending: bool,
) -> wasmtime::Result<()> {
    // Clocks, io, secure randomness and the standard streams.
    if suspending {
        wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(linker)?;
        filesystem::types::add_to_linker::<_, WasiFilesystem>(linker, GuestState::filesystem)?;
    } else {
        wasmtime_wasi::p2::add_to_linker_proxy_interfaces_sync(linker)?;
        wasi_immediate::replace_io(linker)?;
        sync::filesystem::types::add_to_linker::<_, WasiFilesystem>(
            linker,
            GuestState::filesystem,
        )?;
    }
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(linker, GuestState::filesystem)?;
    random::insecure::add_to_linker::<_, WasiRandom>(linker, |state| state.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(linker, |state| {
        state.ctx().ctx.random()
    })?;
    cli::exit::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    cli::environment::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(linker, GuestState::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(linker, GuestState::cli)
}

/// Whether a module with this grant may import an interface of this name. Anything else is
/// refused when the module is loaded.
pub(crate) fn allowed_import(name: &str, wasi: WasiGrant) -> bool {
    let Some((interface, version)) = name.split_once('@') else {
        return false;
    };
    if let Some(own) = interface.strip_prefix("weir:filter/") {
        return OWN.contains(&own) && version.starts_with("0.1.");
    }
    wasi == WasiGrant::Minimal && MINIMAL.contains(&interface) && version.starts_with("0.2.")
}

/// Output by lines into the log.
struct LogOutput {
    filter: Arc<FilterIdentity>,
    level: Level,
    /// The line begun, shared by all streams the guest opens.
    line: Arc<Mutex<Vec<u8>>>,
}

impl LogOutput {
    fn new(filter: &Arc<FilterIdentity>, level: Level) -> Self {
        Self {
            filter: filter.clone(),
            level,
            line: Arc::default(),
        }
    }

    fn line_max(&self) -> usize {
        (self.filter.limits.log_bytes as usize).min(LINE_BYTES_MAX)
    }

    /// What is longer than a line may be is cut off; what ends without a newline is kept for the
    /// next write.
    fn push(&self, bytes: &[u8]) {
        let mut line = self.line.lock();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = self.line_max().saturating_sub(line.len());
            line.extend_from_slice(text.get(..room).unwrap_or(text));
            if ends {
                log_line(&self.filter, self.level, &String::from_utf8_lossy(&line));
                line.clear();
            }
        }
    }
}

impl IsTerminal for LogOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogOutput {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Asked for by later versions of WASI only, which are not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Self {
            filter: self.filter.clone(),
            level: self.level,
            line: self.line.clone(),
        })
    }
}

impl OutputStream for LogOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogOutput {
    async fn ready(&mut self) {}
}

/// Interfaces of `weir:filter`.
const OWN: &[&str] = &[
    "types",
    "exchange",
    "host",
    "metrics",
    "state",
    "http-client",
    "secrets",
    "candidates",
];

/// Interfaces of WASI that the grant `minimal` gives. Those of `filesystem` are there because C
/// libraries name its types: there is no folder to begin with.
const MINIMAL: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

const RESOURCES_MAX: usize = 1024;
const RANDOM_BYTES_MAX: u64 = 64 << 10;
const LINE_BYTES_MAX: usize = 8192;
const WRITE_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_allowed_by_name() {
        let table = [
            ("weir:filter/host@0.1.0", true, true),
            ("weir:filter/host", false, false),
            ("weir:filter/host@0.2.0", false, false),
            ("weir:filter/lifecycle@0.1.0", false, false),
            ("wasi:io/poll@0.2.6", false, true),
            ("wasi:io/poll@0.3.0", false, false),
            ("wasi:sockets/tcp@0.2.6", false, false),
            ("wasi:sockets/network@0.2.6", false, false),
            ("wasi:http/outgoing-handler@0.2.6", false, false),
            ("env", false, false),
        ];
        for (name, none, minimal) in table {
            assert_eq!(allowed_import(name, WasiGrant::None), none, "{name}");
            assert_eq!(allowed_import(name, WasiGrant::Minimal), minimal, "{name}");
        }
    }

    #[test]
    fn output_is_cut_at_the_longest_line() {
        let limits = weir_config::FilterLimits {
            log_bytes: 4,
            ..Default::default()
        };
        let filter = FilterIdentity::new("f", weir_config::Grants::default(), limits);
        let output = LogOutput::new(&Arc::new(filter), Level::Info);
        output.push(b"abcdefg");
        assert_eq!(*output.line.lock(), b"abcd");
        output.push(b"h\nxy");
        assert_eq!(*output.line.lock(), b"xy");
    }
}
