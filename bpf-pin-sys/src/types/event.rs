//! `enum bpf_perf_event_type` and `enum bpf_task_fd_type`.

/// `enum bpf_perf_event_type`: the type of a link's perf event.
#[allow(non_camel_case_types)]
pub type bpf_perf_event_type = u32;

abi_consts! {
    /// The types of perf events, by number.
    pub BPF_PERF_EVENT_TYPES: bpf_perf_event_type, btf {
        /// No type.
        BPF_PERF_EVENT_UNSPEC = 0, since (6, 6);
        /// A uprobe.
        BPF_PERF_EVENT_UPROBE = 1, since (6, 6);
        /// A uprobe on return.
        BPF_PERF_EVENT_URETPROBE = 2, since (6, 6);
        /// A kprobe.
        BPF_PERF_EVENT_KPROBE = 3, since (6, 6);
        /// A kprobe on return.
        BPF_PERF_EVENT_KRETPROBE = 4, since (6, 6);
        /// A tracepoint.
        BPF_PERF_EVENT_TRACEPOINT = 5, since (6, 6);
        /// A hardware or software counter.
        BPF_PERF_EVENT_EVENT = 6, since (6, 6);
    }
}

/// `enum bpf_task_fd_type`: the type of a task's tracing descriptor.
#[allow(non_camel_case_types)]
pub type bpf_task_fd_type = u32;

abi_consts! {
    /// The types of tracing descriptors, by number.
    pub BPF_TASK_FD_TYPES: bpf_task_fd_type, btf {
        /// A raw tracepoint. `buf` has its name.
        BPF_FD_TYPE_RAW_TRACEPOINT = 0, since (4, 18);
        /// A tracepoint. `buf` has its name.
        BPF_FD_TYPE_TRACEPOINT = 1, since (4, 18);
        /// A kprobe. `buf` has the function, or `probe_addr` its address.
        BPF_FD_TYPE_KPROBE = 2, since (4, 18);
        /// A kprobe on return, with the same fields.
        BPF_FD_TYPE_KRETPROBE = 3, since (4, 18);
        /// A uprobe. `buf` has the file.
        BPF_FD_TYPE_UPROBE = 4, since (4, 18);
        /// A uprobe on return, with the same fields.
        BPF_FD_TYPE_URETPROBE = 5, since (4, 18);
    }
}
