//! The options of a bpffs: setting them, and checking that they took effect.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use bpf_pin_sys::Version;
use rustix::fs::{fstat, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, fsconfig_set_string};
use rustix::path::Arg;

use crate::diagnose;
use crate::error::{Cause, Reason};
use crate::process::is_filtered;
use crate::procfs::Mount;
use crate::token::{Allowed, Delegation, SINCE_DELEGATION};
use crate::types::ST_NOSYMFOLLOW;
use crate::types::{AttachType, Command, MapType, ProgType};

/// The options of a new bpffs.
///
/// By default the root has mode 0700, and the owner and group of the thread that mounts it. (The kernel's
/// own default mode is 1777.)
///
/// The kernel ignores unknown options without an error, so each option is read back after mounting. If one
/// had no effect, the call fails and nothing stays mounted.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::bpffs::MountOptions;
///
/// let bpffs = MountOptions::new()
///     .mode(0o750)
///     .nosuid(true)
///     .nodev(true)
///     .noexec(true)
///     .mount("/run/app/bpffs")?;
/// println!("device {}", bpffs.dev());
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct MountOptions {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    source: Option<OsString>,
    /// `MOUNT_ATTR_*`
    flags: u32,
    delegation: Delegation,
    pub(super) refuses_second: bool,
}

const DEFAULT_MODE: u32 = 0o700;
const STICKY: u32 = 0o1000;

const SINCE_MODE: Version = Version::new(4, 10);
/// Ignored in between: from 5.2, when bpffs began to support fsopen(2).
const SINCE_SOURCE: Version = Version::new(5, 17);
const SINCE_OWNER: Version = Version::new(6, 8);
/// For mount(2). fsmount(2) knows the flag from [`FSMOUNT_LACKS_NOSYMFOLLOW`] on.
const SINCE_NOSYMFOLLOW: Version = Version::new(5, 10);
const FSMOUNT_LACKS_NOSYMFOLLOW: Cause = Cause::Unsupported {
    what: "MOUNT_ATTR_NOSYMFOLLOW",
    since: Version::new(5, 14),
};

/// The flags of a mount: `MOUNT_ATTR_*`, `MS_*`, `ST_*` and the name. For "ro", mount(2) also makes the file
/// system read-only, which makes no difference: it has only this mount.
const FLAGS: [(u32, MountFlags, u64, &str); 5] = [
    (0x1, MountFlags::RDONLY, 0x1, "ro"),
    (0x2, MountFlags::NOSUID, 0x2, "nosuid"),
    (0x4, MountFlags::NODEV, 0x4, "nodev"),
    (0x8, MountFlags::NOEXEC, 0x8, "noexec"),
    (
        NOSYMFOLLOW.bits(),
        MountFlags::from_bits_retain(0x100),
        ST_NOSYMFOLLOW,
        "nosymfollow",
    ),
];
const NOSYMFOLLOW: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW;

/// The longest string that fsconfig(2) accepts, with its NUL.
const MAX_VALUE_SIZE: usize = 256;

impl MountOptions {
    /// Returns the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// `mode`: sets the permissions of the root, up to 0o7777. The sticky bit is always set. Linux 4.10.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// `uid`: sets the owner of the root. Linux 6.8.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// `gid`: sets the group of the root. Linux 6.8.
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// Sets the source, which mountinfo and mount(8) show: up to 255 bytes. Linux 5.17, and before 5.2.
    ///
    /// By default it is "bpf", or "none" if the kernel ignores it.
    pub fn source(mut self, source: impl AsRef<OsStr>) -> Self {
        self.source = Some(source.as_ref().to_owned());
        self
    }

    /// `nosuid`, a flag of the mount: the kernel ignores set-user-ID bits in it.
    pub fn nosuid(self, nosuid: bool) -> Self {
        self.flag(MountAttrFlags::MOUNT_ATTR_NOSUID, nosuid)
    }

    /// `nodev`, a flag of the mount: the kernel opens no device files in it.
    pub fn nodev(self, nodev: bool) -> Self {
        self.flag(MountAttrFlags::MOUNT_ATTR_NODEV, nodev)
    }

