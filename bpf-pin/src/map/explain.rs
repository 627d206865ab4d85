//! Explains failures of commands on maps.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Reason};
use crate::process::is_filtered;
use crate::procfs;
use crate::sys::{self, WriteError};
use crate::types::{Access, Command, MapType};

/// The access that the descriptor was opened with, if it does not include what the command needs.
pub(super) fn denied_access(fd: BorrowedFd<'_>, needed: Access) -> Option<Cause> {
    let opened = match fcntl_getfl(fd).ok()? & OFlags::ACCMODE {
        OFlags::RDONLY => Access::ReadOnly,
        OFlags::WRONLY => Access::WriteOnly,
        _ => return None,
    };
    (opened != needed).then_some(Cause::MapAccess { opened })
}

/// Explains why no value is written: values of this map hold addresses, or may hold them.
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

/// True if the map is frozen. An update batch of no elements fails with EPERM for a frozen map, and for a
/// descriptor without write access. If that decides nothing, fdinfo reports it, Linux 5.2.
pub(super) fn is_frozen(fd: BorrowedFd<'_>) -> Option<bool> {
    let is_writable = denied_access(fd, Access::WriteOnly).is_none();
    let may_read = sys::map_lookup_empty_batch(fd) != Err(Errno::PERM);
    let may_write = sys::map_update_empty_batch(fd) != Err(Errno::PERM);
    if is_writable && may_read && !may_write && !is_filtered() {
        return Some(true);
    }
    Some(procfs::fdinfo(fd).ok()?.get("frozen")? == "1")
}

/// The cause [`NoCommand`](Cause::NoCommand), if the errno and the map's type show it. The kernel has no
/// errno of its own for a missing command.
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
            // Local storage is reached only through the objects that it belongs to.
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
            // These have it or not, depending on the kernel and the device that the map is offloaded to.
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

/// The batch commands that the map's type or the kernel is known to lack.
#[derive(Default)]
pub(super) struct MissingBatches(AtomicU8);

impl MissingBatches {
    fn bit(command: Command) -> u8 {
        1 << (command.0 - Command::MAP_LOOKUP_BATCH.0)
    }

    pub(super) fn contains(&self, command: Command) -> bool {
        self.0.load(Ordering::Relaxed) & Self::bit(command) != 0
    }

    /// Records that the command is missing and returns true, if `errno` shows it. EINVAL has many causes, so
    /// a second call proves that the kernel has no batches.
    #[cold]
    pub(super) fn learn(&self, command: Command, errno: Errno) -> bool {
        let lacks = match errno {
            sys::ENOTSUPP => true,
            Errno::INVAL => sys::probe_batch() == Errno::INVAL && !is_filtered(),
            _ => false,
        };
        if lacks {
            self.0.fetch_or(Self::bit(command), Ordering::Relaxed);
        }
        lacks
    }
}
