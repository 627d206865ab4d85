//! Helpers for the tests: a bpffs for each test, objects to pin, and a harness that reports skipped tests with
//! their reasons.

mod allocated;
mod bpffs;
pub mod child_process;
mod crowd;
mod failures;
mod links;
mod namespace;
mod needs;
mod objects;
mod remains;
mod run;
mod stops;
mod struct_ops;
mod suite;
pub mod tables;
mod trace;
mod tree;

pub use bpf_pin_test_macros::{child, test, test_alone};
/// For the macros.
pub use inventory;

pub use bpf_pin::dir::{LockMode, Wait};

pub use allocated::{Allocated, Counting, allocated};
pub use bpffs::{TestFs, shown};
pub use crowd::{Member, Said, crowd};
pub use failures::{assert_cause, assert_fails};
pub use links::{
    BTF, Cgroup, KPROBES, LO, cgroup_prog, function, link_ids, links_of, of_wrong_type, query,
    query_of, returning, struct_type, tcx_prog, tracepoint_type, xdp_prog,
};
pub use namespace::{answered, as_user, become_user, denied, own_mounts, own_network};
pub use needs::{Feature, Need, cap, find_program, kernel, phase_without, rounds};
pub use objects::{
    NetnsLink, btf, btf_blob, hash, is_kept, kept_as, link, own_btf, prog, sk_lookup,
};
pub use run::{Done, eventually, lo_up};
pub use stops::at_each_stop;
pub use struct_ops::CongestionOps;
pub use suite::{CasesAlone, Child, Suite, Test, TestAlone, TestResult, run_tests};
pub use trace::{Stop, Tracee, alone, calls};
pub use tree::{Tree, TreeEntry, holder, tree};

/// The code of the repository's README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The result of a test; `?` accepts any error.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