    /// `noexec`, a flag of the mount: the kernel executes no files in it.
    pub fn noexec(self, noexec: bool) -> Self {
        self.flag(MountAttrFlags::MOUNT_ATTR_NOEXEC, noexec)
    }

    /// `nosymfollow`, a flag of the mount: the kernel follows no symbolic link in it. Linux 5.10, and for a
    /// [detached](Self::detached) bpffs 5.14.
    ///
    /// A process that may write to a directory then cannot redirect others with a link, and a
    /// [`PinDir`](crate::PinDir) opens a pin with one syscall less. The flag affects trusted links too: tc
    /// makes some on the bpffs that it uses.
    pub fn nosymfollow(self, nosymfollow: bool) -> Self {
        self.flag(NOSYMFOLLOW, nosymfollow)
    }

    /// `ro`, a flag of the mount: nothing can be pinned through it.
    pub fn read_only(self, read_only: bool) -> Self {
        self.flag(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only)
    }

    fn flag(mut self, flag: MountAttrFlags, is_set: bool) -> Self {
        let mut flags = self.flags();
        flags.set(flag, is_set);
        self.flags = flags.bits();
        self
    }

    /// `delegate_cmds`: sets the commands that a token of this bpffs allows. Linux 6.9.
    pub fn delegate_cmds(mut self, cmds: impl Into<Allowed<Command>>) -> Self {
        self.delegation.cmds = cmds.into();
        self
    }

    /// `delegate_maps`: sets the types of maps that may be created with a token of it. Linux 6.9.
    pub fn delegate_maps(mut self, maps: impl Into<Allowed<MapType>>) -> Self {
        self.delegation.maps = maps.into();
        self
    }

    /// `delegate_progs`: sets the types of programs that may be loaded with a token of it. Linux 6.9.
    pub fn delegate_progs(mut self, progs: impl Into<Allowed<ProgType>>) -> Self {
        self.delegation.progs = progs.into();
        self
    }

    /// `delegate_attachs`: sets the attach types that programs may be loaded for with a token of it. Linux
    /// 6.9.
    pub fn delegate_attachs(mut self, attachs: impl Into<Allowed<AttachType>>) -> Self {
        self.delegation.attachs = attachs.into();
        self
    }

    /// Makes [`Bpffs::ensure`](crate::Bpffs::ensure) fail if process 1 has a bpffs at the path that this
    /// thread does not see. By default it mounts a second bpffs there. See
    /// [`MountOutcome::in_process_1`](crate::bpffs::MountOutcome::in_process_1).
    pub fn refuse_second_bpffs(mut self, refuse: bool) -> Self {
        self.refuses_second = refuse;
        self
    }

    /// Checks the values that can be checked without a syscall.
    pub(crate) fn check(&self) -> Result<(), Cause> {
        let invalid = |option, problem: String| Err(Cause::invalid(option, problem));
        if let Some(mode @ 0o10000..) = self.mode {
            return invalid("mode", format!("is 0o{mode:o}, and the limit is 0o7777"));
        }
        for (option, id) in [("uid", self.uid), ("gid", self.gid)] {
            // chown(2) and the like take it for "leave unchanged".
            if id == Some(u32::MAX) {
                return invalid(
                    option,
                    format!("is {}, which means \"no change\"", u32::MAX),
                );
            }
        }
        let source = self.source_or_default().as_bytes();
        if source.is_empty() {
            return invalid("source", "is empty".to_owned());
        }
        if source.contains(&0) {
            return invalid("source", "contains a NUL byte".to_owned());
        }
        if source.len() >= MAX_VALUE_SIZE {
            let (len, most) = (source.len(), MAX_VALUE_SIZE - 1);
            return invalid(
                "source",
                format!("has {len} bytes, and the limit is {most}"),
            );
        }
        for option in self.delegation.options() {
            if let Some(number) = option.too_large {
                return invalid(
                    option.name,
                    format!("contains {number}, and the limit is 63"),
                );
            }
        }
        Ok(())
    }

    pub(super) fn source_or_default(&self) -> &OsStr {
        self.source.as_deref().unwrap_or(OsStr::new("bpf"))
    }

    fn mode_or_default(&self) -> u32 {
        self.mode.unwrap_or(DEFAULT_MODE)
    }

