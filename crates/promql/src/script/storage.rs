//! Where a script's series lie: the same scripts judge the engine over every storage there is.

use std::sync::Arc;

use chronolith_model::{FloatHistogram, Labels};

use super::MemoryStorage;
use crate::queryable::Queryable;

/// A series of a `load`, expanded.
#[derive(Clone, Debug)]
pub struct LoadedSeries {
    /// Its labels.
    pub labels: Labels,
    /// Samples, ascending in time.
    pub samples: Vec<LoadedSample>,
}

/// A sample of a `load`.
#[derive(Clone, Debug)]
pub struct LoadedSample {
    /// Milliseconds since the epoch.
    pub t: i64,
    /// Start timestamp; 0 where none is given.
    pub start_t: i64,
    /// The value.
    pub value: LoadedValue,
}

/// The value of a sample of a `load`: scripts know floats and float histograms.
#[derive(Clone, Debug)]
pub enum LoadedValue {
    /// A float.
    Float(f64),
    /// A histogram with the counter reset hint that the script gave it.
    Histogram(Arc<FloatHistogram>),
}

/// A storage that scripts run over.
pub trait ScriptStorage {
    /// Adds samples to what is there. Errors: one was not taken.
    fn load(&mut self, series: &[LoadedSeries]) -> Result<(), String>;

    /// What the engine reads from.
    fn queryable(&self) -> &dyn Queryable;
}

impl ScriptStorage for MemoryStorage {
    fn load(&mut self, series: &[LoadedSeries]) -> Result<(), String> {
        for s in series {
            for sample in &s.samples {
                match &sample.value {
                    LoadedValue::Float(v) => self.append_float(&s.labels, sample.t, *v, sample.start_t)?,
                    LoadedValue::Histogram(h) => {
                        self.append_histogram(&s.labels, sample.t, (**h).clone(), sample.start_t)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn queryable(&self) -> &dyn Queryable {
        self
    }
}
