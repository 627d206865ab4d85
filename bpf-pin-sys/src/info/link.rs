//! The info struct of a link.

abi_struct! {
    /// `struct bpf_link_info`: the result of `BPF_OBJ_GET_INFO_BY_FD` for a link.
    ///
    /// The kernel writes the fields that it knows: 32 bytes in 5.15, 48 in 6.1 and 64 since 6.8.
    pub struct bpf_link_info[64, 8] {
        /// A [`bpf_link_type`](crate::bpf_link_type), which selects the arm of `details`.
        r#type: u32 @ 0 since (5, 8),
        /// The link's id.
        id: u32 @ 4 since (5, 8),
        /// The program's id, 0 if the link is of a map.
        prog_id: u32 @ 8 since (5, 8),
        #[doc(hidden)]
        __pad12: u32 @ 12,
        /// The fields of this type of link. Anonymous in C.
        details: bpf_link_info_details @ 16,
    }
}

abi_union! {
    /// The union at the end of [`bpf_link_info`], with an arm for each type of link.
    pub union bpf_link_info_details[48, 8] {
        /// `BPF_LINK_TYPE_RAW_TRACEPOINT`.
        raw_tracepoint: bpf_link_info_raw_tracepoint,
        /// `BPF_LINK_TYPE_TRACING`.
        tracing: bpf_link_info_tracing,
        /// `BPF_LINK_TYPE_CGROUP`.
        cgroup: bpf_link_info_cgroup,
        /// `BPF_LINK_TYPE_ITER`.
        iter: bpf_link_info_iter,
        /// `BPF_LINK_TYPE_NETNS`.
        netns: bpf_link_info_netns,
        /// `BPF_LINK_TYPE_XDP`.
        xdp: bpf_link_info_xdp,
        /// `BPF_LINK_TYPE_STRUCT_OPS`.
        struct_ops: bpf_link_info_struct_ops,
        /// `BPF_LINK_TYPE_NETFILTER`.
        netfilter: bpf_link_info_netfilter,
        /// `BPF_LINK_TYPE_KPROBE_MULTI`.
        kprobe_multi: bpf_link_info_kprobe_multi,
        /// `BPF_LINK_TYPE_UPROBE_MULTI`.
        uprobe_multi: bpf_link_info_uprobe_multi,
        /// `BPF_LINK_TYPE_TRACING_MULTI`.
        tracing_multi: bpf_link_info_tracing_multi,
        /// `BPF_LINK_TYPE_PERF_EVENT`.
        perf_event: bpf_link_info_perf_event,
        /// `BPF_LINK_TYPE_TCX`.
        tcx: bpf_link_info_tcx,
        /// `BPF_LINK_TYPE_NETKIT`.
        netkit: bpf_link_info_netkit,
        /// `BPF_LINK_TYPE_SOCKMAP`.
        sockmap: bpf_link_info_sockmap,
    }
}

abi_struct! {
    /// A raw tracepoint.
    pub struct bpf_link_info_raw_tracepoint[24, 8] {
        /// In: address of the buffer for the tracepoint's name.
        tp_name: u64 @ 0 since (5, 8),
        /// In: size of that buffer in bytes. Out: length of the name, including the NUL.
        tp_name_len: u32 @ 8 since (5, 8),
        #[doc(hidden)]
        __pad12: u32 @ 12,
        /// The cookie that was passed when it was attached.
        cookie: u64 @ 16 since (6, 17),
    }
}

abi_struct! {
    /// A kernel function, or a program that the link's program extends.
    pub struct bpf_link_info_tracing[24, 8] {
        /// A [`bpf_attach_type`](crate::bpf_attach_type).
        attach_type: u32 @ 0 since (5, 8),
        /// The id of the extended program, or of the BTF that has the target.
        target_obj_id: u32 @ 4 since (5, 13),
        /// The target's type in that BTF.
        target_btf_id: u32 @ 8 since (5, 13),
        #[doc(hidden)]
        __pad12: u32 @ 12,
        /// The cookie that was passed when it was attached.
        cookie: u64 @ 16 since (6, 17),
    }
}

abi_struct! {
    /// A cgroup's hook.
    pub struct bpf_link_info_cgroup[16, 8] {
        /// The cgroup's id.
        cgroup_id: u64 @ 0 since (5, 8),
        /// A [`bpf_attach_type`](crate::bpf_attach_type).
        attach_type: u32 @ 8 since (5, 8),
        #[doc(hidden)]
        __pad12: u32 @ 12,
    }
}

abi_struct! {
    /// An iterator.
    pub struct bpf_link_info_iter[32, 8] {
        /// In: address of the buffer for the name of the iterator's target.
        target_name: u64 @ 0 since (5, 10),
        /// In: size of that buffer in bytes. Out: length of the name, including the NUL.
        target_name_len: u32 @ 8 since (5, 10),
        /// The map it iterates over, if the target's name begins with `bpf_map_`.
        map: bpf_link_info_iter_map @ 12,
        /// The cgroup or task it iterates over. Anonymous in C.
        details: bpf_link_info_iter_details @ 16,
    }
}

