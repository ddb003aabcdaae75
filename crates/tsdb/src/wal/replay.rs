//! Replay: rebuilds the heads from the log.
//!
//! One thread reads frames, checks them and cuts records into groups; workers decode and apply them. A shard belongs
//! to one worker, so each shard sees its records in the order of the log. Queues are bounded, so memory is the heads'
//! own plus a few megabytes.
//!
//! A sample in the log was accepted once, so replay refuses none: see [`Shard::replay`](crate::head::Shard::replay).
//! Series that a committed cut emptied stay until the end, because samples behind the cut's record may still name
//! their slots; a series record for an occupied slot replaces the occupant.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chronolith_model::TenantId;
use crossbeam_channel::{Receiver, Sender, bounded};
use hashbrown::HashMap;

use super::beside::{decode_exemplars, take_metadata_entry};
use super::frame::{FrameDamage, FrameReader};
use super::histogram::decode_histograms;
use super::record::{RawGroup, Record, RecordKind, SampleGroup, series_entries};
use super::{SEGMENT_HEADER_BYTES, SegmentStore};
use crate::head::{CutBound, Head, Slot, Taken};

/// Groups handed to a worker at once.
const BATCH: usize = 64;
/// Batches that may wait for a worker.
const QUEUE: usize = 8;

/// A part of the log that could not be read and was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The segment.
    pub segment: u64,
    /// Where in it the damage begins.
    pub offset: u64,
    /// Bytes from there to the segment's end, or all of a later segment.
    pub bytes: u64,
    /// What was found.
    pub reason: String,
}

/// What a replay did.
#[derive(Clone, Debug, Default)]
pub struct ReplayReport {
    /// The snapshot that the replay started from, by the number of the first segment it does not cover.
    pub snapshot: Option<u64>,
    /// Snapshots that were damaged, and how.
    pub snapshots_refused: Vec<String>,
    /// Segments read.
    pub segments: usize,
    /// Records read.
    pub records: u64,
    /// Samples read from the log.
    pub samples: u64,
    /// Samples left out because their series is unknown. Zero unless something was damaged.
    pub samples_without_series: u64,
    /// What had to be dropped, in the order of the log.
    pub dropped: Vec<Dropped>,
    /// Milliseconds that loading and replaying took.
    pub duration_ms: u64,
}

/// Finds or makes the heads that the log names.
pub(crate) trait Heads {
    /// A tenant record.
    fn define(&mut self, number: u32, tenant: TenantId);
    /// The tenant went, and its number may be given to another.
    fn forget(&mut self, number: u32);
    /// The head of a number, and the number of its last committed cut.
    fn get(&self, number: u32) -> Option<(Arc<Head>, u64)>;
}

enum Work {
    Series { head: Arc<Head>, shard: usize, list: Bytes },
    Samples { head: Arc<Head>, kind: RecordKind, group: RawGroup },
    Histograms { head: Arc<Head>, group: RawGroup },
    Exemplars { head: Arc<Head>, group: RawGroup },
    Cut { head: Arc<Head>, time: i64 },
}

#[derive(Default)]
struct Counters {
    samples: AtomicU64,
    samples_without_series: AtomicU64,
}

