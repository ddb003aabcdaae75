//! `target_info`: a series a resource, that carries the attributes which are not labels of every series.

use std::hash::BuildHasher;

use chronolith_model::{MetricKind, MetricMetadata, Sample, WriteMetadata};

use super::points::millis;
use super::translate::{Fault, Translator};
use crate::remote_write::{DecodeError, SAMPLE_BYTES};

/// Half of the look-back of queries, so that each of them finds a sample.
const INTERVAL_NANOS: u64 = 150 * 1_000_000_000;
/// Samples of one resource in a request: a day. What lies further back gets none, so that one point without a time does
/// not ask for a million of them.
const SAMPLES_MAX: u64 = 24 * 3600 / 150;
/// What `job` and `instance` say already.
const IDENTIFYING: [&str; 3] = ["service.namespace", "service.name", "service.instance.id"];

impl Translator<'_> {
    /// Writes the resource's samples, from its first point to its last.
    pub(super) fn target_info(&mut self) -> Result<(), Fault> {
        let Some(earliest) = self.resource.earliest else { return Ok(()) };
        let latest = self.resource.latest;
        let says_more = |key: &[u8]| IDENTIFYING.iter().all(|name| name.as_bytes() != key);
        if !self.settings.target_info || !self.resource.attributes.iter().any(|a| says_more(a.key)) {
            return Ok(());
        }
        self.attributes.clone_from(&self.resource.attributes);
        let keeps = self.settings.keep_identifying_resource_attributes;
        self.set_own_labels(if keeps { &[] } else { &IDENTIFYING })?;
        self.set_identity();
        let has = |name| self.labels.get(&self.texts, name).is_some();
        if !has(self.words.job) && !has(self.words.instance) {
            return Ok(());
        }
        let start = self.sections.pos();
        self.push_info(start, earliest, latest).map_err(Fault::from)
    }

    fn push_info(&mut self, start: u32, earliest: u64, latest: u64) -> Result<(), DecodeError> {
        let name = self.words.target_info;
        self.labels.set(&self.texts, self.words.name, name);
        self.labels.render(&self.texts, &mut self.sections)?;
        let hash = self.infos.hasher().hash_one(self.sections.since(start));
        let first = earliest.max(latest.saturating_sub(SAMPLES_MAX * INTERVAL_NANOS));
        let steps = latest.saturating_sub(first).div_ceil(INTERVAL_NANOS);
        let times = (0..steps).map(|i| first + i * INTERVAL_NANOS).chain([latest]);
        let mut opened = false;
        for t in times.map(millis) {
            // Resources that differ in nothing else share the series.
            if !self.infos.insert((hash, t)) {
                continue;
            }
            self.budget.charge(2 * SAMPLE_BYTES)?;
            if !std::mem::replace(&mut opened, true) {
                self.builder.push_series(start..self.sections.pos());
                self.say_info();
            }
            self.builder.push_sample(Sample { t, v: 1.0 });
        }
        Ok(())
    }

    /// What `target_info` is; once a request.
    fn say_info(&mut self) {
        if !std::mem::replace(&mut self.info_said, true) {
            let help = "Target metadata".to_owned();
            let says = MetricMetadata { kind: MetricKind::Gauge, help, unit: String::new() };
            self.builder.push_metadata(WriteMetadata { metric: "target_info".to_owned(), says });
        }
    }
}
