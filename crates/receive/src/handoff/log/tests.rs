use chronolith_model::TenantId;
use chronolith_tsdb::wal::SegmentWriter;

use super::super::record::Hint;
use super::names::name_of;
use super::writer::Writers;
use super::*;

fn frame(i: i64) -> Vec<u8> {
    Hint { now_ms: i, tenant: TenantId::default(), batch: Bytes::from(vec![7; 100]) }.to_frame()
}

fn all(log: &HintLog, peer: &str, id: u64) -> Vec<i64> {
    let mut reader = log.read(peer, id).unwrap().unwrap();
    let mut out = Vec::new();
    while let Some(body) = reader.next_body().unwrap() {
        out.push(Hint::from_body(body).unwrap().now_ms);
    }
    out
}

#[test]
fn addresses_are_names() {
    for address in ["10.0.0.1:10901", "[::1]:1", "..", "ü/x", "a%b"] {
        let name = name_of(address);
        assert!(!name.contains('/') && name != ".." && name != ".", "{name}");
        assert_eq!(address_of(&name).unwrap(), address);
    }
}

#[tokio::test]
async fn hints_outlive_the_process_and_go_when_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let log = HintLog::open(dir.path(), 1 << 20).unwrap();
    for i in 0..3 {
        log.append("a:1", frame(i)).await.unwrap();
    }
    log.append("b:1", frame(9)).await.unwrap();
    assert_eq!(log.peers(), ["a:1", "b:1"]);
    let first = log.oldest("a:1").await.unwrap();
    assert_eq!(all(&log, "a:1", first), [0, 1, 2]);
    log.append("a:1", frame(3)).await.unwrap();
    drop(log);
    // A crash may leave half a frame at the end.
    let path = dir.path().join(name_of("a:1")).join("00000002");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(&frame(4)[..50]);
    std::fs::write(&path, bytes).unwrap();
    let log = HintLog::open(dir.path(), 1 << 20).unwrap();
    let before = log.bytes().0;
    assert_eq!(log.stats("a:1").segments, 2);
    assert_eq!(log.oldest("a:1").await, Some(1));
    assert_eq!(all(&log, "a:1", 1), [0, 1, 2]);
    log.remove("a:1", 1).unwrap();
    assert_eq!(all(&log, "a:1", log.oldest("a:1").await.unwrap()), [3]);
    log.append("a:1", frame(5)).await.unwrap();
    assert_eq!(log.stats("a:1").segments, 2, "a segment of an earlier run is not appended to");
    log.remove("a:1", 2).unwrap();
    assert_eq!(log.oldest("a:1").await, Some(3));
    log.remove("a:1", 3).unwrap();
    assert_eq!((log.oldest("a:1").await, log.peers()), (None, vec!["b:1".to_owned()]));
    assert!(log.bytes().0 < before && log.bytes().0 == log.stats("b:1").bytes);
}

#[tokio::test]
async fn only_segments_without_hints_count_as_empty() {
    let dir = tempfile::tempdir().unwrap();
    let log = HintLog::open(dir.path(), 1 << 20).unwrap();
    log.append("a:1", frame(0)).await.unwrap();
    let id = log.oldest("a:1").await.unwrap();
    let path = dir.path().join(name_of("a:1")).join(format!("{id:08}"));
    // It cannot be read now, which says nothing of what is in it.
    let aside = dir.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(log.read("a:1", id).is_err());
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(all(&log, "a:1", id), [0]);
    std::fs::write(&path, "half").unwrap();
    assert!(log.read("a:1", id).unwrap().is_none());
    // Who deletes it stops nothing.
    std::fs::remove_file(&path).unwrap();
    assert!(log.read("a:1", id).unwrap().is_none());
    log.remove("a:1", id).unwrap();
    assert_eq!((log.oldest("a:1").await, log.bytes().0), (None, 0));
}

/// Half of the first frame is written, as on a disk that is full for a moment.
struct FullOnce(Box<dyn SegmentWriter>, bool);

impl SegmentWriter for FullOnce {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if std::mem::replace(&mut self.1, true) {
            return self.0.append(bytes);
        }
        self.0.append(&bytes[..bytes.len() / 2])?;
        Err(io::ErrorKind::StorageFull.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
}

#[tokio::test]
async fn no_hint_that_was_kept_lies_behind_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = HintLog::open(dir.path(), 1 << 20).unwrap();
    let mut writers = Writers::new();
    writers.insert("a:1".to_owned(), Box::new(FullOnce(log.begin("a:1").unwrap(), false)));
    let mut kept = Vec::new();
    for round in [0..2, 2..4] {
        let mut answers = Vec::new();
        let commands: Vec<Command> = round
            .map(|i| {
                let (done, answer) = oneshot::channel();
                answers.push((i, answer));
                Command::Append { peer: "a:1".to_owned(), frame: frame(i), done }
            })
            .collect();
        let bytes = 2 * frame(0).len() as u64;
        log.state.lock().bytes += bytes;
        log.state.lock().queued_bytes += bytes;
        log.commit(commands.into_iter(), &mut writers);
        for (i, answer) in answers {
            kept.extend(answer.await.unwrap().is_ok().then_some(i));
        }
    }
    assert_eq!(kept, [2, 3]);
    log.seal("a:1", &mut writers);
    let ids: Vec<u64> = log.state.lock().peers["a:1"].sealed.keys().copied().collect();
    assert_eq!(ids.into_iter().flat_map(|id| all(&log, "a:1", id)).collect::<Vec<_>>(), kept);
}

#[tokio::test]
async fn the_limit_holds_and_a_failing_disk_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = HintLog::open(dir.path(), 250).unwrap();
    log.append("a:1", frame(0)).await.unwrap();
    assert!(matches!(log.append("a:1", frame(1)).await, Err(HintError::Full(250))));
    let id = log.oldest("a:1").await.unwrap();
    log.remove("a:1", id).unwrap();
    assert_eq!(log.bytes().0, 0);
    log.append("a:1", frame(1)).await.unwrap();
    // A file where the peer's directory would be.
    std::fs::write(dir.path().join(name_of("b:1")), "").unwrap();
    let log = HintLog::open(dir.path(), 1 << 20).unwrap();
    let before = log.bytes().0;
    assert!(matches!(log.append("b:1", frame(1)).await, Err(HintError::Io(_))));
    assert_eq!(log.bytes().0, before);
    log.append("a:1", frame(2)).await.unwrap();
}
