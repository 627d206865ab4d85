//! The arm of `BPF_TASK_FD_QUERY`.

abi_struct! {
    /// `BPF_TASK_FD_QUERY`: returns the program and the target of a task's perf event or raw tracepoint.
    pub struct bpf_attr_task_fd_query[48, 8] {
        /// The task.
        pid: u32 @ 0 since (4, 18),
        /// The descriptor, as a number in that task.
        fd: u32 @ 4 since (4, 18),
        /// Must be zero.
        flags: u32 @ 8 since (4, 18),
        /// In: size of the buffer at `buf` in bytes. Out: length of the string without the NUL.
        buf_len: u32 @ 12 since (4, 18),
        /// Address of the buffer for the name of a tracepoint, function or file.
        buf: u64 @ 16 since (4, 18),
        /// Out: the program.
        prog_id: u32 @ 24 since (4, 18),
        /// Out: a [`bpf_task_fd_type`](crate::bpf_task_fd_type).
        fd_type: u32 @ 28 since (4, 18),
        /// Out: offset in bytes from the start of the function or file.
        probe_offset: u64 @ 32 since (4, 18),
        /// Out: the probed address.
        probe_addr: u64 @ 40 since (4, 18),
    }
}
