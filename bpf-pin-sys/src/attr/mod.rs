//! `union bpf_attr`: the argument of every command.

mod btf;
mod common;
mod id;
mod link;
mod map;
mod obj;
mod prog;
mod size;
mod stats;
mod task;
mod token;

pub use btf::*;
pub use common::*;
pub use id::*;
pub use link::*;
pub use map::*;
pub use obj::*;
pub use prog::*;
pub use size::*;
pub use stats::*;
pub use task::*;
pub use token::*;

use crate::Arm;

/// Length in bytes of the name of a map or program, including the terminating NUL.
///
/// Linux 4.15.
pub const BPF_OBJ_NAME_LEN: usize = 16;

abi_union! {
    /// `union bpf_attr`: the argument of `bpf(2)`, with an arm for each group of commands.
    ///
    /// C leaves the structs of the older commands anonymous. Here each is named for its command or its subject.
    /// [`ARMS`] maps the names to C.
    pub union bpf_attr[168, 8] {
        /// `BPF_MAP_CREATE`.
        map_create: bpf_attr_map_create,
        /// `BPF_MAP_*_ELEM`, `BPF_MAP_GET_NEXT_KEY` and `BPF_MAP_FREEZE`.
        map_elem: bpf_attr_map_elem,
        /// `BPF_MAP_*_BATCH`.
        batch: bpf_attr_batch,
        /// `BPF_PROG_LOAD`.
        prog_load: bpf_attr_prog_load,
        /// `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
        obj: bpf_attr_obj,
        /// `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
        prog_attach: bpf_attr_prog_attach,
        /// `BPF_PROG_TEST_RUN`, also called `BPF_PROG_RUN`.
        test: bpf_attr_test,
        /// `BPF_*_GET_NEXT_ID` and `BPF_*_GET_FD_BY_ID`.
        get_id: bpf_attr_get_id,
        /// `BPF_OBJ_GET_INFO_BY_FD`.
        info: bpf_attr_info,
        /// `BPF_PROG_QUERY`.
        query: bpf_attr_query,
        /// `BPF_RAW_TRACEPOINT_OPEN`.
        raw_tracepoint: bpf_attr_raw_tracepoint,
        /// `BPF_BTF_LOAD`.
        btf_load: bpf_attr_btf_load,
        /// `BPF_TASK_FD_QUERY`.
        task_fd_query: bpf_attr_task_fd_query,
        /// `BPF_LINK_CREATE`.
        link_create: bpf_attr_link_create,
        /// `BPF_LINK_UPDATE`.
        link_update: bpf_attr_link_update,
        /// `BPF_LINK_DETACH`.
        link_detach: bpf_attr_link_detach,
        /// `BPF_ENABLE_STATS`.
        enable_stats: bpf_attr_enable_stats,
        /// `BPF_ITER_CREATE`.
        iter_create: bpf_attr_iter_create,
        /// `BPF_PROG_BIND_MAP`.
        prog_bind_map: bpf_attr_prog_bind_map,
        /// `BPF_TOKEN_CREATE`.
        token_create: bpf_attr_token_create,
        /// `BPF_PROG_STREAM_READ_BY_FD`.
        prog_stream_read: bpf_attr_prog_stream_read,
        /// `BPF_PROG_ASSOC_STRUCT_OPS`.
        prog_assoc_struct_ops: bpf_attr_prog_assoc_struct_ops,
    }
}

/// Makes a table of arms from rows `$c => $rust @ $offset`.
macro_rules! arms {
    ($($c:literal => $rust:ident @ $offset:expr,)*) => {
        &[$(Arm {
            name: $c,
            rust: stringify!($rust),
            offset: $offset,
            size: size_of::<$rust>(),
            fields: $rust::FIELDS,
        },)*]
    };
}
pub(crate) use arms;

const OPTS: usize = core::mem::offset_of!(bpf_attr_link_create, opts);

/// Every arm of `union bpf_attr`, and the arms of the union within `link_create`.
///
/// The C designator of a field is the arm's name, a dot unless that name is empty, and the field's name. Its offset in
/// the union is the sum of the two offsets. Structs that C leaves anonymous within `link_create` are listed as
/// `link_create`.
pub const ARMS: &[Arm] = arms! {
    "" => bpf_attr_map_create @ 0,
    "" => bpf_attr_map_elem @ 0,
    "batch" => bpf_attr_batch @ 0,
    "" => bpf_attr_prog_load @ 0,
    "" => bpf_attr_obj @ 0,
    "" => bpf_attr_prog_attach @ 0,
    "test" => bpf_attr_test @ 0,
    "" => bpf_attr_get_id @ 0,
    "info" => bpf_attr_info @ 0,
    "query" => bpf_attr_query @ 0,
    "raw_tracepoint" => bpf_attr_raw_tracepoint @ 0,
    "" => bpf_attr_btf_load @ 0,
    "task_fd_query" => bpf_attr_task_fd_query @ 0,
    "link_create" => bpf_attr_link_create @ 0,
    "link_create" => bpf_attr_link_create_opts @ OPTS,
    "link_create" => bpf_attr_link_create_iter @ OPTS,
    "link_create.perf_event" => bpf_attr_link_create_perf_event @ OPTS,
    "link_create.kprobe_multi" => bpf_attr_link_create_kprobe_multi @ OPTS,
    "link_create.tracing" => bpf_attr_link_create_tracing @ OPTS,
    "link_create.netfilter" => bpf_attr_link_create_netfilter @ OPTS,
    "link_create.tcx" => bpf_attr_link_create_tcx @ OPTS,
    "link_create.uprobe_multi" => bpf_attr_link_create_uprobe_multi @ OPTS,
    "link_create.netkit" => bpf_attr_link_create_netkit @ OPTS,
    "link_create.cgroup" => bpf_attr_link_create_cgroup @ OPTS,
    "link_create.tracing_multi" => bpf_attr_link_create_tracing_multi @ OPTS,
    "link_update" => bpf_attr_link_update @ 0,
    "link_detach" => bpf_attr_link_detach @ 0,
    "enable_stats" => bpf_attr_enable_stats @ 0,
    "iter_create" => bpf_attr_iter_create @ 0,
    "prog_bind_map" => bpf_attr_prog_bind_map @ 0,
    "token_create" => bpf_attr_token_create @ 0,
    "prog_stream_read" => bpf_attr_prog_stream_read @ 0,
    "prog_assoc_struct_ops" => bpf_attr_prog_assoc_struct_ops @ 0,
};
