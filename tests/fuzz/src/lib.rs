//! Fuzz targets: what reads bytes from outside, given any bytes. A target panics where the code under test panics or breaks
//! its own word.
//!
//! ```text
//! cargo test -p chronolith-fuzz     the committed corpus, and a fixed number of mutations of it by a fixed seed
//! cargo xtask fuzz [SECONDS]        libFuzzer on stable Rust, guided by coverage, SECONDS a target; finds go to corpus/
//! ```
//!
//! `corpus/<target>/` holds inputs worth starting from and every input that once failed.

mod chunk;
mod eval;
mod http;
pub mod mutate;
mod otlp;
mod parse;
mod remote_write;
mod script;

use std::path::PathBuf;

/// One thing to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also of its folder in `corpus/`.
    pub name: &'static str,
    /// Runs it on one input.
    pub run: fn(&[u8]),
    /// Pieces that its inputs are made of.
    pub words: &'static [&'static str],
    /// Mutations that `cargo test` tries: about a second's worth in a debug build.
    pub tries: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "parse", run: parse::run, words: parse::WORDS, tries: 20_000 },
    Target { name: "script", run: script::run, words: script::WORDS, tries: 20_000 },
    Target { name: "eval", run: eval::run, words: eval::WORDS, tries: 2_000 },
    Target { name: "http", run: http::run, words: http::WORDS, tries: 4_000 },
    Target { name: "remote_write", run: remote_write::run, words: &[], tries: 20_000 },
    Target { name: "otlp", run: otlp::run, words: otlp::WORDS, tries: 20_000 },
    Target { name: "chunk", run: chunk::run, words: &[], tries: 20_000 },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

/// The committed inputs of a target with their file names, sorted.
///
/// # Panics
/// When they cannot be read.
pub fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("a readable folder").path()).collect();
    paths.sort();
    paths.into_iter().map(|p| (p.clone(), std::fs::read(&p).expect("a readable input"))).collect()
}
