//! What a bucket must be like once a compactor has had its way.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::{Archive, CompactorPlace, run};

impl Archive {
    /// Runs a compactor once, to its end, with a clock two days ahead: what is due is deleted, uploads that stopped as well.
    pub fn compact_once(&self, name: &str) {
        let flags = vec!["--delete-delay=0s".to_owned()];
        let place = CompactorPlace { envs: self.clock_off(49 * 3600), flags, ..CompactorPlace::default() };
        let (launch, _) = self.launch_compactor(name, place);
        let mut process = launch.spawn();
        let status = process.wait_stopped();
        assert!(status.success(), "compact: {status}\n{}", process.log());
        process.check_log();
    }

    /// What a healthy run of a compactor, and one more to delete what that marked, leave: every sample once, whole blocks
    /// without marks, nothing to do, nothing that the tools complain of.
    ///
    /// # Panics
    /// With what is not so.
    pub fn assert_settled(&self) {
        self.compact_once("last");
        self.compact_once("last");
        let blocks = self.blocks();
        let keys = self.s3.keys();
        let own = || keys.iter().filter(|k| !k.starts_with("chronolith/"));
        for key in own() {
            let id = key.split('/').next().unwrap_or_default();
            assert!(blocks.contains_key(id), "{key} belongs to no block");
            assert!(!key.ends_with("deletion-mark.json"), "{key} is left");
        }
        let raw = blocks.values().filter(|m| m["thanos"]["downsample"]["resolution"] == 0);
        let stored: u64 = raw.map(|m| m["stats"]["numSamples"].as_u64().expect("a number")).sum();
        let wanted: usize = self.content.series.read().values().map(|s| s.len()).sum();
        assert_eq!(stored, wanted as u64, "raw samples in all blocks");
        self.wait_complete();
        self.tool(&["verify"]);
        self.assert_promtool_accepts(&blocks);
        // Nothing is left to do: another run changes nothing.
        self.compact_once("last");
        let now = self.s3.keys();
        assert_eq!(
            now.iter().filter(|k| !k.starts_with("chronolith/")).collect::<Vec<_>>(),
            own().collect::<Vec<_>>()
        );
    }

    /// Prometheus's own tool reads every raw block, and as many samples as its meta.json says.
    fn assert_promtool_accepts(&self, blocks: &BTreeMap<String, Value>) {
        if let Err(e) = Command::new("promtool").arg("--version").output() {
            assert!(std::env::var_os("CI").is_none(), "promtool is not installed");
            eprintln!("left out: promtool: {e}");
            return;
        }
        let keys = self.s3.keys();
        for (id, meta) in blocks.iter().filter(|(_, m)| m["thanos"]["downsample"]["resolution"] == 0) {
            // One database a block: blocks of several groups overlap.
            let database = self.dir.join("promtool").join(id);
            for key in keys.iter().filter(|k| k.starts_with(id)) {
                let path = database.join(key);
                std::fs::create_dir_all(path.parent().expect("below its block")).expect("writable");
                std::fs::write(path, self.s3.object(key).expect("it was listed")).expect("writable");
            }
            // It takes a directory for a database when there is a log.
            std::fs::create_dir_all(database.join("wal")).expect("writable");
            let dump = run(Command::new("promtool").args(["tsdb", "dump"]).arg(&database));
            assert_eq!(Some(dump.lines().count() as u64), meta["stats"]["numSamples"].as_u64(), "{id}");
        }
    }
}
