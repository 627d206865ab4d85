//! The verifier's log, in a buffer that grows until the log fits.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// How a command with a log ended.
pub(crate) struct Logged {
    /// ENOSPC where the log would not fit.
    pub(crate) result: Result<OwnedFd, Errno>,
    pub(crate) log: String,
}

const FIRST_ROOM: usize = 64 << 10;
/// `UINT_MAX >> 2`: the most that the kernel accepts.
const MOST_ROOM: usize = (u32::MAX >> 2) as usize;
/// Extra room for the next log, because the numbers in it differ from run to run.
const SLACK: usize = 4 << 10;

/// Repeats the call with larger buffers until the log fits. The call also returns the length that the
/// kernel needs (`log_true_size`, Linux 6.4), or 0.
pub(crate) fn with_log(mut call: impl FnMut(&mut [u8]) -> (Result<OwnedFd, Errno>, u32)) -> Logged {
    let mut room = FIRST_ROOM;
    let mut shorter = Vec::new();
    loop {
        let mut log = Vec::new();
        if log.try_reserve_exact(room).is_err() {
            return ended(Err(Errno::NOSPC), shorter);
        }
        log.resize(room, 0);
        let (result, true_size) = call(&mut log);
        match result {
            Err(Errno::NOSPC) => {}
            // Before Linux 5.2 no log may be as long as that.
            Err(Errno::INVAL) if log[0] == 0 && !shorter.is_empty() => {
                return ended(Err(Errno::NOSPC), shorter);
            }
            _ => return ended(result, log),
        }
        let wanted = match true_size as usize {
            0 => room * 4,
            // ENOSPC was not for the log.
            size if size <= room => return ended(result, log),
            size => size + SLACK,
        };
        if room == MOST_ROOM {
            return ended(result, log);
        }
        (room, shorter) = (wanted.min(MOST_ROOM), log);
    }
}

/// The log ends with a NUL.
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

    /// A verifier that says so many bytes, and the rooms that it was offered.
    fn rooms(length: usize, tells: bool, most: usize) -> (Vec<usize>, Logged) {
        let mut rooms = vec![];
        let logged = with_log(|log| {
            rooms.push(log.len());
            if log.len() > most {
                return (Err(Errno::INVAL), 0);
            }
            let fits = length.min(log.len() - 1);
            log[..fits].fill(b'x');
            let errno = if length < log.len() {
                Errno::ACCESS
            } else {
                Errno::NOSPC
            };
            let true_size = if tells { length as u32 + 1 } else { 0 };
            (Err(errno), true_size)
        });
        (rooms, logged)
    }

    #[test]
    fn room_for_what_the_kernel_tells() {
        let (seen, logged) = rooms(100, true, MOST_ROOM);
        assert_eq!(seen, [FIRST_ROOM]);
        assert_eq!(logged.result.unwrap_err(), Errno::ACCESS);
        assert_eq!(logged.log.len(), 100);

        let (seen, logged) = rooms(FIRST_ROOM - 1, true, MOST_ROOM);
        assert_eq!((seen.len(), logged.log.len()), (1, FIRST_ROOM - 1));
        let (seen, logged) = rooms(5_000_000, true, MOST_ROOM);
        assert_eq!(seen, [FIRST_ROOM, 5_000_001 + SLACK]);
        assert_eq!(logged.log.len(), 5_000_000);
    }

    #[test]
    fn room_that_grows_where_it_tells_nothing() {
        let (seen, logged) = rooms(300_000, false, MOST_ROOM);
        assert_eq!(seen, [FIRST_ROOM, 4 * FIRST_ROOM, 16 * FIRST_ROOM]);
        assert_eq!(logged.log.len(), 300_000);
        assert_eq!(logged.result.unwrap_err(), Errno::ACCESS);
    }

    #[test]
    fn a_kernel_that_takes_no_longer_logs() {
        let (_, logged) = rooms(1 << 20, false, 4 * FIRST_ROOM);
        assert_eq!(logged.result.unwrap_err(), Errno::NOSPC);
        assert_eq!(logged.log.len(), 4 * FIRST_ROOM - 1);
    }

    #[test]
    fn another_lack_of_space_is_not_the_logs() {
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
