//! `enum bpf_map_type`.

/// `enum bpf_map_type`: the type of a map.
#[allow(non_camel_case_types)]
pub type bpf_map_type = u32;

abi_consts! {
    /// The types of maps, by number.
    pub BPF_MAP_TYPES: bpf_map_type, btf {
        /// No type.
        BPF_MAP_TYPE_UNSPEC = 0, since (3, 18);
        /// A hash table.
        BPF_MAP_TYPE_HASH = 1, since (3, 19);
        /// An array with a `u32` index as key.
        BPF_MAP_TYPE_ARRAY = 2, since (3, 19);
        /// Programs to tail-call.
        BPF_MAP_TYPE_PROG_ARRAY = 3, since (4, 2);
        /// Perf events, usually one per CPU.
        BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4, since (4, 3);
        /// A hash table with a value per CPU.
        BPF_MAP_TYPE_PERCPU_HASH = 5, since (4, 6);
        /// An array with a value per CPU.
        BPF_MAP_TYPE_PERCPU_ARRAY = 6, since (4, 6);
        /// Stack traces, by an id that the kernel assigns.
        BPF_MAP_TYPE_STACK_TRACE = 7, since (4, 6);
        /// Cgroups, for a program to test whether a task or packet belongs to one of their descendants.
        BPF_MAP_TYPE_CGROUP_ARRAY = 8, since (4, 8);
        /// A hash table that evicts the least recently used entry.
        BPF_MAP_TYPE_LRU_HASH = 9, since (4, 10);
        /// An LRU hash table with a value per CPU.
        BPF_MAP_TYPE_LRU_PERCPU_HASH = 10, since (4, 10);
        /// A trie that finds the longest matching prefix.
        BPF_MAP_TYPE_LPM_TRIE = 11, since (4, 11);
        /// An array of maps.
        BPF_MAP_TYPE_ARRAY_OF_MAPS = 12, since (4, 12);
        /// A hash table of maps.
        BPF_MAP_TYPE_HASH_OF_MAPS = 13, since (4, 12);
        /// Network devices to redirect to, by index.
        BPF_MAP_TYPE_DEVMAP = 14, since (4, 14);
        /// Sockets to redirect to, by index.
        BPF_MAP_TYPE_SOCKMAP = 15, since (4, 14);
        /// CPUs to redirect to.
        BPF_MAP_TYPE_CPUMAP = 16, since (4, 15);
        /// AF_XDP sockets to redirect to.
        BPF_MAP_TYPE_XSKMAP = 17, since (4, 18);
        /// Sockets to redirect to, by any key.
        BPF_MAP_TYPE_SOCKHASH = 18, since (4, 18);
        /// Storage of a cgroup and a hook, superseded by `BPF_MAP_TYPE_CGRP_STORAGE`.
        BPF_MAP_TYPE_CGROUP_STORAGE_DEPRECATED = 19, since (6, 2);
        /// The old name of this type.
        BPF_MAP_TYPE_CGROUP_STORAGE = BPF_MAP_TYPE_CGROUP_STORAGE_DEPRECATED, since (4, 19);
        /// Sockets of a `SO_REUSEPORT` group, to select from.
        BPF_MAP_TYPE_REUSEPORT_SOCKARRAY = 20, since (4, 19);
        /// Storage of a cgroup and a hook with a value per CPU, superseded by
        /// `BPF_MAP_TYPE_CGRP_STORAGE`.
        BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE_DEPRECATED = 21, since (6, 7);
        /// The old name of this type.
        BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE =
            BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE_DEPRECATED, since (4, 20);
        /// A queue (first in, first out) without a key.
        BPF_MAP_TYPE_QUEUE = 22, since (4, 20);
        /// A stack (last in, first out) without a key.
        BPF_MAP_TYPE_STACK = 23, since (4, 20);
        /// Storage that lives with a socket.
        BPF_MAP_TYPE_SK_STORAGE = 24, since (5, 2);
        /// Network devices to redirect to, by any index.
        BPF_MAP_TYPE_DEVMAP_HASH = 25, since (5, 4);
        /// A table of functions that programs implement.
        BPF_MAP_TYPE_STRUCT_OPS = 26, since (5, 6);
        /// A ring buffer that all CPUs write to.
        BPF_MAP_TYPE_RINGBUF = 27, since (5, 8);
        /// Storage that lives with an inode.
        BPF_MAP_TYPE_INODE_STORAGE = 28, since (5, 10);
        /// Storage that lives with a task.
        BPF_MAP_TYPE_TASK_STORAGE = 29, since (5, 11);
        /// A set without a key, with false positives but no false negatives.
        BPF_MAP_TYPE_BLOOM_FILTER = 30, since (5, 16);
        /// A ring buffer that user space writes to.
        BPF_MAP_TYPE_USER_RINGBUF = 31, since (6, 1);
        /// Storage that lives with a cgroup.
        BPF_MAP_TYPE_CGRP_STORAGE = 32, since (6, 2);
        /// Memory that programs and user space share.
        BPF_MAP_TYPE_ARENA = 33, since (6, 9);
        /// Addresses of instructions.
        BPF_MAP_TYPE_INSN_ARRAY = 34, since (6, 19);
        /// A hash table that grows and shrinks.
        BPF_MAP_TYPE_RHASH = 35, since (7, 2);
    }
}
