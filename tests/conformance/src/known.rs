//! What cannot pass over a storage, each with its reason. Whoever adds an entry explains why the storage cannot do it. An entry
//! that passes fails the test, so that the list shrinks.

/// Evaluations of one script that must fail over some storages.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// `head`, `blocks` (over gRPC) or `local blocks` (in the same process).
    pub storages: &'static [&'static str],
    /// The script's file name.
    pub script: &'static str,
    /// Lines of the evaluations.
    pub lines: &'static [usize],
    /// Why.
    pub reason: &'static str,
}

/// All of them.
pub const KNOWN: &[Known] = &[
    Known {
        storages: &["blocks"],
        script: "start_timestamps.test",
        lines: &[8, 13, 18, 24, 42, 66, 74, 82, 144, 169, 189, 276, 284, 289],
        reason: "start timestamps of floats: Thanos's StoreAPI knows no XOR2 chunks, so the server recodes them as XOR for \
                 the wire",
    },
    Known {
        storages: &["blocks"],
        script: "start_timestamps.test",
        lines: &[207, 210, 213, 217, 234, 240, 246, 259, 305],
        reason: "start timestamps of histograms: likewise, the histogram chunks of Thanos's StoreAPI have no place for them",
    },
];
