//! The arm of `BPF_BTF_LOAD`.

abi_struct! {
    /// `BPF_BTF_LOAD`: loads type information.
    pub struct bpf_attr_btf_load[40, 8] {
        /// Address of the BTF.
        btf: u64 @ 0 since (4, 18),
        /// Address of the log's buffer.
        btf_log_buf: u64 @ 8 since (4, 18),
        /// Size of the BTF in bytes.
        btf_size: u32 @ 16 since (4, 18),
        /// Size of the log's buffer in bytes.
        btf_log_size: u32 @ 20 since (4, 18),
        /// Log level, 0 for no log.
        btf_log_level: u32 @ 24 since (4, 18),
        /// Out: size of the whole log in bytes including the NUL, even if the buffer is smaller.
        btf_log_true_size: u32 @ 28 since (6, 4),
        /// `BPF_F_TOKEN_FD` or zero.
        btf_flags: u32 @ 32 since (6, 9),
        /// A token that grants the load. Read only with `BPF_F_TOKEN_FD`.
        btf_token_fd: i32 @ 36 since (6, 9),
    }
}
