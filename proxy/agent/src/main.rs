//! The binary `weir-agent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_agent::main()
}
