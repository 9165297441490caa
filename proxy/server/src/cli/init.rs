//! `weir init`: a commented configuration to start from.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::output::{OK, complain, misused, say};

/// Writes `DIR/weir.toml`: the reference configuration, with every key and its default.
#[derive(clap::Args)]
pub(crate) struct InitArgs {
    /// The folder, made if missing
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Overwrite a `weir.toml` that is there
    #[arg(long)]
    force: bool,
}

/// Carries the command out.
pub(crate) fn init(args: &InitArgs) -> ExitCode {
    let path = args.dir.join(FILE);
    match write(args, &path) {
        Ok(()) => {
            say(format_args!("{} written. Next:", path.display()));
            say(format_args!("  weir check --config {}", path.display()));
            say(format_args!("  weir run --config {}", path.display()));
            OK
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            complain(format_args!(
                "`{}` is there already: give --force to overwrite it",
                path.display()
            ));
            misused()
        }
        Err(error) => {
            complain(format_args!(
                "`{}` cannot be written: {error}",
                path.display()
            ));
            misused()
        }
    }
}

fn write(args: &InitArgs, path: &std::path::Path) -> io::Result<()> {
    fs::create_dir_all(&args.dir)?;
    let text = starter();
    if args.force {
        return fs::write(path, text);
    }
    // In one step, so that a file that appears meanwhile is not overwritten.
    let mut file = fs::File::create_new(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

fn starter() -> String {
    format!("{HINT}{}", weir_config::REFERENCE)
}

const FILE: &str = "weir.toml";

const HINT: &str = "\
# Start with: weir run --config weir.toml
# Then:       curl -H 'Authorization: Bearer weir-demo-key' 127.0.0.1:8080/v1/models
# To serve your own model: put the address of its server into [clusters.sim] `endpoints`, take the
# [[simulators]] out, and put keys of your own into [key_tables.demo].
#
";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_starter_is_a_good_configuration() {
        assert_eq!(weir_config::parse(&starter(), FILE).err(), None);
    }
}
