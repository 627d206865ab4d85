//! `BPF_OBJ_GET_INFO_BY_FD` of a program.

use std::time::Duration;

use bpf_pin_sys as abi;

use crate::name::ObjName;
use crate::types::ProgType;

/// `struct bpf_prog_info`: what the kernel tells of a program. Linux 4.13; fields that the kernel
/// does not know, or does not tell this thread, are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgInfo {
    /// The type.
    pub prog_type: ProgType,
    /// Unique among living programs.
    pub id: u32,
    /// A hash of its instructions.
    pub tag: [u8; 8],
    /// Linux 4.15.
    pub name: ObjName,
    /// The bytes of its machine code.
    pub jited_prog_len: u32,
    /// The bytes of its instructions as the verifier left them.
    pub xlated_prog_len: u32,
    /// When it was loaded, since boot. Linux 4.15.
    pub load_time: Duration,
    /// Who loaded it. Linux 4.15.
    pub created_by_uid: u32,
    /// How many maps it uses. Linux 4.15.
    pub nr_map_ids: u32,
    /// Whether its licence lets it call all helpers. Linux 4.18.
    pub gpl_compatible: bool,
    /// The device that it was offloaded to, or 0. Linux 4.16.
    pub ifindex: u32,
    /// The BTF object that it was loaded with, or 0. Linux 5.0.
    pub btf_id: u32,
    /// How many functions its records name: those that it was loaded with. Linux 5.0.
    pub nr_func_info: u32,
    /// How many lines its records name. Linux 5.0.
    pub nr_line_info: u32,
    /// The time it has run, where `kernel.bpf_stats_enabled` is 1. Linux 5.1.
    pub run_time: Duration,
    /// How often it has run, likewise. Linux 5.1.
    pub run_cnt: u64,
    /// How often it was not run because it ran already. Linux 5.12.
    pub recursion_misses: u64,
    /// How many instructions the verifier went through. Linux 5.16.
    pub verified_insns: u32,
    /// The BTF object of what it is attached to by loading, or 0. Linux 6.0.
    pub attach_btf_obj_id: u32,
    /// The type there. Linux 6.0.
    pub attach_btf_id: u32,
}

impl ProgInfo {
    pub(crate) fn from_raw(raw: abi::bpf_prog_info) -> Self {
        Self {
            prog_type: ProgType(raw.r#type),
            id: raw.id,
            tag: raw.tag,
            name: ObjName::from_raw(raw.name),
            jited_prog_len: raw.jited_prog_len,
            xlated_prog_len: raw.xlated_prog_len,
            load_time: Duration::from_nanos(raw.load_time),
            created_by_uid: raw.created_by_uid,
            nr_map_ids: raw.nr_map_ids,
            gpl_compatible: raw.gpl_compatible(),
            ifindex: raw.ifindex,
            btf_id: raw.btf_id,
            nr_func_info: raw.nr_func_info,
            nr_line_info: raw.nr_line_info,
            run_time: Duration::from_nanos(raw.run_time_ns),
            run_cnt: raw.run_cnt,
            recursion_misses: raw.recursion_misses,
            verified_insns: raw.verified_insns,
            attach_btf_obj_id: raw.attach_btf_obj_id,
            attach_btf_id: raw.attach_btf_id,
        }
    }
}
