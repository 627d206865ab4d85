//! What the kernel tells of a BTF.

abi_struct! {
    /// `struct bpf_btf_info`: what `BPF_OBJ_GET_INFO_BY_FD` tells of a BTF.
    pub struct bpf_btf_info[32, 8] {
        /// In: address of room for the BTF itself.
        btf: u64 @ 0 since (4, 18),
        /// In: that room in bytes. Out: size of the BTF.
        btf_size: u32 @ 8 since (4, 18),
        /// The BTF's id.
        id: u32 @ 12 since (4, 18),
        /// In: address of room for the name.
        name: u64 @ 16 since (5, 11),
        /// In: that room in bytes. Out: length of the name.
        name_len: u32 @ 24 since (5, 11),
        /// 1 if it describes the kernel or a module, else 0.
        kernel_btf: u32 @ 28 since (5, 11),
    }
}