    /// The names and values of mode and owner.
    fn owner_values(&self, mode: Option<u32>) -> impl Iterator<Item = (&'static str, String)> {
        let mode = mode.map(|mode| ("mode", format!("{mode:o}")));
        let uid = self.uid.map(|uid| ("uid", uid.to_string()));
        let gid = self.gid.map(|gid| ("gid", gid.to_string()));
        mode.into_iter().chain(uid).chain(gid)
    }

    /// The name of the first option that delegates anything.
    pub(super) fn first_delegated(&self) -> Option<&'static str> {
        self.delegation.options().next().map(|option| option.name)
    }

    /// The options in the format of mount(2).
    pub(super) fn to_data(&self) -> CString {
        let delegation = self.delegation.options();
        let options = self
            .owner_values(Some(self.mode_or_default()))
            .chain(delegation.map(|option| (option.name, option.value())));
        let words: Vec<_> = options
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        CString::new(words.join(",")).unwrap_or_default()
    }

    /// Sets all options of a context from fsopen(2).
    pub(super) fn configure(&self, context: BorrowedFd<'_>) -> Result<(), Reason> {
        set(context, "source", self.source_or_default())?;
        self.configure_owner(context, Some(self.mode_or_default()))?;
        self.configure_delegation(context)
    }

    /// Sets the delegation in a context that another process opened, and mode and owner if they were chosen.
    pub(super) fn configure_granted(&self, context: BorrowedFd<'_>) -> Result<(), Reason> {
        self.prove_owner_options(context)?;
        self.configure_owner(context, self.mode)?;
        self.configure_delegation(context)
    }

    fn configure_owner(&self, context: BorrowedFd<'_>, mode: Option<u32>) -> Result<(), Reason> {
        self.owner_values(mode).try_for_each(|(option, value)| {
            fsconfig_set_string(context, option, value.as_str())
                .map_err(|errno| Reason::new(errno, explain_owner(option, &value, errno)))
        })
    }

    /// Proves that the kernel knows `uid` and `gid`, if they are set. Needed if the owner of the bpffs cannot
    /// be read back.
    pub(super) fn prove_owner_options(&self, context: BorrowedFd<'_>) -> Result<(), Reason> {
        for (option, id) in [("uid", self.uid), ("gid", self.gid)] {
            if id.is_some() {
                prove_known(context, option, SINCE_OWNER)?;
            }
        }
        Ok(())
    }

    /// A detached mount does not show its delegation, so this proves that the kernel knows the options.
    fn configure_delegation(&self, context: BorrowedFd<'_>) -> Result<(), Reason> {
        self.delegation.options().try_for_each(|option| {
            prove_known(context, option.name, SINCE_DELEGATION)?;
            set(context, option.name, option.value())
        })
    }

    /// The flags in the format of fsmount(2).
    pub(super) fn flags(&self) -> MountAttrFlags {
        MountAttrFlags::from_bits_retain(self.flags)
    }

    /// Explains why fsmount(2) failed for a context that this library prepared. It supported every
    /// flag except `nosymfollow` from the start.
    pub(super) fn explain_fsmount(&self, reason: Reason) -> Reason {
        if reason.is(Errno::INVAL) && self.flags().contains(NOSYMFOLLOW) {
            return Reason::new(Errno::INVAL, Some(FSMOUNT_LACKS_NOSYMFOLLOW));
        }
        reason
    }

    /// The flags in the format of mount(2).
    pub(super) fn mount_flags(&self) -> MountFlags {
        let set = FLAGS.iter().filter(|flag| self.flags & flag.0 != 0);
        set.map(|flag| flag.1).collect()
    }

    /// Checks mode and owner of the root.
    pub(super) fn verify_owner(&self, root: BorrowedFd<'_>) -> Result<(), Reason> {
        let found = fstat(root).map_err(Reason::errno_only)?;
        let mode = self.mode_or_default() | STICKY;
        let (option, since) = if found.st_mode & 0o7777 != mode {
            ("mode", SINCE_MODE)
        } else if self.uid.is_some_and(|uid| uid != found.st_uid) {
            ("uid", SINCE_OWNER)
        } else if self.gid.is_some_and(|gid| gid != found.st_gid) {
            ("gid", SINCE_OWNER)
        } else {
            return Ok(());
        };
        Err(ignored(option, since).into())
    }

    /// Checks the flags of the mount.
    pub(super) fn verify_flags(&self, root: BorrowedFd<'_>) -> Result<(), Reason> {
        let found = fstatvfs(root).map_err(Reason::errno_only)?.f_flag.bits();
        for (flag, _, statvfs_flag, option) in FLAGS {
            if self.flags & flag != 0 && found as u64 & statvfs_flag == 0 {
                let since = (flag == NOSYMFOLLOW.bits()).then_some(SINCE_NOSYMFOLLOW);
                return Err(Cause::OptionIgnored { option, since }.into());
            }
        }
        Ok(())
    }

    /// Returns true if some options can only be checked in mountinfo.
    pub(super) fn needs_mountinfo(&self) -> bool {
        self.source.is_some() || !self.delegation.is_empty()
    }

    /// Checks the options that mountinfo shows.
    pub(super) fn verify_mountinfo(&self, mount: &Mount) -> Result<(), Cause> {
        let source = self.source.as_ref();
        if source.is_some_and(|source| *source != mount.source) {
            return Err(ignored("source", SINCE_SOURCE));
        }
        let mut delegation = self.delegation.options();
        match delegation.find(|option| !option.is_accepted(mount)) {
            Some(option) => Err(ignored(option.name, SINCE_DELEGATION)),
            None => Ok(()),
        }
    }
}

