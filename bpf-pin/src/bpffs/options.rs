//! The options of a bpffs: setting them, and checking that they took effect.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use bpf_pin_sys::Version;
use rustix::fs::{fstat, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, fsconfig_set_string};

use crate::diagnose;
use crate::error::{Cause, Reason};
use crate::process::is_filtered;
use crate::procfs::Mount;
use crate::token::{Allowed, Delegation, SINCE_DELEGATION};
use crate::types::ST_NOSYMFOLLOW;
use crate::types::{AttachType, Command, MapType, ProgType};

/// The options of a new bpffs. By default its root has mode 0700 and the owner and group of the thread
/// that mounts it. (The kernel's own default is 1777.)
///
/// The kernel ignores unknown options without an error, so each is read back after mounting: an option
/// without effect is an error, and nothing stays mounted.
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
/// Ignored from 5.2 on, when bpffs began to support fsopen(2).
const SINCE_SOURCE: Version = Version::new(5, 17);
const SINCE_OWNER: Version = Version::new(6, 8);
/// For mount(2). For fsmount(2) it is [`NOSYMFOLLOW_OF_FSMOUNT`].
const SINCE_NOSYMFOLLOW: Version = Version::new(5, 10);
const NOSYMFOLLOW_OF_FSMOUNT: Cause = Cause::Unsupported {
    what: "MOUNT_ATTR_NOSYMFOLLOW",
    since: Version::new(5, 14),
};

/// The flags of a mount: `MOUNT_ATTR_*`, `MS_*`, `ST_*` and the name. mount(2) sets "ro" of the file system
/// too, which has no other mount yet.
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

/// The longest string that fsconfig(2) takes, with its NUL.
const VALUE_MAX: usize = 256;

