//! `enum bpf_attach_type`.

/// `enum bpf_attach_type`: the type of a hook.
#[allow(non_camel_case_types)]
pub type bpf_attach_type = u32;

abi_consts! {
    /// The attach types, by number.
    pub BPF_ATTACH_TYPES: bpf_attach_type, btf {
        /// Packets a cgroup receives.
        BPF_CGROUP_INET_INGRESS = 0, since (4, 10);
        /// Packets a cgroup sends.
        BPF_CGROUP_INET_EGRESS = 1, since (4, 10);
        /// Sockets a cgroup creates.
        BPF_CGROUP_INET_SOCK_CREATE = 2, since (4, 10);
        /// TCP events of a cgroup's sockets.
        BPF_CGROUP_SOCK_OPS = 3, since (4, 13);
        /// Finds the end of a message in a stream.
        BPF_SK_SKB_STREAM_PARSER = 4, since (4, 14);
        /// Redirects a message of a stream.
        BPF_SK_SKB_STREAM_VERDICT = 5, since (4, 14);
        /// A cgroup's use of device files.
        BPF_CGROUP_DEVICE = 6, since (4, 15);
        /// Redirects a sent message.
        BPF_SK_MSG_VERDICT = 7, since (4, 17);
        /// `bind` to an IPv4 address.
        BPF_CGROUP_INET4_BIND = 8, since (4, 17);
        /// `bind` to an IPv6 address.
        BPF_CGROUP_INET6_BIND = 9, since (4, 17);
        /// `connect` to an IPv4 address.
        BPF_CGROUP_INET4_CONNECT = 10, since (4, 17);
        /// `connect` to an IPv6 address.
        BPF_CGROUP_INET6_CONNECT = 11, since (4, 17);
        /// After `bind` to an IPv4 address.
        BPF_CGROUP_INET4_POST_BIND = 12, since (4, 17);
        /// After `bind` to an IPv6 address.
        BPF_CGROUP_INET6_POST_BIND = 13, since (4, 17);
        /// `sendmsg` on an unconnected IPv4 UDP socket.
        BPF_CGROUP_UDP4_SENDMSG = 14, since (4, 18);
        /// `sendmsg` on an unconnected IPv6 UDP socket.
        BPF_CGROUP_UDP6_SENDMSG = 15, since (4, 18);
        /// An infrared receiver.
        BPF_LIRC_MODE2 = 16, since (4, 18);
        /// The flow dissector of a network namespace.
        BPF_FLOW_DISSECTOR = 17, since (4, 20);
        /// A cgroup's use of sysctls.
        BPF_CGROUP_SYSCTL = 18, since (5, 2);
        /// `recvmsg` on an unconnected IPv4 UDP socket.
        BPF_CGROUP_UDP4_RECVMSG = 19, since (5, 2);
        /// `recvmsg` on an unconnected IPv6 UDP socket.
        BPF_CGROUP_UDP6_RECVMSG = 20, since (5, 2);
        /// `getsockopt`.
        BPF_CGROUP_GETSOCKOPT = 21, since (5, 3);
        /// `setsockopt`.
        BPF_CGROUP_SETSOCKOPT = 22, since (5, 3);
        /// A tracepoint, by BTF.
        BPF_TRACE_RAW_TP = 23, since (5, 5);
        /// Entry of a kernel function.
        BPF_TRACE_FENTRY = 24, since (5, 5);
        /// Return of a kernel function.
        BPF_TRACE_FEXIT = 25, since (5, 5);
        /// Changes the return value of a kernel function.
        BPF_MODIFY_RETURN = 26, since (5, 7);
        /// A security hook.
        BPF_LSM_MAC = 27, since (5, 7);
        /// An iterator.
        BPF_TRACE_ITER = 28, since (5, 8);
        /// `getpeername` of an IPv4 socket.
        BPF_CGROUP_INET4_GETPEERNAME = 29, since (5, 8);
        /// `getpeername` of an IPv6 socket.
        BPF_CGROUP_INET6_GETPEERNAME = 30, since (5, 8);
        /// `getsockname` of an IPv4 socket.
        BPF_CGROUP_INET4_GETSOCKNAME = 31, since (5, 8);
        /// `getsockname` of an IPv6 socket.
        BPF_CGROUP_INET6_GETSOCKNAME = 32, since (5, 8);
        /// A frame redirected to a device of a map.
        BPF_XDP_DEVMAP = 33, since (5, 8);
        /// Sockets a cgroup releases.
        BPF_CGROUP_INET_SOCK_RELEASE = 34, since (5, 9);
        /// A frame redirected to a CPU of a map.
        BPF_XDP_CPUMAP = 35, since (5, 9);
        /// Selects the socket for a packet.
        BPF_SK_LOOKUP = 36, since (5, 9);
        /// A network device's driver.
        BPF_XDP = 37, since (5, 9);
        /// Redirects data that a socket received, without a parser.
        BPF_SK_SKB_VERDICT = 38, since (5, 13);
        /// Selects a socket of a `SO_REUSEPORT` group.
        BPF_SK_REUSEPORT_SELECT = 39, since (5, 14);
        /// The same, and also selects the new listener for the connections of a closed one.
        BPF_SK_REUSEPORT_SELECT_OR_MIGRATE = 40, since (5, 14);
        /// A perf event.
        BPF_PERF_EVENT = 41, since (5, 15);
        /// Many kprobes.
        BPF_TRACE_KPROBE_MULTI = 42, since (5, 18);
        /// A security hook, for a cgroup.
        BPF_LSM_CGROUP = 43, since (6, 0);
        /// A struct_ops map.
        BPF_STRUCT_OPS = 44, since (6, 4);
        /// A netfilter hook.
        BPF_NETFILTER = 45, since (6, 4);
        /// Ingress of a device's traffic control.
        BPF_TCX_INGRESS = 46, since (6, 6);
        /// Egress of a device's traffic control.
        BPF_TCX_EGRESS = 47, since (6, 6);
        /// Many uprobes.
        BPF_TRACE_UPROBE_MULTI = 48, since (6, 6);
        /// `connect` of a Unix socket.
        BPF_CGROUP_UNIX_CONNECT = 49, since (6, 7);
        /// `sendmsg` on a Unix socket.
        BPF_CGROUP_UNIX_SENDMSG = 50, since (6, 7);
        /// `recvmsg` on a Unix socket.
        BPF_CGROUP_UNIX_RECVMSG = 51, since (6, 7);
        /// `getpeername` of a Unix socket.
        BPF_CGROUP_UNIX_GETPEERNAME = 52, since (6, 7);
        /// `getsockname` of a Unix socket.
        BPF_CGROUP_UNIX_GETSOCKNAME = 53, since (6, 7);
        /// The primary device of a netkit pair.
        BPF_NETKIT_PRIMARY = 54, since (6, 7);
        /// The peer device of a netkit pair.
        BPF_NETKIT_PEER = 55, since (6, 7);
        /// Many kprobes, at entry and return.
        BPF_TRACE_KPROBE_SESSION = 56, since (6, 10);
        /// Many uprobes, at entry and return.
        BPF_TRACE_UPROBE_SESSION = 57, since (6, 13);
        /// A kernel function, at entry and return.
        BPF_TRACE_FSESSION = 58, since (7, 0);
        /// Entry of many kernel functions.
        BPF_TRACE_FENTRY_MULTI = 59, since (7, 2);
        /// Return of many kernel functions.
        BPF_TRACE_FEXIT_MULTI = 60, since (7, 2);
        /// Many kernel functions, at entry and return.
        BPF_TRACE_FSESSION_MULTI = 61, since (7, 2);
    }
}
