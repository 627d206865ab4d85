//! What the kernel tells of a map, and the keys and values whose shape it prescribes.

abi_struct! {
    /// `struct bpf_map_info`: what `BPF_OBJ_GET_INFO_BY_FD` tells of a map.
    ///
    /// The kernel writes as much of it as it knows: 40 bytes in 4.15, 80 in 5.4, 88 in 5.16 and
    /// 104 since 6.18.
    pub struct bpf_map_info[104, 8] {
        /// A [`bpf_map_type`](crate::bpf_map_type).
        r#type: u32 @ 0 since (4, 13),
        /// The map's id.
        id: u32 @ 4 since (4, 13),
        /// Size of a key in bytes.
        key_size: u32 @ 8 since (4, 13),
        /// Size of a value in bytes.
        value_size: u32 @ 12 since (4, 13),
        /// How many entries the map holds. Some types change what was asked for.
        max_entries: u32 @ 16 since (4, 13),
        /// Bits out of [`BPF_MAP_CREATE_FLAGS`](crate::BPF_MAP_CREATE_FLAGS). Some types add to
        /// what was asked for.
        map_flags: u32 @ 20 since (4, 13),
        /// The name, NUL-padded.
        name: [u8; 16] @ 24 since (4, 15),
        /// The network device the map is offloaded to, or 0.
        ifindex: u32 @ 40 since (4, 16),
        /// The kernel's type of a struct_ops map's value.
        btf_vmlinux_value_type_id: u32 @ 44 since (5, 6),
        /// Device number of `ifindex`'s network namespace.
        netns_dev: u64 @ 48 since (4, 16),
        /// Inode number of `ifindex`'s network namespace.
        netns_ino: u64 @ 56 since (4, 16),
        /// The BTF that describes key and value, or 0.
        btf_id: u32 @ 64 since (4, 18),
        /// The key's type in that BTF.
        btf_key_type_id: u32 @ 68 since (4, 18),
        /// The value's type in that BTF.
        btf_value_type_id: u32 @ 72 since (4, 18),
        /// The BTF that `btf_vmlinux_value_type_id` is of.
        btf_vmlinux_id: u32 @ 76 since (6, 9),
        /// As given when the map was created.
        map_extra: u64 @ 80 since (5, 16),
        /// In: address of room for the hash of a frozen map's contents, or 0.
        hash: u64 @ 88 since (6, 18),
        /// In: that room in bytes: 32, else `EINVAL`; 0 without `hash`.
        hash_size: u32 @ 96 since (6, 18),
        #[doc(hidden)]
        __pad100: u32 @ 100,
    }
}

abi_struct! {
    /// `struct bpf_lpm_trie_key_hdr`: what a `BPF_MAP_TYPE_LPM_TRIE` key begins with.
    ///
    /// The prefix itself follows, most significant byte first. The kernel had the layout before it
    /// had the name: `struct bpf_lpm_trie_key`, Linux 4.11.
    pub struct bpf_lpm_trie_key_hdr[4, 4] {
        /// How many bits of the prefix count.
        prefixlen: u32 @ 0 since (6, 9),
    }
}

abi_struct! {
    /// `struct bpf_cgroup_storage_key`: the key of a `BPF_MAP_TYPE_CGROUP_STORAGE` map.
    pub struct bpf_cgroup_storage_key[16, 8] {
        /// The cgroup's inode number.
        cgroup_inode_id: u64 @ 0 since (4, 19),
        /// A [`bpf_attach_type`](crate::bpf_attach_type).
        attach_type: u32 @ 8 since (4, 19),
        #[doc(hidden)]
        __pad12: u32 @ 12,
    }
}

abi_struct! {
    /// `struct bpf_devmap_val`: the value of a `BPF_MAP_TYPE_DEVMAP` or `DEVMAP_HASH` map.
    ///
    /// A `value_size` of 4 leaves the program out.
    pub struct bpf_devmap_val[8, 4] {
        /// The network device.
        ifindex: u32 @ 0 since (5, 8),
        /// The program to run on the way out.
        bpf_prog: bpf_devmap_val_bpf_prog @ 4,
    }
}

abi_union! {
    /// The program of a [`bpf_devmap_val`].
    pub union bpf_devmap_val_bpf_prog[4, 4] {
        /// When written: a descriptor; 0 or less for none.
        fd: i32 since (5, 8),
        /// When read: an id, 0 for none.
        id: u32 since (5, 8),
    }
}

abi_struct! {
    /// `struct bpf_cpumap_val`: the value of a `BPF_MAP_TYPE_CPUMAP` map.
    ///
    /// A `value_size` of 4 leaves the program out.
    pub struct bpf_cpumap_val[8, 4] {
        /// How many frames the CPU's queue holds.
        qsize: u32 @ 0 since (5, 9),
        /// The program to run on that CPU.
        bpf_prog: bpf_cpumap_val_bpf_prog @ 4,
    }
}

abi_union! {
    /// The program of a [`bpf_cpumap_val`].
    pub union bpf_cpumap_val_bpf_prog[4, 4] {
        /// When written: a descriptor; 0 or less for none.
        fd: i32 since (5, 9),
        /// When read: an id, 0 for none.
        id: u32 since (5, 9),
    }
}

abi_struct! {
    /// `struct bpf_spin_lock`: a lock within a map's value.
    ///
    /// It reads as zero and is not written, except with `BPF_F_LOCK`, which takes it.
    pub struct bpf_spin_lock[4, 4] {
        /// The kernel's business.
        val: u32 @ 0 since (5, 1),
    }
}
