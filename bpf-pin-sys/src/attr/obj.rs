//! The arms of the commands for every kind of object.

abi_struct! {
    /// `BPF_OBJ_PIN` and `BPF_OBJ_GET`: pins an object at a path, or opens it.
    ///
    /// References: [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html),
    /// `bpf_obj_pin` and `bpf_obj_get` in `kernel/bpf/syscall.c`, `kernel/bpf/inode.c`.
    pub struct bpf_attr_obj[24, 8] {
        /// Address of the NUL-terminated path.
        pathname: u64 @ 0 since (4, 4),
        /// The object to pin. Must be zero for `BPF_OBJ_GET`, else `EINVAL`.
        bpf_fd: u32 @ 8 since (4, 4),
        /// `BPF_F_PATH_FD`, and for `BPF_OBJ_GET` also one of `BPF_F_RDONLY` and `BPF_F_WRONLY`.
        file_flags: u32 @ 12 since (4, 15),
        /// The directory for a relative `pathname`, with `BPF_F_PATH_FD`: 0 is a descriptor like any other.
        /// Without the flag it must be zero, else `EINVAL`.
        path_fd: i32 @ 16 since (6, 5),
        #[doc(hidden)]
        __pad20: u32 @ 20,
    }
}

abi_struct! {
    /// `BPF_OBJ_GET_INFO_BY_FD`: returns the info struct of any object that has one.
    pub struct bpf_attr_info[16, 8] {
        /// The object.
        bpf_fd: u32 @ 0 since (4, 13),
        /// In: size of the buffer at `info` in bytes. Out: size of the kernel's struct, if smaller.
        info_len: u32 @ 4 since (4, 13),
        /// Address of the info struct.
        info: u64 @ 8 since (4, 13),
    }
}
