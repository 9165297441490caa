//! The program: settings, logging, signals.

use std::error::Error as _;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::flags::{Flags, read};
use crate::run::run;
use crate::shutdown::ShutdownHandle;

/// Runs the agent as its command line says.
///
/// Exits with 2 for wrong settings, with 1 when it cannot go on.
#[must_use]
pub fn main() -> ExitCode {
    let flags = Flags::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let settings = match read(flags, |name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(errors) => {
            for error in &errors {
                tracing::error!("{error}");
            }
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let (handle, shutdown) = ShutdownHandle::new();
    let ended = runtime.block_on(async {
        let running = run(settings, shutdown);
        tokio::pin!(running);
        tokio::select! {
            ended = &mut running => ended,
            () = obey(&handle) => running.await,
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let source = error.source().map(ToString::to_string);
            tracing::error!(%error, source, "the agent ends");
            ExitCode::FAILURE
        }
    }
}

/// The first signal drains, the second ends at once.
async fn obey(handle: &ShutdownHandle) {
    let (mut term, mut interrupt) = (
        listen(SignalKind::terminate()),
        listen(SignalKind::interrupt()),
    );
    either(&mut term, &mut interrupt).await;
    tracing::info!("draining; a second signal ends at once");
    handle.drain();
    either(&mut term, &mut interrupt).await;
    tracing::warn!("ending at once");
    handle.end();
}

fn listen(kind: SignalKind) -> Option<Signal> {
    signal(kind)
        .inspect_err(|error| tracing::warn!(%error, "a signal cannot be listened to"))
        .ok()
}

async fn either(term: &mut Option<Signal>, interrupt: &mut Option<Signal>) {
    tokio::select! {
        () = one(term) => {}
        () = one(interrupt) => {}
    }
}

async fn one(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
