//! Bucket bounds.
//!
//! The bounds of the exponential schemas are those that Prometheus and its client libraries carry as a table; many of
//! them are an ulp or two off the correctly rounded power. The table follows a rule, which is used here instead: every
//! second bound is the coarser schema's, and the one after it is that times one factor per schema.

use super::{CUSTOM_BUCKETS_SCHEMA, EXPONENTIAL_SCHEMA_MAX};

/// `2^(2^-schema)` for the schemas 1 to 8, in the precision that gives the table of the clients.
#[allow(clippy::approx_constant)] // One ulp less than the square root of two, as the clients' table has it.
const FACTORS: [f64; 8] = [
    1.414213562373095,
    1.189207115002721,
    1.0905077326652577,
    1.0442737824274138,
    1.0218971486541166,
    1.0108892860517005,
    1.0054299011128027,
    1.0027112750502025,
];

/// Bounds of schema 8 in [0.5, 1); those of schema s are every `256 >> s`-th.
static BOUNDS: [f64; 256] = bounds();

const fn bounds() -> [f64; 256] {
    let mut out = [0.5; 256];
    let mut schema = 1;
    while schema <= 8 {
        let step = 256 >> schema;
        let mut at = step;
        while at < 256 {
            out[at] = out[at - step] * FACTORS[schema - 1];
            at += 2 * step;
        }
        schema += 1;
    }
    out
}

/// The upper bound (in absolute value) of the bucket `index`; indices outside of custom bounds give ±Inf.
pub fn bucket_bound(index: i32, schema: i32, custom_values: &[f64]) -> f64 {
    if schema != CUSTOM_BUCKETS_SCHEMA {
        return exponential_bound(index, schema);
    }
    match usize::try_from(index) {
        Ok(i) => custom_values.get(i).copied().unwrap_or(f64::INFINITY),
        Err(_) => f64::NEG_INFINITY,
    }
}

/// The upper bound of the bucket `index` of an exponential schema.
///
/// The last bucket of regular numbers would end at 2^1024, which is no number; it ends at the largest one, so that the
/// next bucket, up to +Inf, is the one of infinite observations.
pub(super) fn exponential_bound(index: i32, schema: i32) -> f64 {
    if schema < 0 {
        let exp = i64::from(index) << schema.unsigned_abs().min(16);
        return if exp == 1024 { f64::MAX } else { ldexp(1.0, exp) };
    }
    let schema = schema.min(EXPONENTIAL_SCHEMA_MAX) as u32;
    let fraction = BOUNDS[((index & ((1 << schema) - 1)) as usize) << (8 - schema)];
    let exp = i64::from(index >> schema) + 1;
    if fraction == 0.5 && exp == 1025 { f64::MAX } else { ldexp(fraction, exp) }
}

/// `x · 2^exp` with one rounding.
fn ldexp(x: f64, exp: i64) -> f64 {
    const fn power(exp: i64) -> f64 {
        f64::from_bits(((exp + 1023) as u64) << 52)
    }
    match exp {
        -1022..=1023 => x * power(exp),
        // Beyond the normal range in two steps, of which the first is exact.
        1024..=2046 => x * power(1023) * power(exp - 1023),
        2047.. => x * f64::INFINITY,
        -1900..=-1023 => x * power(-900) * power(exp + 900),
        _ => x * 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_clients() {
        let table = [
            (0, 0, 1.0),
            (1, 0, 2.0),
            (-1, 0, 0.5),
            (1024, 0, f64::MAX),
            (1025, 0, f64::INFINITY),
            (1024 << 8, 8, f64::MAX),
            ((1024 << 8) + 1, 8, f64::INFINITY),
            (512, -1, f64::MAX),
            (513, -1, f64::INFINITY),
            (64, -4, f64::MAX),
            (65, -4, f64::INFINITY),
            (-1074, 0, 5e-324),
            (-1075, 0, 0.0),
            (i32::MAX, 8, f64::INFINITY),
            (i32::MIN, 0, 0.0),
            (i32::MAX, -4, f64::INFINITY),
            // Entries of the table, doubled: the bounds lie in [1, 2).
            (1, 1, 2.0 * 0.7071067811865475),
            (3, 3, 2.0 * 0.6484197773255048),
            (1, 8, 2.0 * 0.5013556375251013),
            (6, 8, 2.0 * 0.5081891574554764),
            (255, 8, 2.0 * 0.9972960560854698),
            (15, 4, 2.0 * 0.9576032806985735),
        ];
        for (index, schema, bound) in table {
            assert_eq!(exponential_bound(index, schema), bound, "index {index} schema {schema}");
        }
    }

    #[test]
    fn custom_bounds_end_in_infinity() {
        let at = |i| bucket_bound(i, CUSTOM_BUCKETS_SCHEMA, &[1.0, 5.0]);
        assert_eq!(
            [at(-1), at(0), at(1), at(2), at(3)],
            [f64::NEG_INFINITY, 1.0, 5.0, f64::INFINITY, f64::INFINITY]
        );
    }
}
