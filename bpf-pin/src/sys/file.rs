//! Reads the kernel's small files, in /proc and the like.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{read, retry_on_intr};

use super::Result;

/// Reads from the current position to the end of the file, and appends it to `bytes`.
pub(crate) fn read_to_end(file: BorrowedFd<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    loop {
        // The kernel returns up to a page of whole lines per call.
        bytes.reserve(4 << 10);
        if retry_on_intr(|| read(file, spare_capacity(bytes)))? == 0 {
            return Ok(());
        }
    }
}

/// Reads from the current position to the end of the file. Bytes that are not UTF-8 are replaced.
pub(crate) fn read_to_string(file: BorrowedFd<'_>) -> Result<String> {
    let mut bytes = Vec::new();
    read_to_end(file, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn read_file(path: &CStr) -> Result<String> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    read_to_string(file.as_fd())
}

/// The number in a file of /proc/sys. `None` if it cannot be read.
pub(crate) fn read_number(path: &CStr) -> Option<u64> {
    read_file(path).ok()?.trim_ascii().parse().ok()
}
