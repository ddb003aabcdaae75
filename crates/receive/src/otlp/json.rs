//! OTLP/JSON as the protobuf that it stands for, so that there is one translation.
//!
//! The messages are tables of fields. Names are taken in camel case and as protobuf has them; 64-bit numbers as numbers or
//! text, ids in hexadecimal digits, other bytes in base64, enumerations as numbers or names, numbers that JSON does not
//! have as `"NaN"`, `"Infinity"`, `"-Infinity"`. Unknown fields and nulls are skipped.

use serde_json::{Map, Value};

/// How a field's value is written.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Hex,
    Base64,
    /// `fixed64`, `sfixed64`.
    Fixed,
    Double,
    Varint,
    ZigZag,
    Temporality,
    Message(&'static [Field]),
}

/// A field: names, number, kind, whether there may be several.
struct Field {
    camel: &'static str,
    snake: &'static str,
    number: u8,
    kind: Kind,
    many: bool,
}

const fn one(camel: &'static str, snake: &'static str, number: u8, kind: Kind) -> Field {
    Field { camel, snake, number, kind, many: false }
}

const fn many(camel: &'static str, snake: &'static str, number: u8, kind: Kind) -> Field {
    Field { camel, snake, number, kind, many: true }
}

use Kind::{Base64, Double, Fixed, Hex, Message, Temporality, Text, Varint, ZigZag};

static REQUEST: [Field; 1] = [many("resourceMetrics", "resource_metrics", 1, Message(&RESOURCE_METRICS))];
static RESOURCE_METRICS: [Field; 2] = [
    one("resource", "resource", 1, Message(&RESOURCE)),
    many("scopeMetrics", "scope_metrics", 2, Message(&SCOPE_METRICS)),
];
static RESOURCE: [Field; 1] = [many("attributes", "attributes", 1, Message(&KEY_VALUE))];
static SCOPE_METRICS: [Field; 3] = [
    one("scope", "scope", 1, Message(&SCOPE)),
    many("metrics", "metrics", 2, Message(&METRIC)),
    one("schemaUrl", "schema_url", 3, Text),
];
static SCOPE: [Field; 3] = [
    one("name", "name", 1, Text),
    one("version", "version", 2, Text),
    many("attributes", "attributes", 3, Message(&KEY_VALUE)),
];
static KEY_VALUE: [Field; 2] = [one("key", "key", 1, Text), one("value", "value", 2, Message(&ANY))];
static ANY: [Field; 7] = [
    one("stringValue", "string_value", 1, Text),
    one("boolValue", "bool_value", 2, Varint),
    one("intValue", "int_value", 3, Varint),
    one("doubleValue", "double_value", 4, Double),
    one("arrayValue", "array_value", 5, Message(&ARRAY)),
    one("kvlistValue", "kvlist_value", 6, Message(&PAIRS)),
    one("bytesValue", "bytes_value", 7, Base64),
];
static ARRAY: [Field; 1] = [many("values", "values", 1, Message(&ANY))];
static PAIRS: [Field; 1] = [many("values", "values", 1, Message(&KEY_VALUE))];
static METRIC: [Field; 8] = [
    one("name", "name", 1, Text),
    one("description", "description", 2, Text),
    one("unit", "unit", 3, Text),
    one("gauge", "gauge", 5, Message(&GAUGE)),
    one("sum", "sum", 7, Message(&SUM)),
    one("histogram", "histogram", 9, Message(&HISTOGRAM)),
    one("exponentialHistogram", "exponential_histogram", 10, Message(&EXPONENTIAL)),
    one("summary", "summary", 11, Message(&SUMMARY)),
];
static GAUGE: [Field; 1] = [many("dataPoints", "data_points", 1, Message(&NUMBER))];
static SUM: [Field; 3] = [
    many("dataPoints", "data_points", 1, Message(&NUMBER)),
    one("aggregationTemporality", "aggregation_temporality", 2, Temporality),
    one("isMonotonic", "is_monotonic", 3, Varint),
];
static HISTOGRAM: [Field; 2] = [
    many("dataPoints", "data_points", 1, Message(&HISTOGRAM_POINT)),
    one("aggregationTemporality", "aggregation_temporality", 2, Temporality),
];
static EXPONENTIAL: [Field; 2] = [
    many("dataPoints", "data_points", 1, Message(&EXPONENTIAL_POINT)),
    one("aggregationTemporality", "aggregation_temporality", 2, Temporality),
];
static SUMMARY: [Field; 1] = [many("dataPoints", "data_points", 1, Message(&SUMMARY_POINT))];
const START: Field = one("startTimeUnixNano", "start_time_unix_nano", 2, Fixed);
const TIME: Field = one("timeUnixNano", "time_unix_nano", 3, Fixed);
const POINT_COUNT: Field = one("count", "count", 4, Fixed);
const POINT_SUM: Field = one("sum", "sum", 5, Double);
const fn attributes(number: u8) -> Field {
    many("attributes", "attributes", number, Message(&KEY_VALUE))
}
const fn exemplars(number: u8) -> Field {
    many("exemplars", "exemplars", number, Message(&EXEMPLAR))
}
const fn flags(number: u8) -> Field {
    one("flags", "flags", number, Varint)
}
static NUMBER: [Field; 7] = [
    START,
    TIME,
    one("asDouble", "as_double", 4, Double),
    exemplars(5),
    one("asInt", "as_int", 6, Fixed),
    attributes(7),
    flags(8),
];
static HISTOGRAM_POINT: [Field; 9] = [
    START,
    TIME,
    POINT_COUNT,
    POINT_SUM,
    many("bucketCounts", "bucket_counts", 6, Fixed),
    many("explicitBounds", "explicit_bounds", 7, Double),
    exemplars(8),
    attributes(9),
    flags(10),
];
static EXPONENTIAL_POINT: [Field; 11] = [
    attributes(1),
    START,
    TIME,
    POINT_COUNT,
    POINT_SUM,
    one("scale", "scale", 6, ZigZag),
    one("zeroCount", "zero_count", 7, Fixed),
    one("positive", "positive", 8, Message(&BUCKETS)),
    one("negative", "negative", 9, Message(&BUCKETS)),
    flags(10),
    exemplars(11),
];
static BUCKETS: [Field; 2] =
    [one("offset", "offset", 1, ZigZag), many("bucketCounts", "bucket_counts", 2, Varint)];
