//! Logs: one event a line, as logfmt (`ts=… caller=… level=… msg=… key=value`, as Prometheus and Thanos write it) or
//! as JSON with the same keys. They go to standard error.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// `--log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    #[default]
    Logfmt,
    /// A JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "logfmt" => Ok(LogFormat::Logfmt),
            "json" => Ok(LogFormat::Json),
            other => Err(format!("unknown log format {other:?}, want logfmt or json")),
        }
    }
}

/// `--log.level`: events of this level and more severe ones are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel(LevelFilter);

impl Default for LogLevel {
    fn default() -> Self {
        LogLevel(LevelFilter::INFO)
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "error" => Ok(LogLevel(LevelFilter::ERROR)),
            "warn" => Ok(LogLevel(LevelFilter::WARN)),
            "info" => Ok(LogLevel(LevelFilter::INFO)),
            "debug" => Ok(LogLevel(LevelFilter::DEBUG)),
            "trace" => Ok(LogLevel(LevelFilter::TRACE)),
            other => Err(format!("unknown log level {other:?}, want error, warn, info, debug or trace")),
        }
    }
}

/// Installs the process's log writer. Later calls (tests) change nothing.
pub fn init(level: LogLevel, format: LogFormat) {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    // Below info only our own crates speak: a debug log of h2's frames hides everything else.
    let libraries = if level.0 > LevelFilter::INFO { LevelFilter::INFO } else { level.0 };
    let filter =
        tracing_subscriber::filter::Targets::new().with_default(libraries).with_target("chronolith", level.0);
    let layer =
        tracing_subscriber::fmt::layer().event_format(LineFormat(format)).with_writer(std::io::stderr);
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
}

/// Writes an event as one line.
#[derive(Clone, Copy, Debug)]
struct LineFormat(LogFormat);

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _cx: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let meta = event.metadata();
        let file = meta.file().map_or("", |f| f.rsplit('/').next().unwrap_or(f));
        let caller = format!("{file}:{}", meta.line().unwrap_or(0));
        let mut line = Line::new(self.0);
        line.text("ts", &now);
        line.text("caller", &caller);
        line.text("level", level_name(*meta.level()));
        let mut fields = Fields::default();
        event.record(&mut fields);
        line.text("msg", &fields.message);
        for (name, value) in &fields.pairs {
            match value {
                Value::Text(text) => line.text(name, text),
                Value::Plain(plain) => line.plain(name, plain),
            }
        }
        writeln!(out, "{}", line.finish())
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

enum Value {
    Text(String),
    /// A number or truth value, which JSON writes without quotes.
    Plain(String),
}

#[derive(Default)]
struct Fields {
    message: String,
    pairs: Vec<(&'static str, Value)>,
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text) | Value::Plain(text)) => self.message = text,
            (name, value) => self.pairs.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::Text(value.to_owned()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field, Value::Text(crate::exit::error_chain(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = value.to_string();
        self.push(field, if value.is_finite() { Value::Plain(text) } else { Value::Text(text) });
    }
}

struct Line {
    format: LogFormat,
    out: String,
}

impl Line {
    fn new(format: LogFormat) -> Self {
        let mut out = String::with_capacity(256);
        if format == LogFormat::Json {
            out.push('{');
        }
        Line { format, out }
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        match self.format {
            LogFormat::Json => push_json_string(&mut self.out, value),
            LogFormat::Logfmt if needs_quotes(value) => push_json_string(&mut self.out, value),
            LogFormat::Logfmt => self.out.push_str(value),
        }
    }

    fn plain(&mut self, key: &str, value: &str) {
        self.key(key);
        self.out.push_str(value);
    }

    fn key(&mut self, key: &str) {
        let first = self.out.len() <= 1;
        match self.format {
            LogFormat::Logfmt => {
                if !first {
                    self.out.push(' ');
                }
                self.out.push_str(key);
                self.out.push('=');
            }
            LogFormat::Json => {
                if !first {
                    self.out.push(',');
                }
                push_json_string(&mut self.out, key);
                self.out.push(':');
            }
        }
    }

    fn finish(mut self) -> String {
        if self.format == LogFormat::Json {
            self.out.push('}');
        }
        self.out
    }
}

/// go-logfmt's rule: blanks, quotes, `=` and control characters.
fn needs_quotes(value: &str) -> bool {
    value.is_empty() || value.chars().any(|c| c <= ' ' || c == '=' || c == '"' || c == '\u{7f}')
}

fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || c == '\u{7f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(LineFormat(format))
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = sink.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn logfmt_has_prometheus_keys_and_quotes_what_needs_it() {
        let line = logged(LogFormat::Logfmt, || {
            let err = io::Error::other("disk \"x\" is full\nreally");
            tracing::warn!(tenant = "team-a", bytes = 7, err = %err, "block waits");
        });
        let (ts, rest) = line.split_once(' ').unwrap();
        assert!(
            ts.starts_with("ts=20") && ts.ends_with('Z') && ts.len() == "ts=2026-11-22T20:05:31.123Z".len(),
            "{ts}"
        );
        let (caller, rest) = rest.split_once(' ').unwrap();
        assert!(caller.starts_with("caller=logging.rs:"), "{caller}");
        let want =
            "level=warn msg=\"block waits\" tenant=team-a bytes=7 err=\"disk \\\"x\\\" is full\\nreally\"\n";
        assert_eq!(rest, want);
    }

    #[test]
    fn json_lines_parse() {
        let line = logged(LogFormat::Json, || tracing::info!(n = 1.5, ok = true, odd = "\u{1}", "a \"b\""));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["msg"], "a \"b\"");
        assert_eq!((&value["n"], &value["ok"], &value["odd"]), (&1.5.into(), &true.into(), &"\u{1}".into()));
    }
}
