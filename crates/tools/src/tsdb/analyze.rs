//! `analyze`: where a block's series and bytes come from.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use chronolith_model::{BlockId, TimeRange};
use chronolith_tsdb::block::{Block, list_blocks};
use chronolith_tsdb::index::{SeriesRecord, SymbolCache};
use chronolith_tsdb::postings::resolve_matchers;
use serde_json::{Value, json};

use super::extended::Extended;
use crate::output::{self, duration, line};
use crate::{Format, Result, ToolError};

/// Flags of `analyze`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Lines of each list.
    #[arg(long = "limit", default_value_t = 20, value_name = "N")]
    limit: usize,
    /// Series to look at.
    #[arg(long = "match", default_value = "", value_name = "SELECTOR")]
    matches: String,
    /// Read all chunks as well, and show how full and how large they are.
    #[arg(long = "extended")]
    extended: bool,
    /// table or json.
    #[arg(short = 'o', long = "output", default_value = "table", value_name = "FORMAT")]
    output: Format,
    /// Directory of the blocks.
    #[arg(default_value = "data/", value_name = "DB PATH")]
    path: PathBuf,
    /// The block; the newest without it.
    #[arg(value_name = "BLOCK ID")]
    block: Option<BlockId>,
}

type Counts = BTreeMap<String, u64>;

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let blocks = list_blocks(&args.path)?;
    let chosen = match args.block {
        Some(id) => blocks.into_iter().find(|(b, _)| *b == id),
        None => blocks.into_iter().last(),
    };
    let Some((_, dir)) = chosen else {
        return Err(ToolError::Usage(format!("{}: no such block", args.path.display())));
    };
    let block = Block::open(&dir)?;
    let matchers = match args.matches.as_str() {
        "" => Vec::new(),
        text => chronolith_promql::parser::parse_selector(text)
            .map_err(|e| ToolError::Usage(format!("--match: {e}")))?,
    };
    let (meta, index) = (block.meta(), block.index());
    let refs = if matchers.is_empty() { index.all_postings()? } else { resolve_matchers(index, &matchers)? };
    let span = (meta.max_time - meta.min_time).max(1) as u64;

    let (mut pair_gaps, mut name_gaps, mut pairs, mut metrics) =
        (Counts::new(), Counts::new(), Counts::new(), Counts::new());
    let mut entries = 0u64;
    let (mut record, mut cache) = (SeriesRecord::default(), SymbolCache::default());
    for series in &refs {
        index.series(*series, TimeRange::ALL, &mut record)?;
        let covered = match (record.chunks.first(), record.chunks.last()) {
            (Some(first), Some(last)) => u64::try_from(last.maxt - first.mint).unwrap_or(0),
            _ => 0,
        };
        let gap = span.saturating_sub(covered);
        let labels = index.labels(&record, &mut cache)?;
        for (name, value) in labels.iter() {
            let pair = format!("{name}={value}");
            *name_gaps.entry(name.to_owned()).or_default() += gap;
            *pair_gaps.entry(pair.clone()).or_default() += gap;
            *pairs.entry(pair).or_default() += 1;
            entries += 1;
        }
        if let Some(name) = labels.metric_name() {
            *metrics.entry(name.to_owned()).or_default() += 1;
        }
    }
    let names = block.label_names(&matchers, TimeRange::ALL)?;
    let (mut lengths, mut cardinality) = (Counts::new(), Counts::new());
    for name in &names {
        let values = block.label_values(name, &matchers, TimeRange::ALL)?;
        lengths.insert(name.clone(), values.iter().map(|v| v.len() as u64).sum());
        cardinality.insert(name.clone(), values.len() as u64);
    }
    for gaps in [&mut pair_gaps, &mut name_gaps] {
        gaps.values_mut().for_each(|gap| *gap = (*gap as f64 / span as f64) as u64);
    }
    let lists = [
        ("Label pairs most involved in churning", &pair_gaps),
        ("Label names most involved in churning", &name_gaps),
        ("Most common label pairs", &pairs),
        ("Label names with highest cumulative label value length", &lengths),
        ("Highest cardinality labels", &cardinality),
        ("Highest cardinality metric names", &metrics),
    ];
    let extended = args.extended.then(|| Extended::read(&block, &refs)).transpose()?;
    if args.output == Format::Json {
        let lists: Vec<Value> = lists
            .iter()
            .map(|(title, counts)| {
                let rows: Vec<Value> =
                    top(counts, args.limit).iter().map(|(k, n)| json!({"name": k, "count": n})).collect();
                json!({"title": title, "rows": rows})
            })
            .collect();
        let value = json!({
            "block": meta.ulid.to_string(),
            "duration": duration(meta.max_time - meta.min_time),
            "series": meta.stats.num_series,
            "matched": refs.len(),
            "labelNames": names.len(),
            "postings": pairs.len(),
            "postingsEntries": entries,
            "lists": lists,
            "chunks": extended.as_ref().map(Extended::json),
        });
        return output::json(out, &value);
    }
    line(out, format_args!("Block ID: {}", meta.ulid))?;
    line(out, format_args!("Duration: {}", duration(meta.max_time - meta.min_time)))?;
    line(out, format_args!("Total Series: {}", meta.stats.num_series))?;
    if !matchers.is_empty() {
        line(out, format_args!("Matcher: {}", args.matches))?;
    }
    line(out, format_args!("Label names: {}", names.len()))?;
    if !matchers.is_empty() {
        line(out, format_args!("Matched series: {}", refs.len()))?;
    }
    line(out, format_args!("Postings (unique label pairs): {}", pairs.len()))?;
    line(out, format_args!("Postings entries (total label pairs): {entries}"))?;
    for (title, counts) in lists {
        line(out, format_args!("\n{title}:"))?;
        for (key, count) in top(counts, args.limit) {
            line(out, format_args!("{count} {key}"))?;
        }
    }
    extended.map_or(Ok(()), |extended| extended.print(out))
}

/// The largest ones; equal ones by name.
fn top(counts: &Counts, limit: usize) -> Vec<(&str, u64)> {
    let mut rows: Vec<(&str, u64)> = counts.iter().map(|(k, n)| (k.as_str(), *n)).collect();
    rows.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    rows.truncate(limit);
    rows
}
