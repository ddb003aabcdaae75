//! The command line: what the user typed, apart from what a role needs. A role's `Args` turn into its `Config`.

mod common;
mod compact;
mod query;
mod reading;
mod receive;
mod ring;
mod server;
mod store;
mod tools;
mod web;

use chronolith_service::exit::Exit;
use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use compact::CompactArgs;
pub(crate) use query::QueryArgs;
pub(crate) use receive::ReceiveArgs;
pub(crate) use server::ServerArgs;
pub(crate) use store::StoreArgs;
pub(crate) use tools::{BucketArgs, Over, ToolsArgs};

/// Years of Prometheus metrics on object storage, answered in PromQL.
#[derive(Parser, Debug)]
#[command(name = "chronolith", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

/// What this process is.
#[derive(Subcommand, Debug)]
pub(crate) enum Role {
    /// Everything in one process, one HTTP port, a directory as the bucket.
    Server(Box<ServerArgs>),
    /// Take remote write, keep the newest data, ship blocks into the bucket.
    Receive(Box<ReceiveArgs>),
    /// Serve the blocks of a bucket through the StoreAPI.
    Store(Box<StoreArgs>),
    /// Answer PromQL over any number of StoreAPI endpoints.
    Query(Box<QueryArgs>),
    /// Look at buckets and blocks, and mend them.
    Tools(Box<ToolsArgs>),
    /// Compact, deduplicate and downsample the blocks of a bucket, and delete what is superfluous.
    Compact(Box<CompactArgs>),
}

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Command {
    /// The role and its flags.
    pub(crate) role: Role,
    /// All flags as text, for `/api/v1/status/flags`.
    pub(crate) flags: Vec<(String, String)>,
}

/// Reads the process's command line. `Err` says how the process ends: help and version were printed, or the command line is
/// wrong.
pub(crate) fn parse() -> Result<Command, Exit> {
    let matches = Cli::command().try_get_matches().map_err(explain)?;
    let flags = matches.subcommand().map(|(_, m)| flag_texts(m)).unwrap_or_default();
    let role = Cli::from_arg_matches(&matches).map_err(explain)?.role;
    Ok(Command { role, flags })
}

fn explain(error: clap::Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            Exit::Success
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => Exit::Usage(
            "a role is missing: server, receive, store, query, compact or tools (see chronolith --help)"
                .to_owned(),
        ),
        // clap's first paragraph says what is wrong; the rest repeats the usage.
        _ => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            Exit::Usage(first.trim_start_matches("error: ").to_owned())
        }
    }
}

/// YAML documents on the command line in which credentials may stand.
const MAY_HOLD_SECRETS: [&str; 3] = ["objstore.config", "index-cache.config", "store.caching-bucket.config"];

fn flag_texts(matches: &ArgMatches) -> Vec<(String, String)> {
    let command = Cli::command();
    let names: std::collections::HashMap<String, String> = command
        .get_subcommands()
        .flat_map(|c| c.get_arguments())
        .filter_map(|a| Some((a.get_id().to_string(), a.get_long()?.to_owned())))
        .collect();
    let mut flags: Vec<(String, String)> = matches
        .ids()
        .filter_map(|id| {
            let name = names.get(id.as_str())?;
            let secret = MAY_HOLD_SECRETS.contains(&name.as_str());
            // Not found where a subcommand of the role defines it and the role itself does not.
            let values = matches.try_get_raw(id.as_str()).ok()??.map(|v| v.to_string_lossy());
            let text = if secret { "<secret>".to_owned() } else { values.collect::<Vec<_>>().join(",") };
            Some((name.clone(), text))
        })
        .collect();
    flags.sort();
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_role_parses_with_its_defaults() {
        for role in ["server", "receive", "store", "query", "compact"] {
            Cli::try_parse_from(["chronolith", role]).unwrap_or_else(|e| panic!("{role}: {e}"));
        }
    }

    /// A tool's flag of the same id would take the place of the bucket's.
    #[test]
    fn no_tool_hides_the_flags_of_the_bucket() {
        let mut cli = Cli::command();
        cli.build();
        let bucket = cli.find_subcommand("tools").and_then(|t| t.find_subcommand("bucket")).unwrap();
        for tool in bucket.get_subcommands().filter(|t| t.get_name() != "help") {
            for flag in
                ["objstore.config-file", "objstore.config", "tenant-prefix", "log.level", "log.format"]
            {
                let there = tool.get_arguments().any(|a| a.get_long() == Some(flag));
                assert!(there, "{} has no --{flag}", tool.get_name());
            }
        }
    }

    #[test]
    fn a_server_has_the_store_s_caches_and_tells_no_passwords() {
        let yaml = "{type: REDIS, config: {addr: 'h:1', password: hunter2}}";
        for role in ["server", "store"] {
            let index = format!("--index-cache.config={yaml}");
            let words =
                ["chronolith", role, &index, "--store.caching-bucket.config", yaml, "--chunk-pool-size=1GB"];
            let matches = Cli::command().try_get_matches_from(words).unwrap();
            let flags = flag_texts(matches.subcommand().unwrap().1);
            let secret = flags.iter().filter(|(_, text)| text == "<secret>").count();
            assert_eq!(secret, 2, "{role}: {flags:?}");
            let reading = match Cli::from_arg_matches(&matches).unwrap().role {
                Role::Server(args) => args.reading.apply(chronolith_store::Config::default()),
                Role::Store(args) => args.config(),
                _ => unreachable!("one of both"),
            };
            let config = reading.unwrap_or_else(|_| panic!("{role}: settings"));
            assert!(config.index_cache.is_some() && config.chunk_cache.is_some());
            assert_eq!(config.read_budget_bytes, 1 << 30);
        }
    }

    #[test]
    fn a_tools_flags_stand_before_or_behind_its_name() {
        for words in [["ls", "--objstore.config=x"], ["--objstore.config=x", "ls"]] {
            let words = ["chronolith", "tools", "bucket"].into_iter().chain(words);
            let matches = Cli::command().try_get_matches_from(words).unwrap();
            // Told of the role as a whole, without what may be secret.
            let (_, of_role) = matches.subcommand().unwrap();
            let _ = flag_texts(of_role);
            let Role::Tools(tools) = Cli::from_arg_matches(&matches).unwrap().role else { panic!("no tool") };
            let tools::Over::Bucket(bucket) = tools.over else { panic!("not of a bucket") };
            assert_eq!(bucket.objstore.config.as_deref(), Some("x"));
        }
    }
}
