//! A log whose disk forgets, fails, is full, or has been damaged: nothing acknowledged is lost, nothing made up.

use std::io::{self, Read};

use parking_lot::Mutex;

use super::*;
use crate::wal::SegmentWriter;

/// Segments in memory, of which only what was synced survives [`ForgetfulStore::crash`].
#[derive(Clone, Default)]
struct ForgetfulStore(Arc<Mutex<BTreeMap<u64, Disk>>>, Arc<Mutex<Faults>>);

#[derive(Default, Clone)]
struct Disk {
    written: Vec<u8>,
    synced: usize,
}

#[derive(Default)]
struct Faults {
    /// Syncs that still work; `None` is all.
    syncs_left: Option<usize>,
    /// Bytes that still fit; `None` is no bound.
    room: Option<usize>,
}

struct ForgetfulWriter(ForgetfulStore, u64);

impl ForgetfulStore {
    /// What is on the disk after a loss of power, with `extra` of the unsynced bytes by luck.
    fn crash(&self, extra: usize) -> ForgetfulStore {
        let mut disks = self.0.lock().clone();
        for disk in disks.values_mut() {
            let keep = disk.written.len().min(disk.synced + extra);
            disk.written.truncate(keep);
            disk.synced = disk.written.len();
        }
        ForgetfulStore(Arc::new(Mutex::new(disks)), Arc::default())
    }

    fn bytes(&self) -> usize {
        self.0.lock().values().map(|d| d.written.len()).sum()
    }
}

impl SegmentStore for ForgetfulStore {
    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.0.lock().keys().copied().collect())
    }
    fn create(&self, id: u64) -> io::Result<Box<dyn SegmentWriter>> {
        assert!(self.0.lock().insert(id, Disk::default()).is_none());
        Ok(Box::new(ForgetfulWriter(self.clone(), id)))
    }
    fn open(&self, id: u64) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.0.lock().get(&id).ok_or(io::ErrorKind::NotFound)?.written.clone();
        Ok(Box::new(io::Cursor::new(bytes)))
    }
    fn truncate(&self, id: u64, len: u64) -> io::Result<()> {
        let mut disks = self.0.lock();
        let disk = disks.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        disk.written.truncate(len as usize);
        disk.synced = disk.written.len();
        Ok(())
    }
    fn remove(&self, id: u64) -> io::Result<()> {
        self.0.lock().remove(&id);
        Ok(())
    }
}

impl SegmentWriter for ForgetfulWriter {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fits = match &mut self.0.1.lock().room {
            None => bytes.len(),
            Some(room) => {
                let fits = bytes.len().min(*room);
                *room -= fits;
                fits
            }
        };
        // As write_all does it: what fits is there.
        let mut disks = self.0.0.lock();
        disks.get_mut(&self.1).expect("created").written.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn sync(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.0.1.lock().syncs_left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the disk is gone"))?;
        }
        let mut disks = self.0.0.lock();
        let disk = disks.get_mut(&self.1).expect("created");
        disk.synced = disk.written.len();
        Ok(())
    }
}

#[test]
fn nothing_acknowledged_is_lost_with_the_unsynced_bytes() {
    let store = ForgetfulStore::default();
    let dir = tempfile::tempdir().unwrap();
    let small = DbOptions { wal_segment_bytes_max: 2000, ..options(dir.path()) };
    let (db, _) = Db::open_with(small, Arc::new(store.clone())).unwrap();
    let acknowledged = Mutex::new(Model::new());
    let mut crashes = Vec::new();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (db, acknowledged) = (&db, &acknowledged);
            scope.spawn(move || {
                for i in 0..100i64 {
                    let name = format!("m{writer}_{}", i % 7);
                    let outcome = write_one(db, &name, &[(i, i as f64)]);
                    assert_eq!(outcome.rejected_count, 0);
                    outcome.commit.wait().unwrap();
                    acknowledged.lock().entry(name).or_default().insert(i, i as f64);
                }
            });
        }
        for extra in 0..40 {
            // What was acknowledged before the crash must be in what the crash leaves.
            let before = acknowledged.lock().clone();
            crashes.push((before, store.crash(extra * 3)));
            std::thread::yield_now();
        }
    });
    crashes.push((acknowledged.lock().clone(), store.crash(0)));
    for (before, disk) in crashes {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(db.options().dir.join("key"), dir.path().join("key")).unwrap();
        let (db, report) = Db::open_with(options(dir.path()), Arc::new(disk)).unwrap();
        assert_eq!(report.samples_without_series, 0);
        let after = read_head(&db);
        for (name, samples) in before {
            for (t, v) in samples {
                assert_eq!(after.get(&name).and_then(|s| s.get(&t)), Some(&v), "{name} at {t}");
            }
        }
    }
}

