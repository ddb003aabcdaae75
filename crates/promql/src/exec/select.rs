//! Selectors: series from storage, and the current sample of each at every step.

use std::sync::Arc;

use chronolith_chunk::SampleColumns;
use chronolith_model::histogram::CounterReset;
use chronolith_model::{FloatHistogram, Labels, TimeRange, is_stale_nan};

use crate::exec::batch::{histogram_weight, label_bytes};
use crate::exec::current::{Current, CurrentRows};
use crate::exec::{Exec, Grid, Held, Result, SharedSeries, Sink};
use crate::memory::MemoryUse;
use crate::parser::{ExprId, NodeKind};
use crate::queryable::{QueryableError, SelectRequest, Series, SeriesData};

/// Series between two looks at the clock and the cancel flag.
const CHECK_EVERY: u64 = 64;

/// The buffers that series are decoded into, one after the other.
pub(crate) struct Decoding {
    columns: SampleColumns,
    held: Held,
}

impl Decoding {
    pub(crate) fn new(exec: &Exec<'_>) -> Self {
        Decoding { columns: SampleColumns::default(), held: exec.held(MemoryUse::Samples) }
    }
}

/// Bytes of decoded samples.
fn column_bytes(columns: &SampleColumns) -> usize {
    let histograms: usize = if columns.has_histograms() {
        columns.histograms.iter().flatten().map(|h| histogram_weight(h) * 16 + 8).sum()
    } else {
        0
    };
    columns.len() * 16 + (columns.start_ts.len() + columns.counts.len()) * 8 + histograms
}

/// Bytes of a series as the storage hands it over.
pub(crate) fn series_bytes(series: &Series) -> usize {
    let data = match &series.data {
        SeriesData::Chunks(chunks) => {
            chunks.iter().map(|c| c.data.len() + std::mem::size_of_val(c)).sum::<usize>()
        }
        SeriesData::Columns(columns) => column_bytes(columns),
    };
    std::mem::size_of::<Series>() + label_bytes(&series.labels) + data
}

/// Receives one series' decoded samples; may take the buffers.
pub(crate) type SeriesSink<'s, 'a> =
    &'s mut dyn FnMut(&mut Exec<'a>, &Labels, &mut SampleColumns) -> Result<()>;

impl<'a> Exec<'a> {
    /// Reads a selector's series one by one, in label order, decoded to the range that the selector needs.
    pub(crate) fn each_series(&mut self, selector: ExprId, sink: SeriesSink<'_, 'a>) -> Result<()> {
        match self.budget.profile.clone() {
            None => self.each_series_unmeasured(selector, sink),
            Some(profile) => self.measured_series(profile, selector, sink),
        }
    }

    #[inline(always)]
    pub(super) fn each_series_unmeasured(
        &mut self,
        selector: ExprId,
        sink: SeriesSink<'_, 'a>,
    ) -> Result<()> {
        let plan = self.plan;
        let Some(read) = &plan.reads[selector.index()] else { return Ok(()) };
        let source = &plan.sources[read.source];
        let mut decoding = Decoding::new(self);
        if source.uses > 1 {
            let shared = self.shared_series(read.source)?;
            for series in shared.series.iter() {
                self.one_series(selector, series, read.range, &mut decoding, sink)?;
            }
            return Ok(());
        }
        let request = SelectRequest { matchers: &source.matchers, range: source.range, hints: &source.hints };
        let mut set = self.open(&request)?;
        while let Some(series) = set.next()? {
            self.one_series(selector, &series, read.range, &mut decoding, sink)?;
        }
        for warning in set.take_warnings() {
            self.annotations.add_storage_warning(warning);
        }
        Ok(())
    }

    /// Decodes one series and hands it to the sink.
    pub(crate) fn one_series(
        &mut self,
        selector: ExprId,
        series: &Series,
        range: TimeRange,
        decoding: &mut Decoding,
        sink: SeriesSink<'_, 'a>,
    ) -> Result<()> {
        let Decoding { columns, held: buffers } = decoding;
        self.stats.series_read += 1;
        if self.stats.series_read.is_multiple_of(CHECK_EVERY) {
            self.cx.check()?;
        }
        columns.clear();
        decode(&series.data, range, columns)?;
        if columns.is_empty() {
            return Ok(());
        }
        if columns.has_histograms() && self.plan.statistics_only[selector.index()] {
            keep_statistics(columns);
        }
        buffers.at_least(column_bytes(columns))?;
        sink(self, &series.labels, columns)
    }

    /// The series of a source that several selectors use, read once.
    pub(crate) fn shared_series(&mut self, source: usize) -> Result<SharedSeries> {
        if let Some(shared) = &self.shared[source] {
            return Ok(shared.clone());
        }
        let mut held = self.held(MemoryUse::Storage);
        let plan = self.plan;
        let wanted = &plan.sources[source];
        let request = SelectRequest { matchers: &wanted.matchers, range: wanted.range, hints: &wanted.hints };
        let mut set = self.open(&request)?;
        let mut all = Vec::new();
        while let Some(series) = set.next()? {
            if (all.len() as u64).is_multiple_of(CHECK_EVERY) {
                self.cx.check()?;
            }
            held.more(series_bytes(&series))?;
            all.push(series);
        }
        for warning in set.take_warnings() {
            self.annotations.add_storage_warning(warning);
        }
        let shared = SharedSeries { series: Arc::new(all), _held: Arc::new(held) };
        self.shared[source] = Some(shared.clone());
        Ok(shared)
    }

    /// An instant selector.
    pub(crate) fn select(
        &mut self,
        id: ExprId,
        what: Current,
        drop_name: bool,
        grid: &Grid,
        sink: Sink<'_, 'a>,
    ) -> Result<()> {
        let NodeKind::VectorSelector(selector) = self.plan.ast.kind(id) else {
            unreachable!("only called for vector selectors")
        };
        if selector.smoothed && what == Current::Value {
            return self.select_smoothed(id, selector, grid, sink);
        }
        let strip = drop_name && self.drops_names_now(id);
        self.series_rows(id, CurrentRows::new(selector, what, drop_name, strip, *grid), grid, sink)
    }
}

/// Drops the buckets of histograms, and says of each whether a counter reset came before it.
fn keep_statistics(columns: &mut SampleColumns) {
    let mut last: Option<FloatHistogram> = None;
    for h in columns.histograms.iter_mut().flatten() {
        let mut hint = h.counter_reset;
        if !is_stale_nan(h.sum) {
            if let (CounterReset::Unknown, Some(last)) = (hint, &last) {
                hint = if h.detect_reset(last) { CounterReset::Reset } else { CounterReset::NotReset };
            }
            last = Some(FloatHistogram { counter_reset: hint, ..(**h).clone() });
        }
        *h = Arc::new(FloatHistogram {
            counter_reset: hint,
            schema: h.schema,
            count: h.count,
            sum: h.sum,
            ..FloatHistogram::default()
        });
    }
}

/// Appends the samples of a series that lie in `range`.
pub(crate) fn decode(
    data: &SeriesData,
    range: TimeRange,
    out: &mut SampleColumns,
) -> std::result::Result<(), QueryableError> {
    match data {
        SeriesData::Chunks(chunks) => {
            for chunk in chunks.iter().filter(|c| c.time_range().overlaps(&range)) {
                chunk.decode_into(range, out)?;
            }
        }
        SeriesData::Columns(columns) => {
            let from = columns.ts.partition_point(|t| *t < range.mint);
            let to = columns.ts.partition_point(|t| *t <= range.maxt);
            if from < to {
                out.extend_from(columns, from, to);
            }
        }
    }
    Ok(())
}
