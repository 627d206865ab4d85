//! What a bpffs is to be like when it is mounted, and whether it is.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use bpf_pin_sys::Version;
use rustix::fs::{StatVfsMountFlags, fstat, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, fsconfig_set_string};

use crate::capability::is_filtered;
use crate::cause::Cause;
use crate::diagnose;
use crate::error::Reason;
use crate::magic::ST_NOSYMFOLLOW;
use crate::mountinfo::Mount;
use crate::types::{AttachType, Command, MapType, ProgType};

use super::allowed::{Allowed, Delegable, Delegation, SINCE_DELEGATION, Shown};

/// The options of a bpffs. What is not set is the kernel's default: mode 1777, owner and group of
/// whoever mounts it.
///
/// The kernel ignores options that it does not know, without an error, so each is read back after
/// mounting: an option without effect is an error, and nothing stays mounted.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::MountOptions;
///
/// let bpffs = MountOptions::new()
///     .mode(0o700)
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
    nosuid: bool,
    nodev: bool,
    noexec: bool,
    nosymfollow: bool,
    read_only: bool,
    pub(crate) delegation: Delegation,
}

const SINCE_MODE: Version = Version::new(4, 10);
/// From 5.2 on, when bpffs took to fsopen(2), it was dropped.
const SINCE_SOURCE: Version = Version::new(5, 17);
const SINCE_OWNER: Version = Version::new(6, 8);
/// Of mount(2); of fsmount(2) later.
const SINCE_NOSYMFOLLOW: Version = Version::new(5, 10);
const NOSYMFOLLOW_OF_FSMOUNT: Cause = Cause::Unsupported {
    what: "MOUNT_ATTR_NOSYMFOLLOW",
    since: Version::new(5, 14),
};
const NOSYMFOLLOW: StatVfsMountFlags = StatVfsMountFlags::from_bits_retain(ST_NOSYMFOLLOW as _);

/// What fsconfig(2) takes of a string, its NUL included.
const VALUE_MAX: usize = 256;

impl MountOptions {
    /// The kernel's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// `mode`: the permissions of the root, up to 0o7777; the sticky bit is always set. Linux 4.10.
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

    /// The source, which mountinfo and mount(8) show and nobody reads: up to 255 bytes. Linux 5.17,
    /// and before 5.2. Where none is given it is "bpf", or "none" where the kernel ignores it.
    pub fn source(mut self, source: impl AsRef<OsStr>) -> Self {
        self.source = Some(source.as_ref().to_owned());
        self
    }

    /// `nosuid`, of the mount.
    pub fn nosuid(mut self, nosuid: bool) -> Self {
        self.nosuid = nosuid;
        self
    }

    /// `nodev`, of the mount.
    pub fn nodev(mut self, nodev: bool) -> Self {
        self.nodev = nodev;
        self
    }

    /// `noexec`, of the mount.
    pub fn noexec(mut self, noexec: bool) -> Self {
        self.noexec = noexec;
        self
    }

    /// `nosymfollow`, of the mount: no symbolic link in it is followed. Linux 5.10; of what is
    /// [detached](Self::detached) 5.14.
    ///
    /// Who may write to a directory can then lead nobody to elsewhere from it, and a
    /// [`PinDir`](crate::PinDir) takes one syscall less to open a pin. Links of one's own are not followed
    /// either: tc makes some on the bpffs that it uses.
    pub fn nosymfollow(mut self, nosymfollow: bool) -> Self {
        self.nosymfollow = nosymfollow;
        self
    }

    /// `ro`, of the mount: nothing can be pinned through it.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
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

    /// `delegate_attachs`: what programs may be loaded for with a token of it. Linux 6.9.
    pub fn delegate_attachs(mut self, attachs: impl Into<Allowed<AttachType>>) -> Self {
        self.delegation.attachs = attachs.into();
        self
    }

