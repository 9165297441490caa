//! What commands say to people: results on standard output, errors on standard error.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

/// Everything is well.
pub(crate) const OK: ExitCode = ExitCode::SUCCESS;

/// What was checked or tried has errors.
pub(crate) fn errors_found() -> ExitCode {
    ExitCode::from(1)
}

/// The command cannot be understood or carried out.
pub(crate) fn misused() -> ExitCode {
    ExitCode::from(2)
}

/// One line of the result. A reader that has gone (`weir check | head -1`) is no error.
pub(crate) fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// One line of what is wrong.
pub(crate) fn complain(line: impl Display) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Sends what the gateway's code and filters log to standard error: warnings, or what `WEIR_LOG`
/// says. For the commands that do not serve.
pub(crate) fn show_warnings() {
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // Someone else's subscriber does as well.
    drop(subscriber.with_ansi(false).without_time().try_init());
}

/// `count` of something: `1 error`, `2 errors`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}
