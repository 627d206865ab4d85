//! The arms of the commands on links.

abi_struct! {
    /// `BPF_LINK_CREATE`: attaches a program and returns the attachment as an object.
    pub struct bpf_attr_link_create[64, 8] {
        /// The program, or the `BPF_MAP_TYPE_STRUCT_OPS` map.
        prog_fd: u32 @ 0 since (5, 7) also "map_fd" (6, 4),
        /// The attach target: a descriptor or the index of a network device, depending on the attach type.
        target_fd: u32 @ 4 since (5, 7) also "target_ifindex" (5, 9),
        /// A [`bpf_attach_type`](crate::bpf_attach_type).
        attach_type: u32 @ 8 since (5, 7),
        /// Flags of [`BPF_ATTACH_FLAGS`](crate::BPF_ATTACH_FLAGS) or the XDP mode.
        flags: u32 @ 12 since (5, 7),
        /// The parameters of the attach type. Anonymous in C.
        opts: bpf_attr_link_create_opts @ 16,
    }
}

abi_union! {
    /// The union at the end of `link_create`, with an arm for each kind of attachment.
    pub union bpf_attr_link_create_opts[48, 8] {
        /// The target function of an extension or tracing program.
        target_btf_id: u32 since (5, 10),
        /// `BPF_TRACE_ITER`.
        iter: bpf_attr_link_create_iter,
        /// `BPF_PERF_EVENT`.
        perf_event: bpf_attr_link_create_perf_event,
        /// `BPF_TRACE_KPROBE_MULTI` and `BPF_TRACE_KPROBE_SESSION`.
        kprobe_multi: bpf_attr_link_create_kprobe_multi,
        /// `BPF_TRACE_FENTRY` and similar types.
        tracing: bpf_attr_link_create_tracing,
        /// `BPF_NETFILTER`.
        netfilter: bpf_attr_link_create_netfilter,
        /// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS`.
        tcx: bpf_attr_link_create_tcx,
        /// `BPF_TRACE_UPROBE_MULTI` and `BPF_TRACE_UPROBE_SESSION`.
        uprobe_multi: bpf_attr_link_create_uprobe_multi,
        /// `BPF_NETKIT_PRIMARY` and `BPF_NETKIT_PEER`.
        netkit: bpf_attr_link_create_netkit,
        /// `BPF_CGROUP_*`.
        cgroup: bpf_attr_link_create_cgroup,
        /// `BPF_TRACE_*_MULTI` by BTF id.
        tracing_multi: bpf_attr_link_create_tracing_multi,
    }
}

abi_struct! {
    /// An iterator's parameters. Anonymous in C.
    pub struct bpf_attr_link_create_iter[16, 8] {
        /// Address of a [`bpf_iter_link_info`](crate::bpf_iter_link_info).
        iter_info: u64 @ 0 since (5, 9),
        /// Its size in bytes.
        iter_info_len: u32 @ 8 since (5, 9),
        #[doc(hidden)]
        __pad12: u32 @ 12,
    }
}

abi_struct! {
    /// A perf event: kprobe, uprobe, tracepoint or counter.
    pub struct bpf_attr_link_create_perf_event[8, 8] {
        /// A number that the program can read.
        bpf_cookie: u64 @ 0 since (5, 15),
    }
}

abi_struct! {
    /// Many kernel functions, by name or by address.
    pub struct bpf_attr_link_create_kprobe_multi[32, 8] {
        /// Flags of [`BPF_KPROBE_MULTI_FLAGS`](crate::BPF_KPROBE_MULTI_FLAGS).
        flags: u32 @ 0 since (5, 18),
        /// Number of functions.
        cnt: u32 @ 4 since (5, 18),
        /// Address of an array of `cnt` addresses of names, or 0.
        syms: u64 @ 8 since (5, 18),
        /// Address of an array of `cnt` function addresses, or 0.
        addrs: u64 @ 16 since (5, 18),
        /// Address of `cnt` cookies, or 0.
        cookies: u64 @ 24 since (5, 18),
    }
}

abi_struct! {
    /// One kernel function or one program.
    pub struct bpf_attr_link_create_tracing[16, 8] {
        /// The function to attach to.
        target_btf_id: u32 @ 0 since (5, 19),
        #[doc(hidden)]
        __pad4: u32 @ 4,
        /// A number that the program can read.
        cookie: u64 @ 8 since (5, 19),
    }
}

