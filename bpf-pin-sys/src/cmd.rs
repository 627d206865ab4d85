//! The commands, and how much of the argument each of them reads.

/// `enum bpf_cmd`: the first argument of `bpf(2)`.
#[allow(non_camel_case_types)]
pub type bpf_cmd = u32;

abi_consts! {
    /// The commands, by number.
    pub BPF_CMDS: bpf_cmd, btf {
        /// Create a map.
        BPF_MAP_CREATE = 0, since (3, 18);
        /// Copy a value out of a map.
        BPF_MAP_LOOKUP_ELEM = 1, since (3, 18);
        /// Put a value into a map.
        BPF_MAP_UPDATE_ELEM = 2, since (3, 18);
        /// Remove an entry from a map.
        BPF_MAP_DELETE_ELEM = 3, since (3, 18);
        /// Tell the key that follows a key.
        BPF_MAP_GET_NEXT_KEY = 4, since (3, 18);
        /// Verify and load a program.
        BPF_PROG_LOAD = 5, since (3, 18);
        /// Give an object a name on bpffs.
        BPF_OBJ_PIN = 6, since (4, 4);
        /// Open an object by its name on bpffs.
        BPF_OBJ_GET = 7, since (4, 4);
        /// Attach a program to a hook, without a link.
        BPF_PROG_ATTACH = 8, since (4, 10);
        /// Undo `BPF_PROG_ATTACH`.
        BPF_PROG_DETACH = 9, since (4, 10);
        /// Run a program on given data.
        BPF_PROG_TEST_RUN = 10, since (4, 12);
        /// `BPF_PROG_TEST_RUN` by its newer name.
        BPF_PROG_RUN = BPF_PROG_TEST_RUN, since (5, 14);
        /// Tell the program id that follows an id.
        BPF_PROG_GET_NEXT_ID = 11, since (4, 13);
        /// Tell the map id that follows an id.
        BPF_MAP_GET_NEXT_ID = 12, since (4, 13);
        /// Open a program by id.
        BPF_PROG_GET_FD_BY_ID = 13, since (4, 13);
        /// Open a map by id.
        BPF_MAP_GET_FD_BY_ID = 14, since (4, 13);
        /// Tell about an object.
        BPF_OBJ_GET_INFO_BY_FD = 15, since (4, 13);
        /// Tell which programs are attached to a hook.
        BPF_PROG_QUERY = 16, since (4, 15);
        /// Attach a program to a raw tracepoint.
        BPF_RAW_TRACEPOINT_OPEN = 17, since (4, 17);
        /// Load type information.
        BPF_BTF_LOAD = 18, since (4, 18);
        /// Open type information by id.
        BPF_BTF_GET_FD_BY_ID = 19, since (4, 18);
        /// Tell which program a task's tracing descriptor runs.
        BPF_TASK_FD_QUERY = 20, since (4, 18);
        /// Copy a value out of a map and remove the entry.
        BPF_MAP_LOOKUP_AND_DELETE_ELEM = 21, since (4, 20);
        /// Close a map to writes by system calls, for good.
        BPF_MAP_FREEZE = 22, since (5, 2);
        /// Tell the BTF id that follows an id.
        BPF_BTF_GET_NEXT_ID = 23, since (5, 4);
        /// Copy many entries out of a map.
        BPF_MAP_LOOKUP_BATCH = 24, since (5, 6);
        /// Copy many entries out of a map and remove them.
        BPF_MAP_LOOKUP_AND_DELETE_BATCH = 25, since (5, 6);
        /// Put many entries into a map.
        BPF_MAP_UPDATE_BATCH = 26, since (5, 6);
        /// Remove many entries from a map.
        BPF_MAP_DELETE_BATCH = 27, since (5, 6);
        /// Attach a program and hold the attachment as an object.
        BPF_LINK_CREATE = 28, since (5, 7);
        /// Replace a link's program.
        BPF_LINK_UPDATE = 29, since (5, 7);
        /// Open a link by id.
        BPF_LINK_GET_FD_BY_ID = 30, since (5, 8);
        /// Tell the link id that follows an id.
        BPF_LINK_GET_NEXT_ID = 31, since (5, 8);
        /// Count runs and time for as long as the descriptor lives.
        BPF_ENABLE_STATS = 32, since (5, 8);
        /// Open an iterator's output.
        BPF_ITER_CREATE = 33, since (5, 8);
        /// End a link's attachment and keep the link.
        BPF_LINK_DETACH = 34, since (5, 9);
        /// Let a program keep a map it does not use.
        BPF_PROG_BIND_MAP = 35, since (5, 10);
        /// Turn what a bpffs delegates into a token.
        BPF_TOKEN_CREATE = 36, since (6, 9);
        /// Read what a program printed.
        BPF_PROG_STREAM_READ_BY_FD = 37, since (6, 17);
        /// Tell a program which struct_ops map it belongs to.
        BPF_PROG_ASSOC_STRUCT_OPS = 38, since (7, 0);
        /// A bit to set in the command: a [`bpf_common_attr`](crate::bpf_common_attr) is passed too.
        BPF_COMMON_ATTRS = 1 << 16, since (7, 2);
    }
}
