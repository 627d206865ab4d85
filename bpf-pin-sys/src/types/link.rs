//! `enum bpf_link_type`.

/// `enum bpf_link_type`: the type of a link.
#[allow(non_camel_case_types)]
pub type bpf_link_type = u32;

abi_consts! {
    /// The types of links, by number.
    pub BPF_LINK_TYPES: bpf_link_type, btf {
        /// No type.
        BPF_LINK_TYPE_UNSPEC = 0, since (5, 8);
        /// A raw tracepoint.
        BPF_LINK_TYPE_RAW_TRACEPOINT = 1, since (5, 8);
        /// A kernel function or a program.
        BPF_LINK_TYPE_TRACING = 2, since (5, 8);
        /// A cgroup's hook.
        BPF_LINK_TYPE_CGROUP = 3, since (5, 8);
        /// An iterator.
        BPF_LINK_TYPE_ITER = 4, since (5, 8);
        /// A network namespace's hook.
        BPF_LINK_TYPE_NETNS = 5, since (5, 8);
        /// A network device's XDP hook.
        BPF_LINK_TYPE_XDP = 6, since (5, 9);
        /// A perf event.
        BPF_LINK_TYPE_PERF_EVENT = 7, since (5, 15);
        /// Many kprobes.
        BPF_LINK_TYPE_KPROBE_MULTI = 8, since (5, 18);
        /// A struct_ops map.
        BPF_LINK_TYPE_STRUCT_OPS = 9, since (5, 19);
        /// A netfilter hook.
        BPF_LINK_TYPE_NETFILTER = 10, since (6, 4);
        /// A network device's tcx hook.
        BPF_LINK_TYPE_TCX = 11, since (6, 6);
        /// Many uprobes.
        BPF_LINK_TYPE_UPROBE_MULTI = 12, since (6, 6);
        /// A netkit device.
        BPF_LINK_TYPE_NETKIT = 13, since (6, 7);
        /// A map of sockets.
        BPF_LINK_TYPE_SOCKMAP = 14, since (6, 10);
        /// Many kernel functions, by BTF.
        BPF_LINK_TYPE_TRACING_MULTI = 15, since (7, 2);
    }
}
