//! Values in a directory, bounded in bytes.
//!
//! A log of segment files: values are appended, and when the whole grows too large the oldest segment goes. Where a value lies
//! is kept in memory by the hash of its key (about 50 bytes a value). After a restart the segments are read
//! once, head by head; a record that a crash cut short ends its segment. Nothing is synced: what is damaged fails the
//! reader's checksum, is a miss, and is written anew. A directory belongs to one cache at a time, by a lock on a file in it.
//!
//! ```text
//! record: hash of the key u128 │ length u32 │ value
//! ```

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128;

use crate::{Backend, CacheError};

const LOCK: &str = "lock";
const HEAD_BYTES: u64 = 16 + 4;
/// Segments of the whole: an eighth of what is kept is lost at a time.
const SEGMENTS: u64 = 8;

/// Settings of a [`DiskCache`].
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Where it lies; made if it is not there. Nothing else may lie in it.
    pub directory: PathBuf,
    /// Bytes on disk at the most.
    pub bytes_max: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    segment: u64,
    offset: u64,
    len: u32,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    file: Arc<File>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    places: HashMap<u128, Place>,
    segments: VecDeque<Segment>,
}

/// Values on a local disk.
#[derive(Clone, Debug)]
pub struct DiskCache {
    options: Arc<DiskOptions>,
    state: Arc<Mutex<State>>,
    /// Locked for as long as somebody has the cache.
    _lock: Arc<File>,
}

impl DiskCache {
    /// Opens the directory and finds what an earlier run left. Blocks for as long as reading the heads takes. A directory that another
    /// cache has, of this process or of another one, is refused.
    pub fn open(options: DiskOptions) -> Result<Self, CacheError> {
        std::fs::create_dir_all(&options.directory)?;
        let lock = File::create(options.directory.join(LOCK))?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => {
                CacheError::Settings(format!("{} belongs to another cache", options.directory.display()))
            }
            TryLockError::Error(e) => e.into(),
        })?;
        let mut state = State::default();
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&options.directory)? {
            let name = entry?.file_name();
            numbers.extend(
                name.to_str().and_then(|n| n.strip_prefix("segment-")).and_then(|n| n.parse::<u64>().ok()),
            );
        }
        numbers.sort_unstable();
        for number in numbers {
            let path = segment_path(&options.directory, number);
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let bytes = state.load(number, &file)?;
            file.set_len(bytes)?;
            state.segments.push_back(Segment { number, file: Arc::new(file), bytes });
        }
        let state = Arc::new(Mutex::new(state));
        let cache = DiskCache { options: Arc::new(options), state, _lock: Arc::new(lock) };
        cache.evict(&mut cache.state.lock(), 0);
        Ok(cache)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes()
    }

    fn read(&self, keys: &[String]) -> Vec<Option<Bytes>> {
        let places: Vec<Option<(Place, Arc<File>)>> = {
            let state = self.state.lock();
            let place = |key: &String| {
                let place = *state.places.get(&xxh3_128(key.as_bytes()))?;
                let segment = state.segments.iter().find(|s| s.number == place.segment)?;
                Some((place, segment.file.clone()))
            };
            keys.iter().map(place).collect()
        };
        let value = |place: Option<(Place, Arc<File>)>| {
            let (place, file) = place?;
            let mut value = vec![0; place.len as usize];
            // The file may have been deleted meanwhile: it is still open here.
            file.read_exact_at(&mut value, place.offset).ok()?;
            Some(Bytes::from(value))
        };
        places.into_iter().map(value).collect()
    }

    fn write(&self, items: Vec<(String, Bytes)>) -> Result<(), CacheError> {
        let segment_bytes_max = (self.options.bytes_max / SEGMENTS).max(1);
        let mut state = self.state.lock();
        for (key, value) in items {
            let hash = xxh3_128(key.as_bytes());
            let need = HEAD_BYTES + value.len() as u64;
            if need > segment_bytes_max {
                continue;
            }
            self.evict(&mut state, need);
            if state.segments.back().is_none_or(|s| s.bytes + need > segment_bytes_max) {
                let number = state.segments.back().map_or(0, |s| s.number + 1);
                let path = segment_path(&self.options.directory, number);
                let file =
                    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
                state.segments.push_back(Segment { number, file: Arc::new(file), bytes: 0 });
            }
            let segment = state.segments.back_mut().expect("there is one with room");
            let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
            let mut record = Vec::with_capacity(need as usize);
            record.extend_from_slice(&hash.to_be_bytes());
            record.extend_from_slice(&len.to_be_bytes());
            record.extend_from_slice(&value);
            let mut file = &*segment.file;
            file.seek(SeekFrom::Start(segment.bytes))?;
            file.write_all(&record)?;
            let place = Place { segment: segment.number, offset: segment.bytes + HEAD_BYTES, len };
            segment.bytes += need;
            state.places.insert(hash, place);
        }
        Ok(())
    }

    /// Drops the oldest segments until `need` more bytes fit.
    fn evict(&self, state: &mut State, need: u64) {
        while state.bytes() + need > self.options.bytes_max {
            let Some(oldest) = state.segments.pop_front() else { return };
            state.places.retain(|_, place| place.segment != oldest.number);
            // Best effort: a file that stays is found, and dropped again, at the next start.
            let _ = std::fs::remove_file(segment_path(&self.options.directory, oldest.number));
        }
    }
}

