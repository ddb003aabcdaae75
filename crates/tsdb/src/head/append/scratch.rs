//! Memory that a request needs while it is appended, kept by the thread.

use super::super::known::Place;
use super::super::section::Fingerprint;
use super::sought::Sought;
use crate::wal::{ExemplarGroup, HistogramGroup, SampleGroup};

/// Buffers of one request, kept by the thread so that a request allocates nothing.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(super) sought: Vec<Sought>,
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
    /// Where in `sections` lie those of series whose keys were unknown.
    pub(super) made: Vec<std::ops::Range<usize>>,
    /// A section that has been rendered.
    pub(super) rendered: Vec<u8>,
    /// Series of the batch whose keys nobody knows, and keys to be known from now on.
    pub(super) unknown: Vec<u32>,
    pub(super) learnt: Vec<(u128, Place)>,
}

/// What was taken in one shard, for the log.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) in_order: SampleGroup,
    pub(super) late: SampleGroup,
    pub(super) histograms: HistogramGroup,
    pub(super) exemplars: ExemplarGroup,
}

/// Sections of a request of usual size whose series are all new; what a larger one took is given back.
const SECTIONS_BYTES_KEPT: usize = 2 << 20;

impl Scratch {
    /// Starts over.
    pub(super) fn start(&mut self) {
        self.records_mut().into_iter().for_each(Vec::clear);
        self.respelled.clear();
        self.made.clear();
        self.sections.clear();
        self.sections.shrink_to(SECTIONS_BYTES_KEPT);
    }

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
