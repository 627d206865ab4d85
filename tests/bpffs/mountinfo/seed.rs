//! Seeds of random tests: the one of every run, and a new one.

use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, thread};

use crate::mountinfo::naive::Random;

/// The new one where it is given, so that what has failed can be repeated.
const SEED: &str = "BPF_PIN_TEST_SEED";

/// Runs `test` with the numbers of a fixed seed, and with those of another; which, a failure tells.
pub fn each_seed(fixed: u64, test: fn(Random)) {
    for seed in [fixed, new()] {
        let _told = Told(seed);
        test(Random::new(seed));
    }
}

fn new() -> u64 {
    if let Ok(given) = env::var(SEED) {
        return given.parse().unwrap_or_else(|_| panic!("{SEED}={given}"));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock that was set").as_nanos() as u64
}

struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{SEED}={} repeats it", self.0);
        }
    }
}
