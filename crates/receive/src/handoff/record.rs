//! One hint as a frame's body.
//!
//! ```text
//! version u8 = 1 ─ when it was written, ms, i64 ─ tenant length u16 ─ tenant ─ batch (peers' protocol) ─ all little endian
//! ```

use bytes::{Buf as _, Bytes};
use chronolith_model::TenantId;
use chronolith_tsdb::wal::{frame_begin, frame_end};

const VERSION: u8 = 1;

/// A share that waits for its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hint {
    pub(super) now_ms: i64,
    pub(super) tenant: TenantId,
    pub(super) batch: Bytes,
}

impl Hint {
    /// The framed record.
    pub(super) fn to_frame(&self) -> Vec<u8> {
        let tenant = self.tenant.as_str().as_bytes();
        let mut out = Vec::with_capacity(32 + tenant.len() + self.batch.len());
        let at = frame_begin(&mut out);
        out.push(VERSION);
        out.extend_from_slice(&self.now_ms.to_le_bytes());
        out.extend_from_slice(&(tenant.len() as u16).to_le_bytes());
        out.extend_from_slice(tenant);
        out.extend_from_slice(&self.batch);
        frame_end(&mut out, at);
        out
    }

    /// Reads a frame's body; `None` for what no version wrote.
    pub(super) fn from_body(mut body: Bytes) -> Option<Self> {
        if body.len() < 11 || body.get_u8() != VERSION {
            return None;
        }
        let now_ms = body.get_i64_le();
        let len = usize::from(body.get_u16_le());
        if body.len() < len {
            return None;
        }
        let tenant = body.split_to(len);
        let tenant = TenantId::new(std::str::from_utf8(&tenant).ok()?).ok()?;
        Some(Hint { now_ms, tenant, batch: body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_survive_and_damage_is_refused() {
        let tenant = TenantId::new("team-a").unwrap();
        let hint = Hint { now_ms: -5, tenant, batch: Bytes::from_static(b"batch") };
        let frame = hint.to_frame();
        let body = Bytes::from(frame).slice(8..);
        assert_eq!(Hint::from_body(body.clone()), Some(hint));
        for cut in 0..17 {
            assert_eq!(Hint::from_body(body.slice(..cut)), None, "{cut}");
        }
        assert_eq!(Hint::from_body(Bytes::from_static(b"\x02aaaaaaaaaaaaaaaaaaaaa")), None);
    }
}
