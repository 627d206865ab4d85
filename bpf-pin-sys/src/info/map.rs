//! The info struct of a map, and the keys and values that have a prescribed layout.

abi_struct! {
    /// `struct bpf_map_info`: the result of `BPF_OBJ_GET_INFO_BY_FD` for a map.
    ///
    /// The kernel writes the fields that it knows: 40 bytes in 4.15, 80 in 5.4, 88 in 5.16 and
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
        /// Maximum number of entries. Some map types change the requested number.
        max_entries: u32 @ 16 since (4, 13),
        /// Flags of [`BPF_MAP_CREATE_FLAGS`](crate::BPF_MAP_CREATE_FLAGS). Some map types
        /// add to the requested flags.
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
        /// The BTF that describes the key and the value, or 0.
        btf_id: u32 @ 64 since (4, 18),
        /// The key's type in that BTF.
        btf_key_type_id: u32 @ 68 since (4, 18),
        /// The value's type in that BTF.
        btf_value_type_id: u32 @ 72 since (4, 18),
        /// The BTF that has the type `btf_vmlinux_value_type_id`.
        btf_vmlinux_id: u32 @ 76 since (6, 9),
        /// As passed when the map was created.
        map_extra: u64 @ 80 since (5, 16),
        /// In: address of the buffer for the hash of a frozen map's contents, or 0.
        hash: u64 @ 88 since (6, 18),
        /// In: that room in bytes: 32, or 0 without `hash`, else `EINVAL`.
        hash_size: u32 @ 96 since (6, 18),
        #[doc(hidden)]
        __pad100: u32 @ 100,
    }
}

abi_struct! {
    /// `struct bpf_lpm_trie_key_hdr`: the start of a `BPF_MAP_TYPE_LPM_TRIE` key.
    ///
    /// The prefix follows, most significant byte first. The layout is older than the name: it is that of
    /// `struct bpf_lpm_trie_key`, Linux 4.11.
    pub struct bpf_lpm_trie_key_hdr[4, 4] {
        /// Length of the prefix in bits.
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
    /// With a `value_size` of 4, the value has no program.
    pub struct bpf_devmap_val[8, 4] {
        /// The network device.
        ifindex: u32 @ 0 since (5, 8),
        /// The program to run on each frame that is sent.
        bpf_prog: bpf_devmap_val_bpf_prog @ 4,
    }
}

abi_union! {
    /// The program of a [`bpf_devmap_val`].
    pub union bpf_devmap_val_bpf_prog[4, 4] {
        /// When written: a descriptor, or 0 or less for no program.
        fd: i32 since (5, 8),
        /// When read: an id, or 0 for no program.
        id: u32 since (5, 8),
    }
}

abi_struct! {
    /// `struct bpf_cpumap_val`: the value of a `BPF_MAP_TYPE_CPUMAP` map.
    ///
    /// With a `value_size` of 4, the value has no program.
    pub struct bpf_cpumap_val[8, 4] {
        /// Size of the CPU's queue in frames.
        qsize: u32 @ 0 since (5, 9),
        /// The program to run on that CPU.
        bpf_prog: bpf_cpumap_val_bpf_prog @ 4,
    }
}

abi_union! {
    /// The program of a [`bpf_cpumap_val`].
    pub union bpf_cpumap_val_bpf_prog[4, 4] {
        /// When written: a descriptor, or 0 or less for no program.
        fd: i32 since (5, 9),
        /// When read: an id, or 0 for no program.
        id: u32 since (5, 9),
    }
}

abi_struct! {
    /// `struct bpf_spin_lock`: a lock within a map's value.
    ///
    /// A lookup returns zeros here, and an update does not write it. With `BPF_F_LOCK`, both hold the lock.
    pub struct bpf_spin_lock[4, 4] {
        /// Internal to the kernel.
        val: u32 @ 0 since (5, 1),
    }
}
