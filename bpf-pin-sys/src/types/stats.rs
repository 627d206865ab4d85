//! `enum bpf_stats_type` and the streams a program prints to.

/// `enum bpf_stats_type`: what to count.
#[allow(non_camel_case_types)]
pub type bpf_stats_type = u32;

abi_consts! {
    /// The statistics, by number.
    pub BPF_STATS_TYPES: bpf_stats_type, btf {
        /// How often each program runs, and how long.
        BPF_STATS_RUN_TIME = 0, since (5, 8);
    }
}

abi_consts! {
    /// The streams of a program, by number.
    pub BPF_STREAMS: u32, header {
        /// What it prints.
        BPF_STREAM_STDOUT = 1, since (6, 17);
        /// What it complains of, and what the kernel complains of it.
        BPF_STREAM_STDERR = 2, since (6, 17);
    }
}
