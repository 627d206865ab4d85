//! This thread's file-system uid and gid, and ids without a mapping in its user namespace.

use std::fs;

use rustix::process::{getegid, geteuid};

use crate::process::in_user_namespace;

use super::{read_file, thread_dir};

/// True if files of this user belong to this thread's file-system user.
pub(crate) fn is_own_uid(uid: u32) -> bool {
    // The two differ only after setfsuid(2).
    uid == geteuid().as_raw() || file_system_id("Uid:") == Some(uid)
}

/// The group of the files that this thread creates in a directory without the set-group-ID bit. `found` is
/// the group of such a file.
pub(crate) fn own_gid(found: u32) -> u32 {
    match getegid().as_raw() {
        effective if effective == found => effective,
        effective => file_system_id("Gid:").unwrap_or(effective),
    }
}

/// The id that setfsuid(2) or setfsgid(2) has set. No syscall reads it.
#[cold]
fn file_system_id(key: &str) -> Option<u32> {
    let text = read_file(thread_dir(".").ok()?, "status").ok()?;
    let ids = text.lines().find_map(|line| line.strip_prefix(key))?;
    // Real, effective, saved, file system.
    ids.split_whitespace().nth(3)?.parse().ok()
}

/// An id that this user namespace shows for all ids without a mapping.
pub(crate) struct UnmappedId {
    /// "user" or "group".
    pub(crate) what: &'static str,
    pub(crate) id: u32,
}

/// Fails if this user namespace shows the id for all ids without a mapping. Such an id does not identify the
/// owner, so giving it to another file could change the owner.
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
