//! Explains failures of commands on elements.

use bpf_pin_sys as abi;
use bpf_pin_sys::Version;
use rustix::io::Errno;

use crate::error::{Cause, Reason};
use crate::map::explain::{denied_access, is_frozen, no_command};
use crate::process::is_filtered;
use crate::sys::{self, AsMap};
use crate::types::{Access, Command, MapType};

use super::ElemFlags;
use super::raw::RawElements;

fn invalid_flags(problem: &'static str) -> Cause {
    Cause::invalid("flags", problem)
}

impl<M: AsMap> RawElements<M> {
    fn map_type(&self) -> MapType {
        MapType(self.map.map_type())
    }

    fn info(&self) -> Option<abi::bpf_map_info> {
        sys::info(self.map.map().map_fd()).ok()
    }

    #[cold]
    pub(super) fn reason(&self, errno: Errno, needed: Access) -> Reason {
        let fd = self.map.map().map_fd();
        let writes = needed != Access::ReadOnly;
        let cause = match errno {
            Errno::PERM => denied_access(fd, needed).or_else(|| {
                let is_frozen = writes && is_frozen(fd) == Some(true);
                is_frozen.then_some(Cause::Frozen)
            }),
            _ => None,
        };
        Reason::new(errno, cause)
    }

    /// E2BIG, and ENOSPC of a trie, when an element is added.
    #[cold]
    pub(super) fn full(&self, errno: Errno) -> Option<Cause> {
        let max_entries = self.map.max_entries();
        matches!(errno, Errno::TOOBIG | Errno::NOSPC).then_some(Cause::MaxEntries { max_entries })
    }

    /// For a command that the map's type may lack.
    fn command_reason(&self, command: Command, errno: Errno, needed: Access) -> Reason {
        let explain = |errno| no_command(command, self.map_type(), errno);
        self.reason(errno, needed).explained(explain)
    }

    #[cold]
    pub(super) fn lookup_reason(&self, errno: Errno, flags: ElemFlags) -> Reason {
        self.command_reason(Command::MAP_LOOKUP_ELEM, errno, Access::ReadOnly)
            .explained(|errno| self.no_lock(errno, flags))
    }

    #[cold]
    pub(super) fn next_key_reason(&self, errno: Errno) -> Reason {
        self.command_reason(Command::MAP_GET_NEXT_KEY, errno, Access::ReadOnly)
    }

    #[cold]
    pub(super) fn delete_reason(&self, errno: Errno, key: &[u8]) -> Reason {
        match self.index_out_of_range(errno, key) {
            Some(cause) => Reason::new(errno, Some(cause)),
            None => self.command_reason(Command::MAP_DELETE_ELEM, errno, Access::WriteOnly),
        }
    }

    #[cold]
    pub(super) fn update_reason(&self, errno: Errno, key: &[u8], flags: ElemFlags) -> Reason {
        const BOTH: ElemFlags = ElemFlags::NOEXIST.union(ElemFlags::EXIST);

        let cause = match errno {
            Errno::INVAL if flags.contains(BOTH) => Some(invalid_flags(
                "cannot contain both BPF_NOEXIST and BPF_EXIST",
            )),
            Errno::EXIST if flags.contains(ElemFlags::NOEXIST) => Some(Cause::KeyExists),
            Errno::NOENT if flags.contains(ElemFlags::EXIST) => Some(Cause::KeyMissing),
            _ => self.index_out_of_range(errno, key),
        };
        match cause {
            Some(_) => Reason::new(errno, cause),
            None => self
                .reason(errno, Access::WriteOnly)
                .explained(|errno| self.full(errno).or_else(|| self.no_lock(errno, flags))),
        }
    }

    #[cold]
    pub(super) fn take_reason(&self, errno: Errno, flags: ElemFlags) -> Reason {
        const HASHES: Version = Version::new(5, 14);
        let is_hash = matches!(
            self.map_type(),
            MapType::HASH | MapType::PERCPU_HASH | MapType::LRU_HASH | MapType::LRU_PERCPU_HASH
        );
        let is_offloaded = || self.info().is_none_or(|info| info.ifindex != 0);
        if errno == sys::ENOTSUPP && is_hash && !is_filtered() && !is_offloaded() {
            let (what, since) = ("BPF_MAP_LOOKUP_AND_DELETE_ELEM of a hash", HASHES);
            return Reason::new(errno, Some(Cause::Unsupported { what, since }));
        }
        self.command_reason(
            Command::MAP_LOOKUP_AND_DELETE_ELEM,
            errno,
            Access::ReadWrite,
        )
        .explained(|errno| self.no_lock(errno, flags))
    }

    /// E2BIG of a map with indices as keys.
    fn index_out_of_range(&self, errno: Errno, key: &[u8]) -> Option<Cause> {
        let is_array = matches!(
            self.map_type(),
            MapType::ARRAY
                | MapType::PERCPU_ARRAY
                | MapType::PROG_ARRAY
                | MapType::PERF_EVENT_ARRAY
                | MapType::CGROUP_ARRAY
                | MapType::ARRAY_OF_MAPS
                | MapType::DEVMAP
                | MapType::CPUMAP
                | MapType::XSKMAP
                | MapType::SOCKMAP
                | MapType::REUSEPORT_SOCKARRAY
        );
        let index = u32::from_ne_bytes(key.try_into().ok()?);
        let max_entries = self.map.max_entries();
        (errno == Errno::TOOBIG && is_array && index >= max_entries)
            .then_some(Cause::IndexOutOfRange { index, max_entries })
    }

    /// EINVAL for `BPF_F_LOCK`: values without BTF have no lock.
    #[cold]
    pub(super) fn no_lock(&self, errno: Errno, flags: ElemFlags) -> Option<Cause> {
        if errno != Errno::INVAL || !flags.contains(ElemFlags::LOCK) {
            return None;
        }
        let info = self.info()?;
        let is_untyped = info.btf_value_type_id == 0 && info.btf_vmlinux_value_type_id == 0;
        (is_untyped && !is_filtered()).then(|| {
            invalid_flags(
                "contain BPF_F_LOCK, but no BTF describes a bpf_spin_lock in the map's values",
            )
        })
    }
}
