//! The arms of the commands on programs.

abi_struct! {
    /// `BPF_PROG_LOAD`: instructions to verify, with their metadata.
    ///
    /// References: [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html),
    /// `bpf_prog_load` in `kernel/bpf/syscall.c`.
    pub struct bpf_attr_prog_load[168, 8] {
        /// A [`bpf_prog_type`](crate::bpf_prog_type).
        prog_type: u32 @ 0 since (3, 18),
        /// Number of instructions, 8 bytes each.
        insn_cnt: u32 @ 4 since (3, 18),
        /// Address of the instructions.
        insns: u64 @ 8 since (3, 18),
        /// Address of the licence, a NUL-terminated string of at most 128 bytes.
        license: u64 @ 16 since (3, 18),
        /// Log level of the verifier: 0 nothing, 1 the path, 2 every state; plus 4 for statistics.
        log_level: u32 @ 24 since (3, 18),
        /// Size of the log's buffer in bytes.
        log_size: u32 @ 28 since (3, 18),
        /// Address of the log's buffer.
        log_buf: u64 @ 32 since (3, 18),
        /// The kernel's `LINUX_VERSION_CODE`, required of kprobe programs before 5.0.
        kern_version: u32 @ 40 since (4, 1),
        /// Flags of [`BPF_PROG_LOAD_FLAGS`](crate::BPF_PROG_LOAD_FLAGS).
        prog_flags: u32 @ 44 since (4, 12),
        /// The name: letters, digits, `_` and `.` (a dot since 5.2), then a NUL.
        prog_name: [u8; 16] @ 48 since (4, 15),
        /// Index of the network device to offload to, or to bind to.
        prog_ifindex: u32 @ 64 since (4, 15),
        /// The [`bpf_attach_type`](crate::bpf_attach_type) of the program, if its type allows more than one.
        expected_attach_type: u32 @ 68 since (4, 17),
        /// The BTF of the program's own types.
        prog_btf_fd: u32 @ 72 since (5, 0),
        /// Size in bytes of a [`bpf_func_info`](crate::bpf_func_info) as the caller defines it.
        func_info_rec_size: u32 @ 76 since (5, 0),
        /// Address of the function records.
        func_info: u64 @ 80 since (5, 0),
        /// Number of function records.
        func_info_cnt: u32 @ 88 since (5, 0),
        /// Size in bytes of a [`bpf_line_info`](crate::bpf_line_info) as the caller defines it.
        line_info_rec_size: u32 @ 92 since (5, 0),
        /// Address of the line records.
        line_info: u64 @ 96 since (5, 0),
        /// Number of line records.
        line_info_cnt: u32 @ 104 since (5, 0),
        /// The type to attach to: a kernel function, hook or struct.
        attach_btf_id: u32 @ 108 since (5, 5),
        /// The program to attach to, or the BTF that has the type `attach_btf_id` (0: the kernel's).
        attach_prog_fd: u32 @ 112 since (5, 5) also "attach_btf_obj_fd" (5, 11),
        /// Number of CO-RE relocations.
        core_relo_cnt: u32 @ 116 since (5, 17),
        /// Address of an array of descriptors that instructions refer to by index.
        fd_array: u64 @ 120 since (5, 14),
        /// Address of the CO-RE relocations.
        core_relos: u64 @ 128 since (5, 17),
        /// Size in bytes of a CO-RE relocation as the caller defines it.
        core_relo_rec_size: u32 @ 136 since (5, 17),
        /// Out: size of the whole log in bytes including the NUL, even if the buffer is smaller.
        log_true_size: u32 @ 140 since (6, 4),
        /// A token that grants the load. Read only with `BPF_F_TOKEN_FD`.
        prog_token_fd: i32 @ 144 since (6, 9),
        /// Number of descriptors in `fd_array`. If not zero, the program holds each of these maps.
        fd_array_cnt: u32 @ 148 since (6, 14),
        /// Address of the signature of the instructions.
        signature: u64 @ 152 since (6, 18),
        /// Size of the signature in bytes.
        signature_size: u32 @ 160 since (6, 18),
        /// The keyring with the keys that are accepted for the signature.
        keyring_id: i32 @ 164 since (6, 18),
    }
}

abi_struct! {
    /// `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`: attach a program to a hook without a link, or detach it.
    pub struct bpf_attr_prog_attach[32, 8] {
        /// The attach target: a cgroup, a network namespace, a map of sockets, or the index of a network device.
        target_fd: u32 @ 0 since (4, 10) also "target_ifindex" (6, 6),
        /// The program.
        attach_bpf_fd: u32 @ 4 since (4, 10),
        /// A [`bpf_attach_type`](crate::bpf_attach_type).
        attach_type: u32 @ 8 since (4, 10),
        /// Flags of [`BPF_ATTACH_FLAGS`](crate::BPF_ATTACH_FLAGS).
        attach_flags: u32 @ 12 since (4, 10),
        /// The program to replace, with `BPF_F_REPLACE`.
        replace_bpf_fd: u32 @ 16 since (5, 6),
        /// The program or link to attach before or after.
        relative_fd: u32 @ 20 since (6, 6) also "relative_id" (6, 6),
        /// The required revision of the hook, or 0. `ESTALE` if the hook has another.
        expected_revision: u64 @ 24 since (6, 6),
    }
}

