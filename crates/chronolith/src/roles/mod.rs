//! Wiring: a command line becomes running roles.

mod deletion;
mod head_status;
mod server;
mod single;
mod tools;

use std::error::Error;

use chronolith_objstore::{Bucket, BucketConfig, BucketMetrics};
use chronolith_service::Metrics;
use chronolith_service::exit::{Exit, error_chain};
use chronolith_service::shutdown;

use crate::cli::{Command, Role};

/// Runs a role until it ends.
pub(crate) fn run(command: Command) -> Exit {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(crate::allocator::on_idle)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return Exit::Failure(format!("no runtime: {e}")),
    };
    let ended = runtime.block_on(async {
        let stop = shutdown::on_signals().map_err(|e| failure(&e))?;
        let flags = command.flags;
        match command.role {
            Role::Server(args) => server::run(&args, flags, stop).await,
            Role::Receive(args) => single::receive(&args, stop).await,
            Role::Store(args) => single::store(&args, stop).await,
            Role::Query(args) => single::query(&args, flags, stop).await,
            Role::Tools(args) => tools::run(*args, stop).await,
            Role::Compact(args) => single::compact(&args, stop).await,
        }
    });
    // Threads that still evaluate a query do not hold up the end.
    runtime.shutdown_background();
    ended.err().unwrap_or(Exit::Success)
}

/// An error while running.
fn failure(error: &dyn Error) -> Exit {
    Exit::Failure(error_chain(error))
}

/// A client of the configured bucket, its requests counted.
fn open_bucket(config: &BucketConfig, metrics: &Metrics) -> Result<Bucket, Exit> {
    let counted = metrics.register(BucketMetrics::register);
    chronolith_objstore::open(config, counted).map_err(|e| Exit::Usage(error_chain(&e)))
}
