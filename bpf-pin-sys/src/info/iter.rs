//! The parameters of iterators.

abi_union! {
    /// `union bpf_iter_link_info`: an iterator's parameters, given in
    /// [`bpf_attr_link_create_iter`](crate::bpf_attr_link_create_iter).
    pub union bpf_iter_link_info[16, 8] {
        /// An iterator over a map's entries.
        map: bpf_iter_link_info_map,
        /// An iterator over cgroups.
        cgroup: bpf_iter_link_info_cgroup,
        /// An iterator over tasks.
        task: bpf_iter_link_info_task,
    }
}

abi_struct! {
    /// The map to iterate over.
    pub struct bpf_iter_link_info_map[4, 4] {
        /// The map.
        map_fd: u32 @ 0 since (5, 9),
    }
}

abi_struct! {
    /// The cgroup to start at, and the order. If both cgroup fields are 0, it is the root cgroup.
    pub struct bpf_iter_link_info_cgroup[16, 8] {
        /// A [`bpf_cgroup_iter_order`](crate::bpf_cgroup_iter_order).
        order: u32 @ 0 since (6, 1),
        /// The cgroup as a descriptor, or 0.
        cgroup_fd: u32 @ 4 since (6, 1),
        /// The cgroup as an id, or 0.
        cgroup_id: u64 @ 8 since (6, 1),
    }
}

abi_struct! {
    /// The tasks to iterate over. If all fields are 0, all tasks.
    pub struct bpf_iter_link_info_task[12, 4] {
        /// One thread.
        tid: u32 @ 0 since (6, 1),
        /// One process.
        pid: u32 @ 4 since (6, 1),
        /// One process, as a descriptor.
        pid_fd: u32 @ 8 since (6, 1),
    }
}
