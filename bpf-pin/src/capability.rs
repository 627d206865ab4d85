//! What this thread may do.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::thread::{CapabilitySet, SecureComputingMode, capabilities, secure_computing_mode};

/// A capability that bpf(2) asks for. `CAP_SYS_ADMIN` serves for each, but not everywhere for
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

/// Whether this thread's effective set lacks it, and `CAP_SYS_ADMIN` too. None: unknown.
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

/// Whether this thread may do with any file what its owner may; so it seems where it cannot be told.
pub(crate) fn owns_all() -> bool {
    let sets = capabilities(None);
    sets.map_or(true, |sets| sets.effective.contains(CapabilitySet::FOWNER))
}

/// Whether the capabilities are those of another user namespace than the initial one.
pub(crate) fn in_user_namespace() -> bool {
    user_namespace_is_own() == Some(true)
}

/// None where /proc does not tell.
pub(crate) fn user_namespace_is_own() -> Option<bool> {
    /// `PROC_USER_INIT_INO`, the same on every machine.
    const INITIAL: u64 = 0xefff_fffd;
    let namespace = fs::metadata("/proc/thread-self/ns/user").ok()?;
    Some(namespace.ino() != INITIAL)
}

/// Whether `kernel.unprivileged_bpf_disabled` withholds anything. None: unknown.
pub(crate) fn unprivileged_is_disabled() -> Option<bool> {
    let value = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").ok()?;
    Some(value.trim() != "0")
}

/// Whether a filter may have answered a syscall in the kernel's stead.
pub(crate) fn is_filtered() -> bool {
    !matches!(secure_computing_mode(), Ok(SecureComputingMode::Disabled))
}

/// The level of lockdown, where there is one: it is what stands in brackets.
pub(crate) fn lockdown() -> Option<String> {
    lockdown_level(&fs::read_to_string("/sys/kernel/security/lockdown").ok()?)
}

fn lockdown_level(text: &str) -> Option<String> {
    let level = text.split_once('[')?.1.split_once(']')?.0;
    (level != "none").then(|| level.to_owned())
}

#[cfg(test)]
mod tests {
    use super::lockdown_level;

    #[test]
    fn the_level_in_brackets() {
        assert_eq!(lockdown_level("[none] integrity confidentiality\n"), None);
        assert_eq!(
            lockdown_level("none [integrity] confidentiality\n").as_deref(),
            Some("integrity")
        );
        assert_eq!(
            lockdown_level("none integrity [confidentiality]").as_deref(),
            Some("confidentiality")
        );
        assert_eq!(lockdown_level(""), None);
    }
}
