//! The log of the verifier, in a buffer that grows until the log fits.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// The result of a command with a log.
pub(crate) struct Logged {
    /// ENOSPC if the log did not fit.
    pub(crate) result: Result<OwnedFd, Errno>,
    pub(crate) log: String,
}

const FIRST_SIZE: usize = 64 << 10;
/// `UINT_MAX >> 2`: the largest buffer that the kernel accepts.
const MAX_SIZE: usize = (u32::MAX >> 2) as usize;
/// Extra space for the next log: the numbers in it differ from run to run.
const SLACK: usize = 4 << 10;

/// Repeats the call with larger buffers until the log fits. The call also returns the size that the kernel
/// needs (`log_true_size`, Linux 6.4), or 0.
pub(crate) fn with_log(mut call: impl FnMut(&mut [u8]) -> (Result<OwnedFd, Errno>, u32)) -> Logged {
    let mut size = FIRST_SIZE;
    let mut shorter = Vec::new();
    loop {
        let mut log = Vec::new();
        if log.try_reserve_exact(size).is_err() {
            return ended(Err(Errno::NOSPC), shorter);
        }
        log.resize(size, 0);
        let (result, true_size) = call(&mut log);
        match result {
            Err(Errno::NOSPC) => {}
            // Before Linux 5.2 the largest buffer was smaller.
            Err(Errno::INVAL) if log[0] == 0 && !shorter.is_empty() => {
                return ended(Err(Errno::NOSPC), shorter);
            }
            _ => return ended(result, log),
        }
        let wanted = match true_size as usize {
            0 => size * 4,
            needed => needed + SLACK,
        };
        // If the log did fit, ENOSPC has another cause.
        if size == MAX_SIZE || (1..=size).contains(&(true_size as usize)) {
            return ended(result, log);
        }
        (size, shorter) = (wanted.min(MAX_SIZE), log);
    }
}

/// Ends the log at its NUL.
fn ended(result: Result<OwnedFd, Errno>, mut log: Vec<u8>) -> Logged {
    if let Ok(text) = CStr::from_bytes_until_nul(&log) {
        log.truncate(text.count_bytes());
    }
    let log = String::from_utf8(log)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    Logged { result, log }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a verifier with a log of `length` bytes. Returns the sizes of the buffers that it got.
    fn run(length: usize, reports_size: bool, max_size: usize) -> (Vec<usize>, Logged) {
        let mut sizes = vec![];
        let logged = with_log(|log| {
            sizes.push(log.len());
            if log.len() > max_size {
                return (Err(Errno::INVAL), 0);
            }
            let fits = length.min(log.len() - 1);
            log[..fits].fill(b'x');
            let errno = if fits == length {
                Errno::ACCESS
            } else {
                Errno::NOSPC
            };
            let true_size = if reports_size { length as u32 + 1 } else { 0 };
            (Err(errno), true_size)
        });
        (sizes, logged)
    }

    #[test]
    fn the_buffer_grows_until_the_log_fits() {
        let cases: [(usize, bool, &[usize]); 4] = [
            (100, true, &[FIRST_SIZE]),
            (FIRST_SIZE - 1, true, &[FIRST_SIZE]),
            (5_000_000, true, &[FIRST_SIZE, 5_000_001 + SLACK]),
            (
                300_000,
                false,
                &[FIRST_SIZE, 4 * FIRST_SIZE, 16 * FIRST_SIZE],
            ),
        ];
        for (length, reports_size, expected) in cases {
            let (sizes, logged) = run(length, reports_size, MAX_SIZE);
            assert_eq!(sizes, expected, "{length}");
            assert_eq!(logged.log.len(), length);
            assert_eq!(logged.result.unwrap_err(), Errno::ACCESS);
        }
    }

    #[test]
    fn a_kernel_with_a_smaller_limit_gives_the_start_of_the_log() {
        let (_, logged) = run(1 << 20, false, 4 * FIRST_SIZE);
        assert_eq!(logged.result.unwrap_err(), Errno::NOSPC);
        assert_eq!(logged.log.len(), 4 * FIRST_SIZE - 1);
    }

    #[test]
    fn enospc_with_another_cause_does_not_repeat_the_call() {
        let mut calls = 0;
        let logged = with_log(|log| {
            calls += 1;
            log[0] = b'x';
            (Err(Errno::NOSPC), 2)
        });
        assert_eq!((calls, logged.log.as_str()), (1, "x"));
        assert_eq!(logged.result.unwrap_err(), Errno::NOSPC);
    }
}
