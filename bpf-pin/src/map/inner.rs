//! Compares the inner map that a map of maps was created with, which the kernel does not report.
//!
//! Every map in a map of maps equals that inner map, so one of them is compared if it can be opened. If
//! none can, the verifier shows two of its sizes: it checks lookups in the inner map by them when it loads a
//! program.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bpf_pin_sys as abi;
use bpf_pin_sys::bpf_insn as Insn;
use rustix::io::Errno;

use crate::error::Cause;
use crate::error::mismatch::{MapFields, Mismatch};
use crate::map::{Map, MapInfo, MapSpec};
use crate::sys::{self, ProgData};
use crate::types::{MapFlags, MapType};

/// The inner map of a map of maps, as far as it is known.
struct Inner {
    /// The info of a map that equals it, or that of the expected map with the sizes of this one.
    info: MapInfo,
    /// Only the sizes of key and value are known.
    has_sizes_only: bool,
}

impl Inner {
    /// Finds out about the inner map of `outer`, which should equal `expected`.
    fn of(outer: &Map, expected: &MapInfo) -> Option<Self> {
        if let Some(info) = info_of_inner(outer) {
            let has_sizes_only = false;
            return Some(Self {
                info,
                has_sizes_only,
            });
        }
        let (key_size, value_size) = Probe::new(outer, expected)?.sizes()?;
        let info = MapInfo {
            key_size,
            value_size,
            ..expected.clone()
        };
        let has_sizes_only = true;
        Some(Self {
            info,
            has_sizes_only,
        })
    }
}

/// The differences in the fields that the kernel compares.
fn differences(expected: &MapInfo, found: &MapInfo) -> Vec<Mismatch> {
    let mut fields = MapFields::MAP_TYPE | MapFields::KEY_SIZE | MapFields::VALUE_SIZE;
    fields |= MapFields::MAP_FLAGS;
    fields.set(MapFields::MAX_ENTRIES, counts_entries(expected));
    let spec = MapSpec::of_info(expected).compare_fields(fields);
    spec.compare_info(found)
}

/// Explains why a map of maps rejects `map` (EINVAL).
#[cold]
pub(super) fn other_inner_map(map: &Map, outer: BorrowedFd<'_>) -> Option<Cause> {
    let outer = Map::from_proven_fd(outer.try_clone_to_owned().ok()?);
    let map = map.info().ok()?;
    let mismatches = differences(&Inner::of(&outer, &map)?.info, &map);
    (!mismatches.is_empty()).then_some(Cause::OtherInnerMap { mismatches })
}

/// True if the kernel compares the number of entries of maps of this type, from Linux 5.10 on.
fn counts_entries(info: &MapInfo) -> bool {
    match info.map_type {
        MapType::ARRAY => !info.flags.contains(MapFlags::INNER_MAP),
        MapType::XSKMAP => true,
        _ => false,
    }
}

impl MapSpec<'_> {
    /// Compares with a map and its info. Returns the differences, and the fields that could not be compared.
    pub(crate) fn compare_whole(&self, map: &Map, info: &MapInfo) -> (Vec<Mismatch>, MapFields) {
        let mut mismatches = self.compare_info(info);
        let is_of_maps = matches!(
            info.map_type,
            MapType::ARRAY_OF_MAPS | MapType::HASH_OF_MAPS
        );
        let is_compared = self.compared.contains(MapFields::INNER_MAP);
        let (true, Some(inner)) = (is_of_maps && is_compared, self.inner) else {
            return (mismatches, MapFields::empty());
        };
        let expected = sys::info(inner).map(MapInfo::from_raw).ok();
        let found = expected.and_then(|expected| Some((Inner::of(map, &expected)?, expected)));
        let Some((found, expected)) = found else {
            return (mismatches, MapFields::INNER_MAP);
        };
        let inner = differences(&expected, &found.info).into_iter();
        mismatches.extend(inner.map(Mismatch::of_inner));
        let unverified = match found.has_sizes_only {
            true => MapFields::INNER_MAP,
            false => MapFields::empty(),
        };
        (mismatches, unverified)
    }
}

/// The info of the first map in `outer` that can be opened.
fn info_of_inner(outer: &Map) -> Option<MapInfo> {
    let maps = outer.elements::<[u8], Map>().ok()?;
    for entry in maps.iter() {
        let (_, id) = entry.ok()?;
        match Map::from_id(id) {
            Ok(map) => return map.info().ok(),
            // It was removed and freed in between.
            Err(error) if error.is_missing() => {}
            Err(_) => return None,
        }
    }
    None
}

/// Asks the verifier, which loads programs that look up an element of an inner map of `outer`.
struct Probe<'a> {
    outer: BorrowedFd<'a>,
    expected: &'a MapInfo,
    /// An array with one value, in which the programs find the key.
    keys: Map,
}

