//! Flags of the kernel. Unknown bits of newer kernels are kept.

use bitflags::bitflags;
use bpf_pin_sys as abi;

bitflags! {
    /// The flags of `BPF_MAP_CREATE`: `BPF_F_*`. Unknown bits of newer kernels are kept.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::types::MapFlags;
    /// use bpf_pin::{MapSpec, MapType};
    ///
    /// let map = MapSpec::new(MapType::HASH, 4, 8, 1024).flags(MapFlags::NO_PREALLOC).create()?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct MapFlags: u32 {
        /// `BPF_F_NO_PREALLOC`: elements are allocated when they are inserted. Linux 4.6.
        const NO_PREALLOC = abi::BPF_F_NO_PREALLOC;
        /// `BPF_F_NO_COMMON_LRU`: each CPU has its own list of least recently used elements. Linux 4.10.
        const NO_COMMON_LRU = abi::BPF_F_NO_COMMON_LRU;
        /// `BPF_F_NUMA_NODE`: set by [`MapSpec::numa_node`](crate::MapSpec::numa_node). Linux 4.14.
        const NUMA_NODE = abi::BPF_F_NUMA_NODE;
        /// `BPF_F_RDONLY`: the new descriptor cannot change elements. Linux 4.15.
        const RDONLY = abi::BPF_F_RDONLY;
        /// `BPF_F_WRONLY`: the new descriptor cannot read elements. Linux 4.15.
        const WRONLY = abi::BPF_F_WRONLY;
        /// `BPF_F_STACK_BUILD_ID`: a stack trace holds build ids and offsets. Linux 4.17.
        const STACK_BUILD_ID = abi::BPF_F_STACK_BUILD_ID;
        /// `BPF_F_ZERO_SEED`: the hash is seeded with 0, for tests; needs `CAP_SYS_ADMIN`. Linux 5.0.
        const ZERO_SEED = abi::BPF_F_ZERO_SEED;
        /// `BPF_F_RDONLY_PROG`: programs cannot change elements. Linux 5.2.
        const RDONLY_PROG = abi::BPF_F_RDONLY_PROG;
        /// `BPF_F_WRONLY_PROG`: programs cannot read elements. Linux 5.2.
        const WRONLY_PROG = abi::BPF_F_WRONLY_PROG;
        /// `BPF_F_CLONE`: a listener's storage is copied to the sockets it accepts. Linux 5.4.
        const CLONE = abi::BPF_F_CLONE;
        /// `BPF_F_MMAPABLE`: an array can be mapped into memory. Linux 5.5.
        const MMAPABLE = abi::BPF_F_MMAPABLE;
        /// `BPF_F_PRESERVE_ELEMS`: perf events outlive the descriptor that they were inserted with. Linux 5.10.
        const PRESERVE_ELEMS = abi::BPF_F_PRESERVE_ELEMS;
        /// `BPF_F_INNER_MAP`: can be an inner map despite another number of entries. Linux 5.10.
        const INNER_MAP = abi::BPF_F_INNER_MAP;
        /// `BPF_F_LINK`: a struct_ops map that is registered by a link. Linux 6.4.
        const LINK = abi::BPF_F_LINK;
        /// `BPF_F_SEGV_ON_FAULT`: a fault in an arena raises SIGSEGV. Linux 6.9.
        const SEGV_ON_FAULT = abi::BPF_F_SEGV_ON_FAULT;
        /// `BPF_F_NO_USER_CONV`: pointers in an arena are not converted to user addresses. Linux 6.9.
        const NO_USER_CONV = abi::BPF_F_NO_USER_CONV;
        /// `BPF_F_RB_OVERWRITE`: a full ring buffer overwrites its oldest records. Linux 6.19.
        const RB_OVERWRITE = abi::BPF_F_RB_OVERWRITE;
        const _ = !0;
    }
}

bitflags! {
    /// How much the verifier logs: `log_level`. Unknown bits of newer kernels are kept.
    ///
    /// # Examples
    ///
    /// ```
    /// use bpf_pin::types::LogLevel;
    ///
    /// assert_eq!((LogLevel::LEVEL1 | LogLevel::STATS).bits(), 5);
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct LogLevel: u32 {
        /// The instructions of the path that the verifier checked last, and the error.
        const LEVEL1 = 1;
        /// The instructions of all paths, with the state of the registers.
        const LEVEL2 = 2;
        /// Statistics of the verification: instructions, states, stack, microseconds. Linux 5.2.
        const STATS = 4;
        const _ = !0;
    }
}
