//! Each target for a moment, on its seeds, on damaged seeds and on random bytes: always the same inputs, as many as the
//! moment holds. `$KONTIKI_FUZZ_SECONDS` makes it longer and `$KONTIKI_FUZZ_SEED` takes other inputs.

use std::panic::catch_unwind;
use std::str::FromStr;
use std::time::{Duration, Instant};

use kontiki_fuzz::{TARGETS, Target};
use peak_alloc::PeakAlloc;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What an input of a kilobyte may cost at most.
const BYTES: usize = 64 << 20;
const TIME: Duration = Duration::from_secs(5);

fn input(target: &Target, rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = if rng.random_ratio(1, 2) {
        let length = rng.random_range(0..600);
        (0..length).map(|_| rng.random()).collect()
    } else {
        target.seeds[rng.random_range(0..target.seeds.len())].as_bytes().to_vec()
    };
    for _ in 0..rng.random_range(0..6) {
        let at = rng.random_range(0..=bytes.len());
        let upto = (at + rng.random_range(0..8)).min(bytes.len());
        match rng.random_range(0..5) {
            0 => drop(bytes.drain(at..upto)),
            1 => bytes.insert(at, rng.random()),
            2 => bytes.splice(at..at, bytes[at..upto].to_vec()).for_each(drop),
            3 => {
                let of = b"{}[]\",:0129-+.eE\\/ntf(){}=!<>&|\n\t %~$*'\"\x00\xff\x80";
                bytes.insert(at, of[rng.random_range(0..of.len())]);
            }
            _ => bytes[at..upto].iter_mut().for_each(|byte| *byte ^= 1 << rng.random_range(0..8)),
        }
    }
    bytes
}

/// What is wrong with how the target takes the input.
fn problem(target: &Target, bytes: &[u8]) -> Option<String> {
    let (begun, before) = (Instant::now(), MEMORY.current_usage());
    MEMORY.reset_peak_usage();
    let outcome = catch_unwind(|| (target.run)(bytes));
    let took = begun.elapsed();
    let used = MEMORY.peak_usage().saturating_sub(before);
    match outcome {
        Err(_) => Some("panicked".into()),
        Ok(()) if used > BYTES => Some(format!("took {used} bytes of memory")),
        Ok(()) if took > TIME => Some(format!("took {took:?}")),
        Ok(()) => None,
    }
}

fn set<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_that_anybody_sends_is_too_much() {
    let moment = Duration::from_secs_f64(set("KONTIKI_FUZZ_SECONDS", 1.0));
    let seed: u64 = set("KONTIKI_FUZZ_SEED", 1);
    let mut failed = Vec::new();
    for target in TARGETS {
        let mut rng = StdRng::seed_from_u64(seed);
        let begun = Instant::now();
        let seeds = target.seeds.iter().map(|seed| seed.as_bytes().to_vec());
        let mut inputs = seeds.chain(std::iter::from_fn(|| Some(input(target, &mut rng))));
        let mut runs = 0;
        while let Some(bytes) = inputs.next().filter(|_| runs == 0 || begun.elapsed() < moment) {
            runs += 1;
            if let Some(problem) = problem(target, &bytes) {
                failed.push(format!("{} {problem}: {}", target.name, bytes.escape_ascii()));
                break;
            }
        }
        println!("{}: {runs} inputs", target.name);
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
