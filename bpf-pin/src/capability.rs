//! What this thread may do, as far as a refusal needs explaining.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::cause::Cause;
use crate::sys;
use crate::types::{MapType, ProgType};

/// A capability that bpf(2) asks for. `CAP_SYS_ADMIN` serves for each.
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
fn lacks(capability: Capability) -> Option<bool> {
    let wanted = match capability {
        Capability::Bpf => CapabilitySet::BPF,
        Capability::NetAdmin => CapabilitySet::NET_ADMIN,
        Capability::Perfmon => CapabilitySet::PERFMON,
        Capability::SysAdmin => CapabilitySet::SYS_ADMIN,
    };
    let effective = capabilities(None).ok()?.effective;
    Some(!effective.intersects(wanted | CapabilitySet::SYS_ADMIN))
}

fn missing(capability: Capability, needed_for: &'static str) -> Option<Cause> {
    let cause = Cause::MissingCapability {
        capability,
        needed_for,
    };
    lacks(capability)?.then_some(cause)
}

/// Inside a user namespace the effective set says nothing about the initial one.
fn user_namespace() -> Option<Cause> {
    /// `PROC_USER_INIT_INO`, the same on every machine.
    const INITIAL: u64 = 0xefff_fffd;
    let namespace = fs::metadata("/proc/self/ns/user").ok()?;
    (namespace.ino() != INITIAL).then_some(Cause::UserNamespace)
}

/// Whether `kernel.unprivileged_bpf_disabled` withholds anything. None: unknown.
fn unprivileged_is_disabled() -> Option<bool> {
    let value = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").ok()?;
    Some(value.trim() != "0")
}

/// EPERM of any command: before Linux 5.19 the sysctl closes all of bpf(2).
pub(crate) fn for_bpf() -> Option<Cause> {
    if sys::gate() != Errno::PERM || !unprivileged_is_disabled()? {
        return None;
    }
    missing(
        Capability::Bpf,
        "bpf(2) while kernel.unprivileged_bpf_disabled is not 0",
    )
    .or_else(user_namespace)
}

/// EPERM of `BPF_*_GET_FD_BY_ID`.
pub(crate) fn for_id() -> Option<Cause> {
    missing(Capability::SysAdmin, "opening an object by its id").or_else(user_namespace)
}

/// EPERM of `BPF_MAP_CREATE`.
pub(crate) fn for_map(map_type: MapType) -> Option<Cause> {
    let needs = match map_type {
        MapType::SOCKMAP
        | MapType::SOCKHASH
        | MapType::DEVMAP
        | MapType::DEVMAP_HASH
        | MapType::XSKMAP => Some((Capability::NetAdmin, "maps of this type")),
        MapType::SK_STORAGE
        | MapType::INODE_STORAGE
        | MapType::TASK_STORAGE
        | MapType::CGRP_STORAGE
        | MapType::BLOOM_FILTER
        | MapType::LPM_TRIE
        | MapType::REUSEPORT_SOCKARRAY
        | MapType::STACK_TRACE
        | MapType::QUEUE
        | MapType::STACK
        | MapType::LRU_HASH
        | MapType::LRU_PERCPU_HASH
        | MapType::STRUCT_OPS
        | MapType::CPUMAP
        | MapType::ARENA
        | MapType::INSN_ARRAY
        | MapType::RHASH => Some((Capability::Bpf, "maps of this type")),
        _ => None,
    };
    unprivileged("creating a map")
        .or_else(|| needs.and_then(|(capability, what)| missing(capability, what)))
        .or_else(user_namespace)
}

/// EPERM of `BPF_PROG_LOAD`.
pub(crate) fn for_prog(prog_type: ProgType) -> Option<Cause> {
    let needs = match prog_type {
        ProgType::SOCKET_FILTER | ProgType::CGROUP_SKB => None,
        ProgType::KPROBE
        | ProgType::TRACEPOINT
        | ProgType::PERF_EVENT
        | ProgType::RAW_TRACEPOINT
        | ProgType::RAW_TRACEPOINT_WRITABLE
        | ProgType::TRACING
        | ProgType::LSM
        | ProgType::STRUCT_OPS
        | ProgType::EXT => Some(Capability::Perfmon),
        _ => Some(Capability::NetAdmin),
    };
    unprivileged("loading a program")
        .or_else(|| needs.and_then(|_| missing(Capability::Bpf, "programs of this type")))
        .or_else(|| needs.and_then(|capability| missing(capability, "programs of this type")))
        .or_else(user_namespace)
}

/// EPERM of `BPF_LINK_CREATE` for a network or cgroup attach point.
pub(crate) fn for_net_link() -> Option<Cause> {
    missing(Capability::NetAdmin, "attaching to a network or a cgroup").or_else(user_namespace)
}

fn unprivileged(what: &'static str) -> Option<Cause> {
    if !unprivileged_is_disabled()? {
        return None;
    }
    missing(Capability::Bpf, what)
}

/// What is charged to `RLIMIT_MEMLOCK` may be over it only where it is finite.
pub(crate) fn memlock_limit() -> Option<Cause> {
    let limit = getrlimit(Resource::Memlock).current?;
    Some(Cause::Memlock { limit })
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
