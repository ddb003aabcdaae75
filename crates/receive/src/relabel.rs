//! Relabeling of what was written: the process's rules, then the tenant's.
//!
//! A series that no rule changes keeps its bytes; one that changes is rendered behind the request's body, in memory that
//! the thread keeps. Label sets that the head would refuse (malformed, a name twice, more labels than any limit allows) pass
//! as they are, to be refused there with the right words; so rules see only sets whose size is bounded.

use std::cell::RefCell;

use chronolith_model::relabel::LabelEdit;
use chronolith_model::write::{LabelsEdit, decode_labels, encode_labels};
use chronolith_model::{Relabeling, WriteBatch};

use crate::limits::LABELS_MAX;

#[derive(Default)]
struct Scratch {
    edit: LabelEdit,
    made: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Applies the rules to all series of a batch.
pub(crate) fn relabel(batch: &mut WriteBatch, rules: &[&Relabeling]) {
    if rules.iter().all(|rules| rules.is_empty()) {
        return;
    }
    SCRATCH.with_borrow_mut(|Scratch { edit, made }| {
        batch.edit_labels(made, |section, out| {
            if !load(section, edit) {
                return LabelsEdit::Keep;
            }
            if !rules.iter().all(|rules| rules.apply(edit)) || edit.is_empty() {
                return LabelsEdit::Drop;
            }
            if !edit.changed() {
                return LabelsEdit::Keep;
            }
            encode_labels(edit.sorted(), out);
            LabelsEdit::Replace
        });
    });
}

/// False when the set is none.
fn load(section: &[u8], edit: &mut LabelEdit) -> bool {
    edit.clear();
    let (mut last, mut sorted) = ("", true);
    for (i, pair) in decode_labels(section).enumerate() {
        let Ok((name, value)) = pair else { return false };
        if name.is_empty() || i >= LABELS_MAX {
            return false;
        }
        sorted &= name > last;
        last = name;
        edit.push(name, value);
    }
    // Sets come sorted; only in others a name can stand twice unnoticed.
    sorted || names_are_unique(section)
}

fn names_are_unique(section: &[u8]) -> bool {
    let mut names: Vec<&str> = decode_labels(section).flatten().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.windows(2).all(|two| two[0] != two[1])
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chronolith_model::{Sample, WriteBatchBuilder};
    use chronolith_service::relabel::parse_relabeling;

    use super::*;

    fn batch(series: &[&[(&str, &str)]]) -> WriteBatch {
        let mut builder = WriteBatchBuilder::default();
        builder.start(0);
        for labels in series {
            let mut section = Vec::new();
            encode_labels(labels.iter().copied(), &mut section);
            builder.push_series_bytes(&section);
            builder.push_sample(Sample { t: 1, v: 1.0 });
        }
        builder.finish(Bytes::new())
    }

    fn text(batch: &WriteBatch) -> Vec<String> {
        let one = |labels| {
            decode_labels(labels)
                .map(|p| p.map(|(n, v)| format!("{n}={v}")).unwrap())
                .collect::<Vec<_>>()
                .join(" ")
        };
        batch.iter().map(|s| one(s.labels)).collect()
    }

    #[test]
    fn rules_of_the_process_come_before_the_tenants() {
        let mut written = batch(&[
            &[("__name__", "up"), ("pod", "a")],
            &[("__name__", "debug_x")],
            &[("pod", "a")],
            &[("z", "1"), ("a", "2")],
            &[("a", "1"), ("b", "2"), ("a", "3")],
        ]);
        let own = parse_relabeling("f", "[{target_label: z, replacement: y}]").unwrap();
        let first =
            "[{source_labels: [__name__], regex: debug_.*, action: drop}, {regex: pod, action: labeldrop}]";
        let first = parse_relabeling("f", first).unwrap();
        relabel(&mut written, &[&first, &own]);
        assert_eq!(text(&written), ["__name__=up z=y", "z=y", "a=2 z=y", "a=1 b=2 a=3"]);
        relabel(&mut written, &[&parse_relabeling("f", "[{regex: z, action: labeldrop}]").unwrap()]);
        assert_eq!(text(&written), ["__name__=up", "a=2", "a=1 b=2 a=3"], "a series without labels is none");
        relabel(&mut written, &[&Relabeling::default()]);
        assert_eq!(written.sample_count(), 3);
        let names: Vec<String> = (0..=LABELS_MAX).map(|i| format!("n{i:05}")).collect();
        let pairs: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "v")).collect();
        let mut large = batch(&[&pairs, &pairs[..LABELS_MAX]]);
        relabel(&mut large, &[&parse_relabeling("f", "[{regex: n.*1, action: labeldrop}]").unwrap()]);
        let left = |i: usize| decode_labels(large.series(i).labels).count();
        assert_eq!((left(0), left(1)), (LABELS_MAX + 1, LABELS_MAX - 410), "no limit allows so many");
    }
}
