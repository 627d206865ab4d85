//! The info struct of a BTF object.

abi_struct! {
    /// `struct bpf_btf_info`: the result of `BPF_OBJ_GET_INFO_BY_FD` for a BTF object.
    pub struct bpf_btf_info[32, 8] {
        /// In: address of the buffer for the BTF data.
        btf: u64 @ 0 since (4, 18),
        /// In: size of that buffer in bytes. Out: size of the BTF data.
        btf_size: u32 @ 8 since (4, 18),
        /// The BTF's id.
        id: u32 @ 12 since (4, 18),
        /// In: address of the buffer for the name.
        name: u64 @ 16 since (5, 11),
        /// In: size of that buffer in bytes. Out: length of the name.
        name_len: u32 @ 24 since (5, 11),
        /// 1 if it describes the kernel or a module, else 0.
        kernel_btf: u32 @ 28 since (5, 11),
    }
}