#[test]
fn a_failed_sync_ends_all_acknowledgements() {
    let store = ForgetfulStore::default();
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open_with(options(dir.path()), Arc::new(store.clone())).unwrap();
    write_one(&db, "a", &[(1, 1.0)]).commit.wait().unwrap();
    store.1.lock().syncs_left = Some(0);
    assert!(matches!(write_one(&db, "a", &[(2, 1.0)]).commit.wait(), Err(WalError::Failed { .. })));
    store.1.lock().syncs_left = None;
    // The disk works again, but nobody knows what it has lost.
    let (sender, receiver) = std::sync::mpsc::channel();
    write_one(&db, "a", &[(3, 1.0)]).commit.notify(move |r| sender.send(r).unwrap());
    assert!(receiver.recv().unwrap().is_err());
    assert!(db.close().is_err());
    drop(db);
    let (db, _) = Db::open_with(options(dir.path()), Arc::new(store.crash(0))).unwrap();
    assert_eq!(read_head(&db)["a"].get(&1), Some(&1.0));
    write_one(&db, "a", &[(3, 1.0)]).commit.wait().unwrap();
}

#[test]
fn a_full_disk_stalls_the_log_until_there_is_room() {
    for room in (0..400).step_by(9) {
        let store = ForgetfulStore::default();
        let dir = tempfile::tempdir().unwrap();
        let small = DbOptions { wal_segment_bytes_max: 300, ..options(dir.path()) };
        let (db, _) = Db::open_with(small, Arc::new(store.clone())).unwrap();
        let mut acknowledged = Model::new();
        let mut t = 0;
        let mut write_next = |acknowledged: &mut Model| {
            t += 1;
            let name = format!("m{}", t % 5);
            let result = write_one(&db, &name, &[(t, t as f64)]).commit.wait();
            if result.is_ok() {
                acknowledged.entry(name).or_default().insert(t, t as f64);
            }
            result
        };
        write_next(&mut acknowledged).unwrap();
        store.1.lock().room = Some(room);
        let refused = loop {
            match write_next(&mut acknowledged) {
                Ok(()) => {}
                Err(e) => break e,
            }
        };
        assert!(matches!(refused, WalError::Stalled { .. }), "{refused}");
        assert!(db.is_stalled());
        // Refused before it reaches memory, from now on; and so are cuts and snapshots.
        let held = read_head(&db);
        assert!(write_next(&mut acknowledged).is_err());
        assert_eq!(read_head(&db), held);
        assert!(db.snapshot().is_err());
        // The loss of power now leaves what was acknowledged.
        let crashed = |acknowledged: &Model| {
            let dir = tempfile::tempdir().unwrap();
            fs::copy(db.options().dir.join("key"), dir.path().join("key")).unwrap();
            let (db, report) = Db::open_with(options(dir.path()), Arc::new(store.crash(0))).unwrap();
            assert_eq!(report.samples_without_series, 0);
            let after = read_head(&db);
            for (name, samples) in acknowledged {
                assert!(samples.iter().all(|(t, v)| after[name].get(t) == Some(v)), "{name}, {room}");
            }
            after
        };
        crashed(&acknowledged);
        store.1.lock().room = None;
        while db.is_stalled() {
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
        for _ in 0..10 {
            write_next(&mut acknowledged).unwrap();
        }
        // The log now has all that memory has, what was told to come back included.
        assert_eq!(crashed(&acknowledged), read_head(&db));
    }
}

/// A log of a few records with what the head holds after each, by the log's length in bytes.
fn small_log() -> (ForgetfulStore, Vec<u8>, Vec<(usize, Model)>) {
    let store = ForgetfulStore::default();
    let dir = tempfile::tempdir().unwrap();
    let with_window = DbOptions { out_of_order_window_ms: 1000, ..options(dir.path()) };
    let (db, _) = Db::open_with(with_window, Arc::new(store.clone())).unwrap();
    let key = fs::read(dir.path().join("key")).unwrap();
    let mut states = vec![(0, Model::new())];
    for i in 0..12i64 {
        let names = [format!("a{}", i % 3), format!("b{}", i % 5)];
        let rows: Vec<_> = names.iter().map(|n| (named(n), vec![(i * 10, i as f64 * 0.1)])).collect();
        write(&db, &rows).commit.wait().unwrap();
        states.push((store.bytes(), read_head(&db)));
        if i % 4 == 3 {
            write_one(&db, "a0", &[(i * 10 - 15, 7.0)]).commit.wait().unwrap();
            states.push((store.bytes(), read_head(&db)));
        }
    }
    drop(db);
    (store.crash(0), key, states)
}

fn reopen(key: &[u8], disk: ForgetfulStore) -> (Model, ReplayReport) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("key"), key).unwrap();
    let options = DbOptions { replay_threads: 2, wal_sync: WalSync::Off, ..options(dir.path()) };
    let (db, report) = Db::open_with(options, Arc::new(disk)).unwrap();
    // It starts, and takes writes.
    assert_eq!(write_one(&db, "zzz", &[(1_000_000, 1.0)]).rejected_count, 0);
    let mut model = read_head(&db);
    model.remove("zzz");
    (model, report)
}

