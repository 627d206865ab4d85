//! Whose the files are that this thread makes, and whom it cannot tell.

use std::fs::{self, File};
use std::io::read_to_string;

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{getegid, geteuid};

use crate::capability::user_namespace_is_own;
use crate::cause::Cause;
use crate::kind::proc_dir;

/// Whether files of this user are this thread's own.
pub(crate) fn is_own_uid(uid: u32) -> bool {
    // The two differ only for who has called setfsuid(2).
    uid == geteuid().as_raw() || file_system_id("Uid:") == Some(uid)
}

/// The group of the files that this thread makes, where the directory does not hand down its own.
pub(crate) fn own_gid(found: u32) -> u32 {
    match getegid().as_raw() {
        effective if effective == found => found,
        effective => file_system_id("Gid:").unwrap_or(effective),
    }
}

/// By setfsuid(2) and setfsgid(2), which no call asks for.
#[cold]
fn file_system_id(key: &str) -> Option<u32> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(proc_dir(".")?, c"status", flags, Mode::empty()).ok()?;
    let text = read_to_string(File::from(file)).ok()?;
    let ids = text.lines().find_map(|line| line.strip_prefix(key))?;
    // Real, effective, saved, and that of the file system.
    ids.split_whitespace().nth(3)?.parse().ok()
}

/// An error where in this user namespace the id is shown for all who are not mapped there: given to
/// another file, it may be somebody else's.
#[cold]
pub(crate) fn can_be_told(uid: Option<u32>, gid: Option<u32>) -> Result<(), Cause> {
    if user_namespace_is_own() == Some(false) {
        return Ok(());
    }
    for (what, id, file) in [("user", uid, "overflowuid"), ("group", gid, "overflowgid")] {
        if let Some(id) = id.filter(|&id| id == overflow_id(file)) {
            return Err(Cause::UnmappedOwner { what, id });
        }
    }
    Ok(())
}

fn overflow_id(file: &str) -> u32 {
    /// `DEFAULT_OVERFLOWUID`
    const DEFAULT: u32 = 65534;
    let text = fs::read_to_string(format!("/proc/sys/kernel/{file}"));
    let id = text.ok().and_then(|text| text.trim().parse().ok());
    id.unwrap_or(DEFAULT)
}
