//! Downsampled chunks of one series that overlap in time.
//!
//! ```text
//! chunks ─ lanes (an input's chunks, in order) ─ for each window the lane whose it is ─ segments of one chunk ─ chunks
//! ```
//!
//! All aggregates of a window come from one lane. A chunk whose windows are all chosen is passed on as it is.
//!
//! Totals of a counter begin anew with every chunk of floats, so those of two lanes cannot stand beside each other. What the counter
//! grew by from one chosen window to the next is told by the lane that has both, and totals go on from there. At the border of two
//! chunks a reader compares the first one's last value with the second one's first value; where these are of different lanes, the
//! last value is chosen so that the difference is what it ought to be. Totals of histograms have no such values: what another lane's was ahead of a
//! lane's own one where that one goes on is added to its values until it is reset.

use chronolith_chunk::{Chunk, ChunkError, Encoding};

use super::Deduplication;
use super::overlap::{Failed, Piece};

mod floats;
mod histograms;
mod parse;

use floats::OpenFloats;
use histograms::OpenHistograms;
use parse::{Data, Parsed};

/// Windows at which an output chunk is long enough to be ended where another lane goes on; Thanos's chunks have up to 140.
const WINDOWS_MIN: usize = 120;

/// The last millisecond of the window in which `t` lies.
pub(super) fn window_end(t: i64, resolution_ms: i64) -> i64 {
    (t - t.rem_euclid(resolution_ms)).saturating_add(resolution_ms - 1)
}

/// Chunks of one input that do not overlap.
struct Lane {
    input: usize,
    chunks: Vec<Parsed>,
    points: Vec<Point>,
}

/// What a lane says of a window, or of a part of it that ends with a chunk.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// The window.
    end: i64,
    /// Place: the lane's chunk, the sample in it.
    chunk: usize,
    at: usize,
    count: f64,
    /// Of floats: what the counter grew by since the lane began.
    total: f64,
}

/// A chosen point.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pick {
    lane: usize,
    point: usize,
}

/// Appends the windows of `group`, which is sorted by beginning, each once.
pub(super) fn merge(
    group: &[Piece],
    how: Deduplication,
    resolution_ms: i64,
    out: &mut Vec<Chunk>,
) -> Result<(), Failed> {
    let lanes = lanes(group, resolution_ms)?;
    let picks = choose(&lanes, how);
    let mut writer =
        Writer { lanes: &lanes, done: Vec::with_capacity(picks.len()), grown: 0.0, open: None, out };
    let mut rest = &picks[..];
    while let Some(first) = rest.first() {
        let point = |p: &Pick| &lanes[p.lane].points[p.point];
        let chunk = point(first).chunk;
        let goes_on = |(i, p): &(usize, &Pick)| {
            p.lane == first.lane && p.point == first.point + i && point(p).chunk == chunk
        };
        let (segment, later) = rest.split_at(rest.iter().enumerate().take_while(goes_on).count());
        writer.segment(segment).map_err(|e| (Some(lanes[first.lane].input), e))?;
        rest = later;
    }
    writer.flush().map_err(|e| (None, e))
}

