//! libFuzzer over one target, which `CHRONOLITH_FUZZ_TARGET` names.
#![no_main]
#![allow(unsafe_code, reason = "libFuzzer calls an exported function, which the macro writes")]

use std::sync::LazyLock;

use chronolith_fuzz::{Target, target};

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("CHRONOLITH_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("CHRONOLITH_FUZZ_TARGET={name:?} is no target"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
