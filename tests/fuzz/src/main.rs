//! libFuzzer on one target: `tests/fuzz/run TARGET`.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use kontiki_fuzz::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let wanted = std::env::var("TARGET").unwrap_or_default();
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    TARGETS.iter().find(|target| target.name == wanted).unwrap_or_else(|| panic!("TARGET is one of {}", names()))
});

/// The corpus is never without the seeds.
fn sow() {
    let Ok(corpus) = std::env::var("CORPUS") else { return };
    for (n, seed) in TARGET.seeds.iter().enumerate() {
        std::fs::write(Path::new(&corpus).join(format!("seed-{n}")), seed).expect("a directory for the corpus");
    }
}

libfuzzer_sys::fuzz_target!(init: sow(), |bytes: &[u8]| (TARGET.run)(bytes));
