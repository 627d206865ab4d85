//! `enum bpf_cgroup_iter_order`.

/// `enum bpf_cgroup_iter_order`: the order of an iterator over cgroups.
#[allow(non_camel_case_types)]
pub type bpf_cgroup_iter_order = u32;

abi_consts! {
    /// The orders, by number.
    pub BPF_CGROUP_ITER_ORDERS: bpf_cgroup_iter_order, btf {
        /// No order.
        BPF_CGROUP_ITER_ORDER_UNSPEC = 0, since (6, 1);
        /// Only the given cgroup.
        BPF_CGROUP_ITER_SELF_ONLY = 1, since (6, 1);
        /// The cgroup and its descendants, parents first.
        BPF_CGROUP_ITER_DESCENDANTS_PRE = 2, since (6, 1);
        /// The cgroup and its descendants, children first.
        BPF_CGROUP_ITER_DESCENDANTS_POST = 3, since (6, 1);
        /// The cgroup and its ancestors.
        BPF_CGROUP_ITER_ANCESTORS_UP = 4, since (6, 1);
        /// The children of the cgroup.
        BPF_CGROUP_ITER_CHILDREN = 5, since (7, 0);
    }
}