/// The longest key that is probed for.
const KEY_ROOM: u32 = 1024;
/// The longest value that is probed for.
const VALUE_ROOM: u32 = 1 << 28;

impl<'a> Probe<'a> {
    /// `None` if no program can look up an element of such a map.
    fn new(outer: &'a Map, expected: &'a MapInfo) -> Option<Self> {
        let can_look_up = matches!(
            expected.map_type,
            MapType::HASH
                | MapType::ARRAY
                | MapType::PERCPU_HASH
                | MapType::PERCPU_ARRAY
                | MapType::LRU_HASH
                | MapType::LRU_PERCPU_HASH
                | MapType::LPM_TRIE
        );
        if !can_look_up {
            return None;
        }
        let keys = MapSpec::new(MapType::ARRAY, 4, KEY_ROOM, 1).create().ok()?;
        let outer = outer.as_fd();
        Some(Self {
            outer,
            expected,
            keys,
        })
    }

    /// The sizes of key and value.
    fn sizes(&self) -> Option<(u32, u32)> {
        let (key_size, value_size) = (self.expected.key_size, self.expected.value_size);
        if key_size == 0 || value_size == 0 || key_size > KEY_ROOM || value_size > VALUE_ROOM {
            return None;
        }
        if self.has_sizes(key_size, value_size)? {
            return Some((key_size, value_size));
        }
        // A program can be rejected for other reasons. This one is rejected only for them.
        if !self.accepts(KEY_ROOM, 1)? {
            return None;
        }
        let key_size = smallest(1..=KEY_ROOM, |size| self.accepts(size, 1))?;
        let is_last = |size| self.accepts(KEY_ROOM, size + 1).map(|more| !more);
        let value_size = smallest(1..=VALUE_ROOM, is_last)?;
        // The map may have other bounds than these.
        let is_certain = self.has_sizes(key_size, value_size)?;
        is_certain.then_some((key_size, value_size))
    }

    fn has_sizes(&self, key_size: u32, value_size: u32) -> Option<bool> {
        Some(
            self.accepts(key_size, value_size)?
                && !self.accepts(key_size - 1, value_size)?
                && !self.accepts(key_size, value_size + 1)?,
        )
    }

    /// True if the verifier accepts a key with room for `key_room` bytes and a read of byte `value_size - 1` of
    /// the value: the keys of the inner map are no longer and its values no shorter. `None` if it did not say.
    fn accepts(&self, key_room: u32, value_size: u32) -> Option<bool> {
        let (keys, outer) = (self.keys.as_fd().as_raw_fd(), self.outer.as_raw_fd());
        let lookup = Insn::call(abi::BPF_FUNC_map_lookup_elem);
        let mut insns = Vec::from(Insn::ld_map_value(6, keys, 0));
        insns.extend(Insn::ld_map_fd(1, outer));
        insns.extend([
            // r1 = bpf_map_lookup_elem(outer, keys); if (!r1) goto out;
            Insn::mov64_reg(2, 6),
            lookup,
            Insn::jmp_imm(abi::BPF_JEQ, 0, 0, 7),
            Insn::mov64_reg(1, 0),
            // r0 = bpf_map_lookup_elem(r1, keys + KEY_ROOM - key_room); if (!r0) goto out;
            Insn::mov64_reg(2, 6),
            Insn::alu64_imm(abi::BPF_ADD, 2, (KEY_ROOM - key_room) as i32),
            lookup,
            Insn::jmp_imm(abi::BPF_JEQ, 0, 0, 2),
            // r0 = *(u8 *)(r0 + value_size - 1);
            Insn::alu64_imm(abi::BPF_ADD, 0, value_size as i32 - 1),
            Insn::ldx_mem(abi::BPF_B, 0, 0, 0),
            Insn::mov64_imm(0, 0),
            Insn::exit(),
        ]);
        let attr = abi::bpf_attr_prog_load {
            prog_type: abi::BPF_PROG_TYPE_SOCKET_FILTER,
            ..abi::bpf_attr_prog_load::zeroed()
        };
        let data = ProgData::new(&insns);
        // The verifier stops with EAGAIN when a signal is pending.
        let mut tries = 5;
        loop {
            match sys::prog_load(attr, &data, &mut []).0 {
                Ok(_) => return Some(true),
                Err(Errno::ACCESS | Errno::INVAL) => return Some(false),
                Err(Errno::AGAIN) if tries > 0 => tries -= 1,
                Err(_) => return None,
            }
        }
    }
}

/// The first of the numbers for which `is_met` is true, if it is true for all after it as well.
fn smallest(
    numbers: std::ops::RangeInclusive<u32>,
    is_met: impl Fn(u32) -> Option<bool>,
) -> Option<u32> {
    let (mut low, mut high) = numbers.into_inner();
    while low < high {
        let middle = low + (high - low) / 2;
        match is_met(middle)? {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    Some(low)
}
