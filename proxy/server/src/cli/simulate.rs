//! `weir simulate`: a model server without a model.

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use weir_simulator::{Settings, Simulator};

use crate::cli::output::{OK, complain, misused, say};

/// Serves chat completions, responses, messages and embeddings, WebSocket echo and statistics.
///
/// Prints the address it listens on, then serves until SIGINT or SIGTERM.
#[derive(clap::Args)]
pub(crate) struct SimulateArgs {
    /// Where to listen; port 0 takes a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18081")]
    listen: SocketAddr,
    /// What everything random starts from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The model it lists; it answers for any
    #[arg(long, default_value = "sim")]
    model: String,
    /// Milliseconds to the first byte of an answer
    #[arg(long, value_name = "MS", default_value_t = 0)]
    ttft_ms: u64,
    /// Tokens per second after the first; 0 is all at once
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    tokens_per_second: f64,
    /// How far delays vary in both directions, as a share of themselves
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    jitter: f64,
    /// Share of the requests answered with status 500
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    error_rate: f64,
    /// Share of the answers cut off in the middle
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    disconnect_rate: f64,
    /// Requests answered at once, more wait; 0 is no limit
    #[arg(long, default_value_t = 0)]
    slots: u32,
    /// Prompt tokens the prefix cache holds; 0 is no limit and no cache
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    kv_tokens: u64,
    /// Tokens of an answer, unless the request allows fewer
    #[arg(long, value_name = "TOKENS", default_value_t = 16)]
    output_tokens: u32,
    /// Leave usage out of the answers
    #[arg(long)]
    no_usage: bool,
}

/// Carries the command out.
pub(crate) fn simulate(args: SimulateArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("no threads: {error}"));
            return misused();
        }
    };
    runtime.block_on(serve(args))
}

async fn serve(args: SimulateArgs) -> ExitCode {
    let listen = args.listen;
    let stop = match until_told() {
        Ok(stop) => stop,
        Err(error) => {
            complain(format_args!("cannot listen to signals: {error}"));
            return misused();
        }
    };
    match Simulator::bind(listen, args.into()).await {
        Ok(simulator) => {
            say(format_args!(
                "simulator on http://{}",
                simulator.local_addr()
            ));
            simulator.serve(stop).await;
            OK
        }
        Err(error) => {
            complain(format_args!("cannot listen on {listen}: {error}"));
            misused()
        }
    }
}

/// Ends with the first SIGINT or SIGTERM from now on.
fn until_told() -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err("a share is from 0 to 1".to_owned())
    }
}

impl From<SimulateArgs> for Settings {
    fn from(args: SimulateArgs) -> Self {
        Self {
            seed: args.seed,
            model: args.model,
            ttft_ms: args.ttft_ms,
            tokens_per_second: args.tokens_per_second,
            jitter: args.jitter,
            error_rate: args.error_rate,
            disconnect_rate: args.disconnect_rate,
            slots: args.slots,
            kv_tokens: args.kv_tokens,
            output_tokens: args.output_tokens,
            usage: !args.no_usage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        args: SimulateArgs,
    }

    #[test]
    fn no_flags_are_the_default_settings() {
        let parsed = Alone::try_parse_from(["simulate"]).map(|alone| Settings::from(alone.args));
        assert_eq!(parsed.ok(), Some(Settings::default()));
        assert!(Alone::try_parse_from(["simulate", "--jitter", "2"]).is_err());
    }
}
