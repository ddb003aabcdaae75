//! OTLP, written by hand like remote write: the only way to tell a Prometheus start timestamps of the past.

use crate::data::{Native, Point, Series};
use crate::protobuf::{bytes, double, uint, varint, zigzag};

const CUMULATIVE: u64 = 2;
/// The flag of a point that stands for a stale marker.
const NO_RECORDED_VALUE: u64 = 1;

/// An `ExportMetricsServiceRequest` of one resource without attributes; a series is a metric of its own, its points without the
/// first one. `extra` labels are added to every series.
pub(crate) fn export_body(series: &[&Series], extra: &[(String, String)]) -> Vec<u8> {
    let mut scope = Vec::new();
    for s in series {
        let mut attributes = Vec::new();
        let mut name = "";
        for (label, value) in s.labels.iter().chain(extra) {
            if label == "__name__" {
                name = value;
                continue;
            }
            let mut any = Vec::new();
            bytes(1, value.as_bytes(), &mut any);
            let mut attribute = Vec::new();
            bytes(1, label.as_bytes(), &mut attribute);
            bytes(2, &any, &mut attribute);
            attributes.push(attribute);
        }
        let native = s.points.iter().any(|(_, p)| matches!(p, Point::Histogram(_)));
        let mut data = Vec::new();
        for ((t, point), start) in s.points.iter().zip(&s.starts).skip(1) {
            let one = match point {
                Point::Histogram(h) => exponential(&attributes, *start, *t, h),
                Point::Float(_) if native => exponential(&attributes, *start, *t, &stale()),
                Point::Float(v) => number(&attributes, *start, *t, *v),
            };
            bytes(1, &one, &mut data);
        }
        uint(2, CUMULATIVE, &mut data);
        if !native {
            uint(3, 1, &mut data);
        }
        let mut metric = Vec::new();
        bytes(1, name.as_bytes(), &mut metric);
        bytes(if native { 10 } else { 7 }, &data, &mut metric);
        bytes(2, &metric, &mut scope);
    }
    let (mut resource, mut out) = (Vec::new(), Vec::new());
    bytes(2, &scope, &mut resource);
    bytes(1, &resource, &mut out);
    out
}

/// What both kinds of points begin with.
fn begun(attributes: &[Vec<u8>], attribute_field: u32, start: i64, t: i64) -> Vec<u8> {
    let mut out = Vec::new();
    attributes.iter().for_each(|a| bytes(attribute_field, a, &mut out));
    fixed(2, start as u64 * 1_000_000, &mut out);
    fixed(3, t as u64 * 1_000_000, &mut out);
    out
}

/// `NumberDataPoint`.
fn number(attributes: &[Vec<u8>], start: i64, t: i64, v: f64) -> Vec<u8> {
    let mut out = begun(attributes, 7, start, t);
    if is_stale(v) {
        uint(8, NO_RECORDED_VALUE, &mut out);
    } else {
        double(4, v, &mut out);
    }
    out
}

/// `ExponentialHistogramDataPoint`; buckets are numbered from one less than in Prometheus.
fn exponential(attributes: &[Vec<u8>], start: i64, t: i64, h: &Native) -> Vec<u8> {
    let mut out = begun(attributes, 1, start, t);
    fixed(4, h.count() as u64, &mut out);
    double(5, h.sum, &mut out);
    uint(6, zigzag(i64::from(h.schema)), &mut out);
    fixed(7, h.zero_count as u64, &mut out);
    for (field, buckets) in [(8, &h.positive), (9, &h.negative)] {
        let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else { continue };
        let mut dense = vec![0; (last.0 - first.0 + 1) as usize];
        buckets.iter().for_each(|(i, count)| dense[(i - first.0) as usize] = *count as u64);
        let (mut one, mut counts) = (Vec::new(), Vec::new());
        uint(1, zigzag(i64::from(first.0) - 1), &mut one);
        dense.into_iter().for_each(|count| varint(count, &mut counts));
        bytes(2, &counts, &mut one);
        bytes(field, &one, &mut out);
    }
    if is_stale(h.sum) {
        uint(10, NO_RECORDED_VALUE, &mut out);
    }
    out
}

fn stale() -> Native {
    Native { sum: crate::data::STALE, ..Native::default() }
}

fn is_stale(v: f64) -> bool {
    v.to_bits() == crate::data::STALE.to_bits()
}

fn fixed(field: u32, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(field << 3 | 1), out);
    out.extend_from_slice(&value.to_le_bytes());
}
