//! This thread's file-system ids, and ids that have no mapping in its user namespace.

use std::fs;

use rustix::process::{getegid, geteuid};

use crate::process::in_user_namespace;

use super::{read_file, thread_dir};

/// Whether files of this user are this thread's own.
pub(crate) fn is_own_uid(uid: u32) -> bool {
    // The two differ only after setfsuid(2).
    uid == geteuid().as_raw() || file_system_id("Uid:") == Some(uid)
}

/// The group of the files that this thread creates, unless the directory passes on its own. `found` is the
/// group of one of them.
pub(crate) fn own_gid(found: u32) -> u32 {
    let effective = getegid().as_raw();
    match effective == found {
        true => effective,
        false => file_system_id("Gid:").unwrap_or(effective),
    }
}

/// As set by setfsuid(2) or setfsgid(2). No syscall reads them.
#[cold]
fn file_system_id(key: &str) -> Option<u32> {
    let text = read_file(thread_dir(".").ok()?, "status").ok()?;
    let ids = text.lines().find_map(|line| line.strip_prefix(key))?;
    // Real, effective, saved, file system.
    ids.split_whitespace().nth(3)?.parse().ok()
}

/// An id that may stand for any id without a mapping.
pub(crate) struct UnmappedId {
    /// "user" or "group".
    pub(crate) what: &'static str,
    pub(crate) id: u32,
}

/// Fails if this user namespace shows the id for all that have no mapping in it: another file that is
/// given the id may get another owner.
#[cold]
pub(crate) fn check_mapped(uid: Option<u32>, gid: Option<u32>) -> Result<(), UnmappedId> {
    /// `DEFAULT_OVERFLOWUID`
    const DEFAULT: u32 = 65534;

    if in_user_namespace() == Some(false) {
        return Ok(());
    }
    for (what, id, file) in [("user", uid, "overflowuid"), ("group", gid, "overflowgid")] {
        let text = fs::read_to_string(format!("/proc/sys/kernel/{file}"));
        let overflow = text.ok().and_then(|text| text.trim().parse().ok());
        if let Some(id) = id.filter(|&id| id == overflow.unwrap_or(DEFAULT)) {
            return Err(UnmappedId { what, id });
        }
    }
    Ok(())
}
