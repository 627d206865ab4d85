//! Reads one mount with statmount(2), instead of all mounts from mountinfo.

use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, StatxFlags, makedev, statx};

use crate::process::is_filtered;
use crate::sys;

use super::{Mount, Propagation};

/// `STATX_MNT_ID_UNIQUE`. Linux 6.8.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// `STATMOUNT_*`
const SB_BASIC: u64 = 0x1;
const MNT_BASIC: u64 = 0x2;
const PROPAGATE_FROM: u64 = 0x4;
const MNT_ROOT: u64 = 0x8;
const MNT_POINT: u64 = 0x10;
const FS_TYPE: u64 = 0x20;
const MNT_OPTS: u64 = 0x80;
const FS_SUBTYPE: u64 = 0x100;
const SB_SOURCE: u64 = 0x200;

/// The fields that the kernel must report. A kernel that reports the source, from Linux 6.13 on, also has
/// options and subtypes, and omits them only if there are none.
const REQUIRED: u64 =
    SB_BASIC | MNT_BASIC | PROPAGATE_FROM | MNT_ROOT | MNT_POINT | FS_TYPE | SB_SOURCE;

/// The offset of the strings in the buffer.
const STRINGS: usize = 512;

/// The id of the mount that `fd` was opened through. The kernel never reuses it.
pub(crate) fn unique_id(fd: BorrowedFd<'_>) -> Option<u64> {
    let stat = statx(fd, c"", AtFlags::EMPTY_PATH, MNT_ID_UNIQUE).ok()?;
    let is_present = stat.stx_mask & MNT_ID_UNIQUE.bits() != 0;
    is_present.then_some(stat.stx_mnt_id)
}

/// The mount, if mountinfo lists it. Also `None` if the kernel does not report all fields of mountinfo, if
/// the strings do not fit into the buffer, or if a seccomp filter may answer instead of the kernel.
pub(crate) fn by_unique_id(id: u64) -> Option<Mount> {
    Some(StatMount::of(id)?.to_mount())
}

/// True if the mount of `fd` is directly on top of a bpffs. `None` as for [`by_unique_id`].
pub(crate) fn covers_a_bpffs(fd: BorrowedFd<'_>) -> Option<bool> {
    let id = unique_id(fd)?;
    let this = StatMount::of(id)?;
    let below = StatMount::of(this.parent())?.to_mount();
    // Neither mount was moved or unmounted in between.
    let again = StatMount::of(id)?;
    let (this, parent) = (this.to_mount(), this.parent());
    if again.parent() != parent || again.to_mount() != this {
        return None;
    }
    Some(below.is_bpffs() && below.mount_point == this.mount_point)
}

/// `struct statmount` and its strings.
struct StatMount([u8; StatMount::SIZE]);

impl StatMount {
    const SIZE: usize = 8 * 1024;

    fn of(id: u64) -> Option<Self> {
        if is_filtered() {
            return None;
        }
        let mut this = Self([0; Self::SIZE]);
        sys::statmount(id, REQUIRED | MNT_OPTS | FS_SUBTYPE, &mut this.0).ok()?;
        // A mount that this process cannot reach has no mount point.
        let is_complete = this.mask() & REQUIRED == REQUIRED && !this.string(108).is_empty();
        is_complete.then_some(this)
    }

    fn u32(&self, at: usize) -> u32 {
        let bytes = self.0[at..].first_chunk();
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }

    fn u64(&self, at: usize) -> u64 {
        let bytes = self.0[at..].first_chunk();
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    /// `mask`: the fields that are present.
    fn mask(&self) -> u64 {
        self.u64(8)
    }

    /// `mnt_parent_id`, which is never reused either.
    fn parent(&self) -> u64 {
        self.u64(48)
    }

    /// The string that the field at this offset refers to.
    fn string(&self, at: usize) -> &[u8] {
        let strings = self.0[STRINGS..].get(self.u32(at) as usize..);
        let string = strings.and_then(|strings| CStr::from_bytes_until_nul(strings).ok());
        string.map_or(b"", CStr::to_bytes)
    }

    fn to_mount(&self) -> Mount {
        let os = |at| OsStr::from_bytes(self.string(at)).to_owned();
        let mut fs_type = os(36);
        if self.mask() & FS_SUBTYPE != 0 {
            fs_type.push(".");
            fs_type.push(os(120));
        }
        Mount {
            mount_id: self.u32(56).into(),
            parent_id: self.u32(60).into(),
            dev: makedev(self.u32(16), self.u32(20)),
            root: os(104).into(),
            mount_point: os(108).into(),
            options: self.options(),
            propagation: self.propagation(),
            fs_type,
            source: os(124),
            super_options: self.super_options(),
        }
    }

    /// In the format of fs/proc_namespace.c: `show_mnt_opts`.
    fn options(&self) -> OsString {
        /// `MOUNT_ATTR__ATIME`: one of three values.
        const ATIME: u64 = 0x70;
        const OPTIONS: [(u64, u64, &str); 8] = [
            (0x2, 0x2, ",nosuid"),
            (0x4, 0x4, ",nodev"),
            (0x8, 0x8, ",noexec"),
            (ATIME, 0x10, ",noatime"),
            (0x80, 0x80, ",nodiratime"),
            (ATIME, 0, ",relatime"),
            (0x20_0000, 0x20_0000, ",nosymfollow"),
            (0x10_0000, 0x10_0000, ",idmapped"),
        ];

        let attr = self.u64(64);
        let mut options = read_only(attr & 0x1 != 0);
        let set = OPTIONS.iter().filter(|(bits, set, _)| attr & bits == *set);
        set.for_each(|(_, _, name)| options.push(name));
        options
    }

    /// `show_sb_opts`, followed by the file system's own.
    fn super_options(&self) -> OsString {
        const OPTIONS: [(u32, &str); 3] = [
            (1 << 4, ",sync"),
            (1 << 7, ",dirsync"),
            (1 << 25, ",lazytime"),
        ];

        let flags = self.u32(32);
        let mut options = read_only(flags & 0x1 != 0);
        let set = OPTIONS.iter().filter(|(bit, _)| flags & bit != 0);
        set.for_each(|(_, name)| options.push(name));
        if self.mask() & MNT_OPTS != 0 {
            options.push(",");
            options.push(OsString::from_vec(self.string(4).to_vec()));
        }
        options
    }

    fn propagation(&self) -> Propagation {
        let (shared, slave, unbindable) = (1 << 20, 1 << 19, 1 << 17);
        let is = |kind: u64| self.u64(72) & kind != 0;
        let master = is(slave).then_some(self.u64(88));
        let from = Some(self.u64(96)).filter(|&from| from != 0 && Some(from) != master);
        Propagation {
            shared: is(shared).then_some(self.u64(80)),
            master,
            propagate_from: from.filter(|_| master.is_some()),
            unbindable: is(unbindable),
        }
    }
}

fn read_only(is_set: bool) -> OsString {
    if is_set { "ro" } else { "rw" }.into()
}
