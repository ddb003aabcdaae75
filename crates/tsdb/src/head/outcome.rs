//! What became of a write.

use std::fmt;

use chronolith_model::WriteBatch;

use super::section::describe;
use super::shard::Refusal;
use crate::wal::{Commit, WalError};

/// Why a series or a sample was refused. None of these may be retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// The label section is not readable protobuf, or not UTF-8.
    MalformedLabels(String),
    /// No `__name__`, or an empty one.
    MissingMetricName,
    /// The same label name twice.
    DuplicateLabel(String),
    /// An empty label name.
    EmptyLabelName,
    /// A label name or value longer than the limit.
    LabelTooLong {
        /// The label, cut short.
        name: String,
        /// Bytes it had.
        bytes: usize,
    },
    /// More labels than the limit.
    TooManyLabels(usize),
    /// The tenant has as many series as it may.
    SeriesLimit(usize),
    /// Older than the series' newest sample, and no out-of-order window is set.
    OutOfOrder,
    /// Older than the head takes, and outside the out-of-order window.
    TooOld,
    /// Before the time that is still in the head, or too far ahead of the clock.
    OutOfBounds,
    /// The series has another value at this time.
    DuplicateTimestamp,
    /// A histogram that breaks its own rules, or that cannot be stored.
    InvalidHistogram(String),
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RejectReason::MalformedLabels(why) => write!(f, "invalid labels: {why}"),
            RejectReason::MissingMetricName => f.write_str("missing metric name"),
            RejectReason::DuplicateLabel(name) => write!(f, "duplicate label name {name:?}"),
            RejectReason::EmptyLabelName => f.write_str("empty label name"),
            RejectReason::LabelTooLong { name, bytes } => {
                write!(f, "label {name:?} has a part of {bytes} bytes, more than allowed")
            }
            RejectReason::TooManyLabels(count) => write!(f, "{count} labels, more than allowed"),
            RejectReason::SeriesLimit(max) => write!(f, "limit of {max} active series reached"),
            RejectReason::OutOfOrder => f.write_str("out of order sample"),
            RejectReason::TooOld => f.write_str("too old sample"),
            RejectReason::OutOfBounds => f.write_str("out of bounds"),
            RejectReason::DuplicateTimestamp => f.write_str("duplicate sample for timestamp"),
            RejectReason::InvalidHistogram(why) => write!(f, "invalid histogram: {why}"),
        }
    }
}

impl RejectReason {
    /// A short constant for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            RejectReason::MalformedLabels(_) => "malformed_labels",
            RejectReason::MissingMetricName => "missing_metric_name",
            RejectReason::DuplicateLabel(_) => "duplicate_label",
            RejectReason::EmptyLabelName => "empty_label_name",
            RejectReason::LabelTooLong { .. } => "label_too_long",
            RejectReason::TooManyLabels(_) => "too_many_labels",
            RejectReason::SeriesLimit(_) => "series_limit",
            RejectReason::OutOfOrder => "out_of_order",
            RejectReason::TooOld => "too_old",
            RejectReason::OutOfBounds => "out_of_bounds",
            RejectReason::DuplicateTimestamp => "duplicate_timestamp",
            RejectReason::InvalidHistogram(_) => "invalid_histogram",
        }
    }
}

/// One refused sample, or all samples of a series whose labels were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The series as text, cut to a bounded length.
    pub series: String,
    /// Why.
    pub reason: RejectReason,
    /// The (first) refused sample's time.
    pub t: i64,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: series {} at {}", self.reason, self.series, self.t)
    }
}

/// Rejections that a [`WriteOutcome`] lists; the others are only counted. Enough to see a pattern.
pub const REJECTIONS_LISTED_MAX: usize = 100;

/// What became of a write: the good part is in the head, the rest is listed.
#[derive(Debug)]
#[must_use = "the write is only durable when its commit has resolved"]
pub struct WriteOutcome {
    /// Samples taken, those included that the head had already.
    pub written: usize,
    /// Histogram samples among them.
    pub histograms_written: usize,
    /// Exemplars taken, those included that were there already.
    pub exemplars_written: usize,
    /// Exemplars refused: out of order, or with too long labels. They never fail a write.
    pub exemplars_rejected: usize,
    /// Those of them that were out of order.
    pub exemplars_out_of_order: usize,
    /// Metadata entries that there was no room for. They never fail a write.
    pub metadata_rejected: usize,
    /// The first [`REJECTIONS_LISTED_MAX`] refusals.
    pub rejected: Vec<Rejection>,
    /// All refused samples.
    pub rejected_count: usize,
    /// The same by reason, see [`RejectReason::kind`].
    pub rejected_by_kind: Vec<(&'static str, usize)>,
    /// Samples taken out of order.
    pub out_of_order_written: usize,
    /// Resolves when the good part is durable.
    pub commit: Commit,
}

/// What a request did, without the commit.
#[derive(Default, Debug)]
pub(crate) struct Appended {
    pub(crate) written: usize,
    pub(crate) histograms_written: usize,
    pub(crate) exemplars_written: usize,
    pub(crate) exemplars_rejected: usize,
    pub(crate) exemplars_out_of_order: usize,
    pub(crate) rejected: Vec<Rejection>,
    pub(crate) rejected_count: usize,
    pub(crate) rejected_by_kind: Vec<(&'static str, usize)>,
    pub(crate) out_of_order_written: usize,
    /// The log refused a series record: the request cannot be acknowledged.
    pub(crate) log_error: Option<WalError>,
}

impl Appended {
    pub(super) fn reject(
        &mut self,
        (batch, i): (&WriteBatch, usize),
        t: i64,
        samples: usize,
        reason: RejectReason,
    ) {
        self.rejected_count += samples;
        let kind = reason.kind();
        match self.rejected_by_kind.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, count)) => *count += samples,
            None => self.rejected_by_kind.push((kind, samples)),
        }
        if self.rejected.len() < REJECTIONS_LISTED_MAX {
            let series = describe(batch.section(i, &mut Vec::new()));
            self.rejected.push(Rejection { series, reason, t });
        }
    }
}

impl From<Refusal> for RejectReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OutOfOrder => RejectReason::OutOfOrder,
            Refusal::TooOld => RejectReason::TooOld,
            Refusal::OutOfBounds => RejectReason::OutOfBounds,
            Refusal::DuplicateTimestamp => RejectReason::DuplicateTimestamp,
            Refusal::InvalidHistogram => RejectReason::InvalidHistogram("cannot be encoded".to_owned()),
        }
    }
}
