//! `map_alloc_check`: the rules that a type of map sets for its fields, on every kernel that has it.

use crate::cause::Cause;
use crate::error::Result;
use crate::map::MapSpec;
use crate::sys;
use crate::types::Access;
use crate::types::MapFlags;
use crate::types::MapType;

const NONE: &str = "must be 0";
const SOME: &str = "must be more than 0";
const FOUR: &str = "must be 4";
const ONE_ACCESS: &str = "must not hold both BPF_F_RDONLY and BPF_F_WRONLY";

impl MapSpec<'_> {
    /// The first rule that this spec breaks. The kernel answers EINVAL, as to many other mistakes.
    #[cold]
    pub(super) fn broken_rule(&self) -> Option<Cause> {
        if self.map_type == MapType::UNSPEC || self.map_type.name().is_none() {
            return None;
        }
        let rules = [
            ("key_size", self.key_rule()),
            ("value_size", self.value_rule()),
            ("max_entries", self.entries_rule()),
            ("map_flags", self.flags_rule()),
        ];
        rules
            .into_iter()
            .find_map(|(field, rule)| rule.map(|rule| Cause::InvalidField { field, rule }))
    }

    fn key_rule(&self) -> Option<&'static str> {
        let (is_right, rule) = match self.map_type {
            MapType::HASH
            | MapType::PERCPU_HASH
            | MapType::LRU_HASH
            | MapType::LRU_PERCPU_HASH
            | MapType::HASH_OF_MAPS
            | MapType::SOCKHASH
            | MapType::RHASH => (self.key_size > 0, SOME),
            MapType::LPM_TRIE => ((5..=260).contains(&self.key_size), "must be from 5 to 260"),
            MapType::QUEUE
            | MapType::STACK
            | MapType::BLOOM_FILTER
            | MapType::RINGBUF
            | MapType::USER_RINGBUF
            | MapType::ARENA => (self.key_size == 0, NONE),
            // By inode and type of attachment, or by inode.
            MapType::CGROUP_STORAGE | MapType::PERCPU_CGROUP_STORAGE => {
                (matches!(self.key_size, 8 | 16), "must be 8 or 16")
            }
            _ => (self.key_size == 4, FOUR),
        };
        (!is_right).then_some(rule)
    }

    fn value_rule(&self) -> Option<&'static str> {
        let (is_right, rule) = match self.map_type {
            MapType::RINGBUF | MapType::USER_RINGBUF | MapType::ARENA => {
                (self.value_size == 0, NONE)
            }
            MapType::PROG_ARRAY
            | MapType::PERF_EVENT_ARRAY
            | MapType::CGROUP_ARRAY
            | MapType::ARRAY_OF_MAPS
            | MapType::HASH_OF_MAPS
            | MapType::XSKMAP => (self.value_size == 4, FOUR),
            _ => (self.value_size > 0, SOME),
        };
        (!is_right).then_some(rule)
    }

    fn entries_rule(&self) -> Option<&'static str> {
        let (is_right, rule) = match self.map_type {
            MapType::CGROUP_STORAGE | MapType::PERCPU_CGROUP_STORAGE => {
                (self.max_entries == 0, NONE)
            }
            _ if self.is_local_storage() => (self.max_entries == 0, NONE),
            MapType::RINGBUF | MapType::USER_RINGBUF => {
                let page = sys::page_size() as u32;
                let is_right = self.max_entries.is_power_of_two() && self.max_entries >= page;
                (is_right, "must be whole pages and a power of two")
            }
            _ => (self.max_entries > 0, SOME),
        };
        (!is_right).then_some(rule)
    }

    fn flags_rule(&self) -> Option<&'static str> {
        if self.flags.contains(MapFlags::RDONLY | MapFlags::WRONLY) {
            return Some(ONE_ACCESS);
        }
        let (wanted, rule) = match self.map_type {
            MapType::ARENA => (MapFlags::MMAPABLE, "must hold BPF_F_MMAPABLE"),
            MapType::LPM_TRIE | MapType::RHASH => {
                (MapFlags::NO_PREALLOC, "must hold BPF_F_NO_PREALLOC")
            }
            _ if self.is_local_storage() => (MapFlags::NO_PREALLOC, "must hold BPF_F_NO_PREALLOC"),
            _ => return None,
        };
        (!self.flags.contains(wanted)).then_some(rule)
    }

    /// The access of a descriptor created with these flags; an error if it would allow nothing.
    pub(crate) fn access(&self) -> Result<Access> {
        let is_for = |flag| self.flags.contains(flag);
        match (is_for(MapFlags::RDONLY), is_for(MapFlags::WRONLY)) {
            (false, false) => Ok(Access::ReadWrite),
            (true, false) => Ok(Access::ReadOnly),
            (false, true) => Ok(Access::WriteOnly),
            (true, true) => {
                let (field, rule) = ("map_flags", ONE_ACCESS);
                Err(self.error(Cause::InvalidField { field, rule }.into()))
            }
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