/// Replays the segments from `first` on, repairs what is damaged, and tells the number of the next segment.
pub(crate) fn replay(
    store: &dyn SegmentStore,
    first: u64,
    heads: &mut dyn Heads,
    threads: usize,
    report: &mut ReplayReport,
) -> std::io::Result<u64> {
    let all = store.list()?;
    let next = all.last().map_or(first, |last| last + 1).max(first);
    let ids: Vec<u64> = all.into_iter().filter(|id| *id >= first).collect();
    let counters = Counters::default();
    let damage = std::thread::scope(|scope| {
        let senders: Vec<Sender<Vec<Work>>> = (0..threads.max(1))
            .map(|me| {
                let (sender, receiver) = bounded(QUEUE);
                let counters = &counters;
                scope.spawn(move || worker(me, threads.max(1), &receiver, counters));
                sender
            })
            .collect();
        let mut router = Router { pending: senders.iter().map(|_| Vec::new()).collect(), senders };
        let mut damage = None;
        for (i, id) in ids.iter().enumerate() {
            // Segments are numbered without gaps: after one, nothing that follows can be trusted to be complete.
            if i > 0 && *id != ids[i - 1] + 1 {
                damage = Some((i, 0, format!("segment {} is missing", ids[i - 1] + 1)));
                break;
            }
            if let Err((offset, reason)) = read_segment(store, *id, heads, &mut router, report) {
                damage = Some((i, offset, reason));
                break;
            }
        }
        router.flush();
        damage
    });
    report.samples += counters.samples.into_inner();
    report.samples_without_series += counters.samples_without_series.into_inner();
    if let Some((at, offset, reason)) = damage {
        repair(store, &ids[at..], offset, &reason, report)?;
    }
    Ok(next)
}

fn read_segment(
    store: &dyn SegmentStore,
    id: u64,
    heads: &mut dyn Heads,
    router: &mut Router,
    report: &mut ReplayReport,
) -> Result<(), (u64, String)> {
    report.segments += 1;
    let source = store.open(id).map_err(|e| (0, e.to_string()))?;
    let mut reader = FrameReader::open(source, id).map_err(|e| (0, e.to_string()))?;
    loop {
        let offset = reader.offset();
        match reader.next_body() {
            Ok(Some(body)) => {
                report.records += 1;
                let record = Record::parse(&body).map_err(|e| (offset, e.to_string()))?;
                router.route(record, heads, report);
            }
            Ok(None) => return Ok(()),
            Err(damage) => return Err((offset, describe(&damage))),
        }
    }
}

fn describe(damage: &FrameDamage) -> String {
    damage.to_string()
}

/// Cuts the log off where the damage begins.
fn repair(
    store: &dyn SegmentStore,
    ids: &[u64],
    offset: u64,
    reason: &str,
    report: &mut ReplayReport,
) -> std::io::Result<()> {
    for (i, id) in ids.iter().enumerate() {
        let len = segment_len(store, *id)?;
        let keep = if i == 0 { offset } else { 0 };
        let reason = if i == 0 { reason } else { "follows a damaged segment" };
        // A header cut short without a record behind it is what a crash leaves of a segment just begun.
        if len > SEGMENT_HEADER_BYTES as u64 || i > 0 {
            report.dropped.push(Dropped {
                segment: *id,
                offset: keep,
                bytes: len.saturating_sub(keep),
                reason: reason.to_owned(),
            });
        }
        if keep <= SEGMENT_HEADER_BYTES as u64 {
            store.remove(*id)?;
        } else {
            store.truncate(*id, keep)?;
        }
    }
    Ok(())
}

fn segment_len(store: &dyn SegmentStore, id: u64) -> std::io::Result<u64> {
    std::io::copy(&mut store.open(id)?, &mut std::io::sink())
}

struct Router {
    senders: Vec<Sender<Vec<Work>>>,
    pending: Vec<Vec<Work>>,
}

fn worker_of(head: &Head, shard: usize, workers: usize) -> usize {
    (head.number as usize).wrapping_mul(7).wrapping_add(shard) % workers
}

