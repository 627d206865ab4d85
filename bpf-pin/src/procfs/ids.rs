//! This thread's file-system uid and gid, and ids without a mapping in its user namespace.

use rustix::process::{getegid, geteuid};

use crate::process::in_user_namespace;
use crate::sys;

use super::{THREAD, open_dir, read_file};

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
    let text = read_file(open_dir(THREAD).ok()?, c"status").ok()?;
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
    const DEFAULT: u64 = 65534;

    if in_user_namespace() == Some(false) {
        return Ok(());
    }
    for (what, id, file) in [
        ("user", uid, c"/proc/sys/kernel/overflowuid"),
        ("group", gid, c"/proc/sys/kernel/overflowgid"),
    ] {
        let overflow = sys::read_number(file).unwrap_or(DEFAULT);
        if let Some(id) = id.filter(|&id| u64::from(id) == overflow) {
            return Err(UnmappedId { what, id });
        }
    }
    Ok(())
}
