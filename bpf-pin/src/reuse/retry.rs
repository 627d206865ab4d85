//! Repeats an operation that other processes can disturb.

use std::thread::sleep;
use std::time::Duration;

/// The result of one attempt.
pub(super) enum Attempt<T, E> {
    Done(T),
    /// Another process interfered. `retry` returns the error if this was the last attempt.
    Retry(E),
}

/// Attempts without a pause, which are enough for a lost race.
const WITHOUT_PAUSE: u32 = 10;
/// Attempts after a pause: 2 ms, doubled up to 64 ms, about a second in total.
const AFTER_PAUSE: u32 = 20;

/// Calls `attempt` until it is done or fails.
pub(super) fn retry<T, E>(mut attempt: impl FnMut() -> Result<Attempt<T, E>, E>) -> Result<T, E> {
    let mut retries = 0;
    loop {
        match attempt()? {
            Attempt::Done(value) => return Ok(value),
            Attempt::Retry(error) if retries == WITHOUT_PAUSE + AFTER_PAUSE => return Err(error),
            Attempt::Retry(_) => retries += 1,
        }
        if let Some(pauses @ 1..) = retries.checked_sub(WITHOUT_PAUSE) {
            sleep(Duration::from_millis(1 << pauses.min(6)));
        }
    }
}
