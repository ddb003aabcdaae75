//! Memory that a request needs while it is appended, kept by the thread.

use super::super::section::Fingerprint;
use crate::wal::{ExemplarGroup, HistogramGroup, SampleGroup};

/// Buffers of one request, kept by the thread so that a request allocates nothing.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(super) fingerprints: Vec<Fingerprint>,
    /// Series of the batch in the order of their shards.
    pub(super) order: Vec<u32>,
    pub(super) starts: Vec<u32>,
    pub(super) groups: Groups,
    /// The request's records.
    pub(super) samples: Vec<u8>,
    pub(super) ooo: Vec<u8>,
    pub(super) histograms: Vec<u8>,
    pub(super) exemplars: Vec<u8>,
    pub(super) series: NewSeries,
    /// Shards in which the request has filled a segment.
    pub(super) filled: Vec<usize>,
    /// Canonical sections of series whose encoding was another, and which series of the batch they belong to.
    pub(super) respelled: Vec<(u32, Fingerprint, std::ops::Range<usize>)>,
    pub(super) sections: Vec<u8>,
    /// A section that has been rendered.
    pub(super) rendered: Vec<u8>,
    /// Series of the batch whose keys nobody knows, and keys to be known from now on.
    pub(super) unknown: Vec<u32>,
    pub(super) learnt: Vec<(u128, Fingerprint)>,
}

/// What was taken in one shard, for the log.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) in_order: SampleGroup,
    pub(super) late: SampleGroup,
    pub(super) histograms: HistogramGroup,
    pub(super) exemplars: ExemplarGroup,
}

impl Scratch {
    /// The request's framed records; those of series have been logged.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Vec<u8>> {
        [&self.samples, &self.ooo, &self.histograms, &self.exemplars].into_iter().filter(|r| !r.is_empty())
    }

    pub(super) fn records_mut(&mut self) -> [&mut Vec<u8>; 4] {
        [&mut self.samples, &mut self.ooo, &mut self.histograms, &mut self.exemplars]
    }
}

#[derive(Default)]
pub(super) struct NewSeries {
    pub(super) list: Vec<u8>,
    pub(super) count: usize,
    pub(super) record: Vec<u8>,
    /// Label symbols of the series entered, one series behind the other.
    pub(super) symbols: Vec<(u32, u32)>,
    /// Series entered in their shards but not in the index yet, and where their symbols end.
    pub(super) entered: Vec<(u32, std::ops::Range<usize>)>,
    pub(super) one: Vec<(u32, u32)>,
    pub(super) canonical: Vec<u8>,
}
