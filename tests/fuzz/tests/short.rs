//! The committed corpus, and a fixed number of mutations by a fixed seed: the same inputs at every run. With
//! `CHRONOLITH_FUZZ_SECONDS` set, other mutations for so long, by `CHRONOLITH_FUZZ_SEED`: where there is no time to build for coverage.

use std::time::{Duration, Instant};

use chronolith_fuzz::mutate::{Random, input};
use chronolith_fuzz::{TARGETS, Target, corpus, target};

/// Keeps an input that fails, so that it can become part of the corpus.
fn try_mutations(target: &Target) {
    let seeds: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, bytes)| bytes).collect();
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let until = number("CHRONOLITH_FUZZ_SECONDS").map(|s| Instant::now() + Duration::from_secs(s));
    let mut random = Random::new(number("CHRONOLITH_FUZZ_SEED").unwrap_or(0x5eed));
    for i in 0.. {
        if until.map_or(i >= target.tries, |until| Instant::now() >= until) {
            eprintln!("{}: {i} inputs", target.name);
            break;
        }
        let data = input(&mut random, &seeds, target.words);
        let outcome = std::panic::catch_unwind(|| (target.run)(&data));
        if outcome.is_err() {
            let name = format!("found-{i}");
            let path = std::env::temp_dir().join(format!("chronolith-fuzz-{}-{name}", target.name));
            std::fs::write(&path, &data).expect("a writable scratch directory");
            panic!(
                "{}: mutation {i} fails, kept as {}: {:?}",
                target.name,
                path.display(),
                String::from_utf8_lossy(&data)
            );
        }
    }
}

#[test]
fn the_corpus_passes() {
    for target in TARGETS {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "{} has something to start from", target.name);
        for (path, bytes) in inputs {
            println!("{}", path.display());
            (target.run)(&bytes);
        }
    }
}

macro_rules! short_runs {
    ($($name:ident)*) => {
        $(#[test] fn $name() { try_mutations(target(stringify!($name)).expect("a target")); })*

        #[test]
        fn every_target_has_a_short_run() {
            let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

short_runs!(parse script eval http remote_write otlp chunk);
