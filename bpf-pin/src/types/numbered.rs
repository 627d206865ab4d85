//! The kernel's numbered types. Unknown numbers of newer kernels are kept.

use std::fmt;

use bpf_pin_sys as abi;

macro_rules! numbered {
    (
        $(#[$doc:meta])*
        $name:ident: $($constant:ident = $abi:ident,)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub u32);

        impl $name {
            $(
                #[doc = concat!("`", stringify!($abi), "`")]
                pub const $constant: Self = Self(abi::$abi);
            )*

            /// The kernel's name without its prefix, or `None` for an unknown number.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $(abi::$abi => Some(stringify!($constant)),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                display(self.name(), self.0, f)
            }
        }

        /// The name as `Display` writes it, or an unknown number as a number.
        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.name() {
                    Some(_) => serializer.collect_str(self),
                    None => serializer.serialize_u32(self.0),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({})", stringify!($name), self.0),
                }
            }
        }
    };
}

#[inline(never)]
fn display(name: Option<&str>, number: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match name {
        Some(name) => f.pad(&name.to_ascii_lowercase()),
        None => write!(f, "type {number}"),
    }
}

numbered! {
    /// `enum bpf_cmd`: a command of bpf(2).
    ///
    /// # Examples
    ///
    /// ```
    /// use bpf_pin::bpffs::MountOptions;
    /// use bpf_pin::types::Command;
    ///
    /// // A token of this bpffs may only create maps.
    /// let options = MountOptions::new().delegate_cmds([Command::MAP_CREATE]);
    /// ```
    Command:
    MAP_CREATE = BPF_MAP_CREATE,
    MAP_LOOKUP_ELEM = BPF_MAP_LOOKUP_ELEM,
    MAP_UPDATE_ELEM = BPF_MAP_UPDATE_ELEM,
    MAP_DELETE_ELEM = BPF_MAP_DELETE_ELEM,
    MAP_GET_NEXT_KEY = BPF_MAP_GET_NEXT_KEY,
    PROG_LOAD = BPF_PROG_LOAD,
    OBJ_PIN = BPF_OBJ_PIN,
    OBJ_GET = BPF_OBJ_GET,
    PROG_ATTACH = BPF_PROG_ATTACH,
    PROG_DETACH = BPF_PROG_DETACH,
    PROG_TEST_RUN = BPF_PROG_TEST_RUN,
    PROG_GET_NEXT_ID = BPF_PROG_GET_NEXT_ID,
    MAP_GET_NEXT_ID = BPF_MAP_GET_NEXT_ID,
    PROG_GET_FD_BY_ID = BPF_PROG_GET_FD_BY_ID,
    MAP_GET_FD_BY_ID = BPF_MAP_GET_FD_BY_ID,
    OBJ_GET_INFO_BY_FD = BPF_OBJ_GET_INFO_BY_FD,
    PROG_QUERY = BPF_PROG_QUERY,
    RAW_TRACEPOINT_OPEN = BPF_RAW_TRACEPOINT_OPEN,
    BTF_LOAD = BPF_BTF_LOAD,
    BTF_GET_FD_BY_ID = BPF_BTF_GET_FD_BY_ID,
    TASK_FD_QUERY = BPF_TASK_FD_QUERY,
    MAP_LOOKUP_AND_DELETE_ELEM = BPF_MAP_LOOKUP_AND_DELETE_ELEM,
    MAP_FREEZE = BPF_MAP_FREEZE,
    BTF_GET_NEXT_ID = BPF_BTF_GET_NEXT_ID,
    MAP_LOOKUP_BATCH = BPF_MAP_LOOKUP_BATCH,
    MAP_LOOKUP_AND_DELETE_BATCH = BPF_MAP_LOOKUP_AND_DELETE_BATCH,
    MAP_UPDATE_BATCH = BPF_MAP_UPDATE_BATCH,
    MAP_DELETE_BATCH = BPF_MAP_DELETE_BATCH,
    LINK_CREATE = BPF_LINK_CREATE,
    LINK_UPDATE = BPF_LINK_UPDATE,
    LINK_GET_FD_BY_ID = BPF_LINK_GET_FD_BY_ID,
    LINK_GET_NEXT_ID = BPF_LINK_GET_NEXT_ID,
    ENABLE_STATS = BPF_ENABLE_STATS,
    ITER_CREATE = BPF_ITER_CREATE,
    LINK_DETACH = BPF_LINK_DETACH,
    PROG_BIND_MAP = BPF_PROG_BIND_MAP,
    TOKEN_CREATE = BPF_TOKEN_CREATE,
    PROG_STREAM_READ_BY_FD = BPF_PROG_STREAM_READ_BY_FD,
    PROG_ASSOC_STRUCT_OPS = BPF_PROG_ASSOC_STRUCT_OPS,
}

