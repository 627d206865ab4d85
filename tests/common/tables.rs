//! The tables of constants.

use bpf_pin_sys::*;

/// A table of constants.
#[derive(Clone, Copy)]
pub struct Table {
    pub name: &'static str,
    pub constants: &'static [Enumerator],
}

macro_rules! tables {
    ($($table:ident)*) => {
        [$(Table { name: stringify!($table), constants: $table },)*]
    };
}

/// Every table of constants.
pub fn tables() -> Vec<Table> {
    let groups = BPF_FLAGS.iter().map(|group| Table {
        name: group.name,
        constants: group.flags,
    });
    let tables = tables! {
        BPF_CMDS
        BPF_MAP_TYPES
        BPF_PROG_TYPES
        BPF_ATTACH_TYPES
        BPF_LINK_TYPES
        BPF_PERF_EVENT_TYPES
        BPF_TASK_FD_TYPES
        BPF_CGROUP_ITER_ORDERS
        BPF_STATS_TYPES
        BPF_FUNCS
        BPF_COND_PSEUDO_JMPS
        BPF_ADDR_SPACE_CASTS
        BPF_STREAMS
        BPF_CLASSES
        BPF_SIZES
        BPF_MODES
        BPF_SRCS
        BPF_ALU_OPS
        BPF_END_ORDERS
        BPF_JMP_OPS
        BPF_ATOMIC_OPS
        BPF_REGS
        BPF_PSEUDO_LDS
        BPF_PSEUDO_CALLS
    };
    tables.into_iter().chain(groups).collect()
}
