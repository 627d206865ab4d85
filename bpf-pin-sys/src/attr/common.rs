//! The argument that every command shares.

abi_struct! {
    /// `struct bpf_common_attr`: the log of any command.
    ///
    /// The fourth and fifth arguments of `bpf(2)` are its address and size. The kernel reads them
    /// only if the command has [`BPF_COMMON_ATTRS`](crate::BPF_COMMON_ATTRS) set.
    pub struct bpf_common_attr[24, 8] {
        /// Address of the log's buffer.
        log_buf: u64 @ 0 since (7, 2),
        /// Size of the log's buffer in bytes.
        log_size: u32 @ 8 since (7, 2),
        /// Log level, 0 for no log.
        log_level: u32 @ 12 since (7, 2),
        /// Out: size of the whole log in bytes including the NUL, even if the buffer is smaller.
        log_true_size: u32 @ 16 since (7, 2),
        #[doc(hidden)]
        __pad20: u32 @ 20,
    }
}
