//! A request whose series name their tenants themselves, by a label (`--receive.split-tenant-label-name`).
//!
//! The label is taken off. Series without it belong to the request's tenant, as does what the request says of metrics.
//! Series whose label cannot be a tenant are refused one by one; so the rest of the request is stored.

use std::cell::RefCell;

use chronolith_model::write::{LabelsEdit, decode_labels, encode_labels};
use chronolith_model::{TenantId, WriteBatch};
use chronolith_storeapi::{RejectKind, WriteRejection, WriteReport};
use hashbrown::HashMap;

/// A request by tenant.
pub(crate) struct Split {
    /// Each tenant's part. The request's own tenant comes first, where it has one.
    pub(crate) parts: Vec<(TenantId, WriteBatch)>,
    /// Series that belong to nobody.
    pub(crate) refused: WriteReport,
}

thread_local! {
    static MADE: RefCell<Vec<u8>> = RefCell::default();
}

/// Divides a request of `own` by the label `name`.
pub(crate) fn split(own: &TenantId, mut batch: WriteBatch, name: &str) -> Split {
    let mut tenants = vec![own.clone()];
    // What a label's value stands for: a tenant's number, or none.
    let mut known: HashMap<String, Option<u32>> = HashMap::from([(own.as_str().to_owned(), Some(0))]);
    let mut owners: Vec<Option<u32>> = Vec::with_capacity(batch.series_count());
    MADE.with_borrow_mut(|made| {
        batch.edit_labels(made, |section, out| {
            let labelled = decode_labels(section).find_map(|pair| pair.ok().filter(|(n, _)| *n == name));
            let Some((_, value)) = labelled.filter(|(_, value)| !value.is_empty()) else {
                // Malformed sections too: who stores them says what is wrong.
                owners.push(Some(0));
                return LabelsEdit::Keep;
            };
            let owner = *known.entry_ref(value).or_insert_with(|| {
                tenants.push(TenantId::new(value).ok()?);
                Some(tenants.len() as u32 - 1)
            });
            owners.push(owner);
            if decode_labels(section).any(|pair| pair.is_err()) {
                return LabelsEdit::Keep;
            }
            encode_labels(decode_labels(section).flatten().filter(|(n, _)| *n != name), out);
            LabelsEdit::Replace
        });
    });
    let mut numbers: Vec<Vec<u32>> = vec![Vec::new(); tenants.len()];
    let mut refused = WriteReport::default();
    for (i, owner) in owners.iter().enumerate() {
        match owner {
            Some(owner) => numbers[*owner as usize].push(i as u32),
            None => {
                let series = batch.series(i);
                refused.reject(series.samples.len() + series.histograms.len(), || WriteRejection {
                    kind: RejectKind::Invalid,
                    series: described(series.labels),
                    t: None,
                    reason: format!("the value of label {name:?} is no tenant name"),
                });
            }
        }
    }
    let others = tenants.iter().zip(&numbers).skip(1);
    let mut parts: Vec<_> =
        others.map(|(tenant, series)| (tenant.clone(), batch.select_series(series))).collect();
    if numbers[0].len() == batch.series_count() {
        return Split { parts: vec![(tenants.swap_remove(0), batch)], refused };
    }
    if !numbers[0].is_empty() || !batch.metadata().is_empty() {
        parts.insert(0, (tenants.swap_remove(0), batch.select(&numbers[0])));
    }
    Split { parts, refused }
}

fn described(section: &[u8]) -> String {
    let pairs = decode_labels(section).flatten().map(|(n, v)| format!("{n}={v:?}"));
    let text: String = pairs.collect::<Vec<_>>().join(", ").chars().take(300).collect();
    format!("{{{text}}}")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chronolith_model::{MetricMetadata, Sample, WriteBatchBuilder, WriteMetadata};

    use super::*;

    fn batch(series: &[&[(&str, &str)]], metadata: bool) -> WriteBatch {
        let mut builder = WriteBatchBuilder::default();
        builder.start(0);
        for (i, labels) in series.iter().enumerate() {
            let mut section = Vec::new();
            encode_labels(labels.iter().copied(), &mut section);
            builder.push_series_bytes(&section);
            builder.push_sample(Sample { t: i as i64, v: 1.0 });
        }
        if metadata {
            builder.push_metadata(WriteMetadata { metric: "m".into(), says: MetricMetadata::default() });
        }
        builder.finish(Bytes::new())
    }

    fn parts(split: &Split) -> Vec<(String, Vec<String>, usize)> {
        let text = |batch: &WriteBatch| batch.iter().map(|s| described(s.labels)).collect();
        split.parts.iter().map(|(t, b)| (t.as_str().to_owned(), text(b), b.metadata().len())).collect()
    }

    #[test]
    fn series_go_to_the_tenants_they_name() {
        let own = TenantId::new("own").unwrap();
        let labels: [&[(&str, &str)]; 6] = [
            &[("__name__", "a"), ("team", "x")],
            &[("__name__", "b")],
            &[("__name__", "c"), ("team", "y"), ("zone", "1")],
            &[("__name__", "d"), ("team", "../x")],
            &[("__name__", "e"), ("team", "x")],
            &[("__name__", "f"), ("team", "own")],
        ];
        let divided = split(&own, batch(&labels, true), "team");
        let part = |tenant: &str, series: &[&str], metadata| {
            (tenant.to_owned(), series.iter().map(|s| format!("{{{s}}}")).collect::<Vec<_>>(), metadata)
        };
        assert_eq!(
            parts(&divided),
            [
                part("own", &["__name__=\"b\"", "__name__=\"f\""], 1),
                part("x", &["__name__=\"a\"", "__name__=\"e\""], 0),
                part("y", &["__name__=\"c\", zone=\"1\""], 0),
            ]
        );
        assert_eq!(divided.refused.rejected, 1);
        assert!(divided.refused.rejections[0].reason.contains("\"team\""), "{:?}", divided.refused);
        assert_eq!(divided.parts[1].1.series(1).samples[0].t, 4, "samples stay with their series");
    }

    #[test]
    fn whole_requests_stay_whole() {
        let own = TenantId::new("own").unwrap();
        let none = split(&own, batch(&[&[("a", "b")]], true), "team");
        assert_eq!(parts(&none), [("own".to_owned(), vec!["{a=\"b\"}".to_owned()], 1)]);
        let all = split(&own, batch(&[&[("a", "b"), ("team", "x")]], false), "team");
        assert_eq!(parts(&all), [("x".to_owned(), vec!["{a=\"b\"}".to_owned()], 0)]);
    }
}
