//! How many CPUs the kernel may ever bring up: the length of a per-CPU value.

use std::fs::File;
use std::io::{self, Read};
use std::sync::OnceLock;

use rustix::fs::fstatfs;

use crate::magic::FileSystem;

const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// The number of possible CPUs, read once.
///
/// The kernel writes one value for each of them whatever the caller believes, so
/// the file must be sysfs' own: a container's imitation of it is refused.
pub(crate) fn possible() -> io::Result<usize> {
    static COUNT: OnceLock<usize> = OnceLock::new();
    if let Some(&count) = COUNT.get() {
        return Ok(count);
    }
    let mut file = File::open(POSSIBLE)?;
    if FileSystem::from_stat(&fstatfs(&file)?) != FileSystem::SYSFS {
        return Err(invalid(
            "not the kernel's own file: another file system is mounted there",
        ));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let count = parse(&text).ok_or_else(|| invalid("not a list of CPUs"))?;
    Ok(*COUNT.get_or_init(|| count))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{POSSIBLE}: {what}"))
}

/// One more than the highest number in a list such as "0-3,8": the kernel's own
/// arrays are that long, gaps included.
fn parse(list: &str) -> Option<usize> {
    let mut highest = None;
    for range in list.trim().split(',') {
        let last = range.rsplit('-').next()?;
        let last: usize = last.parse().ok()?;
        highest = highest.max(Some(last));
    }
    highest?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lists() {
        assert_eq!(parse("0\n"), Some(1));
        assert_eq!(parse("0-3\n"), Some(4));
        assert_eq!(parse("0-1,4-7"), Some(8));
        for bad in ["", "\n", "a", "0-", "0,", "99999999999999999999"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
