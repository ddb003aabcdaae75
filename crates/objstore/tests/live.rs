//! The contract over a bucket that somebody runs: a cloud's, or an emulator such as Azurite or fake-gcs-server.
//!
//! ```text
//! CHRONOLITH_OBJSTORE_CONFIG=objstore.yml cargo test -p chronolith-objstore --test live
//! ```
//!
//! Everything is written below the config's prefix and `chronolith-contract/`. Without the variable the test has nothing
//! to run against and says so.

use chronolith_objstore::config::parse;
use chronolith_objstore::{BucketMetrics, contract, open};

#[tokio::test]
async fn the_configured_bucket_keeps_the_contract() {
    let Some(path) = std::env::var_os("CHRONOLITH_OBJSTORE_CONFIG") else {
        eprintln!("left out: CHRONOLITH_OBJSTORE_CONFIG names no bucket");
        return;
    };
    let yaml = std::fs::read_to_string(&path).unwrap();
    let config = parse(&yaml).unwrap();
    let bucket = open(&config, BucketMetrics::default()).unwrap();
    contract::run(&bucket.with_prefix("chronolith-contract")).await;
}