numbered! {
    /// `enum bpf_map_type`: the type of a map.
    ///
    /// # Examples
    ///
    /// ```
    /// use bpf_pin::MapType;
    ///
    /// assert_eq!(MapType::LRU_HASH.to_string(), "lru_hash");
    /// assert_eq!(MapType(4711).name(), None);
    /// ```
    MapType:
    UNSPEC = BPF_MAP_TYPE_UNSPEC,
    HASH = BPF_MAP_TYPE_HASH,
    ARRAY = BPF_MAP_TYPE_ARRAY,
    PROG_ARRAY = BPF_MAP_TYPE_PROG_ARRAY,
    PERF_EVENT_ARRAY = BPF_MAP_TYPE_PERF_EVENT_ARRAY,
    PERCPU_HASH = BPF_MAP_TYPE_PERCPU_HASH,
    PERCPU_ARRAY = BPF_MAP_TYPE_PERCPU_ARRAY,
    STACK_TRACE = BPF_MAP_TYPE_STACK_TRACE,
    CGROUP_ARRAY = BPF_MAP_TYPE_CGROUP_ARRAY,
    LRU_HASH = BPF_MAP_TYPE_LRU_HASH,
    LRU_PERCPU_HASH = BPF_MAP_TYPE_LRU_PERCPU_HASH,
    LPM_TRIE = BPF_MAP_TYPE_LPM_TRIE,
    ARRAY_OF_MAPS = BPF_MAP_TYPE_ARRAY_OF_MAPS,
    HASH_OF_MAPS = BPF_MAP_TYPE_HASH_OF_MAPS,
    DEVMAP = BPF_MAP_TYPE_DEVMAP,
    SOCKMAP = BPF_MAP_TYPE_SOCKMAP,
    CPUMAP = BPF_MAP_TYPE_CPUMAP,
    XSKMAP = BPF_MAP_TYPE_XSKMAP,
    SOCKHASH = BPF_MAP_TYPE_SOCKHASH,
    CGROUP_STORAGE = BPF_MAP_TYPE_CGROUP_STORAGE,
    REUSEPORT_SOCKARRAY = BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,
    PERCPU_CGROUP_STORAGE = BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
    QUEUE = BPF_MAP_TYPE_QUEUE,
    STACK = BPF_MAP_TYPE_STACK,
    SK_STORAGE = BPF_MAP_TYPE_SK_STORAGE,
    DEVMAP_HASH = BPF_MAP_TYPE_DEVMAP_HASH,
    STRUCT_OPS = BPF_MAP_TYPE_STRUCT_OPS,
    RINGBUF = BPF_MAP_TYPE_RINGBUF,
    INODE_STORAGE = BPF_MAP_TYPE_INODE_STORAGE,
    TASK_STORAGE = BPF_MAP_TYPE_TASK_STORAGE,
    BLOOM_FILTER = BPF_MAP_TYPE_BLOOM_FILTER,
    USER_RINGBUF = BPF_MAP_TYPE_USER_RINGBUF,
    CGRP_STORAGE = BPF_MAP_TYPE_CGRP_STORAGE,
    ARENA = BPF_MAP_TYPE_ARENA,
    INSN_ARRAY = BPF_MAP_TYPE_INSN_ARRAY,
    RHASH = BPF_MAP_TYPE_RHASH,
}

