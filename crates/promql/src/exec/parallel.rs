//! Rows made of stored series on several threads.
//!
//! What is done series by series (decoding, choosing samples, functions over ranges) is done on batches of series by any
//! thread; what looks at more than one series (folding, joining, sorting) stays on the query's own thread and sees the
//! rows in the order of the series. Results, annotations and errors are therefore the same with any number of threads,
//! to the last bit of every sum.

use std::ops::Range;
use std::sync::Arc;

use chronolith_chunk::SampleColumns;
use chronolith_model::Labels;
use parking_lot::Mutex;

use crate::annotations::Annotations;
use crate::exec::counts::Counts;
use crate::exec::select::{Decoding, series_bytes};
use crate::exec::{BATCH_VALUES, Batch, Exec, Grid, Held, Result, Sink, ordered};
use crate::memory::MemoryUse;
use crate::parser::ExprId;
use crate::queryable::{SelectRequest, Series};
use crate::value::QueryStats;

/// Series in a batch that a thread takes at a time: enough work that taking it does not show.
const SERIES_AT_A_TIME: usize = 256;
/// Bytes of series in such a batch, for series that are long.
const BYTES_AT_A_TIME: usize = 256 << 10;

/// What an operator makes of one series' samples.
pub(crate) trait SeriesRows: Clone + Send + Sync {
    /// Appends the series' row.
    fn add(
        &mut self,
        exec: &mut Exec<'_>,
        labels: &Labels,
        columns: &mut SampleColumns,
        out: &mut Batch,
    ) -> Result<()>;
}

/// Series that one thread works on.
enum Piece {
    /// With the memory that they take.
    Owned { series: Vec<Series>, _held: Held },
    /// A part of series that several selectors use.
    Shared(Arc<Vec<Series>>, Range<usize>),
}

impl Piece {
    fn series(&self) -> &[Series] {
        match self {
            Piece::Owned { series, .. } => series,
            Piece::Shared(series, part) => &series[part.clone()],
        }
    }
}

/// What came of a piece.
struct Rows {
    batch: Batch,
    annotations: Annotations,
    stats: QueryStats,
    counts: Counts,
}

/// How large a piece is by now.
struct PieceSize {
    series: usize,
    bytes: usize,
    /// Most series, so that the rows of a piece are a batch of usual size.
    series_max: usize,
}

impl PieceSize {
    fn new(grid: &Grid) -> Self {
        let series_max = (BATCH_VALUES / 2 / grid.count.max(1)).clamp(1, SERIES_AT_A_TIME);
        PieceSize { series: 0, bytes: 0, series_max }
    }

    fn add(&mut self, series: &Series) {
        self.series += 1;
        self.bytes += series_bytes(series);
    }

    fn is_full(&self) -> bool {
        self.series >= self.series_max || self.bytes >= BYTES_AT_A_TIME
    }
}

impl<'a> Exec<'a> {
    /// Reads a selector's series and hands on batches of their rows, in label order.
    pub(crate) fn series_rows<R: SeriesRows>(
        &mut self,
        selector: ExprId,
        mut rows: R,
        grid: &Grid,
        sink: Sink<'_, 'a>,
    ) -> Result<()> {
        // What is measured stays on one thread, so that an operator's time is its own.
        let threads = if self.budget.profile.is_some() { 1 } else { self.options.threads() };
        if threads > 1 {
            return self.series_rows_on(threads, selector, &rows, grid, sink);
        }
        let mut out = Batch::new(grid.count);
        self.each_series(selector, &mut |exec, labels, columns| {
            rows.add(exec, labels, columns, &mut out)?;
            exec.emit_full(&mut out, sink)
        })?;
        self.emit(out, sink)
    }

    fn series_rows_on<R: SeriesRows>(
        &mut self,
        threads: usize,
        selector: ExprId,
        rows: &R,
        grid: &Grid,
        sink: Sink<'_, 'a>,
    ) -> Result<()> {
        let plan = self.plan;
        let Some(read) = &plan.reads[selector.index()] else { return Ok(()) };
        let source = &plan.sources[read.source];
        let template = self.fork();
        // Buffers outlive the pieces.
        let buffers = Mutex::new(Vec::new());
        let work = |piece: Piece| {
            let mut exec = template.fork();
            let (mut rows, mut decoding) =
                buffers.lock().pop().unwrap_or_else(|| (rows.clone(), Decoding::new(&exec)));
            let mut batch = Batch::new(grid.count);
            for series in piece.series() {
                exec.one_series(
                    selector,
                    series,
                    read.range,
                    &mut decoding,
                    &mut |exec, labels, columns| rows.add(exec, labels, columns, &mut batch),
                )?;
            }
            buffers.lock().push((rows, decoding));
            batch.charge(&exec.budget, exec.node)?;
            Ok(Rows { batch, annotations: exec.annotations, stats: exec.stats, counts: exec.counts })
        };
        let consume = |exec: &mut Self, made: Result<Rows>| {
            let made = made?;
            exec.annotations.append(made.annotations);
            exec.stats.series_read += made.stats.series_read;
            exec.counts.append(&made.counts);
            if made.batch.is_empty() {
                return Ok(());
            }
            sink(exec, made.batch)
        };
        let mut consume = consume;
        let cx = self.cx;
        if source.uses > 1 {
            let shared = self.shared_series(read.source)?.series;
            let mut next = 0;
            let produce = || {
                cx.check()?;
                let from = next;
                let mut size = PieceSize::new(grid);
                while next < shared.len() && !size.is_full() {
                    size.add(&shared[next]);
                    next += 1;
                }
                Ok((from < next).then(|| Piece::Shared(Arc::clone(&shared), from..next)))
            };
            return ordered::map(threads, produce, work, |made| consume(self, made));
        }
        let request = SelectRequest { matchers: &source.matchers, range: source.range, hints: &source.hints };
        let mut set = self.open(&request)?;
        let produce = || {
            cx.check()?;
            let mut size = PieceSize::new(grid);
            let mut piece = Vec::new();
            let mut held = template.held(MemoryUse::Storage);
            while !size.is_full()
                && let Some(series) = set.next()?
            {
                size.add(&series);
                piece.push(series);
            }
            held.more(size.bytes)?;
            Ok((!piece.is_empty()).then_some(Piece::Owned { series: piece, _held: held }))
        };
        ordered::map(threads, produce, work, |made| consume(self, made))?;
        for warning in set.take_warnings() {
            self.annotations.add_storage_warning(warning);
        }
        Ok(())
    }

    /// The same query for work on another thread, with annotations and statistics of its own.
    fn fork(&self) -> Exec<'a> {
        Exec {
            plan: self.plan,
            query: self.query,
            queryable: self.queryable,
            rest: None,
            cx: self.cx,
            options: self.options,
            annotations: Annotations::new(),
            budget: Arc::clone(&self.budget),
            stats: QueryStats::default(),
            counts: self.counts.fork(),
            sort_time: std::time::Duration::ZERO,
            shared: Vec::new(),
            node: self.node,
        }
    }
}
