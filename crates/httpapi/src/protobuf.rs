//! A protobuf writer for replies: bytes appended to one buffer, no messages in between.

/// A growing protobuf message. Fields with their default value are left out, as proto3 has it; the `…_always` forms are
/// for members of a `oneof` and for proto2.
#[derive(Debug, Default)]
pub struct ProtoBuf {
    /// The message so far.
    pub bytes: Vec<u8>,
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;

impl ProtoBuf {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    fn tag(&mut self, field: u32, wire: u64) {
        put_varint(&mut self.bytes, u64::from(field) << 3 | wire);
    }

    /// An `int64`, `int32` or enum field.
    pub fn int64(&mut self, field: u32, v: i64) -> &mut Self {
        if v == 0 { self } else { self.uint64_always(field, v as u64) }
    }

    /// A `uint64` field.
    pub fn uint64_always(&mut self, field: u32, v: u64) -> &mut Self {
        self.tag(field, VARINT);
        put_varint(&mut self.bytes, v);
        self
    }

    /// A `sint64` or `sint32` field.
    pub fn sint64(&mut self, field: u32, v: i64) -> &mut Self {
        if v == 0 { self } else { self.uint64_always(field, zigzag(v)) }
    }

    /// A `double` field.
    pub fn double(&mut self, field: u32, v: f64) -> &mut Self {
        if v.to_bits() == 0 { self } else { self.double_always(field, v) }
    }

    /// A `double` field, also where it is zero.
    pub fn double_always(&mut self, field: u32, v: f64) -> &mut Self {
        self.tag(field, FIXED64);
        self.bytes.extend_from_slice(&v.to_bits().to_le_bytes());
        self
    }

    /// A `string` field.
    pub fn string(&mut self, field: u32, v: &str) -> &mut Self {
        self.bytes_field(field, v.as_bytes())
    }

    /// A `bytes` field, or a message that is encoded already.
    pub fn bytes_field(&mut self, field: u32, v: &[u8]) -> &mut Self {
        self.tag(field, LENGTH);
        put_varint(&mut self.bytes, v.len() as u64);
        self.bytes.extend_from_slice(v);
        self
    }

    /// A packed `repeated double` field.
    pub fn packed_double(&mut self, field: u32, v: &[f64]) -> &mut Self {
        if v.is_empty() {
            return self;
        }
        self.message(field, |m| v.iter().for_each(|v| m.bytes.extend_from_slice(&v.to_bits().to_le_bytes())));
        self
    }

    /// A packed `repeated sint64` field.
    pub fn packed_sint64(&mut self, field: u32, v: &[i64]) -> &mut Self {
        if v.is_empty() {
            return self;
        }
        self.message(field, |m| v.iter().for_each(|v| put_varint(&mut m.bytes, zigzag(*v))));
        self
    }

    /// A message field that `write` fills. The length goes in front of it afterwards, which moves its bytes: meant for
    /// small messages.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.tag(field, LENGTH);
        let start = self.bytes.len();
        write(self);
        let len = self.bytes.len() - start;
        put_varint(&mut self.bytes, len as u64);
        let prefix = self.bytes.len() - start - len;
        self.bytes[start..].rotate_right(prefix);
    }
}

const fn zigzag(v: i64) -> u64 {
    (v << 1 ^ v >> 63) as u64
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_messages() {
        let mut m = ProtoBuf::new();
        m.int64(1, 150).int64(2, 0).sint64(3, -2).double(4, 0.0).string(5, "hi");
        m.message(6, |m| {
            m.int64(1, -1);
        });
        m.packed_sint64(7, &[1, -1]).packed_double(8, &[]);
        let want: &[u8] = &[
            0x08, 0x96, 0x01, 0x18, 0x03, 0x2a, 2, b'h', b'i', 0x32, 11, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xff, 0xff, 0xff, 1, 0x3a, 2, 2, 1,
        ];
        assert_eq!(m.bytes, want);
        let mut long = ProtoBuf::new();
        long.message(1, |m| {
            m.string(1, &"x".repeat(300));
        });
        assert_eq!(long.bytes[..5], [0x0a, 0xaf, 0x02, 0x0a, 0xac]);
        assert_eq!(long.bytes.len(), 306);
    }
}
