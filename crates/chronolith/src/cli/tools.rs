//! Flags of `tools`: where the bucket is; the tools have flags of their own.

use chronolith_tools::{BucketTool, TsdbTool};
use clap::{Args, Subcommand};

use super::common::{LogArgs, ObjstoreArgs};

/// Look at buckets and blocks, and mend them.
#[derive(Args, Clone, Debug)]
pub(crate) struct ToolsArgs {
    #[command(subcommand)]
    pub(crate) over: Over,
}

/// What the tools work on.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Over {
    /// Blocks in a bucket.
    Bucket(Box<BucketArgs>),
    /// Blocks in a directory, as promtool tsdb has it.
    Tsdb(Box<TsdbArgs>),
}

/// A tool over a bucket.
#[derive(Args, Clone, Debug)]
pub(crate) struct BucketArgs {
    #[command(flatten)]
    pub(crate) objstore: ObjstoreArgs,
    /// Directory of the bucket in which the blocks lie: a tenant of a Cortex or Mimir bucket.
    #[arg(
        long = "tenant-prefix",
        default_value = "",
        global = true,
        value_name = "PREFIX",
        help_heading = "Object storage"
    )]
    pub(crate) tenant_prefix: String,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) tool: BucketTool,
}

/// A tool over a directory.
#[derive(Args, Clone, Debug)]
pub(crate) struct TsdbArgs {
    #[command(subcommand)]
    pub(crate) tool: TsdbTool,
}
