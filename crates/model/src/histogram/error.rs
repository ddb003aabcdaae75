//! What can be wrong with a histogram, or with two of them together.

/// Why a histogram is refused, or an operation on histograms.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HistogramError {
    /// Integer histogram with a NaN sum: fewer observations than its buckets hold.
    #[error(
        "{buckets} observations found in buckets, but the Count field is {count}: histogram's observation count should be at least the number of observations found in the buckets"
    )]
    CountNotBigEnough {
        /// Sum over the buckets.
        buckets: u64,
        /// The count field.
        count: u64,
    },
    /// Integer histogram: buckets and count differ.
    #[error(
        "{buckets} observations found in buckets, but the Count field is {count}: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)"
    )]
    CountMismatch {
        /// Sum over the buckets.
        buckets: u64,
        /// The count field.
        count: u64,
    },
    /// A negative observation count.
    #[error("observation count is {0}: histogram's observation count is negative")]
    NegativeCount(f64),
    /// A bucket with a negative count.
    #[error(
        "{side} bucket number {bucket} has observation count of {count}: histogram has a bucket whose observation count is negative"
    )]
    NegativeBucketCount {
        /// `positive side:`, `negative side:` or `zero`.
        side: &'static str,
        /// Which, from 1.
        bucket: usize,
        /// Its count.
        count: f64,
    },
    /// A span that goes back.
    #[error("{side}: span number {span} with offset {offset}: histogram has a span whose offset is negative")]
    SpanNegativeOffset {
        /// Which buckets.
        side: &'static str,
        /// Which span, from 1.
        span: usize,
        /// Its offset.
        offset: i32,
    },
    /// Spans and buckets disagree.
    #[error(
        "{side}: spans need {need} buckets, have {have} buckets: histogram spans specify different number of buckets than provided"
    )]
    SpansBucketsMismatch {
        /// Which buckets.
        side: &'static str,
        /// Buckets according to the spans.
        need: u64,
        /// Buckets that are there.
        have: usize,
    },
    /// Fewer custom bounds than the spans reach.
    #[error(
        "custom buckets: only {bounds} custom bounds defined which is insufficient to cover total span length of {need}: histogram custom bounds are too few"
    )]
    CustomBoundsTooFew {
        /// Bounds that are there.
        bounds: usize,
        /// Buckets that the spans reach.
        need: i64,
    },
    /// Custom bounds that do not ascend.
    #[error(
        "custom buckets: previous bound is {prev} and current is {bound}: histogram custom bounds must be in strictly increasing order"
    )]
    CustomBoundsNotAscending {
        /// The bound before.
        prev: f64,
        /// The offending bound.
        bound: f64,
    },
    /// +Inf among the custom bounds.
    #[error(
        "custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite"
    )]
    CustomBoundsInfinite,
    /// NaN among the custom bounds.
    #[error("custom buckets: histogram custom bounds must not be NaN")]
    CustomBoundsNan,
    /// A field that histograms with custom buckets do not have.
    #[error("custom buckets: must {0}")]
    CustomBucketsField(&'static str),
    /// Custom bounds in an exponential histogram.
    #[error("histogram with exponential schema must not have custom bounds")]
    ExponentialWithCustomBounds,
    /// A schema that does not exist.
    #[error(
        "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema {0}"
    )]
    InvalidSchema(i32),
    /// Exponential and custom buckets mixed.
    #[error("cannot apply this operation on histograms with a mix of exponential and custom bucket schemas")]
    IncompatibleSchema,
    /// A resolution that cannot be reached by merging buckets.
    #[error("cannot reduce resolution from schema {from} to {to}")]
    CannotReduce {
        /// The histogram's schema.
        from: i32,
        /// The wanted one.
        to: i32,
    },
}