numbered! {
    /// `enum bpf_prog_type`: the type of a program.
    ///
    /// # Examples
    ///
    /// ```
    /// use bpf_pin::types::ProgType;
    ///
    /// assert_eq!(ProgType::XDP.to_string(), "xdp");
    /// assert_eq!(ProgType(4711).name(), None);
    /// ```
    ProgType:
    UNSPEC = BPF_PROG_TYPE_UNSPEC,
    SOCKET_FILTER = BPF_PROG_TYPE_SOCKET_FILTER,
    KPROBE = BPF_PROG_TYPE_KPROBE,
    SCHED_CLS = BPF_PROG_TYPE_SCHED_CLS,
    SCHED_ACT = BPF_PROG_TYPE_SCHED_ACT,
    TRACEPOINT = BPF_PROG_TYPE_TRACEPOINT,
    XDP = BPF_PROG_TYPE_XDP,
    PERF_EVENT = BPF_PROG_TYPE_PERF_EVENT,
    CGROUP_SKB = BPF_PROG_TYPE_CGROUP_SKB,
    CGROUP_SOCK = BPF_PROG_TYPE_CGROUP_SOCK,
    LWT_IN = BPF_PROG_TYPE_LWT_IN,
    LWT_OUT = BPF_PROG_TYPE_LWT_OUT,
    LWT_XMIT = BPF_PROG_TYPE_LWT_XMIT,
    SOCK_OPS = BPF_PROG_TYPE_SOCK_OPS,
    SK_SKB = BPF_PROG_TYPE_SK_SKB,
    CGROUP_DEVICE = BPF_PROG_TYPE_CGROUP_DEVICE,
    SK_MSG = BPF_PROG_TYPE_SK_MSG,
    RAW_TRACEPOINT = BPF_PROG_TYPE_RAW_TRACEPOINT,
    CGROUP_SOCK_ADDR = BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
    LWT_SEG6LOCAL = BPF_PROG_TYPE_LWT_SEG6LOCAL,
    LIRC_MODE2 = BPF_PROG_TYPE_LIRC_MODE2,
    SK_REUSEPORT = BPF_PROG_TYPE_SK_REUSEPORT,
    FLOW_DISSECTOR = BPF_PROG_TYPE_FLOW_DISSECTOR,
    CGROUP_SYSCTL = BPF_PROG_TYPE_CGROUP_SYSCTL,
    RAW_TRACEPOINT_WRITABLE = BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE,
    CGROUP_SOCKOPT = BPF_PROG_TYPE_CGROUP_SOCKOPT,
    TRACING = BPF_PROG_TYPE_TRACING,
    STRUCT_OPS = BPF_PROG_TYPE_STRUCT_OPS,
    EXT = BPF_PROG_TYPE_EXT,
    LSM = BPF_PROG_TYPE_LSM,
    SK_LOOKUP = BPF_PROG_TYPE_SK_LOOKUP,
    SYSCALL = BPF_PROG_TYPE_SYSCALL,
    NETFILTER = BPF_PROG_TYPE_NETFILTER,
}

