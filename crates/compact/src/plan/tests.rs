//! Blocks are written `number:from..to`, in hours of a world whose ranges are 20, 60, 180, 540 and 1620: the tables that Prometheus
//! and Thanos hold their planners to.

use super::*;

fn blocks(text: &str) -> Vec<Arc<BlockMeta>> {
    let mut blocks: Vec<Arc<BlockMeta>> = text
        .split_whitespace()
        .map(|block| {
            let (number, range) = block.split_once(':').unwrap();
            let (from, to) = range.split_once("..").unwrap();
            let id = BlockId(number.parse::<u128>().unwrap().into());
            Arc::new(BlockMeta::new(id, from.parse().unwrap(), to.parse().unwrap()))
        })
        .collect();
    crate::group::sort(&mut blocks);
    blocks
}

fn planner() -> Planner {
    Planner { ranges_ms: vec![20, 60, 180, 540, 1620] }
}

fn numbers(plan: Option<Plan>) -> Vec<u128> {
    plan.map(|plan| plan.blocks.iter().map(|m| m.ulid.0.0).collect()).unwrap_or_default()
}

fn planned(text: &str, excluded: &[u128]) -> Vec<u128> {
    let excluded = excluded.iter().map(|n| BlockId((*n).into())).collect();
    numbers(planner().plan(&blocks(text), &excluded))
}

#[test]
fn windows_fill_before_they_are_compacted() {
    for (text, want) in [
        ("1:0..20", vec![]),
        ("1:0..20 2:20..40", vec![]),
        // The newest one waits, though the window is full with it.
        ("1:0..20 2:20..40 3:40..60", vec![]),
        ("1:0..20 2:20..40 3:40..60 4:60..80", vec![1, 2, 3]),
        ("6:0..60 7:60..120 8:120..180 9:180..200 10:200..220", vec![6, 7, 8]),
        // A hole may still be filled until a block behind the window stands before the newest.
        ("1:0..20 2:20..40 4:60..80", vec![]),
        ("1:0..20 2:20..40 4:60..80 5:80..100", vec![1, 2]),
        ("1:0..20 2:20..40 3:40..60 4:60..120 5:120..180", vec![1, 2, 3]),
        ("6:0..60 8:120..180 9:180..200 10:200..220", vec![6, 8]),
        ("2:20..40 4:60..120 5:960..980 6:120..180 7:720..960", vec![2, 4, 6]),
        // Newest is what begins last, not what was made last.
        ("5:0..360 6:540..560 7:360..420 8:420..540", vec![7, 8]),
        // Blocks that cross a window take no part in it.
        ("1:0..20 2:20..40 3:50..70 4:80..100 5:100..120 6:120..140", vec![1, 2]),
        ("1:-60..-40 2:-40..-20 3:-20..0 4:0..20", vec![1, 2, 3]),
    ] {
        assert_eq!(planned(text, &[]), want, "{text}");
    }
}

#[test]
fn overlaps_come_first() {
    for (text, want) in [
        ("1:0..20 2:19..40 3:40..60", vec![1, 2]),
        ("1:0..20 2:20..40 3:30..50", vec![2, 3]),
        ("1:0..20 2:10..40 3:30..50", vec![1, 2, 3]),
        ("5:0..360 6:340..560 7:360..420 8:420..540", vec![5, 6, 7, 8]),
        ("1:0..10 2:9..20 3:20..30 4:29..40", vec![1, 2]),
        ("1:0..20 2:0..20", vec![1, 2]),
        ("1:0..20 2:0..20 3:20..40 4:40..60 5:60..80", vec![1, 2]),
        // A long block covers several.
        ("1:0..540 2:20..40 3:100..120 4:600..620", vec![1, 2, 3]),
    ] {
        assert_eq!(planned(text, &[]), want, "{text}");
    }
    let plan = planner().plan(&blocks("1:0..20 2:0..20"), &BTreeSet::new()).unwrap();
    assert!(plan.vertical);
}

#[test]
fn marked_blocks_take_no_part_and_part_others() {
    let three = "1:0..20 2:20..40 3:40..60 4:60..80";
    for (text, excluded, want) in [
        (three, vec![1], vec![2, 3]),
        (three, vec![2], vec![]),
        (three, vec![3], vec![1, 2]),
        (three, vec![4], vec![1, 2, 3]),
        (three, vec![1, 2, 3, 4], vec![]),
        ("1:0..60 2:60..120 3:120..180 4:180..240 5:240..300", vec![2], vec![]),
        // The window keeps its place although its first block is left out, and the run behind the mark is found.
        ("1:0..20 2:20..40 3:40..60 4:60..120 5:120..180 6:180..240", vec![1, 2], vec![3, 4, 5]),
        ("1:0..20 2:0..20 3:20..40", vec![2], vec![]),
    ] {
        assert_eq!(planned(text, &excluded), want, "{text} without {excluded:?}");
    }
}

#[test]
fn failed_windows_are_left_and_deleted_blocks_rewritten() {
    let mut all = blocks("1:0..20 2:20..40 3:40..60 4:60..80");
    Arc::make_mut(&mut all[1]).compaction.failed = true;
    assert_eq!(planner().plan(&all, &BTreeSet::new()), None);
    let deleted = |text: &str, tombstones| {
        let mut all = blocks(text);
        let first = Arc::make_mut(&mut all[0]);
        (first.stats.num_series, first.stats.num_tombstones) = (10, tombstones);
        numbers(planner().plan(&all, &BTreeSet::new()))
    };
    assert_eq!(deleted("1:0..540", 3), []);
    assert_eq!(deleted("1:0..540 2:540..560", 3), [1]);
    assert_eq!(deleted("1:0..540 2:540..560", 0), []);
    assert_eq!(deleted("1:0..60 2:60..80", 3), []);
}

#[test]
fn downsampled_overlaps_are_merged_as_others() {
    let mut all = blocks("1:0..20 2:10..30 3:40..60");
    for meta in &mut all {
        let mut thanos = chronolith_tsdb::block::ThanosMeta::default();
        thanos.downsample.resolution = 300_000;
        Arc::make_mut(meta).thanos = Some(thanos);
    }
    assert_eq!(numbers(planner().plan(&all, &BTreeSet::new())), [1, 2]);
}

#[test]
fn levels_bound_the_length() {
    let hours = |from: i64, to: i64, n: u128| {
        Arc::new(BlockMeta::new(BlockId(n.into()), from * HOUR_MS, to * HOUR_MS))
    };
    let two_days: Vec<_> = (0..7).map(|i| hours(i * 8, i * 8 + 8, i as u128 + 1)).collect();
    assert_eq!(numbers(Planner::default().plan(&two_days, &BTreeSet::new())), [1, 2, 3, 4, 5, 6]);
    assert_eq!(Planner::up_to_level(2).plan(&two_days, &BTreeSet::new()), None);
    assert!(Planner::up_to_level(9).plan(&two_days, &BTreeSet::new()).is_some());
}
