//! The two NaNs that Prometheus tells apart by their bits.

/// The stale marker: "this series ended here" (`value.StaleNaN`).
pub const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// The ordinary quiet NaN (`value.NormalNaN`).
pub const QUIET_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

/// True for the exact bit pattern of [`STALE_NAN`]; other NaNs are values.
#[inline]
pub fn is_stale_nan(v: f64) -> bool {
    v.to_bits() == STALE_NAN.to_bits()
}
