//! The `chronolith` binary: command line, configuration, and the wiring of roles. No logic of its own.

mod allocator;
mod cli;
mod roles;
mod self_monitoring;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::configure();
    chronolith_service::tls::install_crypto_provider();
    let exit = match cli::parse() {
        Ok(command) => roles::run(command),
        Err(exit) => exit,
    };
    exit.report("chronolith")
}
