//! The number of possible CPUs, which decides how long a per-CPU value is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2};
use rustix::io::Errno;

const SYS: &str = "/sys";
/// From linux/magic.h.
const SYSFS_MAGIC: u32 = 0x6265_6572;
const POSSIBLE: &str = "devices/system/cpu/possible";

/// The number of possible CPUs, read once.
///
/// The kernel writes one value for each of them, regardless of the buffer's length. So the number must come
/// from the kernel's own file, not from an imitation that a container has mounted there.
pub(crate) fn possible() -> io::Result<usize> {
    static COUNT: OnceLock<usize> = OnceLock::new();
    if let Some(&count) = COUNT.get() {
        return Ok(count);
    }
    let text = super::read_to_string(open()?.as_fd())?;
    let count = parse(&text).ok_or_else(|| invalid("not a list of CPUs"))?;
    Ok(*COUNT.get_or_init(|| count))
}

fn open() -> io::Result<OwnedFd> {
    /// The inode of the root of every sysfs.
    const ROOT: u64 = 1;
    let path_only = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let sys = rustix::fs::open(SYS, path_only, Mode::empty())?;
    let is_sysfs = fstatfs(&sys)?.f_type as u32 == SYSFS_MAGIC;
    if !is_sysfs || fstat(&sys)?.st_ino != ROOT {
        return Err(invalid("not the kernel's own file: /sys is not sysfs"));
    }
    let read = OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match openat2(&sys, POSSIBLE, read, Mode::empty(), resolve) {
        Err(Errno::XDEV) => Err(invalid(
            "not the kernel's own file: another is mounted there",
        )),
        opened => Ok(opened?),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{SYS}/{POSSIBLE}: {what}"),
    )
}

/// The number of CPUs in a list such as "0-3,8". Values of missing CPUs take no space.
fn parse(list: &str) -> Option<usize> {
    list.trim().split(',').try_fold(0_usize, |count, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        let length = last.checked_sub(first)?.checked_add(1)?;
        count.checked_add(length)
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_cpus_of_a_list_are_counted() {
        assert_eq!(parse("0\n"), Some(1));
        assert_eq!(parse("0-3\n"), Some(4));
        assert_eq!(parse("0-1,4-7"), Some(6));
        for bad in [
            "",
            "\n",
            "a",
            "0-",
            "0,",
            "3-0",
            "0x1",
            "99999999999999999999",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
