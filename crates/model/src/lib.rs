//! The words every other crate speaks: labels, matchers, samples, histograms, time ranges, ids.
//!
//! Pure values, no I/O, no async. Everything here is cheap to clone and safe to share between threads.

mod external;
mod go_quote;
mod go_regex;
pub mod histogram;
mod ids;
mod labels;
mod matcher;
mod metadata;
pub mod relabel;
mod sample;
mod stale;
mod time;
pub mod write;

pub use external::ExternalLabels;
pub use go_quote::{go_quote, go_quote_char, write_go_quoted};
pub use go_regex::{GoRegex, RegexError};
pub use histogram::{FloatHistogram, Histogram};
pub use ids::{BlockId, IdError, Resolution, SeriesRef, TenantId};
pub use labels::{Labels, LabelsBuilder, LabelsError, METRIC_NAME, is_legacy_label_name};
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use metadata::{MetricKind, MetricMetadata};
pub use relabel::Relabeling;
pub use sample::{Exemplar, Sample, SampleValue};
pub use stale::{QUIET_NAN, STALE_NAN, is_stale_nan};
pub use time::{TimeRange, format_duration_ms, parse_duration_ms};
pub use write::{WriteBatch, WriteBatchBuilder, WriteHistogram, WriteMetadata, WriteSeries};
