//! Aggregations that a store folds: protobuf to domain types and back, with the bounds that bytes from outside must keep.

use std::time::Duration;

use chronolith_promql::parser::{ParseOptions, Span};
use chronolith_promql::{
    EngineOptions, FOLD_VERSION, FoldRequest, FoldSteps, Folded, FoldedGroup, FoldedNote, StepSamples,
};

use crate::convert::{labels_from, labels_to, matchers_from, matchers_to};
use crate::proto::chronolith as own;
use crate::{FoldAnswer, FoldCall, PartialResponse, StoreError};

/// Where frames are cut, as those of series are.
const FRAME_BYTES: usize = 1 << 20;
/// More names than any replica setting has.
const NAMES_MAX: usize = 1_000;
/// The longest that an evaluation may be asked to take: a clock can hold it.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn call_to(call: &FoldCall) -> own::FoldRequest {
    let FoldRequest { query, node, start, end, step_ms, steps, step_stats, options } = &call.fold;
    own::FoldRequest {
        version: FOLD_VERSION,
        query: query.clone(),
        node_start: node.start,
        node_end: node.end,
        start: *start,
        end: *end,
        step: *step_ms,
        steps_start: steps.start,
        steps_end: steps.end,
        steps_step: steps.step_ms,
        steps_count: steps.count as u64,
        settings: Some(own::FoldSettings {
            lookback: options.lookback_ms,
            subquery_step: options.subquery_step_ms,
            samples_max: options.samples_max as u64,
            experimental_functions: options.parse.experimental_functions,
            duration_expressions: options.parse.duration_expressions,
            extended_range_selectors: options.parse.extended_range_selectors,
            fill_modifiers: options.parse.fill_modifiers,
            delayed_name_removal: options.delayed_name_removal,
            start_timestamps: options.start_timestamps,
            type_and_unit_labels: options.type_and_unit_labels,
        }),
        dedup: call.dedup,
        replica_labels: call.replica_labels.clone(),
        partial_response_disabled: call.partial_response == PartialResponse::Abort,
        max_resolution: call.max_resolution_ms,
        tenant: matchers_to(call.tenant.as_slice()).pop(),
        timeout: u64::try_from(call.timeout.as_millis()).unwrap_or(u64::MAX),
        memory_max: call.memory_max as u64,
        step_stats: *step_stats,
    }
}

pub(crate) fn call_from(proto: own::FoldRequest) -> Result<FoldCall, StoreError> {
    if proto.version != FOLD_VERSION {
        let text = format!("aggregations of version {} are not known, want {FOLD_VERSION}", proto.version);
        return Err(StoreError::invalid(text));
    }
    if proto.replica_labels.len() > NAMES_MAX {
        return Err(StoreError::invalid(format!("more than {NAMES_MAX} replica labels")));
    }
    let settings = proto.settings.ok_or_else(|| StoreError::invalid("the engine's settings are missing"))?;
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let timeout = Duration::from_millis(proto.timeout).min(TIMEOUT_MAX);
    let options = EngineOptions {
        lookback_ms: settings.lookback,
        subquery_step_ms: settings.subquery_step,
        samples_max: size(settings.samples_max),
        timeout,
        parse: ParseOptions {
            experimental_functions: settings.experimental_functions,
            duration_expressions: settings.duration_expressions,
            extended_range_selectors: settings.extended_range_selectors,
            fill_modifiers: settings.fill_modifiers,
        },
        delayed_name_removal: settings.delayed_name_removal,
        start_timestamps: settings.start_timestamps,
        type_and_unit_labels: settings.type_and_unit_labels,
        ..EngineOptions::default()
    };
    Ok(FoldCall {
        fold: FoldRequest {
            query: proto.query,
            node: Span { start: proto.node_start, end: proto.node_end },
            start: proto.start,
            end: proto.end,
            step_ms: proto.step.max(0),
            steps: FoldSteps {
                start: proto.steps_start,
                end: proto.steps_end,
                step_ms: proto.steps_step,
                count: size(proto.steps_count),
            },
            step_stats: proto.step_stats,
            options,
        },
        dedup: proto.dedup,
        replica_labels: proto.replica_labels,
        partial_response: match proto.partial_response_disabled {
            true => PartialResponse::Abort,
            false => PartialResponse::Warn,
        },
        max_resolution_ms: proto.max_resolution,
        tenant: matchers_from(proto.tenant.into_iter().collect())?.pop(),
        timeout,
        memory_max: size(proto.memory_max),
        pause_max: None,
    })
}

