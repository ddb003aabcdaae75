//! `--enable-feature`: upstream's names of what is off by default, as far as they concern what is stored.

/// Features that are switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageFeatures {
    /// `st-storage`: start timestamps are kept. Prometheus wants two further switches for the chunk encodings that keep
    /// them; here the first is enough, and only series that have start timestamps are stored so.
    pub start_timestamps: bool,
    /// `otlp-native-delta-ingestion`: OTLP points of delta temporality are stored as they come, else they are refused.
    pub native_delta: bool,
    /// `otlp-deltatocumulative`: they are added up and stored as cumulative ones. Excludes the other.
    pub delta_to_cumulative: bool,
}

const NATIVE_DELTA: &str = "otlp-native-delta-ingestion";
const DELTA_TO_CUMULATIVE: &str = "otlp-deltatocumulative";

/// What Prometheus asks for beside `st-storage`.
const IMPLIED: [&str; 2] = ["xor2-encoding", "histograms-st-encoding"];

impl StorageFeatures {
    /// Reads the flag's values, each a list separated by commas; the names that concern something else come back.
    pub fn from_flags(values: &[String]) -> (Self, Vec<&str>) {
        let names = values.iter().flat_map(|v| v.split(',')).map(str::trim).filter(|n| !n.is_empty());
        let (ours, others): (Vec<&str>, _) = names.partition(|n| {
            ["st-storage", NATIVE_DELTA, DELTA_TO_CUMULATIVE].contains(n) || IMPLIED.contains(n)
        });
        let features = StorageFeatures {
            start_timestamps: ours.contains(&"st-storage"),
            native_delta: ours.contains(&NATIVE_DELTA),
            delta_to_cumulative: ours.contains(&DELTA_TO_CUMULATIVE),
        };
        for name in ours {
            if !IMPLIED.contains(&name) {
                tracing::info!(option = name, "feature enabled");
            } else if !features.start_timestamps {
                tracing::warn!(
                    option = name,
                    "this option for --enable-feature does nothing without st-storage"
                );
            }
        }
        (features, others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_knows_its_names_and_hands_back_the_others() {
        let flags = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        assert_eq!(StorageFeatures::from_flags(&[]), (StorageFeatures::default(), vec![]));
        let values = flags(&["use-start-timestamps, xor2-encoding,", "nonsense"]);
        let (features, others) = StorageFeatures::from_flags(&values);
        assert_eq!((features.start_timestamps, others), (false, vec!["use-start-timestamps", "nonsense"]));
        let values = flags(&["xor2-encoding,st-storage"]);
        let want = StorageFeatures { start_timestamps: true, ..StorageFeatures::default() };
        assert_eq!(StorageFeatures::from_flags(&values), (want, vec![]));
        let values = flags(&["otlp-native-delta-ingestion"]);
        let want = StorageFeatures { native_delta: true, ..StorageFeatures::default() };
        assert_eq!(StorageFeatures::from_flags(&values), (want, vec![]));
        let values = flags(&["otlp-deltatocumulative"]);
        let want = StorageFeatures { delta_to_cumulative: true, ..StorageFeatures::default() };
        assert_eq!(StorageFeatures::from_flags(&values), (want, vec![]));
    }
}