impl MountOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// `mode`: the permissions of the root, up to 0o7777. The sticky bit is always set. Linux 4.10.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// `uid`: the owner of the root. Linux 6.8.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// `gid`: the group of the root. Linux 6.8.
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// The source, which mountinfo and mount(8) show: up to 255 bytes. Linux 5.17, and before 5.2. By
    /// default it is "bpf", or "none" if the kernel ignores it.
    pub fn source(mut self, source: impl AsRef<OsStr>) -> Self {
        self.source = Some(source.as_ref().to_owned());
        self
    }

    /// `nosuid`, of the mount.
    pub fn nosuid(self, nosuid: bool) -> Self {
        self.flag(MountAttrFlags::MOUNT_ATTR_NOSUID, nosuid)
    }

    /// `nodev`, of the mount.
    pub fn nodev(self, nodev: bool) -> Self {
        self.flag(MountAttrFlags::MOUNT_ATTR_NODEV, nodev)
    }

    /// `noexec`, of the mount.
    pub fn noexec(self, noexec: bool) -> Self {
        self.flag(MountAttrFlags::MOUNT_ATTR_NOEXEC, noexec)
    }

    /// `nosymfollow`, of the mount: the kernel follows no symbolic link in it. Linux 5.10, and for a
    /// [detached](Self::detached) bpffs 5.14.
    ///
    /// Nobody who may write to a directory can then redirect others from it, and a
    /// [`PinDir`](crate::PinDir) opens a pin with one syscall less. It affects trusted links too: tc makes
    /// some on the bpffs that it uses.
    pub fn nosymfollow(self, nosymfollow: bool) -> Self {
        self.flag(NOSYMFOLLOW, nosymfollow)
    }

    /// `ro`, of the mount: nothing can be pinned through it.
    pub fn read_only(self, read_only: bool) -> Self {
        self.flag(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only)
    }

    fn flag(mut self, flag: MountAttrFlags, is_set: bool) -> Self {
        let mut flags = self.flags();
        flags.set(flag, is_set);
        self.flags = flags.bits();
        self
    }

    /// `delegate_cmds`: the commands that a token of this bpffs allows. Linux 6.9.
    pub fn delegate_cmds(mut self, cmds: impl Into<Allowed<Command>>) -> Self {
        self.delegation.cmds = cmds.into();
        self
    }

    /// `delegate_maps`: the types of maps that may be created with a token of it. Linux 6.9.
    pub fn delegate_maps(mut self, maps: impl Into<Allowed<MapType>>) -> Self {
        self.delegation.maps = maps.into();
        self
    }

    /// `delegate_progs`: the types of programs that may be loaded with a token of it. Linux 6.9.
    pub fn delegate_progs(mut self, progs: impl Into<Allowed<ProgType>>) -> Self {
        self.delegation.progs = progs.into();
        self
    }

    /// `delegate_attachs`: the attach types that programs may be loaded for with a token of it. Linux 6.9.
    pub fn delegate_attachs(mut self, attachs: impl Into<Allowed<AttachType>>) -> Self {
        self.delegation.attachs = attachs.into();
        self
    }

    /// Makes [`Bpffs::ensure`](crate::Bpffs::ensure) fail, instead of mounting a second bpffs, if process 1
    /// has a bpffs at the path that this thread does not see. See
    /// [`MountOutcome::in_process_1`](crate::bpffs::MountOutcome::in_process_1).
    pub fn refuse_second_bpffs(mut self, refuse: bool) -> Self {
        self.refuses_second = refuse;
        self
    }

    /// Checks what can be checked without a syscall.
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
        let problem = match self.source_or_default().as_bytes() {
            [] => Some("is empty".to_owned()),
            source if source.contains(&0) => Some("contains a NUL byte".to_owned()),
            source if source.len() >= VALUE_MAX => {
                let (len, most) = (source.len(), VALUE_MAX - 1);
                Some(format!("has {len} bytes, and the limit is {most}"))
            }
            _ => None,
        };
        if let Some(problem) = problem {
            return invalid("source", problem);
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

    fn source_or_default(&self) -> &OsStr {
        self.source.as_deref().unwrap_or(OsStr::new("bpf"))
    }

    pub(super) fn source_string(&self) -> CString {
        CString::new(self.source_or_default().as_bytes()).unwrap_or_default()
    }

    fn mode_or_default(&self) -> u32 {
        self.mode.unwrap_or(DEFAULT_MODE)
    }

    /// Names and values of mode and owner.
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

    /// The options as mount(2) takes them.
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

    /// Sets all options of a context from fsopen(2) that no file system was created from.
    pub(super) fn configure(&self, context: BorrowedFd<'_>) -> Result<(), Reason> {
        set(context, "source", &self.source_string())?;
        self.configure_owner(context, Some(self.mode_or_default()))?;
        self.configure_delegation(context)
    }

    /// Sets mode and owner of a context that another process opened, if these options choose them.
    pub(super) fn configure_chosen(&self, context: BorrowedFd<'_>) -> Result<(), Reason> {
        self.configure_owner(context, self.mode)
    }

    fn configure_owner(&self, context: BorrowedFd<'_>, mode: Option<u32>) -> Result<(), Reason> {
        self.owner_values(mode).try_for_each(|(option, value)| {
            fsconfig_set_string(context, option, value.as_str())
                .map_err(|errno| Reason::new(errno, explain_owner(option, &value, errno)))
        })
    }

    /// For a bpffs whose owner cannot be read back: proves that the kernel knows the options that are set,
    /// since it ignores a bad value of an option that it does not know.
    pub(super) fn prove_owner_options(&self, context: BorrowedFd<'_>) -> Result<(), Reason> {
        [("uid", self.uid), ("gid", self.gid)]
            .into_iter()
            .filter(|(_, id)| id.is_some())
            .try_for_each(|(option, _)| prove_known(context, option, SINCE_OWNER))
    }

    /// What a detached mount delegates cannot be read back, so this proves that the kernel knows the
    /// options.
    pub(super) fn configure_delegation(&self, context: BorrowedFd<'_>) -> Result<(), Reason> {
        self.delegation.options().try_for_each(|option| {
            prove_known(context, option.name, SINCE_DELEGATION)?;
            let value = CString::new(option.value()).unwrap_or_default();
            set(context, option.name, &value)
        })
    }

    /// The flags, for fsmount(2).
    pub(super) fn flags(&self) -> MountAttrFlags {
        MountAttrFlags::from_bits_retain(self.flags)
    }

    /// Why fsmount(2) failed, if it takes the other flags: mount(2) may take all.
    #[cold]
    pub(super) fn refused_attribute(
        &self,
        errno: Errno,
        fsmount: impl FnOnce(MountAttrFlags) -> Result<OwnedFd, Errno>,
    ) -> Option<Cause> {
        let is_it = errno == Errno::INVAL
            && self.flags().contains(NOSYMFOLLOW)
            && fsmount(self.flags() - NOSYMFOLLOW).is_ok();
        is_it.then_some(NOSYMFOLLOW_OF_FSMOUNT)
    }

    /// The flags, for mount(2).
    pub(super) fn mount_flags(&self) -> MountFlags {
        let set = FLAGS.iter().filter(|flag| self.flags & flag.0 != 0);
        set.map(|flag| flag.1).collect()
    }

    /// Checks mode and owner of the root.
    pub(super) fn verify_owner(&self, root: BorrowedFd<'_>) -> Result<(), Reason> {
        let stat = fstat(root).map_err(Reason::errno_only)?;
        let mode = self.mode_or_default() | STICKY;
        let all = [
            ("mode", mode == stat.st_mode & 0o7777, SINCE_MODE),
            (
                "uid",
                self.uid.is_none_or(|uid| uid == stat.st_uid),
                SINCE_OWNER,
            ),
            (
                "gid",
                self.gid.is_none_or(|gid| gid == stat.st_gid),
                SINCE_OWNER,
            ),
        ];
        match all.into_iter().find(|(_, took_effect, _)| !took_effect) {
            None => Ok(()),
            Some((option, _, since)) => {
                let since = Some(since);
                Err(Cause::OptionIgnored { option, since }.into())
            }
        }
    }

    /// Checks the flags of the mount.
    pub(super) fn verify_flags(&self, root: BorrowedFd<'_>) -> Result<(), Reason> {
        let found = fstatvfs(root).map_err(Reason::errno_only)?.f_flag.bits();
        for (flag, _, shown, option) in FLAGS {
            if self.flags & flag != 0 && found as u64 & shown == 0 {
                let since = (flag == NOSYMFOLLOW.bits()).then_some(SINCE_NOSYMFOLLOW);
                return Err(Cause::OptionIgnored { option, since }.into());
            }
        }
        Ok(())
    }

    /// Whether mountinfo alone shows some of the options.
    pub(super) fn needs_mountinfo(&self) -> bool {
        self.source.is_some() || !self.delegation.is_empty()
    }

    /// Checks what mountinfo shows.
    pub(super) fn verify_shown(&self, mount: &Mount) -> Result<(), Cause> {
        let ignored = |option, since| {
            let since = Some(since);
            Err(Cause::OptionIgnored { option, since })
        };
        let source = self.source.as_ref();
        if source.is_some_and(|source| *source != mount.source) {
            return ignored("source", SINCE_SOURCE);
        }
        let mut delegation = self.delegation.options();
        match delegation.find(|option| !option.is_accepted(mount)) {
            Some(option) => ignored(option.name, SINCE_DELEGATION),
            None => Ok(()),
        }
    }
}

