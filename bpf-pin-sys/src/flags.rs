//! The flags, grouped by field.

use crate::Enumerator;

abi_consts! {
    /// `attach_flags` of `BPF_PROG_ATTACH`, `flags` of `BPF_LINK_CREATE` and `BPF_LINK_UPDATE`.
    ///
    /// Since 6.6, `BPF_F_LINK` of [`BPF_MAP_CREATE_FLAGS`] is also one of them.
    pub BPF_ATTACH_FLAGS: u32, header {
        /// A descendant cgroup may attach its own program, which then runs instead.
        BPF_F_ALLOW_OVERRIDE = 1 << 0, since (4, 10);
        /// A cgroup may have several programs. They run in addition to those of its ancestors.
        BPF_F_ALLOW_MULTI = 1 << 1, since (4, 15);
        /// Replace the program in `replace_bpf_fd` or `old_prog_fd`.
        BPF_F_REPLACE = 1 << 2, since (5, 6);
        /// Attach before the program or link in `relative_fd`, or first.
        BPF_F_BEFORE = 1 << 3, since (6, 6);
        /// Attach after the program or link in `relative_fd`, or last.
        BPF_F_AFTER = 1 << 4, since (6, 6);
        /// `relative_fd` holds an id.
        BPF_F_ID = 1 << 5, since (6, 6);
        /// Run before the programs of descendant cgroups.
        BPF_F_PREORDER = 1 << 6, since (6, 15);
    }
}

abi_consts! {
    /// `prog_flags` of `BPF_PROG_LOAD`.
    pub BPF_PROG_LOAD_FLAGS: u32, header {
        /// Require aligned accesses, as on machines that need them.
        BPF_F_STRICT_ALIGNMENT = 1 << 0, since (4, 12);
        /// Allow any access, even on machines that need aligned ones. For tests of the verifier.
        BPF_F_ANY_ALIGNMENT = 1 << 1, since (5, 0);
        /// Randomize the upper register halves that the verifier considers unused. For tests of the verifier.
        BPF_F_TEST_RND_HI32 = 1 << 2, since (5, 3);
        /// Make the verifier save its state often. For tests of the verifier.
        BPF_F_TEST_STATE_FREQ = 1 << 3, since (5, 4);
        /// The program may sleep.
        BPF_F_SLEEPABLE = 1 << 4, since (5, 10);
        /// The program supports XDP frames in several buffers.
        BPF_F_XDP_HAS_FRAGS = 1 << 5, since (5, 18);
        /// Bind the XDP program to one device. The program may read that device's metadata.
        BPF_F_XDP_DEV_BOUND_ONLY = 1 << 6, since (6, 3);
        /// Treat inconsistent register bounds as an error. For tests of the verifier.
        BPF_F_TEST_REG_INVARIANTS = 1 << 7, since (6, 8);
    }
}

abi_consts! {
    /// `link_create.kprobe_multi.flags`.
    pub BPF_KPROBE_MULTI_FLAGS: u32, header {
        /// Run when the functions return.
        BPF_F_KPROBE_MULTI_RETURN = 1 << 0, since (5, 18);
    }
}

abi_consts! {
    /// `link_create.uprobe_multi.flags`.
    pub BPF_UPROBE_MULTI_FLAGS: u32, btf {
        /// Run when the functions return.
        BPF_F_UPROBE_MULTI_RETURN = 1 << 0, since (6, 6);
        /// The executable is `path_fd`.
        BPF_F_UPROBE_MULTI_PATH_FD = 1 << 1, since (7, 2);
    }
}

abi_consts! {
    /// `link_create.netfilter.flags`.
    pub BPF_NETFILTER_FLAGS: u32, header {
        /// Reassemble fragmented IP packets first.
        BPF_F_NETFILTER_IP_DEFRAG = 1 << 0, since (6, 6);
    }
}

abi_consts! {
    /// `flags` of `BPF_MAP_*_ELEM`, `elem_flags` of `BPF_MAP_*_BATCH`: 64 bits wide.
    pub BPF_MAP_ELEM_FLAGS: u64, btf {
        /// Create the entry or replace its value.
        BPF_ANY = 0, since (3, 19);
        /// Create the entry. `EEXIST` if it exists.
        BPF_NOEXIST = 1, since (3, 19);
        /// Replace the value. `ENOENT` if there is no entry.
        BPF_EXIST = 2, since (3, 19);
        /// Hold the value's spin lock during the access.
        BPF_F_LOCK = 4, since (5, 1);
        /// Access one CPU's value of a per-CPU map. The upper 32 bits are the CPU.
        BPF_F_CPU = 8, since (7, 0);
        /// Write one value for all CPUs of a per-CPU map.
        BPF_F_ALL_CPUS = 16, since (7, 0);
    }
}

