//! Helpers for the tests: a bpffs for each test, objects to pin, and a harness that reports skipped tests with
//! their reasons.

mod allocations;
mod bpffs;
pub mod child_process;
mod cleanup;
mod devices;
mod failures;
mod links;
mod namespace;
mod needs;
mod objects;
mod processes;
mod stops;
mod struct_ops;
mod suite;
pub mod tables;
mod trace;
mod tree;
mod wait;

pub use bpf_pin_test_macros::{child, test, test_alone};
/// For the macros.
pub use inventory;

pub use bpf_pin::dir::{LockMode, Wait};

pub use allocations::{Allocations, CountingAllocator, count_allocations};
pub use bpffs::{TestFs, escaped};
pub use child_process::{command, fork, with_same_death_signal};
pub use devices::{add_device, remove_device};
pub use failures::{IsCause, assert_cause, assert_fails, invalid_names, not_bpffs};
pub use links::{
    BTF, Cgroup, KPROBES, LOOPBACK, attached_progs, cgroup_id, cgroup_prog, function_btf_id,
    link_ids, links_of_progs, prog_returning, struct_btf_id, tcx_prog, tracepoint_btf_id, xdp_prog,
};
pub use namespace::{
    as_user, become_user, bring_up_loopback, in_mount_namespace, in_network_namespace,
    set_seccomp_errno, with_bpf_errno, with_interrupted_runs, with_mounted_bpffs,
    with_seccomp_errno,
};
pub use needs::{Feature, Need, cap, find_program, is_emulated, kernel, rounds, without};
pub use objects::{
    NetnsLink, backup_name, btf_blob, btf_fd, btf_object, count_insns, counting_filter,
    detached_link, hash, is_backup_name, key_0_insns, lookup_insns, prog, sk_lookup_prog,
};
pub use processes::{Process, ProcessResult, run_processes};
pub use stops::at_each_stop;
pub use struct_ops::CongestionOps;
pub use suite::{CasesAlone, Child, Suite, Test, TestAlone, TestResult, run_tests};
pub use trace::{Stop, Tracee, run_in_own_process, syscalls};
pub use tree::{Tree, TreeEntry, pinned_identity, tree};
pub use wait::{SetOnDrop, wait_until};

/// The code of the repository's README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The result of a test; `?` accepts any error.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
