//! Why mounting, attaching or unmounting failed.

use bpf_pin_sys::Version;
use rustix::io::Errno;

use crate::error::Cause;
use crate::process::{Capability, in_user_namespace, is_filtered, lacks};
use crate::sys;

use super::privilege;

/// Why configuring or creating a bpffs, or mount(2), failed.
#[cold]
pub(crate) fn mount(errno: Errno) -> Option<Cause> {
    if errno != Errno::PERM {
        return None;
    }
    // In a user namespace no capability is enough.
    match in_user_namespace() {
        Some(true) => (!is_filtered()).then_some(Cause::NeedsDelegation),
        _ => lacks_sys_admin(),
    }
}

/// Why fsopen(2), fsmount(2), open_tree(2) or umount2(2) failed. All of them begin with the same check.
#[cold]
pub(crate) fn mount_namespace(errno: Errno) -> Option<Cause> {
    if errno != Errno::PERM {
        return None;
    }
    let foreign = || {
        let is_certain = lacks(Capability::SysAdmin) == Some(false) && !is_filtered();
        (is_certain && in_user_namespace() == Some(true)).then_some(Cause::ForeignUserNamespace {
            what: "mount namespace",
        })
    };
    lacks_sys_admin().or_else(foreign)
}

/// ENOSYS of one of the calls of Linux 5.2. On a newer kernel a seccomp filter may return it.
#[cold]
pub(crate) fn missing_call(what: &'static str) -> Option<Cause> {
    let since = Version::new(5, 2);
    (!is_filtered()).then_some(Cause::Unsupported { what, since })
}

fn lacks_sys_admin() -> Option<Cause> {
    privilege::missing(Capability::SysAdmin, "mounting")
}

/// Why move_mount(2) failed.
#[cold]
pub(crate) fn attach(errno: Errno) -> Option<Cause> {
    match errno {
        Errno::PERM => lacks_sys_admin(),
        Errno::NOSPC => table_full(),
        _ => None,
    }
}

/// ENOSPC, which has one reason: the limit of this mount namespace, or of one that the mount propagates to.
fn table_full() -> Option<Cause> {
    let most = sys::read_number(c"/proc/sys/fs/mount-max")?;
    (!is_filtered()).then_some(Cause::MountTableFull { most })
}