abi_struct! {
    /// An iterator over a map's entries.
    pub struct bpf_link_info_iter_map[4, 4] {
        /// The map's id.
        map_id: u32 @ 0 since (5, 10),
    }
}

abi_union! {
    /// The union at the end of [`bpf_link_info_iter`]. The target's name selects the arm.
    pub union bpf_link_info_iter_details[16, 8] {
        /// An iterator over cgroups.
        cgroup: bpf_link_info_iter_cgroup,
        /// An iterator over tasks.
        task: bpf_link_info_iter_task,
    }
}

abi_struct! {
    /// An iterator over cgroups.
    pub struct bpf_link_info_iter_cgroup[16, 8] {
        /// The cgroup it starts at.
        cgroup_id: u64 @ 0 since (6, 1),
        /// A [`bpf_cgroup_iter_order`](crate::bpf_cgroup_iter_order).
        order: u32 @ 8 since (6, 1),
        #[doc(hidden)]
        __pad12: u32 @ 12,
    }
}

abi_struct! {
    /// An iterator over tasks.
    pub struct bpf_link_info_iter_task[8, 4] {
        /// The thread, or 0.
        tid: u32 @ 0 since (6, 1),
        /// The process, or 0.
        pid: u32 @ 4 since (6, 1),
    }
}

abi_struct! {
    /// A network namespace's hook.
    pub struct bpf_link_info_netns[8, 4] {
        /// Inode number of the network namespace.
        netns_ino: u32 @ 0 since (5, 8),
        /// A [`bpf_attach_type`](crate::bpf_attach_type).
        attach_type: u32 @ 4 since (5, 8),
    }
}

abi_struct! {
    /// A network device's XDP hook.
    pub struct bpf_link_info_xdp[4, 4] {
        /// The device, 0 once it is gone.
        ifindex: u32 @ 0 since (5, 9),
    }
}

abi_struct! {
    /// A struct_ops map.
    pub struct bpf_link_info_struct_ops[4, 4] {
        /// The map's id.
        map_id: u32 @ 0 since (6, 4),
    }
}