static SUMMARY_POINT: [Field; 7] = [
    START,
    TIME,
    POINT_COUNT,
    POINT_SUM,
    many("quantileValues", "quantile_values", 6, Message(&QUANTILE)),
    attributes(7),
    flags(8),
];
static QUANTILE: [Field; 2] = [one("quantile", "quantile", 1, Double), one("value", "value", 2, Double)];
static EXEMPLAR: [Field; 6] = [
    one("timeUnixNano", "time_unix_nano", 2, Fixed),
    one("asDouble", "as_double", 3, Double),
    one("spanId", "span_id", 4, Hex),
    one("traceId", "trace_id", 5, Hex),
    one("asInt", "as_int", 6, Fixed),
    many("filteredAttributes", "filtered_attributes", 7, Message(&KEY_VALUE)),
];

/// A request in JSON as protobuf.
///
/// # Errors
/// What is wrong, and in which field.
pub fn to_protobuf(json: &[u8]) -> Result<Vec<u8>, String> {
    let value: Value = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let Value::Object(object) = value else { return Err("want an object".to_owned()) };
    let mut out = Vec::with_capacity(json.len() / 2);
    put_message(&object, &REQUEST, &mut out)?;
    Ok(out)
}

fn put_message(
    object: &Map<String, Value>,
    fields: &'static [Field],
    out: &mut Vec<u8>,
) -> Result<(), String> {
    for field in fields {
        let Some(value) = object.get(field.camel).or_else(|| object.get(field.snake)) else { continue };
        match value {
            Value::Null => {}
            Value::Array(values) if field.many => {
                values.iter().try_for_each(|value| put_field(value, field, out))?;
            }
            value if !field.many => put_field(value, field, out)?,
            _ => return Err(format!("{}: want a list", field.camel)),
        }
    }
    Ok(())
}

