//! The arms of the commands that take any object.

abi_struct! {
    /// `BPF_OBJ_PIN` and `BPF_OBJ_GET`: an object, a path.
    ///
    /// References: [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html),
    /// `bpf_obj_pin` and `bpf_obj_get` in `kernel/bpf/syscall.c`, `kernel/bpf/inode.c`.
    pub struct bpf_attr_obj[24, 8] {
        /// Address of the NUL-terminated path.
        pathname: u64 @ 0 since (4, 4),
        /// The object to pin; zero for `BPF_OBJ_GET`, else `EINVAL`.
        bpf_fd: u32 @ 8 since (4, 4),
        /// `BPF_F_PATH_FD`; for `BPF_OBJ_GET` also one of `BPF_F_RDONLY` and `BPF_F_WRONLY`.
        file_flags: u32 @ 12 since (4, 15),
        /// The directory a relative `pathname` begins at. Read only with `BPF_F_PATH_FD`, zero
        /// without, else `EINVAL`; 0 is a descriptor like any other.
        path_fd: i32 @ 16 since (6, 5),
        #[doc(hidden)]
        __pad20: u32 @ 20,
    }
}

abi_struct! {
    /// `BPF_OBJ_GET_INFO_BY_FD`: one of the info structs, for any object that has one.
    pub struct bpf_attr_info[16, 8] {
        /// The object.
        bpf_fd: u32 @ 0 since (4, 13),
        /// In: room at `info` in bytes. Out: bytes the kernel knows of, if fewer.
        info_len: u32 @ 4 since (4, 13),
        /// Address of the info struct.
        info: u64 @ 8 since (4, 13),
    }
}
