//! The commands.

/// `enum bpf_cmd`: the first argument of `bpf(2)`.
#[allow(non_camel_case_types)]
pub type bpf_cmd = u32;

abi_consts! {
    /// The commands, by number.
    pub BPF_CMDS: bpf_cmd, btf {
        /// Create a map.
        BPF_MAP_CREATE = 0, since (3, 18);
        /// Read a value from a map.
        BPF_MAP_LOOKUP_ELEM = 1, since (3, 18);
        /// Write a value to a map.
        BPF_MAP_UPDATE_ELEM = 2, since (3, 18);
        /// Remove an entry from a map.
        BPF_MAP_DELETE_ELEM = 3, since (3, 18);
        /// Return the key that follows a key.
        BPF_MAP_GET_NEXT_KEY = 4, since (3, 18);
        /// Verify and load a program.
        BPF_PROG_LOAD = 5, since (3, 18);
        /// Pin an object: give it a name on bpffs.
        BPF_OBJ_PIN = 6, since (4, 4);
        /// Open an object by its name on bpffs.
        BPF_OBJ_GET = 7, since (4, 4);
        /// Attach a program to a hook, without a link.
        BPF_PROG_ATTACH = 8, since (4, 10);
        /// Undo `BPF_PROG_ATTACH`.
        BPF_PROG_DETACH = 9, since (4, 10);
        /// Run a program on given data.
        BPF_PROG_TEST_RUN = 10, since (4, 12);
        /// The newer name of `BPF_PROG_TEST_RUN`.
        BPF_PROG_RUN = BPF_PROG_TEST_RUN, since (5, 14);
        /// Return the program id that follows an id.
        BPF_PROG_GET_NEXT_ID = 11, since (4, 13);
        /// Return the map id that follows an id.
        BPF_MAP_GET_NEXT_ID = 12, since (4, 13);
        /// Open a program by id.
        BPF_PROG_GET_FD_BY_ID = 13, since (4, 13);
        /// Open a map by id.
        BPF_MAP_GET_FD_BY_ID = 14, since (4, 13);
        /// Return an object's info struct.
        BPF_OBJ_GET_INFO_BY_FD = 15, since (4, 13);
        /// Return the programs that are attached to a hook.
        BPF_PROG_QUERY = 16, since (4, 15);
        /// Attach a program to a raw tracepoint.
        BPF_RAW_TRACEPOINT_OPEN = 17, since (4, 17);
        /// Load type information.
        BPF_BTF_LOAD = 18, since (4, 18);
        /// Open type information by id.
        BPF_BTF_GET_FD_BY_ID = 19, since (4, 18);
        /// Return the program that a task's tracing descriptor runs.
        BPF_TASK_FD_QUERY = 20, since (4, 18);
        /// Read a value from a map and remove the entry.
        BPF_MAP_LOOKUP_AND_DELETE_ELEM = 21, since (4, 20);
        /// Forbid writes to a map by system calls, permanently.
        BPF_MAP_FREEZE = 22, since (5, 2);
        /// Return the BTF id that follows an id.
        BPF_BTF_GET_NEXT_ID = 23, since (5, 4);
        /// Read many entries from a map.
        BPF_MAP_LOOKUP_BATCH = 24, since (5, 6);
        /// Read many entries from a map and remove them.
        BPF_MAP_LOOKUP_AND_DELETE_BATCH = 25, since (5, 6);
        /// Write many entries to a map.
        BPF_MAP_UPDATE_BATCH = 26, since (5, 6);
        /// Remove many entries from a map.
        BPF_MAP_DELETE_BATCH = 27, since (5, 6);
        /// Attach a program and hold the attachment as an object.
        BPF_LINK_CREATE = 28, since (5, 7);
        /// Replace a link's program.
        BPF_LINK_UPDATE = 29, since (5, 7);
        /// Open a link by id.
        BPF_LINK_GET_FD_BY_ID = 30, since (5, 8);
        /// Return the link id that follows an id.
        BPF_LINK_GET_NEXT_ID = 31, since (5, 8);
        /// Count runs and run time as long as the returned descriptor is open.
        BPF_ENABLE_STATS = 32, since (5, 8);
        /// Open an iterator's output.
        BPF_ITER_CREATE = 33, since (5, 8);
        /// End a link's attachment and keep the link.
        BPF_LINK_DETACH = 34, since (5, 9);
        /// Make a program hold a map that it does not use.
        BPF_PROG_BIND_MAP = 35, since (5, 10);
        /// Create a token with the rights that a bpffs delegates.
        BPF_TOKEN_CREATE = 36, since (6, 9);
        /// Read a program's output stream.
        BPF_PROG_STREAM_READ_BY_FD = 37, since (6, 17);
        /// Associate a program with a struct_ops map.
        BPF_PROG_ASSOC_STRUCT_OPS = 38, since (7, 0);
        /// A bit to set in the command: the call also passes a [`bpf_common_attr`](crate::bpf_common_attr).
        BPF_COMMON_ATTRS = 1 << 16, since (7, 2);
    }
}