fn lanes(group: &[Piece], resolution_ms: i64) -> Result<Vec<Lane>, Failed> {
    let mut lanes: Vec<Lane> = Vec::new();
    for piece in group {
        let failed = |e| (Some(piece.input), e);
        if piece.chunk.encoding != Encoding::Aggregate || resolution_ms <= 0 {
            let reason = "raw and downsampled chunks that overlap cannot be merged";
            return Err(failed(ChunkError::Unsupported { encoding: piece.chunk.encoding, reason }));
        }
        let parsed = Parsed::of(&piece.chunk).map_err(failed)?;
        if parsed.ts.is_empty() {
            continue;
        }
        // A block that overlaps itself has several lanes.
        let free = |l: &&mut Lane| {
            l.input == piece.input
                && l.chunks.last().is_none_or(|before| before.chunk.maxt < piece.chunk.mint)
        };
        match lanes.iter_mut().find(free) {
            Some(lane) => lane.chunks.push(parsed),
            None => lanes.push(Lane { input: piece.input, chunks: vec![parsed], points: Vec::new() }),
        }
    }
    for lane in &mut lanes {
        let (mut total, mut last_raw) = (0.0, None);
        for (chunk, parsed) in lane.chunks.iter().enumerate() {
            for (at, (&t, &count)) in parsed.ts.iter().zip(&parsed.counts).enumerate() {
                match &parsed.data {
                    Data::Floats(f) if at == 0 => total += f.growth_behind(last_raw),
                    Data::Floats(f) => total += f.totals[at] - f.totals[at - 1],
                    Data::Histograms(_) => {}
                }
                let end = window_end(t, resolution_ms);
                lane.points.push(Point { end, chunk, at, count, total });
            }
            last_raw = match &parsed.data {
                Data::Floats(f) => Some(f.last_raw()),
                Data::Histograms(_) => None,
            };
        }
    }
    Ok(lanes)
}

/// One lane for each window. Of copies the one that saw most of it; of replicas the one that is followed, until less than half of what another
/// one saw is in it.
fn choose(lanes: &[Lane], how: Deduplication) -> Vec<Pick> {
    let mut at = vec![0; lanes.len()];
    let mut current = None;
    let mut picks = Vec::new();
    loop {
        let ends = lanes.iter().zip(&at).filter_map(|(l, at)| l.points.get(*at));
        let Some(end) = ends.map(|p| p.end).min() else { return picks };
        let mut best: Option<(usize, usize, f64)> = None;
        let mut stays = None;
        for (i, lane) in lanes.iter().enumerate() {
            let same = lane.points[at[i]..].iter().take_while(|p| p.end == end);
            let (points, count) = same.fold((0, 0.0), |(n, count), p| (n + 1, count + p.count));
            if points == 0 {
                continue;
            }
            if current == Some(i) {
                stays = Some((i, points, count));
            }
            if best.is_none_or(|(_, _, most)| count > most) {
                best = Some((i, points, count));
            }
        }
        let Some(best) = best else { return picks };
        let enough = |count: f64| match how {
            Deduplication::OneToOne => count >= best.2,
            Deduplication::Penalty => 2.0 * count >= best.2,
        };
        let (lane, points, _) = stays.filter(|s| enough(s.2)).unwrap_or(best);
        current = Some(lane);
        picks.extend((at[lane]..at[lane] + points).map(|point| Pick { lane, point }));
        for (at, lane) in at.iter_mut().zip(lanes) {
            *at += lane.points[*at..].iter().take_while(|p| p.end == end).count();
        }
    }
}

/// A chunk that is being made.
enum Open {
    Floats(OpenFloats),
    Histograms(OpenHistograms),
}

struct Writer<'a> {
    lanes: &'a [Lane],
    /// What was written: the last points of windows, and what the counter had grown by there.
    done: Vec<(Pick, f64)>,
    grown: f64,
    open: Option<Open>,
    out: &'a mut Vec<Chunk>,
}