    /// What can be told without asking the kernel.
    pub(crate) fn check(&self) -> Result<(), Cause> {
        let invalid = |option, problem| Err(Cause::InvalidOption { option, problem });
        if let Some(mode @ 0o10000..) = self.mode {
            return invalid("mode", format!("{mode:o} is over 7777"));
        }
        for (option, id) in [("uid", self.uid), ("gid", self.gid)] {
            // To chown(2) and its like that is "leave it".
            if id == Some(u32::MAX) {
                return invalid(option, format!("{} stands for none", u32::MAX));
            }
        }
        let source = self.source_or_default().as_bytes();
        if source.is_empty() {
            return invalid("source", "is empty".to_owned());
        }
        if source.contains(&0) {
            return invalid("source", "holds a NUL byte".to_owned());
        }
        if source.len() >= VALUE_MAX {
            let most = VALUE_MAX - 1;
            return invalid(
                "source",
                format!("has {} bytes, and {most} is the most", source.len()),
            );
        }
        let Delegation {
            cmds,
            maps,
            progs,
            attachs,
            ..
        } = self.delegation;
        check_range(cmds)?;
        check_range(maps)?;
        check_range(progs)?;
        check_range(attachs)
    }

    fn source_or_default(&self) -> &OsStr {
        self.source.as_deref().unwrap_or(OsStr::new("bpf"))
    }

    pub(crate) fn source_string(&self) -> CString {
        CString::new(self.source_or_default().as_bytes()).unwrap_or_default()
    }

    /// `name=value` of what the file system itself takes.
    fn own_values(&self) -> impl Iterator<Item = (&'static str, String)> {
        let mode = self.mode.map(|mode| ("mode", format!("{mode:o}")));
        let uid = self.uid.map(|uid| ("uid", uid.to_string()));
        let gid = self.gid.map(|gid| ("gid", gid.to_string()));
        mode.into_iter().chain(uid).chain(gid)
    }

    fn delegate_values(&self) -> impl Iterator<Item = (&'static str, String)> {
        fn one<T: Delegable>(allowed: Allowed<T>) -> Option<(&'static str, String)> {
            (!allowed.is_empty()).then(|| (T::OPTION, allowed.to_option()))
        }
        let Delegation {
            cmds,
            maps,
            progs,
            attachs,
            ..
        } = self.delegation;
        [one(cmds), one(maps), one(progs), one(attachs)]
            .into_iter()
            .flatten()
    }

