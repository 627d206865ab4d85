//! The arm of `BPF_TASK_FD_QUERY`.

abi_struct! {
    /// `BPF_TASK_FD_QUERY`: which program a task's perf event or raw tracepoint runs, and where.
    pub struct bpf_attr_task_fd_query[48, 8] {
        /// The task.
        pid: u32 @ 0 since (4, 18),
        /// A descriptor of that task.
        fd: u32 @ 4 since (4, 18),
        /// Must be zero.
        flags: u32 @ 8 since (4, 18),
        /// In: room at `buf` in bytes. Out: length of the string, the NUL not counted.
        buf_len: u32 @ 12 since (4, 18),
        /// Address of room for the name: a tracepoint's, a function's or a file's.
        buf: u64 @ 16 since (4, 18),
        /// Out: the program.
        prog_id: u32 @ 24 since (4, 18),
        /// Out: a [`bpf_task_fd_type`](crate::bpf_task_fd_type).
        fd_type: u32 @ 28 since (4, 18),
        /// Out: bytes from the named function or from the beginning of the file.
        probe_offset: u64 @ 32 since (4, 18),
        /// Out: the probed address.
        probe_addr: u64 @ 40 since (4, 18),
    }
}
