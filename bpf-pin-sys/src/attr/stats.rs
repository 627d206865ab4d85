//! The arm of `BPF_ENABLE_STATS`.

abi_struct! {
    /// `BPF_ENABLE_STATS`: counts runs and run time as long as the returned descriptor is open.
    pub struct bpf_attr_enable_stats[4, 4] {
        /// A [`bpf_stats_type`](crate::bpf_stats_type).
        r#type: u32 @ 0 since (5, 8),
    }
}
