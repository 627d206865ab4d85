//! The arms of the commands on maps.

abi_struct! {
    /// `BPF_MAP_CREATE`: type, sizes and name of a new map.
    ///
    /// References: [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html),
    /// `map_create` in `kernel/bpf/syscall.c`.
    pub struct bpf_attr_map_create[96, 8] {
        /// A [`bpf_map_type`](crate::bpf_map_type).
        map_type: u32 @ 0 since (3, 18),
        /// Size of a key in bytes.
        key_size: u32 @ 4 since (3, 18),
        /// Size of a value in bytes; in a per-CPU map, the size of one CPU's value.
        value_size: u32 @ 8 since (3, 18),
        /// Maximum number of entries; for a ring buffer, its size in bytes.
        max_entries: u32 @ 12 since (3, 18),
        /// Flags of [`BPF_MAP_CREATE_FLAGS`](crate::BPF_MAP_CREATE_FLAGS).
        map_flags: u32 @ 16 since (4, 6),
        /// For a map of maps: a map with the type and sizes of its inner maps.
        inner_map_fd: u32 @ 20 since (4, 12),
        /// The NUMA node to allocate on. Read only with `BPF_F_NUMA_NODE`.
        numa_node: u32 @ 24 since (4, 14),
        /// The name: letters, digits, `_` and `.` (a dot since 5.2), then a NUL.
        map_name: [u8; 16] @ 28 since (4, 15),
        /// Index of the network device to offload the map to.
        map_ifindex: u32 @ 44 since (4, 16),
        /// The BTF that describes the key and the value.
        btf_fd: u32 @ 48 since (4, 18),
        /// The key's type in that BTF.
        btf_key_type_id: u32 @ 52 since (4, 18),
        /// The value's type in that BTF.
        btf_value_type_id: u32 @ 56 since (4, 18),
        /// The kernel's type of a `BPF_MAP_TYPE_STRUCT_OPS` map's value.
        btf_vmlinux_value_type_id: u32 @ 60 since (5, 6),
        /// A parameter that depends on the map's type: the number of hashes of a bloom filter, the address of an
        /// arena, the initial size of an `RHASH`.
        map_extra: u64 @ 64 since (5, 16),
        /// The module's BTF that has the type `btf_vmlinux_value_type_id`. Read only with
        /// `BPF_F_VTYPE_BTF_OBJ_FD`.
        value_type_btf_obj_fd: i32 @ 72 since (6, 9),
        /// A token that grants the creation. Read only with `BPF_F_TOKEN_FD`.
        map_token_fd: i32 @ 76 since (6, 9),
        /// Address of the hash of the one program that may use the map.
        excl_prog_hash: u64 @ 80 since (6, 18),
        /// Size of that hash in bytes.
        excl_prog_hash_size: u32 @ 88 since (6, 18),
        #[doc(hidden)]
        __pad92: u32 @ 92,
    }
}

abi_struct! {
    /// `BPF_MAP_LOOKUP_ELEM`, `BPF_MAP_UPDATE_ELEM`, `BPF_MAP_DELETE_ELEM`,
    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`, `BPF_MAP_GET_NEXT_KEY`, and `BPF_MAP_FREEZE`, which reads
    /// only the descriptor.
    pub struct bpf_attr_map_elem[32, 8] {
        /// The map.
        map_fd: u32 @ 0 since (3, 18),
        #[doc(hidden)]
        __pad4: u32 @ 4,
        /// Address of the key: `key_size` bytes.
        key: u64 @ 8 since (3, 18),
        /// Address of the value, or of the buffer for the value or the next key. A per-CPU map has a value for each
        /// possible CPU, and the size of each is rounded up to 8 bytes.
        value: u64 @ 16 since (3, 18) also "next_key" (3, 18),
        /// One of `BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST`, with bits out of
        /// [`BPF_MAP_ELEM_FLAGS`](crate::BPF_MAP_ELEM_FLAGS).
        flags: u64 @ 24 since (3, 19),
    }
}

abi_struct! {
    /// `BPF_MAP_LOOKUP_BATCH`, `BPF_MAP_LOOKUP_AND_DELETE_BATCH`, `BPF_MAP_UPDATE_BATCH` and
    /// `BPF_MAP_DELETE_BATCH`: many entries in one call.
    pub struct bpf_attr_batch[56, 8] {
        /// Address of the position to continue from, 0 to start.
        in_batch: u64 @ 0 since (5, 6),
        /// Address of the buffer for the next position: `key_size` bytes, at least 4.
        out_batch: u64 @ 8 since (5, 6),
        /// Address of `count` keys.
        keys: u64 @ 16 since (5, 6),
        /// Address of `count` values.
        values: u64 @ 24 since (5, 6),
        /// In: number of entries that the buffers hold. Out: number of processed entries, also after an error.
        count: u32 @ 32 since (5, 6),
        /// The map.
        map_fd: u32 @ 36 since (5, 6),
        /// The `flags` of each entry.
        elem_flags: u64 @ 40 since (5, 6),
        /// Must be zero.
        flags: u64 @ 48 since (5, 6),
    }
}
