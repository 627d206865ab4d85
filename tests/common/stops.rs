//! At which of its stops a process is stopped: at all of them, and what is left out is said.

use std::env;
use std::time::{Duration, Instant};

/// How a child says on its standard output what it has left out.
const LEFT_OUT: &str = "left out ";

/// How long a processor that is emulated is busy with what changes nothing: there each stop is some
/// 20 times dearer, and on any other they are all tried.
const PATIENCE: Duration = Duration::from_secs(2);

/// Calls `each` with the number of every stop. Where there is no time for all, it is those that
/// change something, and of the others, which leave what the call before them has left, the first.
pub fn at_each_stop(
    what: &str,
    count: usize,
    changes: impl Fn(usize) -> bool,
    mut each: impl FnMut(usize),
) {
    let (changing, others): (Vec<_>, Vec<_>) = (0..count).partition(|&number| changes(number));
    let is_emulated = env::var_os("BPF_PIN_TEST_PHASE").is_some();
    let end = is_emulated.then(|| Instant::now() + PATIENCE);
    let is_time = |_: &usize| end.is_none_or(|end| Instant::now() < end);
    let mut left = count;
    for number in changing
        .into_iter()
        .chain(others.into_iter().take_while(is_time))
    {
        each(number);
        left -= 1;
    }
    if left > 0 {
        println!("{LEFT_OUT}{what}: {left} of {count} stops");
    }
}

/// What a child said that it has left out.
pub(crate) fn left_out(stdout: &str) -> impl Iterator<Item = &str> {
    stdout
        .lines()
        .filter_map(|line| line.strip_prefix(LEFT_OUT))
}