numbered! {
    /// `enum bpf_attach_type`: the type of an attachment.
    ///
    /// # Examples
    ///
    /// ```
    /// use bpf_pin::types::AttachType;
    ///
    /// assert_eq!(AttachType::TCX_INGRESS.to_string(), "tcx_ingress");
    /// assert_eq!(AttachType(4711).name(), None);
    /// ```
    AttachType:
    CGROUP_INET_INGRESS = BPF_CGROUP_INET_INGRESS,
    CGROUP_INET_EGRESS = BPF_CGROUP_INET_EGRESS,
    CGROUP_INET_SOCK_CREATE = BPF_CGROUP_INET_SOCK_CREATE,
    CGROUP_SOCK_OPS = BPF_CGROUP_SOCK_OPS,
    SK_SKB_STREAM_PARSER = BPF_SK_SKB_STREAM_PARSER,
    SK_SKB_STREAM_VERDICT = BPF_SK_SKB_STREAM_VERDICT,
    CGROUP_DEVICE = BPF_CGROUP_DEVICE,
    SK_MSG_VERDICT = BPF_SK_MSG_VERDICT,
    CGROUP_INET4_BIND = BPF_CGROUP_INET4_BIND,
    CGROUP_INET6_BIND = BPF_CGROUP_INET6_BIND,
    CGROUP_INET4_CONNECT = BPF_CGROUP_INET4_CONNECT,
    CGROUP_INET6_CONNECT = BPF_CGROUP_INET6_CONNECT,
    CGROUP_INET4_POST_BIND = BPF_CGROUP_INET4_POST_BIND,
    CGROUP_INET6_POST_BIND = BPF_CGROUP_INET6_POST_BIND,
    CGROUP_UDP4_SENDMSG = BPF_CGROUP_UDP4_SENDMSG,
    CGROUP_UDP6_SENDMSG = BPF_CGROUP_UDP6_SENDMSG,
    LIRC_MODE2 = BPF_LIRC_MODE2,
    FLOW_DISSECTOR = BPF_FLOW_DISSECTOR,
    CGROUP_SYSCTL = BPF_CGROUP_SYSCTL,
    CGROUP_UDP4_RECVMSG = BPF_CGROUP_UDP4_RECVMSG,
    CGROUP_UDP6_RECVMSG = BPF_CGROUP_UDP6_RECVMSG,
    CGROUP_GETSOCKOPT = BPF_CGROUP_GETSOCKOPT,
    CGROUP_SETSOCKOPT = BPF_CGROUP_SETSOCKOPT,
    TRACE_RAW_TP = BPF_TRACE_RAW_TP,
    TRACE_FENTRY = BPF_TRACE_FENTRY,
    TRACE_FEXIT = BPF_TRACE_FEXIT,
    MODIFY_RETURN = BPF_MODIFY_RETURN,
    LSM_MAC = BPF_LSM_MAC,
    TRACE_ITER = BPF_TRACE_ITER,
    CGROUP_INET4_GETPEERNAME = BPF_CGROUP_INET4_GETPEERNAME,
    CGROUP_INET6_GETPEERNAME = BPF_CGROUP_INET6_GETPEERNAME,
    CGROUP_INET4_GETSOCKNAME = BPF_CGROUP_INET4_GETSOCKNAME,
    CGROUP_INET6_GETSOCKNAME = BPF_CGROUP_INET6_GETSOCKNAME,
    XDP_DEVMAP = BPF_XDP_DEVMAP,
    CGROUP_INET_SOCK_RELEASE = BPF_CGROUP_INET_SOCK_RELEASE,
    XDP_CPUMAP = BPF_XDP_CPUMAP,
    SK_LOOKUP = BPF_SK_LOOKUP,
    XDP = BPF_XDP,
    SK_SKB_VERDICT = BPF_SK_SKB_VERDICT,
    SK_REUSEPORT_SELECT = BPF_SK_REUSEPORT_SELECT,
    SK_REUSEPORT_SELECT_OR_MIGRATE = BPF_SK_REUSEPORT_SELECT_OR_MIGRATE,
    PERF_EVENT = BPF_PERF_EVENT,
    TRACE_KPROBE_MULTI = BPF_TRACE_KPROBE_MULTI,
    LSM_CGROUP = BPF_LSM_CGROUP,
    STRUCT_OPS = BPF_STRUCT_OPS,
    NETFILTER = BPF_NETFILTER,
    TCX_INGRESS = BPF_TCX_INGRESS,
    TCX_EGRESS = BPF_TCX_EGRESS,
    TRACE_UPROBE_MULTI = BPF_TRACE_UPROBE_MULTI,
    CGROUP_UNIX_CONNECT = BPF_CGROUP_UNIX_CONNECT,
    CGROUP_UNIX_SENDMSG = BPF_CGROUP_UNIX_SENDMSG,
    CGROUP_UNIX_RECVMSG = BPF_CGROUP_UNIX_RECVMSG,
    CGROUP_UNIX_GETPEERNAME = BPF_CGROUP_UNIX_GETPEERNAME,
    CGROUP_UNIX_GETSOCKNAME = BPF_CGROUP_UNIX_GETSOCKNAME,
    NETKIT_PRIMARY = BPF_NETKIT_PRIMARY,
    NETKIT_PEER = BPF_NETKIT_PEER,
    TRACE_KPROBE_SESSION = BPF_TRACE_KPROBE_SESSION,
    TRACE_UPROBE_SESSION = BPF_TRACE_UPROBE_SESSION,
    TRACE_FSESSION = BPF_TRACE_FSESSION,
    TRACE_FENTRY_MULTI = BPF_TRACE_FENTRY_MULTI,
    TRACE_FEXIT_MULTI = BPF_TRACE_FEXIT_MULTI,
    TRACE_FSESSION_MULTI = BPF_TRACE_FSESSION_MULTI,
}

