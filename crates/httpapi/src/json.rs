//! A JSON writer for replies: bytes appended to one buffer, no tree in between.

/// A growing JSON text. The caller writes punctuation; the buffer knows strings and numbers.
#[derive(Debug, Default)]
pub struct JsonBuf {
    /// The text so far.
    pub bytes: Vec<u8>,
}

impl JsonBuf {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends text as it is.
    pub fn raw(&mut self, text: &str) -> &mut Self {
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    /// Appends a quoted string.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.bytes.push(b'"');
        let mut plain_from = 0;
        let bytes = text.as_bytes();
        for (i, b) in bytes.iter().enumerate() {
            if *b >= 0x20 && *b != b'"' && *b != b'\\' {
                continue;
            }
            self.bytes.extend_from_slice(&bytes[plain_from..i]);
            plain_from = i + 1;
            match b {
                b'"' => self.raw("\\\""),
                b'\\' => self.raw("\\\\"),
                b'\n' => self.raw("\\n"),
                b'\r' => self.raw("\\r"),
                b'\t' => self.raw("\\t"),
                control => self.raw(&format!("\\u{control:04x}")),
            };
        }
        self.bytes.extend_from_slice(&bytes[plain_from..]);
        self.bytes.push(b'"');
        self
    }

    /// Appends a whole number.
    pub fn int(&mut self, v: i64) -> &mut Self {
        self.raw(itoa::Buffer::new().format(v))
    }

    /// Appends a timestamp: seconds, whole or with exactly three decimals.
    pub fn timestamp(&mut self, ms: i64) -> &mut Self {
        if ms < 0 {
            self.bytes.push(b'-');
        }
        let ms = ms.unsigned_abs();
        self.raw(itoa::Buffer::new().format(ms / 1000));
        let fraction = ms % 1000;
        if fraction != 0 {
            let digits = [
                b'.',
                b'0' + (fraction / 100) as u8,
                b'0' + (fraction / 10 % 10) as u8,
                b'0' + (fraction % 10) as u8,
            ];
            self.bytes.extend_from_slice(&digits);
        }
        self
    }

    /// Appends a sample value: a string that holds [`format_float`]'s text.
    pub fn value(&mut self, v: f64) -> &mut Self {
        self.bytes.push(b'"');
        put_float(v, &mut self.bytes);
        self.bytes.push(b'"');
        self
    }

    /// Appends `[` the items written by `each`, separated by commas, and `]`.
    pub fn array<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.raw("[");
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                self.raw(",");
            }
            each(self, item);
        }
        self.raw("]")
    }
}

/// A float as Prometheus's API prints it: Go's `'f', -1`, or `'e', -1` below 1e-6 and from 1e21 on.
pub fn format_float(v: f64) -> String {
    let mut out = Vec::with_capacity(24);
    put_float(v, &mut out);
    String::from_utf8(out).expect("digits are ASCII")
}

fn put_float(v: f64, out: &mut Vec<u8>) {
    if v.is_nan() {
        out.extend_from_slice(b"NaN");
        return;
    }
    if v.is_infinite() {
        out.extend_from_slice(if v > 0.0 { b"+Inf" } else { b"-Inf" });
        return;
    }
    // Whole numbers that a float holds exactly are the most common values by far.
    if v.fract() == 0.0 && v.abs() < 9e15 && !(v == 0.0 && v.is_sign_negative()) {
        out.extend_from_slice(itoa::Buffer::new().format(v as i64).as_bytes());
        return;
    }
    if v.is_sign_negative() {
        out.push(b'-');
    }
    if v == 0.0 {
        out.push(b'0');
        return;
    }
    let abs = v.abs();
    if PLAIN.contains(&abs) {
        // Not whole, so there is no `.0` to take away.
        out.extend_from_slice(zmij::Buffer::new().format_finite(abs).as_bytes());
        return;
    }
    let (digits, len, exponent) = shortest(abs);
    let digits = &digits[..len];
    if !(1e-6..1e21).contains(&abs) {
        put_exponent_form(digits, exponent, out);
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
        out.extend_from_slice(digits);
    } else {
        let whole = exponent as usize + 1;
        if len <= whole {
            out.extend_from_slice(digits);
            out.extend(std::iter::repeat_n(b'0', whole - len));
        } else {
            out.extend_from_slice(&digits[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        }
    }
}

/// Numbers whose shortest text has no exponent, here as in Go.
const PLAIN: std::ops::Range<f64> = 1e-4..1e15;

fn put_exponent_form(digits: &[u8], exponent: i32, out: &mut Vec<u8>) {
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    let magnitude = exponent.unsigned_abs();
    if magnitude < 10 {
        out.push(b'0');
    }
    out.extend_from_slice(itoa::Buffer::new().format(magnitude).as_bytes());
}

/// The shortest digits that read back as `v` (no leading or trailing zeros), their number, and the decimal exponent
/// of the first one.
fn shortest(v: f64) -> ([u8; 24], usize, i32) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(v);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().expect("a printed exponent is a number");
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = [0u8; 24];
    let mut len = 0;
    let mut first = None;
    for (i, b) in whole.bytes().chain(fraction.bytes()).enumerate() {
        if b != b'0' && first.is_none() {
            first = Some(i as i32);
        }
        if first.is_some() {
            digits[len] = b;
            len += 1;
        }
    }
    while len > 1 && digits[len - 1] == b'0' {
        len -= 1;
    }
    let first = first.expect("zero was handled by the caller");
    (digits, len, exponent + whole.len() as i32 - 1 - first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floats_as_go_prints_them() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (100_000.0, "100000"),
            (123_456.789, "123456.789"),
            (1e15, "1000000000000000"),
            (1e16, "10000000000000000"),
            (1.2345e20, "123450000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-6, "0.000001"),
            (1e-7, "1e-07"),
            (1.25e-7, "1.25e-07"),
            (0.000_012_5, "0.0000125"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (0.3 - 0.1, "0.19999999999999998"),
            (0.000_1, "0.0001"),
            (0.000_123_4, "0.0001234"),
            (0.000_099_9, "0.0000999"),
            (999_999_999_999_999.9, "999999999999999.9"),
            (1_000_000_000_000_000.1, "1000000000000000.1"),
            (-33.25, "-33.25"),
        ];
        for (v, text) in cases {
            assert_eq!(format_float(v), text);
        }
    }

    #[test]
    fn timestamps_have_no_or_three_decimals() {
        for (ms, text) in
            [(0, "0"), (1500, "1.500"), (-1, "-0.001"), (1_700_000_000_000, "1700000000"), (1010, "1.010")]
        {
            let mut j = JsonBuf::new();
            j.timestamp(ms);
            assert_eq!(String::from_utf8(j.bytes).unwrap(), text);
        }
    }

    proptest! {
        #[test]
        fn floats_read_back(bits in any::<u64>()) {
            let v = f64::from_bits(bits);
            let back: f64 = format_float(v).replace("Inf", "inf").parse().unwrap();
            prop_assert!(back == v || (back.is_nan() && v.is_nan()));
        }

        #[test]
        fn strings_read_back(text in ".{0,40}") {
            let mut j = JsonBuf::new();
            j.string(&text);
            let back: String = serde_json::from_slice(&j.bytes).unwrap();
            prop_assert_eq!(back, text);
        }
    }
}
