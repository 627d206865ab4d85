//! `enum bpf_cgroup_iter_order`.

/// `enum bpf_cgroup_iter_order`: which way an iterator walks cgroups.
#[allow(non_camel_case_types)]
pub type bpf_cgroup_iter_order = u32;

abi_consts! {
    /// The orders, by number.
    pub BPF_CGROUP_ITER_ORDERS: bpf_cgroup_iter_order, btf {
        /// No order.
        BPF_CGROUP_ITER_ORDER_UNSPEC = 0, since (6, 1);
        /// The given cgroup alone.
        BPF_CGROUP_ITER_SELF_ONLY = 1, since (6, 1);
        /// It and all below, parents first.
        BPF_CGROUP_ITER_DESCENDANTS_PRE = 2, since (6, 1);
        /// It and all below, children first.
        BPF_CGROUP_ITER_DESCENDANTS_POST = 3, since (6, 1);
        /// It and all above.
        BPF_CGROUP_ITER_ANCESTORS_UP = 4, since (6, 1);
        /// Its children, without it.
        BPF_CGROUP_ITER_CHILDREN = 5, since (7, 0);
    }
}
