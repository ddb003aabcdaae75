//! A block: an immutable directory with the samples of a time range.
