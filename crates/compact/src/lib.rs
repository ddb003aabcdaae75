//! Long-term care for the blocks of a bucket.

pub mod downsample;
