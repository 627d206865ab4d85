//! Seeds for random tests: a fixed one, and a new one for each run.

use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, thread};

use crate::mountinfo::reference::Random;

/// The environment variable with the second seed, to repeat a failure.
const SEED: &str = "BPF_PIN_TEST_SEED";

/// Runs `test` with a fixed seed and with a new one. A failure prints the seed.
pub fn each_seed(fixed: u64, test: fn(Random)) {
    for seed in [fixed, new()] {
        let _print = PrintSeedOnPanic(seed);
        test(Random::new(seed));
    }
}

fn new() -> u64 {
    if let Ok(given) = env::var(SEED) {
        return given.parse().unwrap_or_else(|_| panic!("{SEED}={given}"));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_nanos() as u64
}

struct PrintSeedOnPanic(u64);

impl Drop for PrintSeedOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("to repeat: {SEED}={}", self.0);
        }
    }
}
