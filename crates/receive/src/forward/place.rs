//! Splits a batch by receivers.

use chronolith_model::WriteBatch;

use crate::hashring::{Hashrings, PlacementError, SeriesHash};

/// What one receiver gets of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// The receiver, as the hashrings number it.
    pub(super) endpoint: u16,
    /// Which series; `None` for all.
    pub(super) series: Option<Vec<u32>>,
    /// Which replica each of them is, counted from 0; `None` where nobody needs to know.
    pub(super) replicas: Option<Vec<u8>>,
}

/// A batch's shares.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) shares: Vec<Share>,
    /// Replicas of each series.
    pub(super) replicas: usize,
}

impl Placed {
    /// All shares are the whole batch.
    pub(super) fn is_whole(&self) -> bool {
        self.shares.iter().all(|s| s.series.is_none())
    }
}

/// Places every series: all its replicas, or one of them (counted from 0). `numbers` says whether replica numbers are needed,
/// which costs a hash of every label set where a ring has no more receivers than replicas.
pub(super) fn place(
    rings: &Hashrings,
    tenant: &str,
    batch: &WriteBatch,
    replica: Option<usize>,
    numbers: bool,
) -> Result<Placed, PlacementError> {
    let ring = rings.ring_of(tenant)?;
    let factor = rings.replication_factor();
    let replicas = replica.map_or(0..factor, |n| n..n + 1);
    let everywhere = replica.is_none() && ring.endpoints().len() == factor;
    if everywhere && !numbers {
        let whole = |endpoint: &u16| Share { endpoint: *endpoint, series: None, replicas: None };
        return Ok(Placed { shares: ring.endpoints().iter().map(whole).collect(), replicas: factor });
    }
    if batch.series_count() == 0 {
        // What is said of metrics belongs to no series; it needs some place that does not change.
        let hash = SeriesHash::of_malformed(tenant, &[]);
        let whole = |n| Share { endpoint: ring.endpoint(hash, n), series: None, replicas: None };
        let count = replicas.len();
        return Ok(Placed { shares: replicas.map(whole).collect(), replicas: count });
    }
    let mut slots: Vec<Option<usize>> = vec![None; rings.endpoints().len()];
    let mut shares: Vec<Share> = Vec::new();
    let mut buffer = Vec::new();
    for (i, series) in batch.iter().enumerate() {
        let hash = SeriesHash::of(tenant, series.labels, &mut buffer)
            .unwrap_or_else(|_| SeriesHash::of_malformed(tenant, series.labels));
        for n in replicas.clone() {
            let endpoint = ring.endpoint(hash, n);
            let slot = *slots[usize::from(endpoint)].get_or_insert_with(|| {
                shares.push(Share { endpoint, series: Some(Vec::new()), replicas: numbers.then(Vec::new) });
                shares.len() - 1
            });
            let share = &mut shares[slot];
            share.series.get_or_insert_default().push(i as u32);
            if let Some(numbers) = &mut share.replicas {
                numbers.push(n as u8);
            }
        }
    }
    if everywhere {
        shares.iter_mut().for_each(|s| s.series = None);
    }
    Ok(Placed { shares, replicas: replicas.len() })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chronolith_model::WriteBatchBuilder;
    use chronolith_model::write::encode_labels;

    use super::*;
    use crate::hashring::{Algorithm, parse};

    fn rings(endpoints: usize, factor: usize) -> Hashrings {
        let endpoints: Vec<String> = (0..endpoints).map(|i| format!("\"r{i}:1\"")).collect();
        let text = format!("[{{\"endpoints\": [{}]}}]", endpoints.join(","));
        Hashrings::new(parse(&text).unwrap(), Algorithm::Ketama, factor).unwrap()
    }

    fn batch(series: usize) -> WriteBatch {
        let mut builder = WriteBatchBuilder::default();
        builder.start(0);
        for i in 0..series {
            let mut section = Vec::new();
            encode_labels([("__name__", format!("m{i}").as_str())], &mut section);
            builder.push_series_bytes(&section);
        }
        builder.finish(Bytes::new())
    }

    #[test]
    fn every_series_has_all_its_replicas_on_different_receivers() {
        let (rings, batch) = (rings(5, 3), batch(100));
        let placed = place(&rings, "t", &batch, None, true).unwrap();
        assert!(!placed.is_whole());
        let mut seen = vec![Vec::new(); 100];
        for share in &placed.shares {
            let numbers = share.replicas.as_ref().unwrap();
            for (series, n) in share.series.as_ref().unwrap().iter().zip(numbers) {
                seen[*series as usize].push(*n);
            }
        }
        for mut replicas in seen {
            replicas.sort_unstable();
            assert_eq!(replicas, [0, 1, 2]);
        }
        let endpoints: std::collections::HashSet<u16> = placed.shares.iter().map(|s| s.endpoint).collect();
        assert_eq!(endpoints.len(), placed.shares.len());
        // A single replica lies where all replicas said.
        let one = place(&rings, "t", &batch, Some(1), false).unwrap();
        for share in one.shares {
            let all = placed.shares.iter().find(|s| s.endpoint == share.endpoint).unwrap();
            for series in share.series.unwrap() {
                let at = all.series.as_ref().unwrap().iter().position(|s| *s == series).unwrap();
                assert_eq!(all.replicas.as_ref().unwrap()[at], 1);
            }
        }
    }

    #[test]
    fn a_ring_of_as_many_receivers_as_replicas_takes_whole_batches() {
        let rings = rings(3, 3);
        let placed = place(&rings, "t", &batch(10), None, false).unwrap();
        assert!(placed.is_whole() && placed.shares.len() == 3 && placed.shares[0].replicas.is_none());
        let placed = place(&rings, "t", &batch(10), None, true).unwrap();
        assert!(placed.is_whole());
        assert_eq!(placed.shares[0].replicas.as_ref().unwrap().len(), 10);
        let metadata = place(&self::rings(5, 3), "t", &batch(0), None, false).unwrap();
        assert!(metadata.is_whole() && metadata.shares.len() == 3);
    }
}
