//! Types of file systems, by their magic numbers.

use std::fmt;

use bpf_pin_sys::BPF_FS_MAGIC;
use rustix::fs::StatFs;

/// A type of file system: the magic number that `statfs(2)` reports.
///
/// # Examples
///
/// ```
/// use bpf_pin::types::FileSystem;
///
/// assert!(FileSystem::BPF.is_bpffs());
/// assert_eq!(FileSystem::BPF.to_string(), "bpffs");
/// ```
///
/// # References
///
/// [statfs(2)](https://man7.org/linux/man-pages/man2/statfs.2.html),
/// include/uapi/linux/magic.h
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileSystem(u32);

impl FileSystem {
    /// bpffs, the file system that pins live on. Linux 4.4.
    pub const BPF: Self = Self(BPF_FS_MAGIC);
    pub(crate) const PROC: Self = Self(0x9fa0);
    pub(crate) const CGROUP2: Self = Self(0x6367_7270);
    pub(crate) const SECURITYFS: Self = Self(0x7363_6673);

    /// Takes the low 32 bits of `f_type`. The field is signed and 32 bits wide on 32-bit machines, where a magic
    /// number with the top bit set is negative. It is unsigned on s390x.
    #[allow(clippy::unnecessary_cast, reason = "f_type's type differs by target")]
    pub(crate) fn from_stat(stat: &StatFs) -> Self {
        Self(stat.f_type as u32)
    }

    /// True if the kernel follows symbolic links in that mount: it lacks `ST_NOSYMFOLLOW`, Linux 5.10.
    #[allow(clippy::unnecessary_cast, reason = "f_flags' type differs by target")]
    pub(crate) fn follows_links(stat: &StatFs) -> bool {
        stat.f_flags as u64 & ST_NOSYMFOLLOW == 0
    }

    /// True if the file system or that mount is read-only.
    #[allow(clippy::unnecessary_cast, reason = "f_flags' type differs by target")]
    pub(crate) fn is_read_only(stat: &StatFs) -> bool {
        stat.f_flags as u64 & ST_RDONLY != 0
    }

    /// The magic number.
    pub const fn magic(self) -> u32 {
        self.0
    }

    /// True for bpffs, the only file system that objects can be pinned on.
    pub const fn is_bpffs(self) -> bool {
        self.0 == BPF_FS_MAGIC
    }

    /// The name that `mount(8)` uses, if this library knows the number. ext2, ext3 and ext4 share a number.
    pub fn name(self) -> Option<&'static str> {
        // From include/uapi/linux/magic.h and the sources of the file systems.
        Some(match self.0 {
            BPF_FS_MAGIC => "bpf",
            0x0000_0187 => "autofs",
            0x0000_1cd1 => "devpts",
            0x0000_9fa0 => "proc",
            0x0000_9660 => "iso9660",
            0x0000_ef53 => "ext4",
            0x0000_6969 => "nfs",
            0x0000_4d44 => "vfat",
            0x0027_e0eb => "cgroup",
            0x0102_1994 => "tmpfs",
            0x0102_1997 => "9p",
            0x1980_0202 => "mqueue",
            0x2011_bab0 => "exfat",
            0x2fc1_2fc1 => "zfs",
            0x3153_464a => "jfs",
            0x5049_5045 => "pipefs",
            0x5346_544e => "ntfs",
            0x534f_434b => "sockfs",
            0x5846_5342 => "xfs",
            0x6165_676c => "pstore",
            0x6265_6570 => "configfs",
            0x6265_6572 => "sysfs",
            0x6367_7270 => "cgroup2",
            0x6462_6720 => "debugfs",
            0x6573_5543 => "fusectl",
            0x6573_5546 => "fuse",
            0x6c6f_6f70 => "binfmt_misc",
            0x6e73_6673 => "nsfs",
            0x7371_7368 => "squashfs",
            0x7363_6673 => "securityfs",
            0x7472_6163 => "tracefs",
            0x794c_7630 => "overlay",
            0x8584_58f6 => "ramfs",
            0x9123_683e => "btrfs",
            0x9584_58f6 => "hugetlbfs",
            0xaad7_aaea => "panfs",
            0xca45_1a4e => "bcachefs",
            0xde5e_81e4 => "efivarfs",
            0xe0f5_e1e2 => "erofs",
            0xf2f5_2010 => "f2fs",
            0xf97c_ff8c => "selinuxfs",
            0xfe53_4d42 => "smb2",
            0xff53_4d42 => "cifs",
            _ => return None,
        })
    }
}

/// A mount flag that `statfs(2)` reports.
pub(crate) const ST_NOSYMFOLLOW: u64 = 0x2000;
const ST_RDONLY: u64 = 1;

/// Writes the usual name: bpffs, although its type is "bpf".
impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            _ if self.is_bpffs() => f.write_str("bpffs"),
            Some(name) => f.write_str(name),
            None => write!(f, "a file system of type {:#x}", self.0),
        }
    }
}

impl fmt::Debug for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileSystem({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpffs_is_recognized_for_every_type_of_f_type() {
        let wide: i64 = 0xcafe_4a11;
        let narrow: i32 = BPF_FS_MAGIC as i32;
        assert!(narrow < 0);
        for seen in [wide as u32, narrow as u32, i64::from(narrow) as u32] {
            assert!(FileSystem(seen).is_bpffs());
        }
    }

    #[test]
    fn an_unknown_type_displays_its_number() {
        assert_eq!(
            FileSystem(0x1234_5678).to_string(),
            "a file system of type 0x12345678"
        );
    }
}
