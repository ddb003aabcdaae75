//! Tables, CSV and JSON.

use std::io::Write;
use std::str::FromStr;

use serde::Serialize;

use crate::{Result, ToolError};

/// How a result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// Comma-separated, a line a row.
    Csv,
    /// The same with tabs.
    Tsv,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Format::Table),
            "json" => Ok(Format::Json),
            "csv" => Ok(Format::Csv),
            "tsv" => Ok(Format::Tsv),
            _ => Err("want table, json, csv or tsv".to_owned()),
        }
    }
}

/// Rows under a header.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Table { header: header.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(cells);
    }

    /// The place of a column, whatever the case of its name.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|h| h.eq_ignore_ascii_case(name))
    }

    fn lines(&self) -> impl Iterator<Item = Vec<&str>> {
        let rows = self.rows.iter().map(|r| r.iter().map(String::as_str).collect());
        std::iter::once(self.header.clone()).chain(rows)
    }

    fn write_columns(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut widths = vec![0; self.header.len()];
        for line in self.lines() {
            for (width, cell) in widths.iter_mut().zip(&line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for line in self.lines() {
            let mut text = String::new();
            for (i, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let gap = if i + 1 < line.len() { width - cell.chars().count() + 2 } else { 0 };
                text.push_str(cell);
                text.extend(std::iter::repeat_n(' ', gap));
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }

    fn write_separated(&self, separator: &str, out: &mut dyn Write) -> std::io::Result<()> {
        for line in self.lines() {
            let cells: Vec<String> = line
                .iter()
                .map(|cell| {
                    if cell.contains([',', '"', '\n', '\t']) {
                        format!("\"{}\"", cell.replace('"', "\"\""))
                    } else {
                        (*cell).to_owned()
                    }
                })
                .collect();
            writeln!(out, "{}", cells.join(separator))?;
        }
        Ok(())
    }
}

/// Writes `table`, or `value` where JSON is wanted.
pub(crate) fn write(
    out: &mut dyn Write,
    format: Format,
    table: &Table,
    value: &impl Serialize,
) -> Result<()> {
    match format {
        Format::Table => table.write_columns(out),
        Format::Csv => table.write_separated(",", out),
        Format::Tsv => table.write_separated("\t", out),
        Format::Json => return json(out, value),
    }
    .map_err(ToolError::Output)
}

/// Writes a JSON document and a line end.
pub(crate) fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("results have string keys only");
    writeln!(out, "{text}").map_err(ToolError::Output)
}

/// `-o` of tools that tell what they do block by block.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct LogFormat {
    /// table (a line a block, as it is done), json, csv or tsv (when all is done).
    #[arg(short = 'o', long = "output", default_value = "table", value_name = "FORMAT")]
    output: Format,
}

#[derive(Serialize)]
struct Done {
    block: String,
    result: String,
    bytes: u64,
}

/// What a tool did to blocks.
pub(crate) struct Log<'a> {
    out: &'a mut (dyn Write + Send),
    format: Format,
    done: Vec<Done>,
}

impl<'a> Log<'a> {
    pub(crate) fn new(format: LogFormat, out: &'a mut (dyn Write + Send)) -> Self {
        Log { out, format: format.output, done: Vec::new() }
    }

    /// Tells of a block; `bytes` are those that it has, or 0 where they do not matter.
    pub(crate) fn add(
        &mut self,
        block: &dyn std::fmt::Display,
        result: impl Into<String>,
        bytes: u64,
    ) -> Result<()> {
        let (block, result) = (block.to_string(), result.into());
        if self.format == Format::Table {
            match bytes {
                0 => line(self.out, format_args!("{block}: {result}"))?,
                _ => line(self.out, format_args!("{block}: {result}, {bytes} bytes"))?,
            }
            return self.out.flush().map_err(ToolError::Output);
        }
        self.done.push(Done { block, result, bytes });
        Ok(())
    }

    /// A line for people: nothing where a program reads.
    pub(crate) fn say(&mut self, text: std::fmt::Arguments<'_>) -> Result<()> {
        if self.format == Format::Table { line(self.out, text) } else { Ok(()) }
    }

    /// Writes what is written at the end.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let done = std::mem::take(&mut self.done);
        if self.format == Format::Table {
            return self.out.flush().map_err(ToolError::Output);
        }
        let mut table = Table::new(&["BLOCK", "RESULT", "BYTES"]);
        for d in &done {
            table.row(vec![d.block.clone(), d.result.clone(), d.bytes.to_string()]);
        }
        write(self.out, self.format, &table, &done)
    }
}

/// Writes a line.
pub(crate) fn line(out: &mut dyn Write, text: std::fmt::Arguments<'_>) -> Result<()> {
    writeln!(out, "{text}").map_err(ToolError::Output)
}

/// A moment in UTC, to the second.
pub(crate) fn moment(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| ms.to_string(), |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A length of time as Go prints it: `2h0m0s`, `1.5s`.
pub(crate) fn duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    if ms < 1000 {
        return format!("{sign}{ms}ms");
    }
    let (hours, minutes, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    let seconds = match rest % 1000 {
        0 => format!("{}s", rest / 1000),
        fraction => format!("{}.{}s", rest / 1000, format!("{fraction:03}").trim_end_matches('0')),
    };
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}"),
        (0, m) => format!("{sign}{m}m{seconds}"),
        (h, m) => format!("{sign}{h}h{m}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let texts = [0, 7_200_000, 1_500, 59_999, 60_000, 250, -7_200_001].map(duration);
        assert_eq!(texts, ["0s", "2h0m0s", "1.5s", "59.999s", "1m0s", "250ms", "-2h0m0.001s"]);
        assert_eq!(moment(1_700_000_000_123), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn one_table_in_all_formats() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row(vec!["x,y".to_owned(), "1".to_owned()]);
        table.row(vec!["é".to_owned(), "22".to_owned()]);
        let text = |format| {
            let mut out = Vec::new();
            write(&mut out, format, &table, &[1, 2]).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(Format::Table), "A    LONG\nx,y  1\né    22\n");
        assert_eq!(text(Format::Csv), "A,LONG\n\"x,y\",1\né,22\n");
        assert_eq!(text(Format::Tsv), "A\tLONG\n\"x,y\"\t1\né\t22\n");
        assert_eq!(text(Format::Json), "[\n  1,\n  2\n]\n");
        assert_eq!(table.column("long"), Some(1));
    }
}
