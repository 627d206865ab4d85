//! The arm of `BPF_ENABLE_STATS`.

abi_struct! {
    /// `BPF_ENABLE_STATS`: count runs and time for as long as the descriptor lives.
    pub struct bpf_attr_enable_stats[4, 4] {
        /// A [`bpf_stats_type`](crate::bpf_stats_type).
        r#type: u32 @ 0 since (5, 8),
    }
}
