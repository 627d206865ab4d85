//! Finds the privilege that the caller lacks.

use rustix::io::Errno;

use crate::error::Cause;
use crate::process::{
    Capability, Lockdown, in_user_namespace, is_filtered, lacks, lockdown,
    unprivileged_bpf_disabled,
};
use crate::sys;
use crate::types::{MapType, ProgType};

pub(crate) fn missing(capability: Capability, needed_for: &'static str) -> Option<Cause> {
    let cause = Cause::MissingCapability {
        capability,
        needed_for,
    };
    lacks(capability)?.then_some(cause)
}

/// bpf(2) checks capabilities in the initial user namespace; those in another one do not count.
fn user_namespace(is_needed: bool) -> Option<Cause> {
    let counts = is_needed || unprivileged_bpf_disabled().is_some_and(|value| value != 0);
    let applies = counts && !is_filtered() && in_user_namespace() == Some(true);
    applies.then_some(Cause::UserNamespace)
}

/// [`user_namespace`] for a call that takes a token: with one, capabilities in its user namespace count.
fn without_token(has_token: bool, is_needed: bool) -> Option<Cause> {
    (!has_token).then(|| user_namespace(is_needed)).flatten()
}

/// EPERM of any command: before Linux 5.19 the sysctl closes all of bpf(2) to unprivileged callers.
pub(crate) fn for_bpf() -> Option<Cause> {
    if sys::probe_bpf_allowed() != Errno::PERM || is_filtered() || unprivileged_bpf_disabled()? == 0
    {
        return None;
    }
    missing(
        Capability::Bpf,
        "bpf(2) while kernel.unprivileged_bpf_disabled is not 0",
    )
    .or_else(|| user_namespace(true))
}

/// EPERM of `BPF_*_GET_FD_BY_ID`.
pub(crate) fn for_id() -> Option<Cause> {
    missing(Capability::SysAdmin, "opening an object by its id").or_else(|| user_namespace(true))
}

/// ENOENT of `BPF_*_GET_FD_BY_ID`, which has only this reason.
#[cold]
pub(crate) fn no_such_id(what: &'static str) -> Option<Cause> {
    (!is_filtered()).then_some(Cause::NoSuchId { what })
}

/// EPERM of `BPF_*_GET_NEXT_ID`.
pub(crate) fn for_next_id() -> Option<Cause> {
    missing(Capability::SysAdmin, "finding objects by their ids").or_else(|| user_namespace(true))
}

/// EPERM of `BPF_BTF_LOAD`.
pub(crate) fn for_btf(has_token: bool) -> Option<Cause> {
    missing(Capability::Bpf, "loading BTF").or_else(|| without_token(has_token, true))
}

/// EPERM of `BPF_MAP_CREATE`.
pub(crate) fn for_map(map_type: MapType, has_token: bool) -> Option<Cause> {
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
        | MapType::INSN_ARRAY => Some((Capability::Bpf, "maps of this type")),
        _ => None,
    };
    unprivileged("creating a map")
        .or_else(|| needs.and_then(|(capability, what)| missing(capability, what)))
        .or_else(|| without_token(has_token, needs.is_some()))
}

/// EPERM of `BPF_PROG_LOAD`.
pub(crate) fn for_prog(prog_type: ProgType, has_token: bool) -> Option<Cause> {
    use Capability::{Bpf, NetAdmin, Perfmon};
    let needs: &[Capability] = match prog_type {
        ProgType::SOCKET_FILTER | ProgType::CGROUP_SKB => &[],
        ProgType::SK_REUSEPORT | ProgType::SK_LOOKUP | ProgType::SYSCALL => &[Bpf],
        ProgType::LSM | ProgType::STRUCT_OPS => &[Bpf, Perfmon],
        _ if traces(prog_type) => &[Bpf, Perfmon],
        ProgType::EXT => &[Bpf, Perfmon, NetAdmin],
        _ => &[Bpf, NetAdmin],
    };
    let lacking = |&each: &Capability| missing(each, "programs of this type");
    unprivileged("loading a program")
        .or_else(|| needs.iter().find_map(lacking))
        .or_else(|| without_token(has_token, !needs.is_empty()))
}

/// Only programs of these types may read the kernel's memory.
fn traces(prog_type: ProgType) -> bool {
    matches!(
        prog_type,
        ProgType::KPROBE
            | ProgType::TRACEPOINT
            | ProgType::PERF_EVENT
            | ProgType::RAW_TRACEPOINT
            | ProgType::RAW_TRACEPOINT_WRITABLE
            | ProgType::TRACING
    )
}

/// EPERM of `BPF_LINK_CREATE`: a program of this type can be loaded, but not attached, without privileges.
pub(crate) fn for_link(prog_type: ProgType) -> Option<Cause> {
    if prog_type != ProgType::CGROUP_SKB {
        return None;
    }
    missing(Capability::NetAdmin, "programs of this type").or_else(|| user_namespace(true))
}

/// EPERM of `BPF_PROG_QUERY`.
pub(crate) fn for_query() -> Option<Cause> {
    for_bpf()
        .or_else(|| missing(Capability::NetAdmin, "querying attached programs"))
        .or_else(|| user_namespace(true))
}

fn unprivileged(what: &'static str) -> Option<Cause> {
    if unprivileged_bpf_disabled()? == 0 {
        return None;
    }
    missing(Capability::Bpf, what)
}

/// EINVAL of `BPF_PROG_LOAD`: the verifier reports a helper that lockdown disables as unknown.
pub(crate) fn for_helper(prog_type: ProgType, log: &str) -> Option<Cause> {
    // Helpers that read kernel memory, and one that writes to a process's memory.
    const READS: &[&str] = &[
        "bpf_probe_read#",
        "bpf_probe_read_str#",
        "bpf_probe_read_kernel#",
        "bpf_probe_read_kernel_str#",
    ];
    const WRITES: &[&str] = &["bpf_probe_write_user#"];

    let is_rejection =
        |line: &&str| line.contains("unknown func") || line.contains("cannot use helper");
    let last = log
        .lines()
        .rfind(is_rejection)
        .filter(|_| traces(prog_type))?;
    let Lockdown::On { level } = lockdown() else {
        return None;
    };
    let is_one_of = |helpers: &[&str]| helpers.iter().any(|helper| last.contains(helper));
    let is_disabled = is_one_of(WRITES) || level == "confidentiality" && is_one_of(READS);
    is_disabled.then_some(Cause::Lockdown { level })
}