abi_struct! {
    /// A netfilter hook.
    pub struct bpf_link_info_netfilter[16, 4] {
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
    /// Many kernel functions.
    pub struct bpf_link_info_kprobe_multi[32, 8] {
        /// In: address of the buffer for the functions' addresses, 8 bytes each.
        addrs: u64 @ 0 since (6, 6),
        /// In: number of functions that the buffers hold. Out: number of functions.
        count: u32 @ 8 since (6, 6),
        /// Flags of [`BPF_KPROBE_MULTI_FLAGS`](crate::BPF_KPROBE_MULTI_FLAGS).
        flags: u32 @ 12 since (6, 6),
        /// How many runs of the program were missed.
        missed: u64 @ 16 since (6, 7),
        /// In: address of the buffer for the cookies, 8 bytes each.
        cookies: u64 @ 24 since (6, 9),
    }
}

abi_struct! {
    /// Many offsets in one executable.
    pub struct bpf_link_info_uprobe_multi[48, 8] {
        /// In: address of the buffer for the executable's path.
        path: u64 @ 0 since (6, 8),
        /// In: address of the buffer for the offsets, 8 bytes each.
        offsets: u64 @ 8 since (6, 8),
        /// In: address of the buffer for the reference counters' offsets, 8 bytes each.
        ref_ctr_offsets: u64 @ 16 since (6, 8),
        /// In: address of the buffer for the cookies, 8 bytes each.
        cookies: u64 @ 24 since (6, 8),
        /// In: size of the buffer at `path` in bytes. Out: length of the path, including the NUL.
        path_size: u32 @ 32 since (6, 8),
        /// In: number of offsets that the buffers hold. Out: number of offsets.
        count: u32 @ 36 since (6, 8),
        /// Flags of [`BPF_UPROBE_MULTI_FLAGS`](crate::BPF_UPROBE_MULTI_FLAGS).
        flags: u32 @ 40 since (6, 8),
        /// The only process traced, or 0.
        pid: u32 @ 44 since (6, 8),
    }
}

abi_struct! {
    /// Many kernel functions, by BTF id.
    pub struct bpf_link_info_tracing_multi[40, 8] {
        /// A [`bpf_attach_type`](crate::bpf_attach_type).
        attach_type: u32 @ 0 since (7, 3),
        /// In: number of functions that the buffers hold. Out: number of functions.
        count: u32 @ 4 since (7, 3),
        /// The BTF that has the functions.
        btf_obj_id: u32 @ 8 since (7, 3),
        #[doc(hidden)]
        __pad12: u32 @ 12,
        /// In: address of the buffer for the BTF ids, 4 bytes each.
        ids: u64 @ 16 since (7, 3),
        /// In: address of the buffer for the addresses, 8 bytes each.
        addrs: u64 @ 24 since (7, 3),
        /// In: address of the buffer for the cookies, 8 bytes each.
        cookies: u64 @ 32 since (7, 3),
    }
}

abi_struct! {
    /// A perf event.
    pub struct bpf_link_info_perf_event[48, 8] {
        /// A [`bpf_perf_event_type`](crate::bpf_perf_event_type), which selects the arm of `details`.
        r#type: u32 @ 0 since (6, 6),
        #[doc(hidden)]
        __pad4: u32 @ 4,
        /// The fields of this type of event. Anonymous in C.
        details: bpf_link_info_perf_event_details @ 8,
    }
}

abi_union! {
    /// The union at the end of [`bpf_link_info_perf_event`].
    pub union bpf_link_info_perf_event_details[40, 8] {
        /// `BPF_PERF_EVENT_UPROBE` and `BPF_PERF_EVENT_URETPROBE`.
        uprobe: bpf_link_info_perf_event_uprobe,
        /// `BPF_PERF_EVENT_KPROBE` and `BPF_PERF_EVENT_KRETPROBE`.
        kprobe: bpf_link_info_perf_event_kprobe,
        /// `BPF_PERF_EVENT_TRACEPOINT`.
        tracepoint: bpf_link_info_perf_event_tracepoint,
        /// `BPF_PERF_EVENT_EVENT`.
        event: bpf_link_info_perf_event_event,
    }
}

abi_struct! {
    /// An offset in an executable.
    pub struct bpf_link_info_perf_event_uprobe[32, 8] {
        /// In: address of the buffer for the executable's path.
        file_name: u64 @ 0 since (6, 6),
        /// In: size of that buffer in bytes. Out: length of the path, including the NUL.
        name_len: u32 @ 8 since (6, 6),
        /// Offset in the file, in bytes.
        offset: u32 @ 12 since (6, 6),
        /// The cookie that was passed when it was attached.
        cookie: u64 @ 16 since (6, 9),
        /// The reference counter's offset in the file, or 0.
        ref_ctr_offset: u64 @ 24 since (6, 16),
    }
}

abi_struct! {
    /// An offset in a kernel function.
    pub struct bpf_link_info_perf_event_kprobe[40, 8] {
        /// In: address of the buffer for the function's name.
        func_name: u64 @ 0 since (6, 6),
        /// In: size of that buffer in bytes. Out: length of the name, including the NUL.
        name_len: u32 @ 8 since (6, 6),
        /// Offset in the function, in bytes.
        offset: u32 @ 12 since (6, 6),
        /// The probed address.
        addr: u64 @ 16 since (6, 6),
        /// How many runs of the program were missed.
        missed: u64 @ 24 since (6, 7),
        /// The cookie that was passed when it was attached.
        cookie: u64 @ 32 since (6, 9),
    }
}

abi_struct! {
    /// A tracepoint.
    pub struct bpf_link_info_perf_event_tracepoint[24, 8] {
        /// In: address of the buffer for the tracepoint's name.
        tp_name: u64 @ 0 since (6, 6),
        /// In: size of that buffer in bytes. Out: length of the name, including the NUL.
        name_len: u32 @ 8 since (6, 6),
        #[doc(hidden)]
        __pad12: u32 @ 12,
        /// The cookie that was passed when it was attached.
        cookie: u64 @ 16 since (6, 9),
    }
}

abi_struct! {
    /// A hardware or software counter.
    pub struct bpf_link_info_perf_event_event[24, 8] {
        /// `perf_event_attr.config`.
        config: u64 @ 0 since (6, 6),
        /// `perf_event_attr.type`.
        r#type: u32 @ 8 since (6, 6),
        #[doc(hidden)]
        __pad12: u32 @ 12,
        /// The cookie that was passed when it was attached.
        cookie: u64 @ 16 since (6, 9),
    }
}

abi_struct! {
    /// A network device's tcx hook.
    pub struct bpf_link_info_tcx[8, 4] {
        /// The device, 0 once it is gone.
        ifindex: u32 @ 0 since (6, 6),
        /// A [`bpf_attach_type`](crate::bpf_attach_type).
        attach_type: u32 @ 4 since (6, 6),
    }
}

abi_struct! {
    /// A netkit device.
    pub struct bpf_link_info_netkit[8, 4] {
        /// The device, 0 once it is gone.
        ifindex: u32 @ 0 since (6, 7),
        /// A [`bpf_attach_type`](crate::bpf_attach_type).
        attach_type: u32 @ 4 since (6, 7),
    }
}

abi_struct! {
    /// A map of sockets.
    pub struct bpf_link_info_sockmap[8, 4] {
        /// The map's id.
        map_id: u32 @ 0 since (6, 10),
        /// A [`bpf_attach_type`](crate::bpf_attach_type).
        attach_type: u32 @ 4 since (6, 10),
    }
}
