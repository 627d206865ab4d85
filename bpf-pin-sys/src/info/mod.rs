//! The info structs of the kernel's objects, and other structs that pass between user space and the kernel.

mod btf;
mod iter;
mod link;
mod map;
mod prog;
mod token;

pub use btf::*;
pub use iter::*;
pub use link::*;
pub use map::*;
pub use prog::*;
pub use token::*;

use crate::Arm;
use crate::attr::{arms, bpf_common_attr};
use crate::insn::bpf_insn_array_value;
use core::mem::offset_of;

const DETAILS: usize = offset_of!(bpf_link_info, details);
const ITER_MAP: usize = DETAILS + offset_of!(bpf_link_info_iter, map);
const ITER: usize = DETAILS + offset_of!(bpf_link_info_iter, details);
const PERF: usize = DETAILS + offset_of!(bpf_link_info_perf_event, details);

/// Every struct here that is not an arm of `union bpf_attr`. Nested structs follow the struct that contains them.
///
/// [`Arm::name`] is the C path: `bpf_link_info.kprobe_multi` is the struct `kprobe_multi` within
/// `struct bpf_link_info`. A struct that C leaves anonymous has the path of the struct around it.
pub const INFOS: &[Arm] = arms! {
    "bpf_map_info" => bpf_map_info @ 0,
    "bpf_prog_info" => bpf_prog_info @ 0,
    "bpf_btf_info" => bpf_btf_info @ 0,
    "bpf_token_info" => bpf_token_info @ 0,
    "bpf_link_info" => bpf_link_info @ 0,
    "bpf_link_info.raw_tracepoint" => bpf_link_info_raw_tracepoint @ DETAILS,
    "bpf_link_info.tracing" => bpf_link_info_tracing @ DETAILS,
    "bpf_link_info.cgroup" => bpf_link_info_cgroup @ DETAILS,
    "bpf_link_info.iter" => bpf_link_info_iter @ DETAILS,
    "bpf_link_info.iter.map" => bpf_link_info_iter_map @ ITER_MAP,
    "bpf_link_info.iter.cgroup" => bpf_link_info_iter_cgroup @ ITER,
    "bpf_link_info.iter.task" => bpf_link_info_iter_task @ ITER,
    "bpf_link_info.netns" => bpf_link_info_netns @ DETAILS,
    "bpf_link_info.xdp" => bpf_link_info_xdp @ DETAILS,
    "bpf_link_info.struct_ops" => bpf_link_info_struct_ops @ DETAILS,
    "bpf_link_info.netfilter" => bpf_link_info_netfilter @ DETAILS,
    "bpf_link_info.kprobe_multi" => bpf_link_info_kprobe_multi @ DETAILS,
    "bpf_link_info.uprobe_multi" => bpf_link_info_uprobe_multi @ DETAILS,
    "bpf_link_info.tracing_multi" => bpf_link_info_tracing_multi @ DETAILS,
    "bpf_link_info.perf_event" => bpf_link_info_perf_event @ DETAILS,
    "bpf_link_info.perf_event.uprobe" => bpf_link_info_perf_event_uprobe @ PERF,
    "bpf_link_info.perf_event.kprobe" => bpf_link_info_perf_event_kprobe @ PERF,
    "bpf_link_info.perf_event.tracepoint" => bpf_link_info_perf_event_tracepoint @ PERF,
    "bpf_link_info.perf_event.event" => bpf_link_info_perf_event_event @ PERF,
    "bpf_link_info.tcx" => bpf_link_info_tcx @ DETAILS,
    "bpf_link_info.netkit" => bpf_link_info_netkit @ DETAILS,
    "bpf_link_info.sockmap" => bpf_link_info_sockmap @ DETAILS,
    "bpf_common_attr" => bpf_common_attr @ 0,
    "bpf_iter_link_info.map" => bpf_iter_link_info_map @ 0,
    "bpf_iter_link_info.cgroup" => bpf_iter_link_info_cgroup @ 0,
    "bpf_iter_link_info.task" => bpf_iter_link_info_task @ 0,
    "bpf_func_info" => bpf_func_info @ 0,
    "bpf_line_info" => bpf_line_info @ 0,
    "bpf_lpm_trie_key_hdr" => bpf_lpm_trie_key_hdr @ 0,
    "bpf_cgroup_storage_key" => bpf_cgroup_storage_key @ 0,
    "bpf_devmap_val" => bpf_devmap_val @ 0,
    "bpf_devmap_val.bpf_prog" => bpf_devmap_val_bpf_prog @ offset_of!(bpf_devmap_val, bpf_prog),
    "bpf_cpumap_val" => bpf_cpumap_val @ 0,
    "bpf_cpumap_val.bpf_prog" => bpf_cpumap_val_bpf_prog @ offset_of!(bpf_cpumap_val, bpf_prog),
    "bpf_spin_lock" => bpf_spin_lock @ 0,
    "bpf_insn_array_value" => bpf_insn_array_value @ 0,
};
