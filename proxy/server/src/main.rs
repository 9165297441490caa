//! The binary `weir`.

use std::process::ExitCode;

/// Small objects of a request come and go by the dozen: this allocator takes less time over them
/// than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weir_server::main()
}
