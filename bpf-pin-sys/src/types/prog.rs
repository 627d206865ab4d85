//! `enum bpf_prog_type`.

/// `enum bpf_prog_type`: the type of a program.
#[allow(non_camel_case_types)]
pub type bpf_prog_type = u32;

abi_consts! {
    /// The types of programs, by number.
    pub BPF_PROG_TYPES: bpf_prog_type, btf {
        /// No type.
        BPF_PROG_TYPE_UNSPEC = 0, since (3, 18);
        /// Filters the packets that a socket receives.
        BPF_PROG_TYPE_SOCKET_FILTER = 1, since (3, 19);
        /// Runs at kprobes and uprobes, one or many.
        BPF_PROG_TYPE_KPROBE = 2, since (4, 1);
        /// Classifies packets in traffic control.
        BPF_PROG_TYPE_SCHED_CLS = 3, since (4, 1);
        /// Acts on packets in traffic control.
        BPF_PROG_TYPE_SCHED_ACT = 4, since (4, 1);
        /// Runs at a tracepoint.
        BPF_PROG_TYPE_TRACEPOINT = 5, since (4, 7);
        /// Handles packets in the network driver.
        BPF_PROG_TYPE_XDP = 6, since (4, 8);
        /// Runs when a perf counter overflows.
        BPF_PROG_TYPE_PERF_EVENT = 7, since (4, 9);
        /// Filters a cgroup's packets.
        BPF_PROG_TYPE_CGROUP_SKB = 8, since (4, 10);
        /// Decides on a cgroup's new, bound and released sockets.
        BPF_PROG_TYPE_CGROUP_SOCK = 9, since (4, 10);
        /// Runs where a lightweight tunnel receives.
        BPF_PROG_TYPE_LWT_IN = 10, since (4, 10);
        /// Runs where a lightweight tunnel sends.
        BPF_PROG_TYPE_LWT_OUT = 11, since (4, 10);
        /// Runs where a lightweight tunnel transmits, and may encapsulate.
        BPF_PROG_TYPE_LWT_XMIT = 12, since (4, 10);
        /// Sets TCP parameters of a cgroup's sockets.
        BPF_PROG_TYPE_SOCK_OPS = 13, since (4, 13);
        /// Parses and redirects data that sockets in a map receive.
        BPF_PROG_TYPE_SK_SKB = 14, since (4, 14);
        /// Decides on a cgroup's use of device files.
        BPF_PROG_TYPE_CGROUP_DEVICE = 15, since (4, 15);
        /// Redirects data that sockets in a map send.
        BPF_PROG_TYPE_SK_MSG = 16, since (4, 17);
        /// Runs at a tracepoint, with its raw arguments.
        BPF_PROG_TYPE_RAW_TRACEPOINT = 17, since (4, 17);
        /// Decides on the addresses a cgroup binds, connects and sends to.
        BPF_PROG_TYPE_CGROUP_SOCK_ADDR = 18, since (4, 17);
        /// Runs at an IPv6 segment of this machine.
        BPF_PROG_TYPE_LWT_SEG6LOCAL = 19, since (4, 18);
        /// Decodes infrared signals.
        BPF_PROG_TYPE_LIRC_MODE2 = 20, since (4, 18);
        /// Selects a socket of a `SO_REUSEPORT` group.
        BPF_PROG_TYPE_SK_REUSEPORT = 21, since (4, 19);
        /// Dissects packets into flows.
        BPF_PROG_TYPE_FLOW_DISSECTOR = 22, since (4, 20);
        /// Decides on a cgroup's use of sysctls.
        BPF_PROG_TYPE_CGROUP_SYSCTL = 23, since (5, 2);
        /// Runs at a tracepoint and may write its first argument.
        BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE = 24, since (5, 2);
        /// Decides on a cgroup's socket options.
        BPF_PROG_TYPE_CGROUP_SOCKOPT = 25, since (5, 3);
        /// Runs at kernel functions, by BTF, or as an iterator.
        BPF_PROG_TYPE_TRACING = 26, since (5, 5);
        /// Implements a function of a kernel struct.
        BPF_PROG_TYPE_STRUCT_OPS = 27, since (5, 6);
        /// Replaces a function of another program.
        BPF_PROG_TYPE_EXT = 28, since (5, 6);
        /// Runs at a security hook.
        BPF_PROG_TYPE_LSM = 29, since (5, 7);
        /// Selects the socket for a packet.
        BPF_PROG_TYPE_SK_LOOKUP = 30, since (5, 9);
        /// Makes system calls.
        BPF_PROG_TYPE_SYSCALL = 31, since (5, 14);
        /// Runs at a netfilter hook.
        BPF_PROG_TYPE_NETFILTER = 32, since (6, 4);
    }
}