fn ignored(option: &'static str, since: Version) -> Cause {
    let since = Some(since);
    Cause::OptionIgnored { option, since }
}

/// Returns true if mount(2) may still succeed: the kernel or a seccomp filter lacks a newer call, or one
/// of its flags.
pub(super) fn needs_mount(reason: &Reason) -> bool {
    reason.is(Errno::NOSYS) || lacks_nosymfollow(reason)
}

pub(super) fn lacks_nosymfollow(reason: &Reason) -> bool {
    reason.cause() == Some(&FSMOUNT_LACKS_NOSYMFOLLOW)
}

fn set(context: BorrowedFd<'_>, option: &str, value: impl Arg) -> Result<(), Reason> {
    fsconfig_set_string(context, option, value)
        .map_err(|errno| Reason::new(errno, diagnose::mount(errno)))
}

/// Proves that the kernel knows an option: it rejects a bad value, and ignores unknown options.
fn prove_known(
    context: BorrowedFd<'_>,
    option: &'static str,
    since: Version,
) -> Result<(), Reason> {
    match fsconfig_set_string(context, option, c"") {
        Err(Errno::INVAL) => Ok(()),
        Ok(()) => Err(ignored(option, since).into()),
        Err(errno) => Err(Reason::new(errno, diagnose::mount(errno))),
    }
}

/// EINVAL for a numeric owner has only one reason.
#[cold]
fn explain_owner(option: &'static str, value: &str, errno: Errno) -> Option<Cause> {
    if errno == Errno::INVAL && option != "mode" && !is_filtered() {
        let problem = format!(
            "{value} has no mapping in this thread's user namespace, or none in that of the bpffs"
        );
        return Some(Cause::invalid(option, problem));
    }
    diagnose::mount(errno)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use rustix::fs::fstatvfs;

    use super::{FLAGS, MountOptions, SINCE_NOSYMFOLLOW};
    use crate::error::Cause;

    /// No kernel ignores these flags, so the test checks a mount without them.
    #[test]
    fn an_ignored_flag_is_an_error() {
        let root = File::open("/").unwrap();
        let found = fstatvfs(&root).unwrap().f_flag.bits();
        for (flags, _, statvfs_flag, option) in FLAGS {
            let options = MountOptions {
                flags,
                ..MountOptions::new()
            };
            let verified = options.verify_flags(root.as_fd());
            if found as u64 & statvfs_flag != 0 {
                verified.unwrap();
                continue;
            }
            let since = (option == "nosymfollow").then_some(SINCE_NOSYMFOLLOW);
            let ignored = Cause::OptionIgnored { option, since };
            assert_eq!(verified.unwrap_err().cause(), Some(&ignored));
        }
        MountOptions::new().verify_flags(root.as_fd()).unwrap();
    }
}
