//! Selects the stops of a process at which a test acts: all of them, or as many as time allows.

use std::time::{Duration, Instant};

use crate::is_emulated;

/// The prefix of the lines in which a child reports stops that it has omitted.
const LEFT_OUT: &str = "left out ";

/// The time limit for stops without effect on an emulated processor, where a stop is some 20 times slower.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Calls `each` with the number of every stop. If there is not enough time, only with the stops that change
/// something, and with the first of the others.
pub fn at_each_stop(
    what: &str,
    count: usize,
    changes: impl Fn(usize) -> bool,
    mut each: impl FnMut(usize),
) {
    let (changing, others): (Vec<_>, Vec<_>) = (0..count).partition(|&number| changes(number));
    let end = is_emulated().then(|| Instant::now() + TIME_LIMIT);
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

/// The omissions that a child has reported.
pub(crate) fn left_out(stdout: &str) -> impl Iterator<Item = &str> {
    stdout
        .lines()
        .filter_map(|line| line.strip_prefix(LEFT_OUT))
}
