//! The `chronolith` binary: command line, configuration, and the wiring of roles. No logic of its own.

mod cli;
mod roles;
mod self_monitoring;

use std::process::ExitCode;

/// mimalloc: under the write path's many short-lived buffers it needs less memory and time than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    chronolith_service::tls::install_crypto_provider();
    let exit = match cli::parse() {
        Ok(command) => roles::run(command),
        Err(exit) => exit,
    };
    exit.report("chronolith")
}
