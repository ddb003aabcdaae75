//! `chronolith tools tsdb …`: directories of blocks, as `promtool tsdb` shows and makes them.

mod analyze;
mod backfill;
mod dump;
mod extended;
mod list;
mod openmetrics;

use std::io::Write;

use clap::Subcommand;

use crate::Result;

/// A tool over a directory of blocks. A head and its WAL are not read.
#[derive(Subcommand, Clone, Debug)]
pub enum TsdbTool {
    /// List the blocks.
    List(list::Args),
    /// Show churn, cardinality and label lengths of a block.
    Analyze(analyze::Args),
    /// Print all samples.
    Dump(dump::DumpArgs),
    /// Print all samples as text that create-blocks-from openmetrics takes.
    DumpOpenmetrics(dump::Args),
    /// Make blocks.
    CreateBlocksFrom(From),
}

/// What blocks are made from.
#[derive(clap::Args, Clone, Debug)]
pub struct From {
    #[command(subcommand)]
    source: Source,
}

#[derive(Subcommand, Clone, Debug)]
enum Source {
    /// A file of OpenMetrics text with timestamps.
    Openmetrics(backfill::Args),
}

impl TsdbTool {
    /// Runs the tool; results go to `out`.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        match self {
            TsdbTool::List(args) => list::run(args, out),
            TsdbTool::Analyze(args) => analyze::run(args, out),
            TsdbTool::Dump(args) => dump::run(args, out),
            TsdbTool::DumpOpenmetrics(args) => dump::run_openmetrics(args, out),
            TsdbTool::CreateBlocksFrom(From { source: Source::Openmetrics(args) }) => {
                backfill::run(args, out)
            }
        }
    }
}
