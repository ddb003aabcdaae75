//! What a request says of its metrics: with every series again, so that most of it was said before.

use chronolith_model::{MetricKind, MetricMetadata, WriteBatchBuilder, WriteMetadata};

use super::super::decode::{Budget, DecodeError, DecodeStats, METADATA_BYTES};
use super::super::heard::Hearing;
use super::super::wire::{Cursor, WireError, WireType};
use super::symbols::Symbols;

/// Type, help and unit of a metric as they stand in the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) kind: u32,
    pub(super) help: u32,
    pub(super) unit: u32,
}

/// What was said of a metric, named by the symbol of its name.
#[derive(Clone, Copy, Debug)]
struct Statement {
    metric: u32,
    said: Said,
    /// Of a series of native histograms.
    native: bool,
}

/// The statements of one request, each once.
#[derive(Debug, Default)]
pub(super) struct Statements {
    /// By the symbol of the metric's name, what was last said of it.
    last: Vec<Said>,
    list: Vec<Statement>,
}

/// Reads metadata behind what was read before.
#[inline]
pub(super) fn read(mut message: Cursor<'_>, mut said: Said) -> Result<Said, WireError> {
    while !message.is_empty() {
        let (field, wire_type) = message.key()?;
        if !matches!(field, 1 | 3 | 4) {
            message.skip(field, wire_type)?;
            continue;
        }
        message.expect(wire_type, WireType::Varint)?;
        let number = message.varint()? as u32;
        match field {
            1 => said.kind = number,
            3 => said.help = number,
            _ => said.unit = number,
        }
    }
    Ok(said)
}

impl Statements {
    /// What a symbol takes here.
    pub(super) const SYMBOL_BYTES: usize = size_of::<Said>();

    /// Bytes of memory held.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.last.capacity() * size_of::<Said>() + self.list.capacity() * size_of::<Statement>()
    }

    /// Starts over for a request with so many symbols.
    pub(super) fn start(&mut self, symbols: usize) {
        self.list.clear();
        self.last.clear();
        self.last.resize(symbols, Said::default());
    }

    /// Notes what was said of a metric, unless that was the last thing said of it, or nothing.
    #[inline]
    pub(super) fn note(
        &mut self,
        metric: u32,
        said: Said,
        native: bool,
        budget: &mut Budget,
    ) -> Result<(), DecodeError> {
        match self.last.get_mut(metric as usize) {
            Some(last) if *last != said && said != Said::default() => {
                *last = said;
                budget.charge(size_of::<Statement>())?;
                self.list.push(Statement { metric, said, native });
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Symbols {
    /// Hands on what was said of metrics and `hearing` has not heard lately.
    pub(super) fn tell(
        &self,
        body: &[u8],
        hearing: Option<Hearing<'_>>,
        budget: &mut Budget,
        builder: &mut WriteBatchBuilder,
        stats: &mut DecodeStats,
    ) -> Result<(), DecodeError> {
        let mut heard = hearing.map(|hearing| hearing.listen());
        for Statement { metric, said, native } in &self.statements.list {
            stats.metadata += 1;
            if let (Some(heard), Some(name)) = (&mut heard, self.hash(*metric)) {
                let hash = |symbol| self.hash(symbol).unwrap_or(0) as u64;
                let kind = u64::from(said.kind) << 1 | u64::from(*native);
                if heard.is_known(name, hash(said.help) ^ hash(said.unit).rotate_left(23) ^ kind) {
                    continue;
                }
            }
            let text = |symbol| std::str::from_utf8(self.text(body, symbol).unwrap_or(&[])).ok();
            let (Some(name), Some(help), Some(unit)) = (text(*metric), text(said.help), text(said.unit))
            else {
                stats.metadata_dropped += 1;
                continue;
            };
            budget.charge(METADATA_BYTES + name.len() + help.len() + unit.len())?;
            let kind = MetricKind::from_number(u64::from(said.kind));
            let metric = if *native { name } else { family(name, kind) };
            builder.push_metadata(WriteMetadata {
                metric: metric.to_owned(),
                says: MetricMetadata { kind, help: help.to_owned(), unit: unit.to_owned() },
            });
        }
        Ok(())
    }
}

/// The metric that a series of classic buckets, quantiles, sums and counts is a part of: in 1.0, metadata names that.
fn family(name: &str, kind: MetricKind) -> &str {
    let suffixes: &[&str] = match kind {
        MetricKind::Histogram => &["_bucket", "_sum", "_count"],
        MetricKind::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
        MetricKind::Summary => &["_sum", "_count"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}
