//! Explains why a command on a map failed.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::diagnose;
use crate::error::Reason;
use crate::process::is_filtered;
use crate::procfs;
use crate::sys::{self, WriteError};
use crate::types::Access;
use crate::types::{Command, MapType};

/// How a command accesses elements.
#[derive(Clone, Copy)]
pub(crate) struct Needs {
    pub(super) reads: bool,
    pub(super) writes: bool,
}

impl Needs {
    pub(crate) const READ: Self = Self {
        reads: true,
        writes: false,
    };
    pub(crate) const WRITE: Self = Self {
        reads: false,
        writes: true,
    };
    pub(crate) const BOTH: Self = Self {
        reads: true,
        writes: true,
    };
}

/// The access mode of the descriptor, if it is not the one that was needed.
pub(crate) fn not_granted(fd: BorrowedFd<'_>, needs: Needs) -> Option<Cause> {
    let flags = fcntl_getfl(fd).ok()?;
    let opened = match flags & OFlags::ACCMODE {
        OFlags::RDONLY if needs.writes => Access::ReadOnly,
        OFlags::WRONLY if needs.reads => Access::WriteOnly,
        _ => return None,
    };
    Some(Cause::MapAccess { opened })
}

pub(super) fn frozen(fd: BorrowedFd<'_>, needs: Needs) -> Option<Cause> {
    (needs.writes && is_frozen(fd)?).then_some(Cause::Frozen)
}

/// Explains why nothing is written to a map with values that hold addresses, or may hold them.
#[cold]
pub(super) fn not_writable(error: WriteError) -> Reason {
    let errno = match error {
        WriteError::Uptr => return Cause::Uptr { problem: None }.into(),
        WriteError::Btf(errno) => errno,
    };
    let missing = (errno == Errno::PERM).then(diagnose::for_id).flatten();
    let problem = Reason::new(errno, missing).to_string();
    let cause = Cause::Uptr {
        problem: Some(problem),
    };
    Reason::new(errno, Some(cause))
}

/// A batch of no elements fails for the descriptor's access, and for a frozen map. If that proves
/// nothing, fdinfo reports it, Linux 5.2.
pub(crate) fn is_frozen(fd: BorrowedFd<'_>) -> Option<bool> {
    let is_writable = not_granted(fd, Needs::WRITE).is_none();
    let may_read = sys::map_lookup_empty_batch(fd) != Err(Errno::PERM);
    let may_write = sys::map_update_empty_batch(fd) != Err(Errno::PERM);
    if is_writable && may_read && !may_write && !is_filtered() {
        return Some(true);
    }
    Some(procfs::fdinfo(fd).ok()?.get("frozen")? == "1")
}

/// The command that the map's type lacks, if the errno shows it: the kernel has no errno of its own for
/// that.
pub(super) fn no_command(command: Command, map_type: MapType, errno: Errno) -> Option<Cause> {
    let lacks = match errno {
        Errno::INVAL => match command {
            Command::MAP_GET_NEXT_KEY => matches!(map_type, MapType::QUEUE | MapType::STACK),
            Command::MAP_DELETE_ELEM => matches!(
                map_type,
                MapType::ARRAY
                    | MapType::PERCPU_ARRAY
                    | MapType::INSN_ARRAY
                    | MapType::QUEUE
                    | MapType::STACK
                    | MapType::CGROUP_STORAGE
                    | MapType::PERCPU_CGROUP_STORAGE
            ),
            _ => false,
        },
        sys::ENOTSUPP | Errno::OPNOTSUPP => match command {
            Command::MAP_LOOKUP_ELEM => matches!(
                map_type,
                MapType::PERF_EVENT_ARRAY
                    | MapType::CGROUP_ARRAY
                    | MapType::XSKMAP
                    | MapType::RINGBUF
                    | MapType::USER_RINGBUF
            ),
            // Storage of sockets, inodes, … is found by these only.
            Command::MAP_GET_NEXT_KEY => matches!(
                map_type,
                MapType::SK_STORAGE
                    | MapType::INODE_STORAGE
                    | MapType::TASK_STORAGE
                    | MapType::CGRP_STORAGE
                    | MapType::BLOOM_FILTER
                    | MapType::RINGBUF
                    | MapType::USER_RINGBUF
                    | MapType::ARENA
            ),
            Command::MAP_DELETE_ELEM => matches!(
                map_type,
                MapType::BLOOM_FILTER | MapType::RINGBUF | MapType::USER_RINGBUF | MapType::ARENA
            ),
            // Some kernels have it for the others, and no device takes but hashes and arrays.
            Command::MAP_LOOKUP_AND_DELETE_ELEM => !matches!(
                map_type,
                MapType::HASH
                    | MapType::PERCPU_HASH
                    | MapType::LRU_HASH
                    | MapType::LRU_PERCPU_HASH
                    | MapType::RHASH
                    | MapType::STACK_TRACE
            ),
            _ => false,
        },
        _ => false,
    };
    lacks.then_some(Cause::NoCommand { command, map_type })
}

/// The batches that a map's type, or the kernel, was found to lack.
#[derive(Default)]
pub(crate) struct Lacking(AtomicU8);

impl Lacking {
    fn bit(command: Command) -> u8 {
        1 << (command.0 - Command::MAP_LOOKUP_BATCH.0)
    }

    pub(super) fn contains(&self, command: Command) -> bool {
        self.0.load(Ordering::Relaxed) & Self::bit(command) != 0
    }

    /// True if `errno` shows it. An unknown command is EINVAL, as many other mistakes are, so a kernel
    /// without batches is proven by a second call.
    #[cold]
    pub(super) fn learn(&self, command: Command, errno: Errno) -> bool {
        let lacks = match errno {
            sys::ENOTSUPP => true,
            Errno::INVAL => sys::no_batch() == Errno::INVAL && !is_filtered(),
            _ => false,
        };
        if lacks {
            self.0.fetch_or(Self::bit(command), Ordering::Relaxed);
        }
        lacks
    }
}
