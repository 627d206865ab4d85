//! Finds the mode, owner or read-only mount that denies a call on a path.

use std::path::Path;

use rustix::fs::{Access as Permission, AtFlags, Mode, accessat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::error::Cause;
use crate::path::{AtPath, Pathname};
use crate::process::overrides_owners;
use crate::types::{Access, FileSystem};

/// The cause if the mode and owner of `prefix` deny `wanted`.
pub(super) fn denied(
    at: &AtPath<'_>,
    prefix: &Path,
    wanted: Permission,
    verb: &'static str,
) -> Option<Cause> {
    let name = Pathname::known(prefix);
    let result = accessat(at.begin(), name.as_c_str(), wanted, AtFlags::EACCESS);
    let stat = at.stat(prefix).filter(|_| result == Err(Errno::ACCESS))?;
    Some(Cause::Blocked {
        path: at.displayed(prefix),
        mode: (Mode::from_raw_mode(stat.st_mode) & Mode::all()).bits(),
        uid: stat.st_uid,
        wanted: verb,
        read_only_would_do: false,
    })
}

/// The first directory of the path that may not be searched.
pub(super) fn unsearchable(at: &AtPath<'_>) -> Option<Cause> {
    let prefixes = at.prefixes();
    // The directory of "." is "." itself.
    let directories = prefixes.len().saturating_sub(1).max(1);
    let mut directories = prefixes.into_iter().take(directories);
    directories.find_map(|prefix| denied(at, prefix, Permission::EXEC_OK, "search"))
}

pub(super) fn unwritable(at: &AtPath<'_>) -> Option<Cause> {
    denied(at, at.directory(), Permission::WRITE_OK, "write")
}

/// The cause if the pin's own mode denies `access`.
pub(super) fn unreadable(at: &AtPath<'_>, access: Access) -> Option<Cause> {
    let (wanted, verb) = match access {
        Access::ReadWrite => (Permission::READ_OK | Permission::WRITE_OK, "read and write"),
        Access::ReadOnly => (Permission::READ_OK, "read"),
        Access::WriteOnly => (Permission::WRITE_OK, "write"),
    };
    let mut cause = denied(at, at.relative(), wanted, verb)?;
    if let Cause::Blocked {
        read_only_would_do, ..
    } = &mut cause
    {
        let read_only = Access::ReadOnly.flags();
        *read_only_would_do = access == Access::ReadWrite && at.get(read_only).is_ok();
    }
    Some(cause)
}

pub(super) fn read_only(at: &AtPath<'_>, prefix: &Path) -> Option<Cause> {
    let is_read_only = FileSystem::is_read_only(&at.statfs(prefix)?);
    is_read_only.then(|| Cause::ReadOnlyFileSystem {
        path: at.displayed(prefix),
    })
}

/// The cause if the directory is sticky, and this user owns neither it nor the pin.
pub(super) fn sticky(at: &AtPath<'_>) -> Option<Cause> {
    let (directory, pin) = (at.stat(at.directory())?, at.lstat().ok()?);
    let user = geteuid().as_raw();
    let is_sticky = Mode::from_raw_mode(directory.st_mode).contains(Mode::SVTX);
    let is_denied =
        is_sticky && directory.st_uid != user && pin.st_uid != user && !overrides_owners();
    is_denied.then(|| Cause::Sticky {
        directory: at.displayed(at.directory()),
        uid: pin.st_uid,
    })
}
