//! The rules of each map type for sizes and flags, as the kernel's `map_alloc_check` functions have them.
//! They are the same on every kernel that has the type.

use crate::error::{Cause, Result};
use crate::map::MapSpec;
use crate::sys;
use crate::types::{Access, MapFlags, MapType};

const ZERO: &str = "must be 0";
const NON_ZERO: &str = "must be more than 0";
const FOUR: &str = "must be 4";
const ONE_ACCESS: &str = "must not contain both BPF_F_RDONLY and BPF_F_WRONLY";

impl MapSpec<'_> {
    /// Explains an EINVAL: the first rule of the type that this spec violates.
    #[cold]
    pub(super) fn violated_rule(&self) -> Option<Cause> {
        if self.map_type == MapType::UNSPEC || self.map_type.name().is_none() {
            return None;
        }
        let rules = [
            ("key_size", self.key_rule()),
            ("value_size", self.value_rule()),
            ("max_entries", self.entries_rule()),
            ("map_flags", self.flags_rule()),
        ];
        let violated = rules.into_iter().find(|(_, (is_met, _))| !is_met);
        violated.map(|(field, (_, rule))| Cause::invalid(field, rule))
    }

    /// The type's rule for the key size, and true if it is met.
    fn key_rule(&self) -> (bool, &'static str) {
        let size = self.key_size;
        match self.map_type {
            MapType::HASH
            | MapType::PERCPU_HASH
            | MapType::LRU_HASH
            | MapType::LRU_PERCPU_HASH
            | MapType::HASH_OF_MAPS
            | MapType::SOCKHASH
            | MapType::RHASH => (size > 0, NON_ZERO),
            MapType::LPM_TRIE => ((5..=260).contains(&size), "must be from 5 to 260"),
            MapType::QUEUE
            | MapType::STACK
            | MapType::BLOOM_FILTER
            | MapType::RINGBUF
            | MapType::USER_RINGBUF
            | MapType::ARENA => (size == 0, ZERO),
            // The inode, with the attach type or without.
            MapType::CGROUP_STORAGE | MapType::PERCPU_CGROUP_STORAGE => {
                (matches!(size, 8 | 16), "must be 8 or 16")
            }
            _ => (size == 4, FOUR),
        }
    }

    fn value_rule(&self) -> (bool, &'static str) {
        let size = self.value_size;
        match self.map_type {
            MapType::RINGBUF | MapType::USER_RINGBUF | MapType::ARENA => (size == 0, ZERO),
            MapType::PROG_ARRAY
            | MapType::PERF_EVENT_ARRAY
            | MapType::CGROUP_ARRAY
            | MapType::ARRAY_OF_MAPS
            | MapType::HASH_OF_MAPS
            | MapType::XSKMAP => (size == 4, FOUR),
            _ => (size > 0, NON_ZERO),
        }
    }

    fn entries_rule(&self) -> (bool, &'static str) {
        let entries = self.max_entries;
        match self.map_type {
            MapType::CGROUP_STORAGE | MapType::PERCPU_CGROUP_STORAGE => (entries == 0, ZERO),
            _ if self.is_local_storage() => (entries == 0, ZERO),
            MapType::RINGBUF | MapType::USER_RINGBUF => {
                let is_met = entries.is_power_of_two() && entries >= sys::page_size() as u32;
                (is_met, "must be a power of two and at least the page size")
            }
            _ => (entries > 0, NON_ZERO),
        }
    }

    fn flags_rule(&self) -> (bool, &'static str) {
        if self.flags.contains(MapFlags::RDONLY | MapFlags::WRONLY) {
            return (false, ONE_ACCESS);
        }
        let needs_no_prealloc =
            matches!(self.map_type, MapType::LPM_TRIE | MapType::RHASH) || self.is_local_storage();
        if needs_no_prealloc {
            let is_met = self.flags.contains(MapFlags::NO_PREALLOC);
            return (is_met, "must contain BPF_F_NO_PREALLOC");
        }
        let is_arena = self.map_type == MapType::ARENA;
        let is_met = !is_arena || self.flags.contains(MapFlags::MMAPABLE);
        (is_met, "must contain BPF_F_MMAPABLE")
    }

    /// The access that a descriptor created with these flags has.
    pub(crate) fn access(&self) -> Result<Access> {
        let both = MapFlags::RDONLY | MapFlags::WRONLY;
        match self.flags & both {
            MapFlags::RDONLY => Ok(Access::ReadOnly),
            MapFlags::WRONLY => Ok(Access::WriteOnly),
            flags if flags.is_empty() => Ok(Access::ReadWrite),
            _ => Err(self.error(Cause::invalid("map_flags", ONE_ACCESS).into())),
        }
    }

    /// True if the elements are stored with sockets, inodes, tasks or cgroups.
    fn is_local_storage(&self) -> bool {
        matches!(
            self.map_type,
            MapType::SK_STORAGE
                | MapType::INODE_STORAGE
                | MapType::TASK_STORAGE
                | MapType::CGRP_STORAGE
        )
    }
}