impl Router {
    fn route(&mut self, record: Record, heads: &mut dyn Heads, report: &mut ReplayReport) {
        match record {
            Record::Tenant { tenant, name } => {
                if let Ok(id) = TenantId::new(&name) {
                    heads.define(tenant, id);
                }
            }
            Record::Forget { tenant } => heads.forget(tenant),
            Record::Series { tenant, shard, list, .. } => {
                if let Some((head, _)) = heads.get(tenant).filter(|(h, _)| shard < h.shards.len()) {
                    let to = worker_of(&head, shard, self.senders.len());
                    self.send(to, Work::Series { head, shard, list });
                }
            }
            Record::Groups { kind, tenant, groups } => {
                let work: fn(Arc<Head>, RawGroup, RecordKind) -> Work = match kind {
                    RecordKind::Histograms => |head, group, _| Work::Histograms { head, group },
                    RecordKind::Exemplars => |head, group, _| Work::Exemplars { head, group },
                    RecordKind::Samples
                    | RecordKind::OutOfOrder
                    | RecordKind::StartedSamples
                    | RecordKind::StartedOutOfOrder => {
                        |head, group, kind| Work::Samples { head, kind, group }
                    }
                    // Kinds that a later version writes; their place is kept.
                    _ => return,
                };
                let head = heads.get(tenant).map(|(h, _)| h);
                for group in groups {
                    match &head {
                        Some(head) if group.shard < head.shards.len() => {
                            let to = worker_of(head, group.shard, self.senders.len());
                            self.send(to, work(Arc::clone(head), group, kind));
                        }
                        _ => report.samples_without_series += group.count as u64,
                    }
                }
            }
            Record::Metadata { tenant, list } => {
                let Some((head, _)) = heads.get(tenant) else { return };
                let mut rest = &list[..];
                while let Some((metric, says)) = take_metadata_entry(&mut rest) {
                    head.replay_metadata(&metric, &says);
                }
            }
            Record::Cut { tenant, number, time } => {
                let Some((head, committed)) = heads.get(tenant) else { return };
                if number <= committed {
                    for to in 0..self.senders.len() {
                        self.send(to, Work::Cut { head: Arc::clone(&head), time });
                    }
                }
            }
        }
    }

    fn send(&mut self, to: usize, work: Work) {
        self.pending[to].push(work);
        if self.pending[to].len() >= BATCH {
            self.flush_one(to);
        }
    }

    fn flush_one(&mut self, to: usize) {
        let batch = std::mem::take(&mut self.pending[to]);
        // A worker only ends when its sender is gone.
        let _ = self.senders[to].send(batch);
    }

    fn flush(&mut self) {
        for to in 0..self.senders.len() {
            self.flush_one(to);
        }
    }
}

fn worker(me: usize, workers: usize, batches: &Receiver<Vec<Work>>, counters: &Counters) {
    let mut group = SampleGroup::default();
    let mut symbols = Vec::new();
    // Slots that the log names for a series that lives under another slot already.
    let mut moved: HashMap<(u32, usize, Slot), Slot> = HashMap::new();
    for work in batches.iter().flatten() {
        match work {
            Work::Series { head, shard, list } => {
                apply_series(&head, shard, &list, &mut symbols, &mut moved);
            }
            Work::Samples { head, kind, group: raw } => {
                let started = matches!(kind, RecordKind::StartedSamples | RecordKind::StartedOutOfOrder);
                let out_of_order = matches!(kind, RecordKind::OutOfOrder | RecordKind::StartedOutOfOrder);
                if group.decode(raw.count, started, &raw.payload).is_none() {
                    counters.samples_without_series.fetch_add(raw.count as u64, Ordering::Relaxed);
                    continue;
                }
                if !moved.is_empty() {
                    for slot in &mut group.slots {
                        *slot = moved.get(&(head.number, raw.shard, *slot)).copied().unwrap_or(*slot);
                    }
                }
                let unknown = apply_samples(&head, raw.shard, out_of_order, &group);
                counters.samples.fetch_add(raw.count as u64, Ordering::Relaxed);
                counters.samples_without_series.fetch_add(unknown, Ordering::Relaxed);
            }
            Work::Histograms { head, group } => {
                let unknown = apply_histograms(&head, &group, &moved).unwrap_or(group.count as u64);
                counters.samples.fetch_add(group.count as u64, Ordering::Relaxed);
                counters.samples_without_series.fetch_add(unknown, Ordering::Relaxed);
            }
            Work::Exemplars { head, group } => {
                for (slot, exemplar) in decode_exemplars(group.count, &group.payload).unwrap_or_default() {
                    let slot = moved.get(&(head.number, group.shard, slot)).copied().unwrap_or(slot);
                    let shard = head.shards[group.shard].lock();
                    // An exemplar of a series that is gone is no loss.
                    if shard.live_series(slot).is_some() {
                        head.add_exemplar(&shard, slot, &exemplar);
                    }
                }
            }
            Work::Cut { head, time } => {
                for (i, shard) in head.shards.iter().enumerate() {
                    if worker_of(&head, i, workers) == me {
                        let mut shard = shard.lock();
                        let all = shard.close_out_of_order();
                        let bound = match time {
                            i64::MAX => CutBound::Segments(shard.complete_all()),
                            _ => CutBound::Before(time),
                        };
                        shard.truncate(bound, &all, false);
                    }
                }
            }
        }
    }
}

