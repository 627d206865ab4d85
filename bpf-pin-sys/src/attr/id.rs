//! The arm of the commands that use ids.

abi_struct! {
    /// `BPF_{PROG,MAP,BTF,LINK}_GET_NEXT_ID` and `BPF_{PROG,MAP,BTF,LINK}_GET_FD_BY_ID`.
    pub struct bpf_attr_get_id[16, 4] {
        /// The id to open, or the id to search after.
        start_id: u32 @ 0 since (4, 13)
            also "prog_id" (4, 13)
            also "map_id" (4, 13)
            also "btf_id" (4, 18)
            also "link_id" (5, 8),
        /// Out: the next id, for `*_GET_NEXT_ID`.
        next_id: u32 @ 4 since (4, 13),
        /// `BPF_F_RDONLY` or `BPF_F_WRONLY`, for `BPF_MAP_GET_FD_BY_ID`.
        open_flags: u32 @ 8 since (4, 15),
        /// A token that grants the access, for `BPF_BTF_GET_FD_BY_ID`.
        fd_by_id_token_fd: i32 @ 12 since (6, 15),
    }
}
