//! `dump`, `dump-openmetrics`: every sample of the blocks in a directory, a line each.

use std::io::Write;
use std::iter::Peekable;
use std::path::PathBuf;

use chronolith_chunk::Chunk;
use chronolith_model::histogram::format_g;
use chronolith_model::{Labels, Matcher, SampleValue, TimeRange, go_quote, is_legacy_label_name};
use chronolith_tsdb::block::{Block, Select, list_blocks};

use crate::{Result, ToolError};

/// Flags of both.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// First timestamp, in milliseconds.
    #[arg(long = "min-time", default_value_t = i64::MIN, allow_hyphen_values = true, value_name = "MS")]
    min_time: i64,
    /// Last timestamp, in milliseconds.
    #[arg(long = "max-time", default_value_t = i64::MAX, allow_hyphen_values = true, value_name = "MS")]
    max_time: i64,
    /// Series to print (repeated).
    #[arg(long = "match", default_value = "{__name__=~\"(?s:.*)\"}", value_name = "SELECTOR")]
    matches: Vec<String>,
    /// No sandbox is needed, as no WAL is read; the flag is taken for compatibility.
    #[arg(long = "sandbox-dir-root", hide = true, value_name = "DIR")]
    _sandbox: Option<PathBuf>,
    /// Directory of the blocks; one block's own directory does as well.
    #[arg(default_value = "data/", value_name = "DB PATH")]
    path: PathBuf,
}

/// Flags of `dump`.
#[derive(clap::Args, Clone, Debug)]
pub struct DumpArgs {
    /// prom: a sample a line; seriesjson: the labels of each series, as JSON.
    #[arg(long = "format", default_value = "prom", value_parser = ["prom", "seriesjson"], value_name = "FORMAT")]
    format: String,
    #[command(flatten)]
    args: Args,
}

/// How a series is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Prom,
    SeriesJson,
    OpenMetrics,
}

pub(super) fn run(args: &DumpArgs, out: &mut dyn Write) -> Result<()> {
    let form = if args.format == "seriesjson" { Form::SeriesJson } else { Form::Prom };
    dump(&args.args, form, out)
}

/// As text that `create-blocks-from openmetrics` takes. Native histograms have no form in it and are left out.
pub(super) fn run_openmetrics(args: &Args, out: &mut dyn Write) -> Result<()> {
    dump(args, Form::OpenMetrics, out)
}

fn dump(args: &Args, form: Form, out: &mut dyn Write) -> Result<()> {
    let mut out = std::io::BufWriter::with_capacity(1 << 16, out);
    let range = TimeRange::new(args.min_time, args.max_time);
    let selectors: Vec<Vec<Matcher>> = args
        .matches
        .iter()
        .map(|text| {
            chronolith_promql::parser::parse_selector(text)
                .map_err(|e| ToolError::Usage(format!("--match {text:?}: {e}")))
        })
        .collect::<Result<_>>()?;
    let dirs: Vec<PathBuf> = if args.path.join("meta.json").exists() {
        vec![args.path.clone()]
    } else {
        list_blocks(&args.path)?.into_iter().map(|(_, dir)| dir).collect()
    };
    let mut inputs: Vec<Peekable<Select>> = Vec::new();
    for dir in dirs {
        let block = Block::open(&dir)?;
        for matchers in &selectors {
            let select = match form {
                Form::SeriesJson => block.select_labels(matchers, range),
                Form::Prom | Form::OpenMetrics => block.select(matchers, range),
            };
            inputs.push(select?.peekable());
        }
    }
    while let Some((labels, chunks)) = next_series(&mut inputs)? {
        match form {
            Form::SeriesJson => writeln!(out, "{}", json_text(&labels)).map_err(ToolError::Output)?,
            Form::Prom | Form::OpenMetrics => print(&labels, &chunks, range, form, &mut out)?,
        }
    }
    if form == Form::OpenMetrics {
        writeln!(out, "# EOF").map_err(ToolError::Output)?;
    }
    out.flush().map_err(ToolError::Output)
}

/// The series with the least labels, with the chunks that all inputs have of it.
fn next_series(inputs: &mut [Peekable<Select>]) -> Result<Option<(Labels, Vec<Chunk>)>> {
    let mut least: Option<Labels> = None;
    for input in inputs.iter_mut() {
        match input.peek() {
            Some(Ok((labels, _))) if least.as_ref().is_none_or(|l| labels < l) => {
                least = Some(labels.clone())
            }
            Some(Err(_)) => {
                if let Some(Err(e)) = input.next() {
                    return Err(e.into());
                }
            }
            _ => {}
        }
    }
    let Some(least) = least else { return Ok(None) };
    let mut all = Vec::new();
    for input in inputs.iter_mut() {
        if let Some(Ok((_, chunks))) =
            input.next_if(|item| matches!(item, Ok((labels, _)) if *labels == least))
        {
            all.extend(chunks);
        }
    }
    Ok(Some((least, all)))
}

fn print(labels: &Labels, chunks: &[Chunk], range: TimeRange, form: Form, out: &mut dyn Write) -> Result<()> {
    let mut samples: Vec<(i64, SampleValue)> = Vec::new();
    for chunk in chunks {
        let fail =
            |source| ToolError::Chunk { place: format!("series {labels}, chunk at {}", chunk.mint), source };
        for sample in chunk.iter().map_err(fail)? {
            let (t, value) = sample.map_err(fail)?;
            if range.contains(t) {
                samples.push((t, value));
            }
        }
    }
    if !samples.is_sorted_by(|a, b| a.0 < b.0) {
        samples.sort_by_key(|(t, _)| *t);
        samples.dedup_by_key(|(t, _)| *t);
    }
    let text = if form == Form::OpenMetrics { openmetrics_text(labels) } else { go_text(labels) };
    for (t, value) in samples {
        let written = match value {
            SampleValue::Float(v) if form == Form::OpenMetrics => {
                let (sign, ms) = (if t < 0 { "-" } else { "" }, t.unsigned_abs());
                writeln!(out, "{text} {} {sign}{}.{:03}", format_g(v), ms / 1000, ms % 1000)
            }
            _ if form == Form::OpenMetrics => Ok(()),
            SampleValue::Float(v) => writeln!(out, "{text} {} {t}", format_g(v)),
            SampleValue::Histogram(h) => writeln!(out, "{text} {h} {t}"),
            SampleValue::FloatHistogram(h) => writeln!(out, "{text} {h} {t}"),
        };
        written.map_err(ToolError::Output)?;
    }
    Ok(())
}

/// A label set as Go prints it.
fn go_text(labels: &Labels) -> String {
    let pair = |(name, value): (&str, &str)| {
        let name = if is_legacy_label_name(name) { name.to_owned() } else { go_quote(name.as_bytes()) };
        format!("{name}={}", go_quote(value.as_bytes()))
    };
    format!("{{{}}}", labels.iter().map(pair).collect::<Vec<_>>().join(", "))
}

/// Labels as OpenMetrics has them.
fn openmetrics_text(labels: &Labels) -> String {
    let own = labels.iter().filter(|(name, _)| *name != "__name__");
    let pairs: Vec<String> =
        own.map(|(name, value)| format!("{name}={}", go_quote(value.as_bytes()))).collect();
    format!("{}{{{}}}", labels.metric_name().unwrap_or_default(), pairs.join(","))
}

/// Labels as Go's JSON.
fn json_text(labels: &Labels) -> String {
    let map: serde_json::Map<String, serde_json::Value> =
        labels.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let text = serde_json::Value::Object(map).to_string();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}
