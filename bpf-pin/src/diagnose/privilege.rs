//! What is wrong with who is asking.

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::capability::{Capability, in_user_namespace, lacks, lockdown, unprivileged_is_disabled};
use crate::cause::Cause;
use crate::sys;
use crate::types::{MapType, ProgType};

fn missing(capability: Capability, needed_for: &'static str) -> Option<Cause> {
    let cause = Cause::MissingCapability {
        capability,
        needed_for,
    };
    lacks(capability)?.then_some(cause)
}

/// Inside a user namespace the effective set says nothing about the initial one.
fn user_namespace() -> Option<Cause> {
    in_user_namespace().then_some(Cause::UserNamespace)
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
    use Capability::{Bpf, NetAdmin, Perfmon};
    let needs: &[Capability] = match prog_type {
        ProgType::SOCKET_FILTER | ProgType::CGROUP_SKB => &[],
        ProgType::SK_REUSEPORT | ProgType::SK_LOOKUP | ProgType::SYSCALL => &[Bpf],
        ProgType::KPROBE
        | ProgType::TRACEPOINT
        | ProgType::PERF_EVENT
        | ProgType::RAW_TRACEPOINT
        | ProgType::RAW_TRACEPOINT_WRITABLE
        | ProgType::TRACING
        | ProgType::LSM
        | ProgType::STRUCT_OPS => &[Bpf, Perfmon],
        ProgType::EXT => &[Bpf, Perfmon, NetAdmin],
        _ => &[Bpf, NetAdmin],
    };
    let mut needs = needs.iter();
    unprivileged("loading a program")
        .or_else(|| needs.find_map(|&each| missing(each, "programs of this type")))
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
pub(crate) fn memlock() -> Option<Cause> {
    let limit = getrlimit(Resource::Memlock).current?;
    Some(Cause::Memlock { limit })
}

/// EINVAL of `BPF_PROG_LOAD`: what lockdown withholds is, to the verifier, a helper that does not
/// exist for the program.
pub(crate) fn for_helper(log: &str) -> Option<Cause> {
    const WITHHELD: &[&str] = &["probe_read", "probe_write_user"];
    let refused = |line: &&str| line.contains("unknown func") || line.contains("cannot use helper");
    let last = log.lines().rfind(refused)?;
    let withheld = WITHHELD.iter().any(|helper| last.contains(helper));
    let level = lockdown().filter(|_| withheld)?;
    Some(Cause::Lockdown { level })
}