/// Groups, and at the end what else there is to say.
pub(crate) fn frames(answer: FoldAnswer) -> impl Iterator<Item = own::FoldFrame> {
    let FoldAnswer { folded, label_sets } = answer;
    let (total, read) = folded.by_step.map_or_else(Default::default, |s| (s.total, s.read));
    let note = |n: FoldedNote| {
        let place = n.span.unwrap_or_default();
        own::FoldNote {
            text: n.text,
            info: n.info,
            has_place: n.span.is_some(),
            start: place.start,
            end: place.end,
        }
    };
    let end = own::FoldEnd {
        notes: folded.notes.into_iter().map(note).collect(),
        series_read: folded.series_read,
        samples_total: folded.samples_total,
        samples_read: folded.samples_read,
        samples_total_by_step: total,
        samples_read_by_step: read,
        label_sets: label_sets.iter().map(labels_to).collect(),
    };
    let (held, mut groups) = (folded.held, folded.groups.into_iter());
    let mut end = Some(end);
    std::iter::from_fn(move || {
        let _held = &held;
        let (mut bytes, mut frame) = (0, own::FoldFrame::default());
        while bytes < FRAME_BYTES
            && let Some(group) = groups.next()
        {
            bytes += group.bytes();
            frame.groups.push(group_to(&group));
        }
        if frame.groups.is_empty() {
            frame.end = Some(end.take()?);
        }
        Some(frame)
    })
}

fn group_to(group: &FoldedGroup) -> own::FoldGroup {
    let has = |i: &usize| group.present[i / 64] >> (i % 64) & 1 == 1;
    let steps = (0..group.values.len()).filter(has);
    let values: Vec<u8> = steps.flat_map(|i| group.values[i].to_bits().to_le_bytes()).collect();
    let whole = values.len() == group.values.len() * 8;
    let present: Vec<u8> =
        if whole { Vec::new() } else { group.present.iter().flat_map(|w| w.to_le_bytes()).collect() };
    own::FoldGroup {
        labels: Some(labels_to(&group.labels)),
        first: Some(labels_to(&group.first)),
        drop_name: group.drop_name,
        present: present.into(),
        values: values.into(),
    }
}

/// A group of so many steps.
pub(crate) fn group_from(proto: own::FoldGroup, steps: usize) -> Result<FoldedGroup, StoreError> {
    let bad = || StoreError::corrupt(format!("a folded group is not one of {steps} steps"));
    let mut present: Vec<u64> =
        proto.present.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)).collect();
    if proto.present.is_empty() {
        present = vec![u64::MAX; steps.div_ceil(64)];
        if let (Some(last), used @ 1..) = (present.last_mut(), steps % 64) {
            *last = (1 << used) - 1;
        }
    }
    let (words, rest) = proto.values.as_chunks::<8>();
    let bits: usize = present.iter().map(|w| w.count_ones() as usize).sum();
    let beyond = present.last().is_some_and(|w| !steps.is_multiple_of(64) && w >> (steps % 64) != 0);
    if present.len() != steps.div_ceil(64) || beyond || bits != words.len() || !rest.is_empty() {
        return Err(bad());
    }
    let mut values = vec![0.0; steps];
    let mut words = words.iter();
    for (_, value) in values.iter_mut().enumerate().filter(|(i, _)| present[i / 64] >> (i % 64) & 1 == 1) {
        let word = words.next().ok_or_else(bad)?;
        *value = f64::from_bits(u64::from_le_bytes(*word));
    }
    Ok(FoldedGroup {
        labels: labels_from(proto.labels.unwrap_or_default())?,
        first: labels_from(proto.first.unwrap_or_default())?,
        drop_name: proto.drop_name,
        present,
        values,
    })
}