impl Writer<'_> {
    fn point(&self, pick: Pick) -> &Point {
        &self.lanes[pick.lane].points[pick.point]
    }

    /// Writes chosen points of one chunk.
    fn segment(&mut self, segment: &[Pick]) -> Result<(), ChunkError> {
        let lanes = self.lanes;
        let point = |p: Pick| &lanes[p.lane].points[p.point];
        let (first, last) = (segment[0], segment[segment.len() - 1]);
        let (from, to) = (point(first).at, point(last).at + 1);
        let parsed = &lanes[first.lane].chunks[point(first).chunk];
        let before = self.done.last().map(|(pick, _)| *pick);
        let goes_on = before.is_some_and(|b| b.lane == first.lane && b.point + 1 == first.point);
        match &parsed.data {
            Data::Floats(floats) => {
                let growth = self.growth(before, first, floats);
                match &mut self.open {
                    // A segment that goes on begins a chunk.
                    Some(Open::Floats(open)) if !goes_on => {
                        if open.len() < WINDOWS_MIN || !open.can_end_before(parsed.ts[from]) {
                            open.extend(parsed, floats, from..to, growth);
                        } else {
                            let next = open.end_before(parsed, floats, from..to, growth);
                            self.replace(Open::Floats(next))?;
                        }
                    }
                    _ => self.replace(Open::Floats(OpenFloats::of(parsed, floats, from..to)))?,
                }
                self.grown += growth;
                let begun = self.grown - point(first).total;
                self.done.extend(segment.iter().map(|pick| (*pick, begun + point(*pick).total)));
                self.grown = begun + point(last).total;
            }
            Data::Histograms(histograms) => {
                // The lane's own value before, and whether it is of the time of what was written last.
                let own = before.filter(|_| !goes_on).and_then(|b| {
                    let own = lanes[first.lane].points.get(first.point.checked_sub(1)?)?;
                    let counters = &lanes[first.lane].chunks[own.chunk].histograms()?.counters;
                    Some((&*counters[own.at], own.end == point(b).end))
                });
                match &mut self.open {
                    Some(Open::Histograms(open)) if !goes_on => {
                        let ahead = own.and_then(|own| open.ahead_of(own, &histograms.counters[from]));
                        if open.len() < WINDOWS_MIN {
                            open.extend(parsed, histograms, from..to, ahead)?;
                        } else {
                            let next = OpenHistograms::of(parsed, histograms, from..to, ahead)?;
                            self.replace(Open::Histograms(next))?;
                        }
                    }
                    Some(Open::Histograms(open)) => {
                        let ahead = open.still_ahead(&histograms.counters[from]);
                        let next = OpenHistograms::of(parsed, histograms, from..to, ahead)?;
                        self.replace(Open::Histograms(next))?;
                    }
                    _ => {
                        let next = OpenHistograms::of(parsed, histograms, from..to, None)?;
                        self.replace(Open::Histograms(next))?;
                    }
                }
                self.done.extend(segment.iter().map(|pick| (*pick, self.grown)));
            }
        }
        Ok(())
    }

    /// What a counter of floats grew by from what was written last to the point `next`.
    fn growth(&self, before: Option<Pick>, next: Pick, floats: &parse::Floats) -> f64 {
        let point = self.point(next);
        let Some(before) = before else { return floats.growth_behind(None) };
        if let Some(own) = next.point.checked_sub(1) {
            // This lane's window before may lie further back; what was written since then is counted already.
            let own = self.lanes[next.lane].points[own];
            let to = self.done.partition_point(|(pick, _)| self.point(*pick).end <= own.end);
            let counted = to.checked_sub(1).map_or(0.0, |i| self.grown - self.done[i].1);
            return (point.total - own.total - counted).max(0.0);
        }
        let lane = &self.lanes[before.lane];
        let was = lane.points[before.point];
        if let Some(also) = lane.points.get(before.point + 1).filter(|p| p.end == point.end) {
            return also.total - was.total;
        }
        let parsed = &lane.chunks[was.chunk];
        match &parsed.data {
            Data::Floats(f) if was.at + 1 == parsed.ts.len() => floats.growth_behind(Some(f.last_raw())),
            _ => floats.growth_behind(None),
        }
    }

    fn replace(&mut self, next: Open) -> Result<(), ChunkError> {
        self.flush()?;
        self.open = Some(next);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ChunkError> {
        match self.open.take() {
            None => Ok(()),
            Some(Open::Floats(open)) => {
                self.out.push(open.finish());
                Ok(())
            }
            Some(Open::Histograms(open)) => open.finish(self.out),
        }
    }
}
