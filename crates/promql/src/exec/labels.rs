//! Changes of label sets.

use chronolith_model::{Labels, METRIC_NAME};

use crate::plan::drops_metric_name;

/// Without the metric's name, type and unit.
pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    if labels.iter().any(|(name, _)| drops_metric_name(name)) {
        labels.filter(|name, _| !drops_metric_name(name))
    } else {
        labels.clone()
    }
}

/// Without the metric's name. `histogram_count` and its kin take only that off upstream, unlike all other functions.
pub(crate) fn without_name(labels: &Labels) -> Labels {
    labels.filter(|name, _| name != METRIC_NAME)
}

/// The labels that two matched series have in common by definition.
pub(crate) fn match_labels(labels: &Labels, on: bool, names: &[String]) -> Labels {
    labels.filter(|name, _| {
        let named = names.iter().any(|n| n == name);
        if on { named } else { !named && name != METRIC_NAME }
    })
}

/// Writes the part of a label set that a grouping looks at; equal parts give equal bytes.
/// `names` are sorted; `without` leaves them and the metric name out, otherwise only they count.
pub(crate) fn group_key(labels: &Labels, names: &[String], without: bool, key: &mut Vec<u8>) {
    key.clear();
    let mut names = names.iter().peekable();
    for (name, value) in labels.iter() {
        while names.peek().is_some_and(|n| n.as_bytes() < name.as_bytes()) {
            names.next();
        }
        let named = names.peek().is_some_and(|n| *n == name);
        let counts = if without { !named && name != METRIC_NAME } else { named };
        if counts {
            key.extend_from_slice(&(name.len() as u32).to_le_bytes());
            key.extend_from_slice(name.as_bytes());
            key.extend_from_slice(&(value.len() as u32).to_le_bytes());
            key.extend_from_slice(value.as_bytes());
        }
    }
}

/// The labels of a group.
pub(crate) fn group_labels(labels: &Labels, names: &[String], without: bool) -> Labels {
    if !without && names.is_empty() {
        return Labels::empty();
    }
    labels.filter(|name, _| {
        let named = names.iter().any(|n| n == name);
        if without { !named && name != METRIC_NAME } else { named }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_labels_of_groups_agree() {
        let sets = [
            Labels::from_pairs([("__name__", "m"), ("a", "1"), ("b", "2")]).unwrap(),
            Labels::from_pairs([("__name__", "n"), ("a", "1"), ("c", "3")]).unwrap(),
            Labels::from_pairs([("a", "1"), ("b", "2"), ("c", "3")]).unwrap(),
            Labels::from_pairs([("a", "1b2")]).unwrap(),
        ];
        for without in [false, true] {
            for names in [vec![], vec!["a".to_owned()], vec!["b".to_owned(), "c".to_owned()]] {
                for x in &sets {
                    for y in &sets {
                        let (mut kx, mut ky) = (Vec::new(), Vec::new());
                        group_key(x, &names, without, &mut kx);
                        group_key(y, &names, without, &mut ky);
                        let same = group_labels(x, &names, without) == group_labels(y, &names, without);
                        assert_eq!(kx == ky, same, "{x} {y} {names:?} {without}");
                    }
                }
            }
        }
    }
}
