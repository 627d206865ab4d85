//! This thread's capabilities, user namespace and seccomp filter, and the kernel's lockdown.

use std::fmt;

use rustix::fs::{stat, statfs};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, SecureComputingMode, capabilities, secure_computing_mode};

use crate::sys;
use crate::types::{Command, FileSystem};

/// A capability that bpf(2) checks. `CAP_SYS_ADMIN` replaces each of them, but not everywhere for
/// `CAP_NET_ADMIN` before Linux 6.9.
///
/// # References
///
/// [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// `CAP_BPF`. Linux 5.8.
    Bpf,
    /// `CAP_NET_ADMIN`
    NetAdmin,
    /// `CAP_PERFMON`. Linux 5.8.
    Perfmon,
    /// `CAP_SYS_ADMIN`
    SysAdmin,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bpf => "CAP_BPF",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::SysAdmin => "CAP_SYS_ADMIN",
        })
    }
}

/// True if this thread's effective set has neither the capability nor `CAP_SYS_ADMIN`. `None`: unknown.
pub(crate) fn lacks(capability: Capability) -> Option<bool> {
    let wanted = match capability {
        Capability::Bpf => CapabilitySet::BPF,
        Capability::NetAdmin => CapabilitySet::NET_ADMIN,
        Capability::Perfmon => CapabilitySet::PERFMON,
        Capability::SysAdmin => CapabilitySet::SYS_ADMIN,
    };
    let effective = capabilities(None).ok()?.effective;
    Some(!effective.intersects(wanted | CapabilitySet::SYS_ADMIN))
}

/// True if this thread has the owner's rights to every file, or if that cannot be determined.
pub(crate) fn overrides_owners() -> bool {
    let sets = capabilities(None);
    sets.map_or(true, |sets| sets.effective.contains(CapabilitySet::FOWNER))
}

/// True if this thread is in another user namespace than the initial one. `None` without /proc.
pub(crate) fn in_user_namespace() -> Option<bool> {
    /// `PROC_USER_INIT_INO`, a constant of the kernel.
    const INITIAL: u64 = 0xefff_fffd;
    let namespace = stat(c"/proc/thread-self/ns/user").ok()?;
    Some(namespace.st_ino != INITIAL)
}

/// `kernel.unprivileged_bpf_disabled`: 0 allows everyone to use bpf(2). `None` if it cannot be read.
pub(crate) fn unprivileged_bpf_disabled() -> Option<u8> {
    let value = sys::read_number(c"/proc/sys/kernel/unprivileged_bpf_disabled")?;
    value.try_into().ok()
}

/// True if a seccomp filter may have answered a syscall instead of the kernel.
pub(crate) fn is_filtered() -> bool {
    !matches!(secure_computing_mode(), Ok(SecureComputingMode::Disabled))
}

/// The errno with which a seccomp filter rejects this command, if that is proven. The kernel's answer to a command
/// without arguments is EFAULT.
#[cold]
pub(crate) fn filter_errno(command: Command) -> Option<Errno> {
    if !is_filtered() {
        return None;
    }
    let errno = sys::probe_command(command.0);
    let is_proven = match errno {
        Errno::FAULT => false,
        // It may come from the kernel, if the sysctl closes the command to this thread.
        Errno::PERM => {
            let is_privileged =
                lacks(Capability::Bpf) == Some(false) && in_user_namespace() == Some(false);
            is_privileged || unprivileged_bpf_disabled() == Some(0)
        }
        // It may come from a kernel without bpf(2), which has no bpffs either.
        Errno::NOSYS => sys::read_file(c"/proc/filesystems")
            .is_ok_and(|known| known.lines().any(|line| line.ends_with("\tbpf"))),
        _ => true,
    };
    is_proven.then_some(errno)
}

/// The state of the kernel's lockdown, from /sys/kernel/security/lockdown.
///
/// # References
///
/// [kernel_lockdown(7)](https://man7.org/linux/man-pages/man7/kernel_lockdown.7.html)
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lockdown {
    /// The kernel is not locked down, or does not support lockdown.
    Off,
    /// The kernel is locked down.
    On {
        /// The level: "integrity" or "confidentiality".
        level: String,
    },
    /// The file could not be read: securityfs may not be mounted there.
    Unknown,
}

pub(crate) fn lockdown() -> Lockdown {
    let is_securityfs = || {
        let stat = statfs(c"/sys/kernel/security");
        stat.is_ok_and(|stat| FileSystem::from_stat(&stat) == FileSystem::SECURITYFS)
    };
    match sys::read_file(c"/sys/kernel/security/lockdown") {
        Ok(text) => parse_lockdown(&text).unwrap_or(Lockdown::Unknown),
        // On a mounted securityfs a missing file means that the kernel does not support lockdown.
        Err(Errno::NOENT) if is_securityfs() => Lockdown::Off,
        Err(_) => Lockdown::Unknown,
    }
}

/// Parses the level: the word in brackets.
fn parse_lockdown(text: &str) -> Option<Lockdown> {
    let level = text.split_once('[')?.1.split_once(']')?.0;
    Some(match level {
        "none" => Lockdown::Off,
        level => Lockdown::On {
            level: level.to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{Lockdown, parse_lockdown};

    #[test]
    fn the_level_is_the_word_in_brackets() {
        let on = |level: &str| {
            let level = level.to_owned();
            Some(Lockdown::On { level })
        };
        assert_eq!(
            parse_lockdown("[none] integrity confidentiality\n"),
            Some(Lockdown::Off)
        );
        assert_eq!(
            parse_lockdown("none [integrity] confidentiality\n"),
            on("integrity")
        );
        assert_eq!(
            parse_lockdown("none integrity [confidentiality]"),
            on("confidentiality")
        );
        assert_eq!(parse_lockdown(""), None);
    }
}
