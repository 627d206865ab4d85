//! The arm of `BPF_TOKEN_CREATE`.

abi_struct! {
    /// `BPF_TOKEN_CREATE`: returns a descriptor with the rights that a bpffs delegates.
    pub struct bpf_attr_token_create[8, 4] {
        /// Must be zero.
        flags: u32 @ 0 since (6, 9),
        /// The root directory of the bpffs, opened without `O_PATH`.
        bpffs_fd: u32 @ 4 since (6, 9),
    }
}