pub(crate) fn answer_from(groups: Vec<FoldedGroup>, end: own::FoldEnd) -> Result<FoldAnswer, StoreError> {
    let note = |n: own::FoldNote| FoldedNote {
        text: n.text,
        info: n.info,
        span: n.has_place.then_some(Span { start: n.start, end: n.end }),
    };
    let by_step = (!end.samples_total_by_step.is_empty())
        .then_some(StepSamples { total: end.samples_total_by_step, read: end.samples_read_by_step });
    let folded = Folded {
        groups,
        notes: end.notes.into_iter().map(note).collect(),
        series_read: end.series_read,
        samples_total: end.samples_total,
        samples_read: end.samples_read,
        by_step,
        held: None,
    };
    let label_sets = end.label_sets.into_iter().map(labels_from).collect::<Result<_, _>>()?;
    Ok(FoldAnswer { folded, label_sets })
}

#[cfg(test)]
mod tests {
    use chronolith_model::{Labels, Matcher};

    use super::*;

    #[test]
    fn calls_survive_the_wire() {
        let call = FoldCall {
            fold: FoldRequest {
                query: "1 + count(a)".to_owned(),
                node: Span { start: 4, end: 12 },
                start: -5,
                end: 100,
                step_ms: 10,
                steps: FoldSteps { start: -20, end: 90, step_ms: 15, count: 8 },
                step_stats: true,
                options: EngineOptions {
                    lookback_ms: 7,
                    samples_max: 9,
                    timeout: Duration::from_millis(1500),
                    delayed_name_removal: true,
                    parse: ParseOptions { fill_modifiers: true, ..ParseOptions::default() },
                    ..EngineOptions::default()
                },
            },
            dedup: true,
            replica_labels: vec!["replica".to_owned()],
            partial_response: PartialResponse::Abort,
            max_resolution_ms: 300_000,
            tenant: Some(Matcher::equal("tenant_id", "a")),
            timeout: Duration::from_millis(1500),
            memory_max: 1 << 20,
            pause_max: None,
        };
        let proto = call_to(&call);
        assert_eq!(format!("{:?}", call_from(proto.clone()).unwrap()), format!("{call:?}"));
        let newer = own::FoldRequest { version: FOLD_VERSION + 1, ..proto };
        assert_eq!(call_from(newer).unwrap_err().kind(), crate::ErrorKind::Invalid);
    }

    #[test]
    fn groups_survive_with_their_bits_and_wrong_ones_are_errors() {
        let labels = Labels::from_pairs([("x", "1")]).unwrap();
        let group = |present: Vec<u64>, values: Vec<f64>| FoldedGroup {
            labels: labels.clone(),
            first: labels.with([("y", "2")]),
            drop_name: true,
            present,
            values,
        };
        let odd = f64::from_bits(0x7FF8_0000_0000_0001);
        for group in [
            group(vec![0b101], vec![-0.0, 0.0, odd]),
            group(vec![0b111], vec![1.0, 2.0, 3.0]),
            group(vec![u64::MAX], vec![1.0; 64]),
            group(vec![u64::MAX, 1], vec![1.0; 65]),
            group(vec![0], vec![0.0; 3]),
        ] {
            let steps = group.values.len();
            let proto = group_to(&group);
            let back = group_from(proto.clone(), steps).unwrap();
            let bits = |g: &FoldedGroup| g.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!((bits(&back), &back.present), (bits(&group), &group.present));
            assert_eq!((back.labels, back.first, back.drop_name), (group.labels, group.first, true));
            assert!(group_from(proto.clone(), steps + 64).is_err());
            assert!(group_from(own::FoldGroup { values: vec![0; 7].into(), ..proto }, steps).is_err());
        }
    }
}
