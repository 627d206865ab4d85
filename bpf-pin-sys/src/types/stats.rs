//! `enum bpf_stats_type`, and the output streams of a program.

/// `enum bpf_stats_type`: the statistics to collect.
#[allow(non_camel_case_types)]
pub type bpf_stats_type = u32;

abi_consts! {
    /// The statistics, by number.
    pub BPF_STATS_TYPES: bpf_stats_type, btf {
        /// Number of runs and run time of each program.
        BPF_STATS_RUN_TIME = 0, since (5, 8);
    }
}

abi_consts! {
    /// The streams of a program, by number.
    pub BPF_STREAMS: u32, header {
        /// The output of the program.
        BPF_STREAM_STDOUT = 1, since (6, 17);
        /// Errors that the program or the kernel reports.
        BPF_STREAM_STDERR = 2, since (6, 17);
    }
}