abi_struct! {
    /// `BPF_PROG_TEST_RUN`: runs a program on the caller's data.
    pub struct bpf_attr_test[80, 8] {
        /// The program.
        prog_fd: u32 @ 0 since (4, 12),
        /// Out: the return value of the program.
        retval: u32 @ 4 since (4, 12),
        /// Size of the data in bytes.
        data_size_in: u32 @ 8 since (4, 12),
        /// In: size of the buffer at `data_out` in bytes. Out: length of the data.
        data_size_out: u32 @ 12 since (4, 12),
        /// Address of the data.
        data_in: u64 @ 16 since (4, 12),
        /// Address of the buffer for the data after the run.
        data_out: u64 @ 24 since (4, 12),
        /// Number of runs.
        repeat: u32 @ 32 since (4, 12),
        /// Out: mean time of a run in nanoseconds.
        duration: u32 @ 36 since (4, 12),
        /// Size of the context in bytes.
        ctx_size_in: u32 @ 40 since (5, 2),
        /// In: size of the buffer at `ctx_out` in bytes. Out: length of the context.
        ctx_size_out: u32 @ 44 since (5, 2),
        /// Address of the context.
        ctx_in: u64 @ 48 since (5, 2),
        /// Address of the buffer for the context after the run.
        ctx_out: u64 @ 56 since (5, 2),
        /// Flags of [`BPF_TEST_RUN_FLAGS`](crate::BPF_TEST_RUN_FLAGS).
        flags: u32 @ 64 since (5, 10),
        /// The CPU to run on, with `BPF_F_TEST_RUN_ON_CPU`.
        cpu: u32 @ 68 since (5, 10),
        /// Frames per batch, with `BPF_F_TEST_XDP_LIVE_FRAMES`.
        batch_size: u32 @ 72 since (5, 18),
        #[doc(hidden)]
        __pad76: u32 @ 76,
    }
}

abi_struct! {
    /// `BPF_PROG_QUERY`: returns the programs that are attached to a hook.
    pub struct bpf_attr_query[64, 8] {
        /// The attach target, as for [`bpf_attr_prog_attach`].
        target_fd: u32 @ 0 since (4, 15) also "target_ifindex" (6, 6),
        /// A [`bpf_attach_type`](crate::bpf_attach_type).
        attach_type: u32 @ 4 since (4, 15),
        /// Flags of [`BPF_QUERY_FLAGS`](crate::BPF_QUERY_FLAGS).
        query_flags: u32 @ 8 since (4, 15),
        /// Out: the attach flags of the hook.
        attach_flags: u32 @ 12 since (4, 15),
        /// Address of the buffer for the programs' ids, 4 bytes each.
        prog_ids: u64 @ 16 since (4, 15),
        /// In: number of ids that the buffer holds. Out: number of programs.
        prog_cnt: u32 @ 24 since (4, 15) also "count" (6, 6),
        #[doc(hidden)]
        __pad28: u32 @ 28,
        /// Address of the buffer for each program's attach flags, 4 bytes each.
        prog_attach_flags: u64 @ 32 since (6, 0),
        /// Address of the buffer for the links' ids, 4 bytes each. The id is 0 if no link holds the program.
        link_ids: u64 @ 40 since (6, 6),
        /// Address of the buffer for each link's attach flags, 4 bytes each.
        link_attach_flags: u64 @ 48 since (6, 6),
        /// Out: the hook's revision.
        revision: u64 @ 56 since (6, 6),
    }
}

abi_struct! {
    /// `BPF_RAW_TRACEPOINT_OPEN`: attaches a program to a tracepoint as long as the returned descriptor is open.
    pub struct bpf_attr_raw_tracepoint[24, 8] {
        /// Address of the tracepoint's NUL-terminated name. 0 if the program names its target.
        name: u64 @ 0 since (4, 17),
        /// The program.
        prog_fd: u32 @ 8 since (4, 17),
        #[doc(hidden)]
        __pad12: u32 @ 12,
        /// A number that the program can read.
        cookie: u64 @ 16 since (6, 10),
    }
}

abi_struct! {
    /// `BPF_PROG_BIND_MAP`: makes a program hold a map that it does not use.
    pub struct bpf_attr_prog_bind_map[12, 4] {
        /// The program.
        prog_fd: u32 @ 0 since (5, 10),
        /// The map.
        map_fd: u32 @ 4 since (5, 10),
        /// Must be zero.
        flags: u32 @ 8 since (5, 10),
    }
}

abi_struct! {
    /// `BPF_PROG_STREAM_READ_BY_FD`: reads a program's output stream.
    pub struct bpf_attr_prog_stream_read[24, 8] {
        /// Address of the buffer.
        stream_buf: u64 @ 0 since (6, 17),
        /// Size of the buffer in bytes.
        stream_buf_len: u32 @ 8 since (6, 17),
        /// `BPF_STREAM_STDOUT` or `BPF_STREAM_STDERR`.
        stream_id: u32 @ 12 since (6, 17),
        /// The program.
        prog_fd: u32 @ 16 since (6, 17),
        #[doc(hidden)]
        __pad20: u32 @ 20,
    }
}

abi_struct! {
    /// `BPF_PROG_ASSOC_STRUCT_OPS`: associates a program with a struct_ops map.
    pub struct bpf_attr_prog_assoc_struct_ops[12, 4] {
        /// The `BPF_MAP_TYPE_STRUCT_OPS` map.
        map_fd: u32 @ 0 since (7, 0),
        /// The program.
        prog_fd: u32 @ 4 since (7, 0),
        /// Must be zero.
        flags: u32 @ 8 since (7, 0),
    }
}