abi_consts! {
    /// `map_flags` of `BPF_MAP_CREATE`, and flags that share their numbers: `file_flags` of
    /// `BPF_OBJ_PIN` and `BPF_OBJ_GET`, `open_flags` of `BPF_MAP_GET_FD_BY_ID`, and
    /// `BPF_F_TOKEN_FD` in `prog_flags`, `btf_flags` and `open_flags`.
    pub BPF_MAP_CREATE_FLAGS: u32, btf {
        /// Allocate each entry when it is created, instead of all entries in advance.
        BPF_F_NO_PREALLOC = 1 << 0, since (4, 6);
        /// Use an LRU list per CPU.
        BPF_F_NO_COMMON_LRU = 1 << 1, since (4, 10);
        /// Allocate on `numa_node`.
        BPF_F_NUMA_NODE = 1 << 2, since (4, 14);
        /// The descriptor is read-only.
        BPF_F_RDONLY = 1 << 3, since (4, 15);
        /// The descriptor is write-only.
        BPF_F_WRONLY = 1 << 4, since (4, 15);
        /// Stacks hold build ids and offsets, not addresses.
        BPF_F_STACK_BUILD_ID = 1 << 5, since (4, 17);
        /// The hash's seed is zero. For tests.
        BPF_F_ZERO_SEED = 1 << 6, since (5, 0);
        /// The map is read-only for programs.
        BPF_F_RDONLY_PROG = 1 << 7, since (5, 2);
        /// The map is write-only for programs.
        BPF_F_WRONLY_PROG = 1 << 8, since (5, 2);
        /// An accepted socket inherits the listener's entry.
        BPF_F_CLONE = 1 << 9, since (5, 4);
        /// The map can be mapped into memory.
        BPF_F_MMAPABLE = 1 << 10, since (5, 5);
        /// Perf events stay in the map when the descriptor that inserted them is closed.
        BPF_F_PRESERVE_ELEMS = 1 << 11, since (5, 10);
        /// As an inner map, it may differ from the others in `max_entries`.
        BPF_F_INNER_MAP = 1 << 12, since (5, 10);
        /// A link registers the struct_ops map. As an attach flag: `replace_bpf_fd` or `relative_fd` is a
        /// link.
        BPF_F_LINK = 1 << 13, since (6, 4);
        /// The path is relative to `path_fd`. For `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
        BPF_F_PATH_FD = 1 << 14, since (6, 5);
        /// `value_type_btf_obj_fd` is set.
        BPF_F_VTYPE_BTF_OBJ_FD = 1 << 15, since (6, 9);
        /// A token is passed.
        BPF_F_TOKEN_FD = 1 << 16, since (6, 9);
        /// An access to an absent page of an arena raises `SIGSEGV`.
        BPF_F_SEGV_ON_FAULT = 1 << 17, since (6, 9);
        /// Pointers stored in an arena stay kernel addresses.
        BPF_F_NO_USER_CONV = 1 << 18, since (6, 9);
        /// A full ring buffer drops its oldest records.
        BPF_F_RB_OVERWRITE = 1 << 19, since (6, 19);
    }
}

abi_consts! {
    /// `query_flags` of `BPF_PROG_QUERY`.
    pub BPF_QUERY_FLAGS: u32, header {
        /// Return the programs that run for the cgroup, including those of its ancestors.
        BPF_F_QUERY_EFFECTIVE = 1 << 0, since (4, 15);
    }
}

abi_consts! {
    /// `flags` of `BPF_PROG_TEST_RUN`.
    pub BPF_TEST_RUN_FLAGS: u32, header {
        /// Run on the CPU in `cpu`.
        BPF_F_TEST_RUN_ON_CPU = 1 << 0, since (5, 10);
        /// Process the frames by the program's verdict after the run.
        BPF_F_TEST_XDP_LIVE_FRAMES = 1 << 1, since (5, 18);
        /// Set the packet's full checksum, and verify it afterwards.
        BPF_F_TEST_SKB_CHECKSUM_COMPLETE = 1 << 2, since (6, 11);
    }
}

/// A group of flags for the same fields.
#[derive(Clone, Copy, Debug)]
pub struct FlagGroup {
    /// The name of the group's own table.
    pub name: &'static str,
    /// The flags.
    pub flags: &'static [Enumerator],
}

macro_rules! groups {
    ($($table:ident),* $(,)?) => {
        &[$(FlagGroup { name: stringify!($table), flags: $table },)*]
    };
}

/// All flags, by group. Values are unique within a group, and names are unique in all groups.
///
/// Flags of helpers are not included, because they do not pass through `bpf(2)`.
pub const BPF_FLAGS: &[FlagGroup] = groups! {
    BPF_ATTACH_FLAGS,
    BPF_PROG_LOAD_FLAGS,
    BPF_KPROBE_MULTI_FLAGS,
    BPF_UPROBE_MULTI_FLAGS,
    BPF_NETFILTER_FLAGS,
    BPF_MAP_ELEM_FLAGS,
    BPF_MAP_CREATE_FLAGS,
    BPF_QUERY_FLAGS,
    BPF_TEST_RUN_FLAGS,
};
