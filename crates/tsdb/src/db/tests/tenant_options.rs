//! Options of a tenant's own, which change while the database is open.

use super::*;

#[test]
fn tenants_have_bounds_of_their_own_and_these_change() {
    let dir = tempfile::tempdir().unwrap();
    let strict = Arc::new(AtomicI64::new(1));
    let own = {
        let strict = Arc::clone(&strict);
        move |id: &TenantId| {
            let max = if id.as_str() == "t" { strict.load(Ordering::Relaxed) as usize } else { 0 };
            let limits = Limits { series_max: max, ..Limits::default() };
            TenantOptions { limits, out_of_order_window_ms: max as i64 * 1000 }
        }
    };
    let (db, _) = Db::open(DbOptions { tenant_options: Some(Arc::new(own)), ..options(dir.path()) }).unwrap();
    let rows: Vec<Row> = ["a", "b"].map(|name| (named(name), vec![(10_000, 1.0)])).into();
    let reasons = |outcome: &WriteOutcome| -> Vec<RejectReason> {
        outcome.rejected.iter().map(|r| r.reason.clone()).collect()
    };
    // Of two new series in one request it is chance which is stored.
    assert_eq!(reasons(&write_one(&db, "a", &[(10_000, 1.0)])), []);
    assert_eq!(reasons(&write(&db, &rows)), [RejectReason::SeriesLimit(1)]);
    let other = TenantId::new("other").unwrap();
    assert_eq!(reasons(&db.write(&other, &batch(&rows))), [], "the other tenant has no such bound");

    // 1 s of the window, then 2.
    assert_eq!(reasons(&write_one(&db, "a", &[(9_500, 1.0)])), []);
    assert_eq!(reasons(&write_one(&db, "a", &[(8_500, 1.0)])), [RejectReason::TooOld]);
    strict.store(2, Ordering::Relaxed);
    assert_eq!(reasons(&write(&db, &rows)), [RejectReason::SeriesLimit(1)], "nobody has asked yet");
    db.refresh_tenant_options();
    assert_eq!(reasons(&write(&db, &rows)), []);
    assert_eq!(reasons(&write_one(&db, "a", &[(8_500, 1.0)])), []);
    assert_eq!(db.head(&tenant()).unwrap().tenant_options().limits.series_max, 2);
}