fn put_field(value: &Value, field: &Field, out: &mut Vec<u8>) -> Result<(), String> {
    let bad = |want: &str| format!("{}: want {want}", field.camel);
    let key = |wire_type: u8| field.number << 3 | wire_type;
    match field.kind {
        Text => {
            let text = value.as_str().ok_or_else(|| bad("a text"))?;
            out.push(key(2));
            put_bytes(text.as_bytes(), out);
        }
        Hex | Base64 => {
            let text = value.as_str().ok_or_else(|| bad("a text"))?;
            let (bytes, what) = match field.kind {
                Hex => (from_hex(text), "hexadecimal digits"),
                _ => (from_base64(text), "base64"),
            };
            out.push(key(2));
            put_bytes(&bytes.ok_or_else(|| bad(what))?, out);
        }
        Fixed => {
            let number = integer(value).ok_or_else(|| bad("an integer"))?;
            out.push(key(1));
            out.extend_from_slice(&number.to_le_bytes());
        }
        Double => {
            let number = double(value).ok_or_else(|| bad("a number"))?;
            out.push(key(1));
            out.extend_from_slice(&number.to_le_bytes());
        }
        Varint => {
            let number = match value {
                Value::Bool(v) => Some(u64::from(*v)),
                value => integer(value),
            };
            out.push(key(0));
            put_varint(number.ok_or_else(|| bad("an integer"))?, out);
        }
        ZigZag => {
            let number = integer(value).ok_or_else(|| bad("an integer"))? as i64;
            let number = i32::try_from(number).map_err(|_| bad("a 32-bit integer"))?;
            out.push(key(0));
            put_varint(u64::from(((number << 1) ^ (number >> 31)) as u32), out);
        }
        Temporality => {
            let number = match value.as_str() {
                Some("AGGREGATION_TEMPORALITY_UNSPECIFIED") => Some(0),
                Some("AGGREGATION_TEMPORALITY_DELTA") => Some(1),
                Some("AGGREGATION_TEMPORALITY_CUMULATIVE") => Some(2),
                _ => integer(value),
            };
            out.push(key(0));
            put_varint(number.ok_or_else(|| bad("an aggregation temporality"))?, out);
        }
        Message(fields) => {
            let object = value.as_object().ok_or_else(|| bad("an object"))?;
            let mut content = Vec::new();
            put_message(object, fields, &mut content)?;
            out.push(key(2));
            put_bytes(&content, out);
        }
    }
    Ok(())
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// The bits of an integer, signed or not, as a number or as text.
fn integer(value: &Value) -> Option<u64> {
    match value {
        Value::Number(n) => n.as_u64().or_else(|| n.as_i64().map(|v| v as u64)),
        Value::String(text) => text.parse().ok().or_else(|| text.parse::<i64>().ok().map(|v| v as u64)),
        _ => None,
    }
}

fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text.parse().ok(),
        },
        _ => None,
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|d| d.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits) = (0u32, 0);
    for b in text.trim_end_matches('=').bytes() {
        let digit = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        word = word << 6 | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_protobuf_it_stands_for() {
        let json = br#"{"resourceMetrics":[{"scope_metrics":[{"metrics":[{"name":"m","sum":{"aggregationTemporality":
            "AGGREGATION_TEMPORALITY_CUMULATIVE","isMonotonic":true,"unknown":[1],"dataPoints":[{"timeUnixNano":"1",
            "asInt":"-1","exemplars":[{"traceId":"0aFF"}],"attributes":null}]}}]}]}]}"#;
        let point = [
            &[0x19, 1, 0, 0, 0, 0, 0, 0, 0][..],
            &[0x2A, 4, 0x2A, 2, 0x0A, 0xFF],
            &[0x31, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        ]
        .concat();
        let wrap = |tag: u8, content: &[u8]| [&[tag, content.len() as u8][..], content].concat();
        let sum = [wrap(0x0A, &point), vec![0x10, 2, 0x18, 1]].concat();
        let metric = [wrap(0x0A, b"m"), wrap(0x3A, &sum)].concat();
        assert_eq!(to_protobuf(json).unwrap(), wrap(0x0A, &wrap(0x12, &wrap(0x12, &metric))));
    }

    #[test]
    fn bad_json_is_named() {
        for (json, want) in [
            ("[]", "want an object"),
            ("{", "EOF"),
            (r#"{"resourceMetrics":{}}"#, "resourceMetrics: want a list"),
            (r#"{"resourceMetrics":[1]}"#, "resourceMetrics: want an object"),
            (r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":1}]}}]}"#, "key: want a text"),
            (&"[".repeat(100_000), "recursion limit"),
        ] {
            let error = to_protobuf(json.as_bytes()).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn base64_in_both_alphabets() {
        assert_eq!(from_base64("YWJj").unwrap(), b"abc");
        assert_eq!(from_base64("-_8=").unwrap(), [0xFB, 0xFF]);
        assert_eq!(from_base64("!"), None);
        assert_eq!(from_hex("0"), None);
    }
}
