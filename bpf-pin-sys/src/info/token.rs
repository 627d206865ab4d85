//! The info struct of a token.

abi_struct! {
    /// `struct bpf_token_info`: the result of `BPF_OBJ_GET_INFO_BY_FD` for a token.
    pub struct bpf_token_info[32, 8] {
        /// Bit n is the [`bpf_cmd`](crate::bpf_cmd) n.
        allowed_cmds: u64 @ 0 since (6, 17),
        /// Bit n is the [`bpf_map_type`](crate::bpf_map_type) n.
        allowed_maps: u64 @ 8 since (6, 17),
        /// Bit n is the [`bpf_prog_type`](crate::bpf_prog_type) n.
        allowed_progs: u64 @ 16 since (6, 17),
        /// Bit n is the [`bpf_attach_type`](crate::bpf_attach_type) n.
        allowed_attachs: u64 @ 24 since (6, 17),
    }
}
