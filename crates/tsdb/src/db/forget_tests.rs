//! Tenants that stop, and come back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use bytes::Bytes;
use chronolith_model::write::encode_labels;
use chronolith_model::{Sample, TenantId, TimeRange, WriteBatchBuilder};

use super::*;

const HOUR: i64 = 3_600_000;

fn id(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn open(dir: &Path, clock: &Arc<AtomicI64>) -> Arc<Db> {
    let clock = Arc::clone(clock);
    let clock = Arc::new(move || clock.load(Ordering::Relaxed));
    Db::open(DbOptions { clock, shards: 2, ..DbOptions::new(dir) }).unwrap().0
}

fn write(db: &Db, tenant: &str, t: i64, v: f64) {
    let mut section = Vec::new();
    encode_labels([("__name__", tenant)], &mut section);
    let mut builder = WriteBatchBuilder::default();
    builder.start(0);
    builder.push_series_bytes(&section);
    builder.push_sample(Sample { t, v });
    let outcome = db.write(&id(tenant), &builder.finish(Bytes::new()));
    assert_eq!((outcome.written, outcome.rejected_count), (1, 0), "{:?}", outcome.rejected);
    outcome.commit.wait().unwrap();
}

/// Metric name, time and value of everything that the heads of a tenant hold.
fn heads(db: &Db) -> BTreeMap<String, Vec<(String, i64, f64)>> {
    let mut out = BTreeMap::new();
    for tenant in db.tenants() {
        let samples: &mut Vec<_> = out.entry(tenant.as_str().to_owned()).or_default();
        for series in db.head(&tenant).unwrap().select(&[], TimeRange::ALL, false) {
            let mut columns = chronolith_chunk::SampleColumns::default();
            series.chunks.iter().for_each(|c| c.decode_into(TimeRange::ALL, &mut columns).unwrap());
            let name = series.labels.metric_name().unwrap().to_owned();
            samples.extend(columns.ts.iter().zip(&columns.values).map(|(t, v)| (name.clone(), *t, *v)));
        }
    }
    out
}

fn of(name: &str, t: i64, v: f64) -> (String, Vec<(String, i64, f64)>) {
    (name.to_owned(), vec![(name.to_owned(), t, v)])
}

#[test]
fn a_tenant_that_stopped_is_cut_and_once_its_blocks_are_gone_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(AtomicI64::new(1000 * HOUR));
    let db = open(dir.path(), &clock);
    write(&db, "stays", 1000 * HOUR, 1.0);
    write(&db, "stops", 1000 * HOUR, 2.0);
    // Months old samples that come now: a backfill is not idle.
    write(&db, "old", HOUR, 3.0);
    assert!(db.cut_idle(3 * HOUR).unwrap().is_empty());
    clock.store(1004 * HOUR, Ordering::Relaxed);
    write(&db, "stays", 1004 * HOUR, 1.5);
    write(&db, "old", 2 * HOUR, 3.5);
    let cut = db.cut_idle(3 * HOUR).unwrap();
    assert_eq!(cut.iter().map(|b| b.tenant.as_str()).collect::<Vec<_>>(), ["stops"]);
    assert_eq!(db.head(&id("stops")).unwrap().series_count(), 0);
    // Its block is still here.
    clock.store(1010 * HOUR, Ordering::Relaxed);
    write(&db, "stays", 1010 * HOUR, 1.6);
    assert!(db.forget_idle(3 * HOUR).unwrap().is_empty());
    db.drop_block(&id("stops"), cut[0].meta.ulid).unwrap();
    assert!(db.forget_idle(30 * HOUR).unwrap().is_empty(), "not idle for so long");
    let tenant_dir = dir.path().join("tenants/stops");
    assert!(tenant_dir.exists());
    assert_eq!(db.forget_idle(3 * HOUR).unwrap(), [id("stops")]);
    assert!(!tenant_dir.exists() && db.head(&id("stops")).is_none());
    assert_eq!(db.tenants(), [id("old"), id("stays")]);
    // It comes back as if it had never been.
    write(&db, "stops", 900 * HOUR, 4.0);
    let mut want = BTreeMap::from([of("stops", 900 * HOUR, 4.0)]);
    for (name, rows) in [
        ("old", [(HOUR, 3.0), (2 * HOUR, 3.5)].as_slice()),
        ("stays", &[(1000 * HOUR, 1.0), (1004 * HOUR, 1.5), (1010 * HOUR, 1.6)]),
    ] {
        want.insert(name.to_owned(), rows.iter().map(|(t, v)| (name.to_owned(), *t, *v)).collect());
    }
    assert_eq!(heads(&db), want);
    drop(db);
    assert_eq!(heads(&open(dir.path(), &clock)), want, "from the log");
}

#[test]
fn a_number_used_again_does_not_mix_two_tenants() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(AtomicI64::new(1000 * HOUR));
    {
        let db = open(dir.path(), &clock);
        write(&db, "stays", 1000 * HOUR, 1.0);
        write(&db, "stops", 1000 * HOUR, 2.0);
        clock.store(1004 * HOUR, Ordering::Relaxed);
        let cut = db.cut_idle(3 * HOUR).unwrap();
        let cut = cut.iter().find(|b| b.tenant == id("stops")).unwrap();
        db.drop_block(&id("stops"), cut.meta.ulid).unwrap();
        write(&db, "stays", 1004 * HOUR, 1.5);
        assert_eq!(db.forget_idle(3 * HOUR).unwrap(), [id("stops")]);
        db.close().unwrap();
    }
    let want = BTreeMap::from([of("next", 1004 * HOUR, 5.0), of("stays", 1004 * HOUR, 1.5)]);
    {
        // The highest number has become free, and is the next one's.
        let db = open(dir.path(), &clock);
        write(&db, "next", 1004 * HOUR, 5.0);
        assert_eq!(heads(&db), want);
    }
    // Without the newest snapshot replay begins where the number was still the other's.
    let snapshots = dir.path().join("snapshot");
    let newest = crate::snapshot::list(&snapshots).unwrap().into_iter().max().unwrap();
    crate::snapshot::remove(&snapshots, newest).unwrap();
    assert_eq!(heads(&open(dir.path(), &clock)), want);
}
