//! Tombstones: time ranges of series that are deleted but still lie in the block.
//!
//! ```text
//! magic 0130BA30 ‖ version 1 │ uvarint series ref ‖ varint mint ‖ varint maxt │ … │ CRC of the entries
//! ```
//!
//! Ranges are closed. A block always has the file; without deletions it is 9 bytes long.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use chronolith_model::TimeRange;

use super::sync_dir;
use crate::cursor::{Cursor, put_uvarint, put_varint};
use crate::{Error, Result, crc32c};

/// Name of the file.
pub const TOMBSTONES_FILE: &str = "tombstones";
const MAGIC: u32 = 0x0130_BA30;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// Deleted ranges by series reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstones(BTreeMap<u64, Vec<TimeRange>>);

impl Tombstones {
    /// True when nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of ranges.
    pub fn count(&self) -> u64 {
        self.0.values().map(|r| r.len() as u64).sum()
    }

    /// The deleted ranges of a series, ascending, with gaps between them.
    pub fn of(&self, series: u64) -> &[TimeRange] {
        self.0.get(&series).map_or(&[], Vec::as_slice)
    }

    /// Deletes a range of a series; neighbouring and overlapping ranges become one.
    pub fn add(&mut self, series: u64, range: TimeRange) {
        if range.is_empty() {
            return;
        }
        let ranges = self.0.entry(series).or_default();
        let touches =
            |r: &TimeRange| r.mint <= range.maxt.saturating_add(1) && range.mint <= r.maxt.saturating_add(1);
        let first = ranges.partition_point(|r| r.maxt.saturating_add(1) < range.mint);
        let count = ranges[first..].iter().take_while(|r| touches(r)).count();
        let joined = ranges[first..first + count]
            .iter()
            .fold(range, |a, b| TimeRange { mint: a.mint.min(b.mint), maxt: a.maxt.max(b.maxt) });
        ranges.splice(first..first + count, [joined]);
    }

    /// Reads the bytes of `file` (its name in errors).
    pub fn parse(file: &str, data: &[u8]) -> Result<Self> {
        let mut c = Cursor::new(file, 0, data);
        if c.u32()? != MAGIC {
            return Err(Error::corrupt(file, 0, "not a tombstones file: wrong magic number"));
        }
        let version = c.u8()?;
        if version != VERSION {
            let what = format!("tombstones version {version} is unknown, only 1 is read");
            return Err(Error::Unsupported { file: file.to_owned(), what });
        }
        let entries = c.remaining().checked_sub(4).ok_or_else(|| c.corrupt("no checksum"))?;
        let entries = c.take(entries)?;
        if crc32c(entries) != c.u32()? {
            return Err(Error::corrupt(file, HEADER_BYTES as u64, "tombstones checksum mismatch"));
        }
        let mut out = Tombstones::default();
        let mut c = Cursor::new(file, HEADER_BYTES as u64, entries);
        while c.remaining() > 0 {
            let series = c.uvarint()?;
            let mint = c.varint()?;
            out.add(series, TimeRange::new(mint, c.varint()?));
        }
        Ok(out)
    }

    /// Reads the file of a block; a missing one deletes nothing, since buckets do not keep it.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(TOMBSTONES_FILE);
        match std::fs::read(&path) {
            Ok(data) => Self::parse(&path.display().to_string(), &data),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Tombstones::default()),
            Err(e) => Err(Error::io("read", &path)(e)),
        }
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_be_bytes().to_vec();
        out.push(VERSION);
        for (series, ranges) in &self.0 {
            for range in ranges {
                put_uvarint(&mut out, *series);
                put_varint(&mut out, range.mint);
                put_varint(&mut out, range.maxt);
            }
        }
        let crc = crc32c(&out[HEADER_BYTES..]);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    /// Writes the file of a block: temporary file, sync, rename.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let tmp = dir.join("tombstones.tmp");
        let write = || {
            let mut file = File::create(&tmp)?;
            file.write_all(&self.encode())?;
            file.sync_all()
        };
        write().map_err(Error::io("write", &tmp))?;
        std::fs::rename(&tmp, dir.join(TOMBSTONES_FILE)).map_err(Error::io("rename", &tmp))?;
        sync_dir(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_file_has_nine_bytes() {
        let bytes = Tombstones::default().encode();
        assert_eq!(bytes, [0x01, 0x30, 0xBA, 0x30, 1, 0, 0, 0, 0]);
        assert!(Tombstones::parse("t", &bytes).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn add_joins_and_round_trips(ranges in prop::collection::vec((0i64..60, 0i64..10), 0..12)) {
            let mut t = Tombstones::default();
            for (mint, length) in &ranges {
                t.add(7, TimeRange::new(*mint, mint + length));
            }
            let got = t.of(7);
            prop_assert!(got.windows(2).all(|w| w[0].maxt + 1 < w[1].mint), "{:?}", got);
            for time in 0..80 {
                let want = ranges.iter().any(|(mint, length)| (*mint..=mint + length).contains(&time));
                prop_assert_eq!(got.iter().any(|r| r.contains(time)), want);
            }
            let mut bytes = t.encode();
            prop_assert_eq!(&Tombstones::parse("t", &bytes).unwrap(), &t);
            for i in 0..bytes.len() {
                bytes[i] ^= 0x10;
                prop_assert!(Tombstones::parse("t", &bytes).is_err(), "flip at {}", i);
                bytes[i] ^= 0x10;
            }
        }
    }

    #[test]
    fn ends_of_time() {
        let mut t = Tombstones::default();
        t.add(1, TimeRange::ALL);
        t.add(1, TimeRange::new(0, 1));
        assert_eq!(t.of(1), [TimeRange::ALL]);
        assert_eq!(Tombstones::parse("t", &t.encode()).unwrap(), t);
    }
}