abi_struct! {
    /// A netfilter hook.
    pub struct bpf_attr_link_create_netfilter[16, 4] {
        /// The protocol family, `NFPROTO_*`.
        pf: u32 @ 0 since (6, 4),
        /// The hook, `NF_INET_*`.
        hooknum: u32 @ 4 since (6, 4),
        /// Position among the hook's functions: lower values run first.
        priority: i32 @ 8 since (6, 4),
        /// Flags of [`BPF_NETFILTER_FLAGS`](crate::BPF_NETFILTER_FLAGS).
        flags: u32 @ 12 since (6, 4),
    }
}

abi_struct! {
    /// A device's tcx hook.
    pub struct bpf_attr_link_create_tcx[16, 8] {
        /// The program or link to attach before or after.
        relative_fd: u32 @ 0 since (6, 6) also "relative_id" (6, 6),
        #[doc(hidden)]
        __pad4: u32 @ 4,
        /// The required revision of the hook, or 0. `ESTALE` if the hook has another.
        expected_revision: u64 @ 8 since (6, 6),
    }
}

abi_struct! {
    /// Many offsets in one executable.
    pub struct bpf_attr_link_create_uprobe_multi[48, 8] {
        /// Address of the executable's NUL-terminated path.
        path: u64 @ 0 since (6, 6),
        /// Address of `cnt` offsets into the file, 8 bytes each.
        offsets: u64 @ 8 since (6, 6),
        /// Address of `cnt` offsets of reference counters, or 0.
        ref_ctr_offsets: u64 @ 16 since (6, 6),
        /// Address of `cnt` cookies, or 0.
        cookies: u64 @ 24 since (6, 6),
        /// Number of offsets.
        cnt: u32 @ 32 since (6, 6),
        /// Flags of [`BPF_UPROBE_MULTI_FLAGS`](crate::BPF_UPROBE_MULTI_FLAGS).
        flags: u32 @ 36 since (6, 6),
        /// The only process to trace, or 0 for all.
        pid: u32 @ 40 since (6, 6),
        /// A descriptor of the executable, with `BPF_F_UPROBE_MULTI_PATH_FD`.
        path_fd: u32 @ 44 since (7, 2),
    }
}

abi_struct! {
    /// A netkit device.
    pub struct bpf_attr_link_create_netkit[16, 8] {
        /// The program or link to attach before or after.
        relative_fd: u32 @ 0 since (6, 7) also "relative_id" (6, 7),
        #[doc(hidden)]
        __pad4: u32 @ 4,
        /// The required revision of the hook, or 0. `ESTALE` if the hook has another.
        expected_revision: u64 @ 8 since (6, 7),
    }
}

abi_struct! {
    /// A cgroup.
    pub struct bpf_attr_link_create_cgroup[16, 8] {
        /// The program or link to attach before or after.
        relative_fd: u32 @ 0 since (6, 17) also "relative_id" (6, 17),
        #[doc(hidden)]
        __pad4: u32 @ 4,
        /// The required revision of the hook, or 0. `ESTALE` if the hook has another.
        expected_revision: u64 @ 8 since (6, 17),
    }
}

abi_struct! {
    /// Many kernel functions, by BTF id.
    pub struct bpf_attr_link_create_tracing_multi[24, 8] {
        /// Address of `cnt` BTF ids, 4 bytes each.
        ids: u64 @ 0 since (7, 2),
        /// Address of `cnt` cookies, or 0.
        cookies: u64 @ 8 since (7, 2),
        /// Number of functions.
        cnt: u32 @ 16 since (7, 2),
        #[doc(hidden)]
        __pad20: u32 @ 20,
    }
}

abi_struct! {
    /// `BPF_LINK_UPDATE`: replaces the program of an attachment atomically.
    pub struct bpf_attr_link_update[16, 4] {
        /// The link.
        link_fd: u32 @ 0 since (5, 7),
        /// The new program, or the new struct_ops map.
        new_prog_fd: u32 @ 4 since (5, 7) also "new_map_fd" (6, 4),
        /// `BPF_F_REPLACE` or zero.
        flags: u32 @ 8 since (5, 7),
        /// With `BPF_F_REPLACE`: the expected current program or map. `EPERM` if the link has another.
        old_prog_fd: u32 @ 12 since (5, 7) also "old_map_fd" (6, 4),
    }
}

abi_struct! {
    /// `BPF_LINK_DETACH`: ends the attachment and keeps the link.
    pub struct bpf_attr_link_detach[4, 4] {
        /// The link.
        link_fd: u32 @ 0 since (5, 9),
    }
}

abi_struct! {
    /// `BPF_ITER_CREATE`: returns a descriptor to read an iterator's output from.
    pub struct bpf_attr_iter_create[8, 4] {
        /// The link of an iterator program.
        link_fd: u32 @ 0 since (5, 8),
        /// Must be zero.
        flags: u32 @ 4 since (5, 8),
    }
}