/// True when the model holds all of `less`.
fn includes(model: &Model, less: &Model) -> bool {
    less.iter().all(|(name, samples)| {
        model.get(name).is_some_and(|have| samples.iter().all(|(t, v)| have.get(t) == Some(v)))
    })
}

#[test]
fn a_log_cut_at_any_byte_keeps_what_lies_before() {
    let (store, key, states) = small_log();
    let disks = store.0.lock().clone();
    let (id, whole) = disks.iter().next().map(|(id, d)| (*id, d.written.clone())).unwrap();
    for cut in 0..=whole.len() {
        let disk = ForgetfulStore::default();
        let part = Disk { written: whole[..cut].to_vec(), synced: cut };
        disk.0.lock().insert(id, part);
        let (model, report) = reopen(&key, disk);
        let before = states.iter().rev().find(|(len, _)| *len <= cut).map(|(_, m)| m).unwrap();
        let next = states.iter().find(|(len, _)| *len > cut).map_or(before, |(_, m)| m);
        assert!(includes(&model, before) && includes(next, &model), "cut at {cut}");
        assert!(report.dropped.len() <= 1, "{report:?}");
    }
}

#[test]
fn a_log_flipped_at_any_byte_keeps_what_lies_before() {
    let (store, key, states) = small_log();
    let disks = store.0.lock().clone();
    let (id, whole) = disks.iter().next().map(|(id, d)| (*id, d.written.clone())).unwrap();
    let last = &states.last().unwrap().1;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let disk = ForgetfulStore::default();
        disk.0.lock().insert(id, Disk { synced: bytes.len(), written: bytes });
        let (model, report) = reopen(&key, disk);
        let before = states.iter().rev().find(|(len, _)| *len <= at).map(|(_, m)| m).unwrap();
        assert!(includes(&model, before) && includes(last, &model), "flip at {at}");
        assert_eq!(report.dropped.len(), 1, "flip at {at}: {report:?}");
        assert!(report.dropped[0].offset <= at as u64);
    }
}