fn apply_series(
    head: &Head,
    index: usize,
    list: &[u8],
    symbols: &mut Vec<(u32, u32)>,
    moved: &mut HashMap<(u32, usize, Slot), Slot>,
) {
    let mut shard = head.shards[index].lock();
    for (slot, section) in series_entries(list).map_while(|e| e) {
        moved.remove(&(head.number, index, slot));
        let fp = head.key().fingerprint(section);
        if shard.live_series(slot).is_some_and(|s| s.fp == fp) {
            continue;
        }
        if let Some(old) = shard.find(fp) {
            // The series was removed and came again. What the old slot still holds belongs to it as well.
            if shard.is_empty_series(old) {
                shard.remove(old);
            } else {
                moved.insert((head.number, index, slot), old);
                continue;
            }
        }
        if shard.live_series(slot).is_some() {
            shard.remove(slot);
        }
        head.replay_series(&mut shard, slot, fp, section, symbols);
    }
}

/// Applies a group of histograms; tells how many of them have no series, or nothing when it is no such group.
fn apply_histograms(head: &Head, group: &RawGroup, moved: &HashMap<(u32, usize, Slot), Slot>) -> Option<u64> {
    let rows = decode_histograms(group.count, &group.payload)?;
    let min_valid = head.min_valid_time();
    let range = head.options.block_range_ms;
    let mut shard = head.shards[group.shard].lock();
    let mut unknown = 0;
    for row in rows.into_iter().filter(|row| row.t >= min_valid || row.late) {
        let slot = moved.get(&(head.number, group.shard, row.slot)).copied().unwrap_or(row.slot);
        if shard.live_series(slot).is_none() {
            unknown += 1;
            continue;
        }
        shard.replay_histogram(slot, row.t, row.start_ts, row.histogram, row.late, range);
    }
    let full = shard.segments.take_full();
    drop(shard);
    if full {
        head.spill(group.shard);
    }
    Some(unknown)
}

fn apply_samples(head: &Head, index: usize, out_of_order: bool, group: &SampleGroup) -> u64 {
    let mut unknown = 0;
    let min_valid = head.min_valid_time();
    let range = head.options.block_range_ms;
    let mut shard = head.shards[index].lock();
    for start in (0..group.len()).step_by(BATCH) {
        let end = group.len().min(start + BATCH);
        // Independent loads first, so that the misses overlap.
        shard.touch(&group.slots[start..end]);
        for i in start..end {
            let (slot, t, v) = (group.slots[i], group.ts[i], group.vs[i]);
            if t < min_valid && !out_of_order {
                continue;
            }
            if shard.live_series(slot).is_none() {
                unknown += 1;
                continue;
            }
            let taken = match group.starts.get(i) {
                None | Some(0) => shard.replay(slot, t, v, out_of_order, range),
                Some(start_ts) => shard.replay_started(slot, t, v, *start_ts, out_of_order, range),
            };
            debug_assert!(!matches!(taken, Taken::Refused(crate::head::Refusal::OutOfOrder)));
        }
    }
    let full = shard.segments.take_full();
    drop(shard);
    if full {
        head.spill(index);
    }
    unknown
}