/// Whether mount(2) may succeed: a newer call, or one of its flags, is missing in this kernel or behind a
/// seccomp filter.
pub(super) fn needs_mount(reason: &Reason) -> bool {
    reason.is(Errno::NOSYS) || reason.cause() == Some(&NOSYMFOLLOW_OF_FSMOUNT)
}

/// Removes a cause that blames the kernel if a seccomp filter may have answered.
pub(super) fn hide_filtered(reason: Reason) -> Reason {
    match reason.cause() == Some(&NOSYMFOLLOW_OF_FSMOUNT) && is_filtered() {
        true => Reason::errno_only(Errno::INVAL),
        false => reason,
    }
}

fn set(context: BorrowedFd<'_>, option: &str, value: &CStr) -> Result<(), Reason> {
    fsconfig_set_string(context, option, value)
        .map_err(|errno| Reason::new(errno, diagnose::mount(errno)))
}

/// With a bad value.
fn prove_known(
    context: BorrowedFd<'_>,
    option: &'static str,
    since: Version,
) -> Result<(), Reason> {
    let since = Some(since);
    match fsconfig_set_string(context, option, c"") {
        Err(Errno::INVAL) => Ok(()),
        Ok(()) => Err(Cause::OptionIgnored { option, since }.into()),
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

    /// No kernel ignores these flags, so this uses a mount that was made without them.
    #[test]
    fn a_flag_without_effect_is_an_error() {
        let root = File::open("/").unwrap();
        let found = fstatvfs(&root).unwrap().f_flag.bits();
        for (flags, _, shown, option) in FLAGS {
            let options = MountOptions {
                flags,
                ..MountOptions::new()
            };
            let verified = options.verify_flags(root.as_fd());
            if found as u64 & shown != 0 {
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