impl State {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// Takes over a segment's records and tells where the last whole one ends.
    fn load(&mut self, number: u64, file: &File) -> Result<u64, CacheError> {
        let size = file.metadata()?.len();
        let mut input = BufReader::with_capacity(64 << 10, file);
        let mut at = 0;
        let mut head = [0; HEAD_BYTES as usize];
        while at + HEAD_BYTES <= size {
            input.read_exact(&mut head)?;
            // A hole, which nothing was written into.
            if head == [0; HEAD_BYTES as usize] {
                break;
            }
            let (hash, len) = head.split_at(16);
            let len = u32::from_be_bytes(len.try_into().expect("four bytes"));
            let end = at + HEAD_BYTES + u64::from(len);
            if end > size {
                break;
            }
            let hash = u128::from_be_bytes(hash.try_into().expect("sixteen bytes"));
            self.places.insert(hash, Place { segment: number, offset: at + HEAD_BYTES, len });
            input.seek_relative(i64::from(len))?;
            at = end;
        }
        Ok(at)
    }
}

fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("segment-{number:010}"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CacheError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| CacheError::Protocol(e.to_string()))
}

#[async_trait]
impl Backend for DiskCache {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let (cache, keys) = (self.clone(), keys.to_vec());
        blocking(move || cache.read(&keys)).await
    }

    async fn put(&self, items: Vec<(String, Bytes)>) -> Result<(), CacheError> {
        let cache = self.clone();
        blocking(move || cache.write(items)).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, bytes_max: u64) -> DiskCache {
        DiskCache::open(DiskOptions { directory: dir.to_owned(), bytes_max }).unwrap()
    }

    fn put(cache: &DiskCache, from: usize, to: usize) {
        let items = (from..to).map(|i| (format!("k{i}"), Bytes::from(vec![i as u8; 100])));
        cache.write(items.collect()).unwrap();
    }

    fn there(cache: &DiskCache, count: usize) -> Vec<usize> {
        let keys: Vec<String> = (0..count).map(|i| format!("k{i}")).collect();
        let values = cache.read(&keys);
        for (i, value) in values.iter().enumerate() {
            assert!(value.as_ref().is_none_or(|v| v[..] == [i as u8; 100]));
        }
        (0..count).filter(|i| values[*i].is_some()).collect()
    }

    #[test]
    fn the_oldest_go_and_the_bound_holds_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let bytes_max = 8 * 1200;
        {
            let cache = open(dir.path(), bytes_max);
            put(&cache, 0, 50);
            assert_eq!(there(&cache, 60), (0..50).collect::<Vec<_>>());
            put(&cache, 50, 200);
            assert!(cache.bytes() <= bytes_max);
            let left = there(&cache, 200);
            assert!(left.len() >= 65 && left.last() == Some(&199) && left[0] >= 200 - 80, "{left:?}");
        }
        let cache = open(dir.path(), bytes_max);
        assert!(there(&cache, 200).len() >= 65);
        put(&cache, 200, 210);
        assert!(there(&cache, 210).ends_with(&[208, 209]));
        let options = DiskOptions { directory: dir.path().to_owned(), bytes_max };
        let refused = DiskCache::open(options).unwrap_err().to_string();
        assert!(refused.ends_with("belongs to another cache"), "{refused}");
        drop(cache);
        let smaller = open(dir.path(), bytes_max / 4);
        assert!(smaller.bytes() <= bytes_max / 4 && !there(&smaller, 210).is_empty());
        let on_disk: u64 =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert_eq!(on_disk, smaller.bytes());
    }

    #[test]
    fn a_record_cut_short_ends_its_segment() {
        let dir = tempfile::tempdir().unwrap();
        put(&open(dir.path(), 1 << 20), 0, 3);
        // What was damaged is written anew, and the new one counts.
        {
            let cache = open(dir.path(), 1 << 20);
            cache.write(vec![("k2".to_owned(), Bytes::from(vec![9; 100]))]).unwrap();
            put(&cache, 2, 3);
            assert_eq!(there(&cache, 3), [0, 1, 2]);
        }
        assert_eq!(there(&open(dir.path(), 1 << 20), 3), [0, 1, 2]);
        let path = segment_path(dir.path(), 0);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(2 * 120 + 50).unwrap();
        let cache = open(dir.path(), 1 << 20);
        assert_eq!(there(&cache, 3), [0, 1]);
        put(&cache, 2, 4);
        drop(cache);
        assert_eq!(there(&open(dir.path(), 1 << 20), 4), [0, 1, 2, 3]);
        // A hole ends its segment, too, at once however large it is.
        OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 34).unwrap();
        assert_eq!(there(&open(dir.path(), 1 << 20), 4), [0, 1, 2, 3]);
    }

    #[test]
    fn values_larger_than_a_segment_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 800);
        cache.write(vec![("large".to_owned(), vec![1; 101].into())]).unwrap();
        assert_eq!(cache.bytes(), 0);
        assert_eq!(cache.read(&["large".to_owned()]), [None]);
    }
}