numbered! {
    /// `enum bpf_link_type`: the type of a link.
    ///
    /// # Examples
    ///
    /// ```
    /// use bpf_pin::types::LinkType;
    ///
    /// assert_eq!(LinkType::XDP.to_string(), "xdp");
    /// assert_eq!(LinkType(4711).name(), None);
    /// ```
    LinkType:
    UNSPEC = BPF_LINK_TYPE_UNSPEC,
    RAW_TRACEPOINT = BPF_LINK_TYPE_RAW_TRACEPOINT,
    TRACING = BPF_LINK_TYPE_TRACING,
    CGROUP = BPF_LINK_TYPE_CGROUP,
    ITER = BPF_LINK_TYPE_ITER,
    NETNS = BPF_LINK_TYPE_NETNS,
    XDP = BPF_LINK_TYPE_XDP,
    PERF_EVENT = BPF_LINK_TYPE_PERF_EVENT,
    KPROBE_MULTI = BPF_LINK_TYPE_KPROBE_MULTI,
    STRUCT_OPS = BPF_LINK_TYPE_STRUCT_OPS,
    NETFILTER = BPF_LINK_TYPE_NETFILTER,
    TCX = BPF_LINK_TYPE_TCX,
    UPROBE_MULTI = BPF_LINK_TYPE_UPROBE_MULTI,
    NETKIT = BPF_LINK_TYPE_NETKIT,
    SOCKMAP = BPF_LINK_TYPE_SOCKMAP,
    TRACING_MULTI = BPF_LINK_TYPE_TRACING_MULTI,
}

numbered! {
    /// `enum bpf_cgroup_iter_order`: the order in which an iterator visits control groups, such as
    /// `BPF_CGROUP_ITER_SELF_ONLY`. Linux 6.1.
    ///
    /// # Examples
    ///
    /// ```
    /// use bpf_pin::types::CgroupIterOrder;
    /// use bpf_pin::LinkSpec;
    ///
    /// // The group with this id, and all groups in it.
    /// let spec = LinkSpec::iter_cgroup_id(1, CgroupIterOrder::DESCENDANTS_PRE);
    /// ```
    CgroupIterOrder:
    UNSPEC = BPF_CGROUP_ITER_ORDER_UNSPEC,
    SELF_ONLY = BPF_CGROUP_ITER_SELF_ONLY,
    DESCENDANTS_PRE = BPF_CGROUP_ITER_DESCENDANTS_PRE,
    DESCENDANTS_POST = BPF_CGROUP_ITER_DESCENDANTS_POST,
    ANCESTORS_UP = BPF_CGROUP_ITER_ANCESTORS_UP,
    CHILDREN = BPF_CGROUP_ITER_CHILDREN,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_kernel_without_prefix() {
        assert_eq!(MapType::LRU_HASH.to_string(), "lru_hash");
        assert_eq!(format!("{:?}", MapType::LRU_HASH), "LRU_HASH");
        assert_eq!(
            AttachType::CGROUP_INET_INGRESS.name(),
            Some("CGROUP_INET_INGRESS")
        );
        assert_eq!(LinkType::TCX.to_string(), "tcx");
        assert_eq!(ProgType::SOCKET_FILTER.to_string(), "socket_filter");
        assert_eq!(MapType::CGROUP_STORAGE.name(), Some("CGROUP_STORAGE"));
    }

    #[test]
    fn an_unknown_number_is_displayed() {
        assert_eq!(MapType(4711).to_string(), "type 4711");
        assert_eq!(format!("{:?}", ProgType(4711)), "ProgType(4711)");
    }
}
