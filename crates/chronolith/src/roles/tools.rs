//! Running a tool.

use std::io::Write;

use chronolith_service::exit::{Exit, error_chain};
use chronolith_service::shutdown::CancellationToken;
use chronolith_service::{Clock, Metrics, SystemClock};
use chronolith_tools::ToolError;
use chronolith_tools::bucket::Place;

use super::open_bucket;
use crate::cli::{BucketArgs, Over, ToolsArgs};

/// Runs the tool until it ends or `stop`.
pub(super) async fn run(args: ToolsArgs, stop: CancellationToken) -> Result<(), Exit> {
    match args.over {
        Over::Bucket(args) => tokio::select! {
            ended = over_bucket(&args) => ended,
            () = stop.cancelled() => Err(Exit::Failure("stopped".to_owned())),
        },
        Over::Tsdb(args) => {
            let run = move || args.tool.run(&mut std::io::stdout().lock());
            let ended = tokio::task::spawn_blocking(run);
            tokio::select! {
                ended = ended => exit(ended.unwrap_or_else(|e| Err(ToolError::Found(format!("the tool panicked: {e}"))))),
                () = stop.cancelled() => Err(Exit::Failure("stopped".to_owned())),
            }
        }
    }
}

async fn over_bucket(args: &BucketArgs) -> Result<(), Exit> {
    args.log.init();
    let Some(config) = args.objstore.load()? else {
        return Err(Exit::Usage("the tool needs a bucket: give --objstore.config-file".to_owned()));
    };
    let mut bucket = open_bucket(&config, &Metrics::new())?;
    if !args.tenant_prefix.is_empty() {
        bucket = bucket.with_prefix(&args.tenant_prefix);
    }
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let place = Place { bucket: &bucket, now_ms: SystemClock.now_ms(), out: &mut out };
    let ended = args.tool.run(place).await;
    let flushed = out.flush().map_err(ToolError::Output);
    exit(ended.and(flushed))
}

fn exit(ended: Result<(), ToolError>) -> Result<(), Exit> {
    match ended {
        Ok(()) => Ok(()),
        Err(e) if e.is_closed_pipe() => Ok(()),
        Err(e) if e.is_usage() => Err(Exit::Usage(error_chain(&e))),
        Err(e) => Err(Exit::Failure(error_chain(&e))),
    }
}
