//! The info struct of a program, and the records about its instructions.

abi_struct! {
    /// `struct bpf_prog_info`: the result of `BPF_OBJ_GET_INFO_BY_FD` for a program.
    ///
    /// Each buffer has an address and a count. In: the count is the size of the buffer. Out: it is the number that the
    /// kernel has.
    ///
    /// The kernel writes the fields that it knows: 80 bytes in 4.15, 208 in 5.4, 216 in 5.12 and 232 since 6.0.
    pub struct bpf_prog_info[232, 8] {
        /// A [`bpf_prog_type`](crate::bpf_prog_type).
        r#type: u32 @ 0 since (4, 13),
        /// The program's id.
        id: u32 @ 4 since (4, 13),
        /// A hash of the instructions.
        tag: [u8; 8] @ 8 since (4, 13),
        /// Size of the machine code in bytes.
        jited_prog_len: u32 @ 16 since (4, 13),
        /// Size in bytes of the instructions after the verifier's rewrites.
        xlated_prog_len: u32 @ 20 since (4, 13),
        /// Address of the buffer for the machine code.
        jited_prog_insns: u64 @ 24 since (4, 13),
        /// Address of the buffer for the instructions.
        xlated_prog_insns: u64 @ 32 since (4, 13),
        /// Load time, in nanoseconds since boot.
        load_time: u64 @ 40 since (4, 15),
        /// User id of the process that loaded it.
        created_by_uid: u32 @ 48 since (4, 15),
        /// Number of maps that it holds.
        nr_map_ids: u32 @ 52 since (4, 15),
        /// Address of the buffer for the maps' ids, 4 bytes each.
        map_ids: u64 @ 56 since (4, 15),
        /// The name, NUL-padded.
        name: [u8; 16] @ 64 since (4, 15),
        /// The network device the program is offloaded or bound to, or 0.
        ifindex: u32 @ 80 since (4, 16),
        /// C's bit-field `gpl_compatible`, with 31 bits of padding. See
        /// [`gpl_compatible`](Self::gpl_compatible).
        gpl_compatible_bits: u32 @ 84,
        /// Device number of `ifindex`'s network namespace.
        netns_dev: u64 @ 88 since (4, 16),
        /// Inode number of `ifindex`'s network namespace.
        netns_ino: u64 @ 96 since (4, 16),
        /// Number of functions' addresses.
        nr_jited_ksyms: u32 @ 104 since (4, 18),
        /// Number of functions' sizes.
        nr_jited_func_lens: u32 @ 108 since (4, 18),
        /// Address of the buffer for the functions' addresses, 8 bytes each.
        jited_ksyms: u64 @ 112 since (4, 18),
        /// Address of the buffer for the functions' sizes in bytes, 4 bytes each.
        jited_func_lens: u64 @ 120 since (4, 18),
        /// The BTF of its own types, or 0.
        btf_id: u32 @ 128 since (5, 0),
        /// In: the caller's size of a function record in bytes. Out: the kernel's.
        func_info_rec_size: u32 @ 132 since (5, 0),
        /// Address of the buffer for the function records.
        func_info: u64 @ 136 since (5, 0),
        /// Number of function records.
        nr_func_info: u32 @ 144 since (5, 0),
        /// Number of line records.
        nr_line_info: u32 @ 148 since (5, 0),
        /// Address of the buffer for the line records.
        line_info: u64 @ 152 since (5, 0),
        /// Address of the buffer for the machine code's line records.
        jited_line_info: u64 @ 160 since (5, 0),
        /// Number of line records of the machine code.
        nr_jited_line_info: u32 @ 168 since (5, 0),
        /// In: the caller's size of a line record in bytes. Out: the kernel's.
        line_info_rec_size: u32 @ 172 since (5, 0),
        /// Size in bytes of a line record of the machine code.
        jited_line_info_rec_size: u32 @ 176 since (5, 0),
        /// Number of functions' tags.
        nr_prog_tags: u32 @ 180 since (5, 0),
        /// Address of the buffer for the functions' tags, 8 bytes each.
        prog_tags: u64 @ 184 since (5, 0),
        /// Run time in nanoseconds while statistics were enabled.
        run_time_ns: u64 @ 192 since (5, 1),
        /// Number of runs while statistics were enabled.
        run_cnt: u64 @ 200 since (5, 1),
        /// Number of runs that were skipped because it was already running.
        recursion_misses: u64 @ 208 since (5, 12),
        /// Number of instructions that the verifier processed.
        verified_insns: u32 @ 216 since (5, 16),
        /// The BTF of its attach target.
        attach_btf_obj_id: u32 @ 220 since (6, 0),
        /// The attach target's type in that BTF.
        attach_btf_id: u32 @ 224 since (6, 0),
        #[doc(hidden)]
        __pad228: u32 @ 228,
    }
}

impl bpf_prog_info {
    /// Returns whether the program's licence allows helpers that are reserved for the GPL. Linux 4.18.
    #[must_use]
    pub const fn gpl_compatible(&self) -> bool {
        // C allocates bit-fields from the least significant bit on little-endian targets, and from the most
        // significant bit on big-endian targets: bit 0 or bit 7 of the first byte.
        let bit = if cfg!(target_endian = "big") {
            1 << 31
        } else {
            1
        };
        self.gpl_compatible_bits & bit != 0
    }
}

abi_struct! {
    /// `struct bpf_func_info`: the function that begins at an instruction.
    pub struct bpf_func_info[8, 4] {
        /// Index of the instruction.
        insn_off: u32 @ 0 since (5, 0),
        /// The function's type in the program's BTF.
        type_id: u32 @ 4 since (5, 0),
    }
}

abi_struct! {
    /// `struct bpf_line_info`: the source line of an instruction.
    pub struct bpf_line_info[16, 4] {
        /// Index of the instruction.
        insn_off: u32 @ 0 since (5, 0),
        /// The file's name, in the BTF's strings.
        file_name_off: u32 @ 4 since (5, 0),
        /// The line's text, in the BTF's strings.
        line_off: u32 @ 8 since (5, 0),
        /// The line's number in the upper 22 bits, the column in the lower 10.
        line_col: u32 @ 12 since (5, 0),
    }
}

impl bpf_line_info {
    /// `BPF_LINE_INFO_LINE_NUM`: returns the line's number.
    #[must_use]
    pub const fn line_num(&self) -> u32 {
        self.line_col >> 10
    }

    /// `BPF_LINE_INFO_LINE_COL`: returns the column.
    #[must_use]
    pub const fn col_num(&self) -> u32 {
        self.line_col & 0x3ff
    }
}