    /// The first option that delegates anything.
    pub(crate) fn first_delegated(&self) -> Option<&'static str> {
        self.delegate_values().next().map(|(option, _)| option)
    }

    /// As mount(2) takes them.
    pub(crate) fn to_data(&self) -> CString {
        let options = self.own_values().chain(self.delegate_values());
        let words: Vec<_> = options
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        CString::new(words.join(",")).unwrap_or_default()
    }

    /// Gives them to a context from fsopen(2), which must not have been created from yet.
    pub(crate) fn configure(&self, context: BorrowedFd<'_>) -> Result<(), Reason> {
        let set = |name, value: &std::ffi::CStr| {
            fsconfig_set_string(context, name, value)
                .map_err(|errno| Reason::new(errno, diagnose::mount(errno)))
        };
        set("source", &self.source_string())?;
        self.configure_own(context)?;
        self.configure_delegation(context)
    }

    pub(crate) fn configure_own(&self, context: BorrowedFd<'_>) -> Result<(), Reason> {
        self.own_values().try_for_each(|(option, value)| {
            fsconfig_set_string(context, option, value.as_str())
                .map_err(|errno| Reason::new(errno, why_not_set(option, &value, errno)))
        })
    }

    /// Where nobody can read back whether they took effect: that the kernel knows those that are set,
    /// for it would ignore a bad value of what it does not know.
    pub(crate) fn prove_owner_options(&self, context: BorrowedFd<'_>) -> Result<(), Reason> {
        [("uid", self.uid), ("gid", self.gid)]
            .into_iter()
            .filter(|(_, id)| id.is_some())
            .try_for_each(|(option, _)| prove_known(context, option, SINCE_OWNER))
    }

    /// Nothing of a mount that is attached nowhere shows what it delegates. But that the kernel took
    /// a good value counts if it refuses a bad one: so it knows the option.
    pub(crate) fn configure_delegation(&self, context: BorrowedFd<'_>) -> Result<(), Reason> {
        for (option, value) in self.delegate_values() {
            prove_known(context, option, SINCE_DELEGATION)?;
            fsconfig_set_string(context, option, value)
                .map_err(|errno| Reason::new(errno, diagnose::mount(errno)))?;
        }
        Ok(())
    }

    /// Those of the mount, for fsmount(2).
    pub(crate) fn attributes(&self) -> MountAttrFlags {
        let all = [
            (self.nosuid, MountAttrFlags::MOUNT_ATTR_NOSUID),
            (self.nodev, MountAttrFlags::MOUNT_ATTR_NODEV),
            (self.noexec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
            (self.nosymfollow, MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
            (self.read_only, MountAttrFlags::MOUNT_ATTR_RDONLY),
        ];
        all.into_iter()
            .filter(|(set, _)| *set)
            .map(|(_, flag)| flag)
            .collect()
    }

    /// Why fsmount(2) did not take them, where it takes the others: mount(2) may take all.
    #[cold]
    pub(crate) fn refused_attribute(
        &self,
        errno: Errno,
        fsmount: impl FnOnce(MountAttrFlags) -> Result<OwnedFd, Errno>,
    ) -> Option<Cause> {
        let others = self.attributes() - MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW;
        let is_it = errno == Errno::INVAL && self.nosymfollow && fsmount(others).is_ok();
        is_it.then_some(NOSYMFOLLOW_OF_FSMOUNT)
    }

    /// Those of the mount, for mount(2).
    pub(crate) fn flags(&self) -> MountFlags {
        let all = [
            (self.nosuid, MountFlags::NOSUID),
            (self.nodev, MountFlags::NODEV),
            (self.noexec, MountFlags::NOEXEC),
            (self.nosymfollow, MountFlags::NOSYMFOLLOW),
            // Of the file system too, which nobody else has yet.
            (self.read_only, MountFlags::RDONLY),
        ];
        all.into_iter()
            .filter(|(set, _)| *set)
            .map(|(_, flag)| flag)
            .collect()
    }

    /// Whether the root and the mount are as they were to be.
    pub(crate) fn verify(&self, root: BorrowedFd<'_>) -> Result<(), Reason> {
        let errno = Reason::errno_only;
        let ignored = |option, since| Err(Cause::OptionIgnored { option, since }.into());
        let stat = fstat(root).map_err(errno)?;
        // The sticky bit is not asked for and always set.
        const STICKY: u32 = 0o1000;
        if self
            .mode
            .is_some_and(|mode| mode | STICKY != stat.st_mode & 0o7777)
        {
            return ignored("mode", Some(SINCE_MODE));
        }
        if self.uid.is_some_and(|uid| uid != stat.st_uid) {
            return ignored("uid", Some(SINCE_OWNER));
        }
        if self.gid.is_some_and(|gid| gid != stat.st_gid) {
            return ignored("gid", Some(SINCE_OWNER));
        }
        let flags = fstatvfs(root).map_err(errno)?.f_flag;
        let all = [
            (self.nosuid, StatVfsMountFlags::NOSUID, "nosuid"),
            (self.nodev, StatVfsMountFlags::NODEV, "nodev"),
            (self.noexec, StatVfsMountFlags::NOEXEC, "noexec"),
            (self.read_only, StatVfsMountFlags::RDONLY, "ro"),
        ];
        for (is_set, flag, option) in all {
            if is_set && !flags.contains(flag) {
                return ignored(option, None);
            }
        }
        if self.nosymfollow && !flags.contains(NOSYMFOLLOW) {
            return ignored("nosymfollow", Some(SINCE_NOSYMFOLLOW));
        }
        Ok(())
    }

    /// Of whom another may have had another mode and owner in mind.
    pub(crate) fn without_owner(&self) -> Self {
        Self {
            mode: None,
            uid: None,
            gid: None,
            ..self.clone()
        }
    }

    /// Whether there is anything that shows in mountinfo only.
    pub(crate) fn shows_in_mountinfo(&self) -> bool {
        self.source.is_some() || !self.delegation.is_empty()
    }

    /// Whether mountinfo shows what was asked for.
    pub(crate) fn verify_shown(&self, mount: &Mount) -> Result<(), Cause> {
        let source = self.source.as_ref();
        if source.is_some_and(|source| *source != mount.source) {
            return Err(Cause::OptionIgnored {
                option: "source",
                since: Some(SINCE_SOURCE),
            });
        }
        let Delegation {
            cmds,
            maps,
            progs,
            attachs,
            ..
        } = self.delegation;
        verify_allowed(cmds, mount)?;
        verify_allowed(maps, mount)?;
        verify_allowed(progs, mount)?;
        verify_allowed(attachs, mount)
    }
}

/// Whether one of the newer calls is missing, or what it should know, in this kernel or behind a filter:
/// mount(2) may do then.
pub(super) fn needs_mount(reason: &Reason) -> bool {
    reason.is(Errno::NOSYS) || reason.cause() == Some(&NOSYMFOLLOW_OF_FSMOUNT)
}

/// The same reason where there is no mount(2) to turn to: nothing is said of the kernel where it may have
/// been a filter.
pub(super) fn without_mount(reason: Reason) -> Reason {
    match reason.cause() == Some(&NOSYMFOLLOW_OF_FSMOUNT) && is_filtered() {
        true => Reason::errno_only(Errno::INVAL),
        false => reason,
    }
}

/// By a bad value.
fn prove_known(
    context: BorrowedFd<'_>,
    option: &'static str,
    since: Version,
) -> Result<(), Reason> {
    const BAD: &str = "";
    let since = Some(since);
    match fsconfig_set_string(context, option, BAD) {
        Err(Errno::INVAL) => Ok(()),
        Ok(()) => Err(Cause::OptionIgnored { option, since }.into()),
        Err(errno) => Err(Reason::new(errno, diagnose::mount(errno))),
    }
}

/// Of an owner that is a number, the kernel asks for nothing else.
#[cold]
fn why_not_set(option: &'static str, value: &str, errno: Errno) -> Option<Cause> {
    let is_owner = matches!(option, "uid" | "gid");
    if errno == Errno::INVAL && is_owner && !is_filtered() {
        let problem = format!(
            "{value} is not mapped in this thread's user namespace, or not in that of the bpffs"
        );
        return Some(Cause::InvalidOption { option, problem });
    }
    diagnose::mount(errno)
}

fn check_range<T: Delegable>(allowed: Allowed<T>) -> Result<(), Cause> {
    match allowed.too_large() {
        None => Ok(()),
        Some(number) => Err(Cause::InvalidOption {
            option: T::OPTION,
            problem: format!("holds {number}, and 63 is the most"),
        }),
    }
}

fn verify_allowed<T: Delegable>(allowed: Allowed<T>, mount: &Mount) -> Result<(), Cause> {
    if allowed.is_empty() || allowed.is_shown_as(&Shown::of::<T>(mount)) {
        return Ok(());
    }
    Err(Cause::OptionIgnored {
        option: T::OPTION,
        since: Some(SINCE_DELEGATION),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use rustix::fs::{StatVfsMountFlags, fstatvfs};

    use super::{MountOptions, NOSYMFOLLOW, SINCE_NOSYMFOLLOW};
    use crate::cause::Cause;

    /// No kernel ignores these, so this is shown by a mount that was not asked for them.
    #[test]
    fn a_flag_that_is_not_set_is_told() {
        let root = File::open("/").unwrap();
        let flags = fstatvfs(&root).unwrap().f_flag;
        let new = MountOptions::new;
        let all = [
            (new().nosuid(true), StatVfsMountFlags::NOSUID, "nosuid"),
            (new().nodev(true), StatVfsMountFlags::NODEV, "nodev"),
            (new().noexec(true), StatVfsMountFlags::NOEXEC, "noexec"),
            (new().read_only(true), StatVfsMountFlags::RDONLY, "ro"),
            (new().nosymfollow(true), NOSYMFOLLOW, "nosymfollow"),
        ];
        for (options, flag, option) in all {
            let verified = options.verify(root.as_fd());
            if flags.contains(flag) {
                verified.unwrap();
                continue;
            }
            let reason = verified.unwrap_err();
            let since = (option == "nosymfollow").then_some(SINCE_NOSYMFOLLOW);
            let ignored = Cause::OptionIgnored { option, since };
            assert_eq!(reason.cause(), Some(&ignored));
        }
        assert!(!flags.contains(StatVfsMountFlags::NOEXEC));
    }
}
