//! Queries that are running, in a file that survives a crash: who wants to know what killed the process finds the
//! queries that were in flight in the log of its next start.
//!
//! The file is Prometheus's `queries.active`. It is as long as it ever gets from the start, so that a full disk cannot
//! fail a query; a query writes its entry into the page cache, which outlives the process.
//!
//! ```text
//! [ {"query":"up","timestamp_sec":1700000000} \0 … \0 ,  …
//! ^ entry of 1000 bytes, the last one a comma            one for each query that may run at once
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use chronolith_httpapi::JsonBuf;
use parking_lot::Mutex;

/// Upstream's size of an entry.
const ENTRY_BYTES: usize = 1000;
/// Upstream's name of the file.
const FILE_NAME: &str = "queries.active";

/// The file.
#[derive(Debug)]
pub(crate) struct ActiveQueries {
    file: File,
    free: Mutex<Vec<usize>>,
}

impl ActiveQueries {
    /// Opens the file in `directory`, for so many queries at once. What the file of the last run holds comes back as
    /// JSON: queries that were in flight when that process died.
    pub(crate) fn open(directory: &Path, queries_max: usize) -> io::Result<(Arc<Self>, Option<String>)> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(FILE_NAME);
        let unfinished = match std::fs::read(&path) {
            Ok(bytes) => unfinished(&bytes),
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => return Err(err),
        };
        let file = File::options().create(true).truncate(true).write(true).read(true).open(&path)?;
        let mut zeroes = vec![0; 1 + queries_max * ENTRY_BYTES];
        zeroes[0] = b'[';
        file.write_all_at(&zeroes, 0)?;
        file.sync_all()?;
        let free = (0..queries_max).rev().map(|i| 1 + i * ENTRY_BYTES).collect();
        Ok((Arc::new(ActiveQueries { file, free: Mutex::new(free) }), unfinished))
    }

    /// Enters a query until the entry is dropped.
    pub(crate) fn enter(self: &Arc<Self>, query: &str, now_s: i64) -> Option<ActiveEntry> {
        let at = self.free.lock().pop()?;
        let mut bytes = entry(query, now_s);
        bytes.resize(ENTRY_BYTES, 0);
        bytes[ENTRY_BYTES - 1] = b',';
        self.write(at, &bytes);
        Some(ActiveEntry { queries: Arc::clone(self), at })
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        // A disk that fails must not fail the query.
        if let Err(err) = self.file.write_all_at(bytes, at as u64) {
            tracing::warn!(err = %err, file = FILE_NAME, "the list of active queries could not be written");
        }
    }
}

/// A query's entry.
#[derive(Debug)]
pub(crate) struct ActiveEntry {
    queries: Arc<ActiveQueries>,
    at: usize,
}

impl Drop for ActiveEntry {
    fn drop(&mut self) {
        self.queries.write(self.at, &[0; ENTRY_BYTES]);
        self.queries.free.lock().push(self.at);
    }
}

/// An entry that leaves room for the comma; a query that is too long is cut.
fn entry(query: &str, now_s: i64) -> Vec<u8> {
    let mut shown = query;
    loop {
        let mut j = JsonBuf::new();
        j.raw(r#"{"query":"#).string(shown).raw(r#","timestamp_sec":"#).int(now_s).raw("}");
        let over = j.bytes.len().saturating_sub(ENTRY_BYTES - 1);
        if over == 0 {
            return j.bytes;
        }
        // What is escaped is longer than what is cut, so this ends, if not at once.
        let mut end = shown.len().saturating_sub(over.div_ceil(6).max(1)).min(ENTRY_BYTES);
        while !shown.is_char_boundary(end) {
            end -= 1;
        }
        shown = &shown[..end];
    }
}

/// The entries of a file that a process left behind, as a JSON list.
fn unfinished(file: &[u8]) -> Option<String> {
    let mut text: Vec<u8> = file.iter().copied().filter(|b| *b != 0).collect();
    (text.pop()? == b',').then_some(())?;
    text.push(b']');
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_flight_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let (active, before) = ActiveQueries::open(dir.path(), 3).unwrap();
        assert_eq!(before, None);
        assert_eq!(ActiveQueries::open(dir.path(), 3).unwrap().1, None, "nothing was in flight");
        let (active, _) = (ActiveQueries::open(dir.path(), 3).unwrap().0, active);
        let long = "\"€\n".repeat(1000);
        let first = active.enter("up", 1).unwrap();
        let second = active.enter(&long, 2).unwrap();
        let third = active.enter("sum(x)", 3).unwrap();
        assert!(active.enter("one too many", 4).is_none());
        drop(first);
        let (_, unfinished) = ActiveQueries::open(dir.path(), 3).unwrap();
        let list: serde_json::Value = serde_json::from_str(&unfinished.unwrap()).unwrap();
        let cut = list[0]["query"].as_str().unwrap();
        assert!(long.starts_with(cut) && cut.len() > 500, "{cut}");
        assert_eq!(list[1], serde_json::json!({ "query": "sum(x)", "timestamp_sec": 3 }));
        drop((second, third));
        assert!(active.enter("again", 5).is_some());
    }

    #[test]
    fn a_damaged_file_is_no_reason_not_to_start() {
        let dir = tempfile::tempdir().unwrap();
        for damaged in [&b""[..], b"[", b"nonsense", b"\0\0\0", b"[{\"query\":\"\xff\"},"] {
            std::fs::write(dir.path().join(FILE_NAME), damaged).unwrap();
            let (_, unfinished) = ActiveQueries::open(dir.path(), 2).unwrap();
            assert_eq!(unfinished.is_some(), damaged.ends_with(b","), "{damaged:?}");
        }
    }
}
