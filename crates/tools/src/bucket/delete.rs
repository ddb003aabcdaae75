//! `delete`: requests to delete series, and what is left to do for each.

use chronolith_bucket::deletions::Looked;
use chronolith_bucket::{DeletionRequest, Deletions};
use chronolith_model::{BlockId, Matcher, TimeRange};
use chronolith_tsdb::block::BlockMeta;
use serde::Serialize;

use super::{Moment, Place, block_id, moment, selector};
use crate::listing::{Listed, Listing};
use crate::output::{self, Table, line};
use crate::{Format, Result, ToolError};

/// Flags of `delete`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Series to delete (repeated): external labels count, so tenant_id="a" keeps it to a tenant.
    #[arg(long = "match", value_name = "SELECTOR")]
    matches: Vec<String>,
    /// First moment to delete: RFC 3339, or a duration from now like -30d; from the beginning without it.
    #[arg(long = "min-time", value_name = "TIME", allow_hyphen_values = true, value_parser = moment)]
    min_time: Option<Moment>,
    /// Last moment; now without it.
    #[arg(long = "max-time", value_name = "TIME", allow_hyphen_values = true, value_parser = moment)]
    max_time: Option<Moment>,
    /// Keep the request to this tenant: adds a matcher on --tenant-label-name.
    #[arg(long = "tenant", default_value = "", value_name = "NAME")]
    tenant: String,
    /// External label that names the tenant.
    #[arg(long = "tenant-label-name", default_value = "tenant_id", value_name = "LABEL")]
    tenant_label: String,
    /// List the requests in force, and how many blocks may still hold something of each.
    #[arg(long = "list", conflicts_with_all = ["matches", "revoke"])]
    list: bool,
    /// Take requests back (repeated): what no rewrite has taken out yet is back.
    #[arg(long = "revoke", value_parser = block_id, conflicts_with = "matches", value_name = "ULID")]
    revoke: Vec<BlockId>,
    /// With --list: table, csv, tsv or json.
    #[arg(short = 'o', long = "output", default_value = "table", value_name = "FORMAT")]
    output: Format,
}

pub(super) async fn run(args: &Args, place: Place<'_>) -> Result<()> {
    if args.list {
        return list(args, place).await;
    }
    if !args.revoke.is_empty() {
        return revoke(args, place).await;
    }
    if args.matches.is_empty() {
        return Err(ToolError::Usage("give --match, --list or --revoke".to_owned()));
    }
    let tenant = (!args.tenant.is_empty()).then(|| Matcher::equal(&args.tenant_label, &args.tenant));
    let mut selectors = Vec::new();
    for text in &args.matches {
        let mut matchers = selector(text)?;
        if matchers.iter().all(Matcher::matches_empty) {
            return Err(ToolError::Usage(format!(
                "selector {text:?} must contain at least one non-empty matcher"
            )));
        }
        if let Some(tenant) = &tenant {
            matchers.retain(|m| m.name != tenant.name);
            matchers.push(tenant.clone());
        }
        selectors.push(matchers);
    }
    let at = |m: Option<Moment>, default| m.map_or(default, |m| m.at_ms(place.now_ms));
    let range = TimeRange::new(at(args.min_time, i64::MIN), at(args.max_time, i64::MAX));
    if range.is_empty() {
        return Err(ToolError::Usage("--max-time is before --min-time".to_owned()));
    }
    let request = DeletionRequest::new(&selectors, range, &args.tenant, place.now_ms);
    request.write(place.bucket).await?;
    line(place.out, format_args!("{}", request.id))
}

async fn revoke(args: &Args, place: Place<'_>) -> Result<()> {
    let mut missing = Vec::new();
    for id in &args.revoke {
        if DeletionRequest::revoke(place.bucket, *id).await? {
            line(place.out, format_args!("{id}: revoked"))?;
        } else {
            missing.push(id.to_string());
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ToolError::Found(format!("no such request: {}", missing.join(", "))))
    }
}

/// How far a request is.
#[derive(Serialize)]
struct Row {
    id: String,
    created: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    tenant: String,
    mint: i64,
    maxt: i64,
    selectors: Vec<String>,
    /// `masked` while a block may hold something of it, else `applied`.
    state: &'static str,
    /// Blocks that may hold something of it.
    blocks: usize,
    bytes: u64,
    /// Of these, those that are marked for deletion.
    marked: usize,
}

async fn list(args: &Args, place: Place<'_>) -> Result<()> {
    let deletions = Deletions::read(place.bucket).await?;
    let listing = if deletions.is_empty() { Listing::default() } else { Listing::read(place.bucket).await? };
    let mut rows = Vec::with_capacity(deletions.all.len());
    for deletion in &deletions.all {
        let looked = Looked::read(place.bucket, deletion.id).await?;
        let waits = |(b, m): &(&Listed, &BlockMeta)| !looked.blocks.contains(&b.id) && deletion.concerns(m);
        let waiting: Vec<&Listed> = listing.with_meta().filter(waits).map(|(block, _)| block).collect();
        let r = &deletion.request;
        rows.push(Row {
            id: r.id.clone(),
            created: r.created,
            tenant: r.tenant.clone(),
            mint: r.mint,
            maxt: r.maxt,
            selectors: r.selector_texts(),
            state: if waiting.is_empty() { "applied" } else { "masked" },
            blocks: waiting.len(),
            bytes: waiting.iter().map(|b| b.bytes()).sum(),
            marked: waiting.iter().filter(|b| b.deletion.is_some()).count(),
        });
    }
    let columns =
        ["ID", "CREATED", "TENANT", "FROM", "UNTIL", "STATE", "BLOCKS", "BYTES", "MARKED", "SELECTORS"];
    let mut table = Table::new(&columns);
    for row in &rows {
        let from = if row.mint == i64::MIN { "-".to_owned() } else { output::moment(row.mint) };
        table.row(vec![
            row.id.clone(),
            output::moment(row.created),
            row.tenant.clone(),
            from,
            output::moment(row.maxt),
            row.state.to_owned(),
            row.blocks.to_string(),
            row.bytes.to_string(),
            row.marked.to_string(),
            row.selectors.join(" "),
        ]);
    }
    output::write(place.out, args.output, &table, &rows)
}
