//! External labels: what identifies the producer of a block.

use crate::Labels;

/// The labels of a producer (a Prometheus, a receiver and its tenant). They win over a series' own labels of the
/// same name, on the StoreAPI and in a block's meta.json alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExternalLabels(pub Labels);

impl ExternalLabels {
    /// The series' labels with the external ones put over them.
    pub fn extend(&self, series: &Labels) -> Labels {
        if self.0.is_empty() { series.clone() } else { series.overlay(&self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_labels_win() {
        let external = ExternalLabels(Labels::from_pairs([("replica", "a")]).unwrap());
        let series = Labels::from_pairs([("replica", "own"), ("x", "y")]).unwrap();
        assert_eq!(external.extend(&series).to_string(), r#"{replica="a", x="y"}"#);
    }
}
