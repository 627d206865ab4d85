//! Compares a map with a spec.

use bpf_pin_sys as abi;

use crate::error::Result;
use crate::map::{Map, MapInfo, MapSpec};
use crate::mismatch::{MapFields, Mismatch};
use crate::sys;
use crate::sys::cpu;
use crate::types::MapFlags;
use crate::types::MapType;

/// Flags of `BPF_MAP_CREATE` that the map does not keep.
const NOT_KEPT: u32 =
    abi::BPF_F_RDONLY | abi::BPF_F_WRONLY | abi::BPF_F_TOKEN_FD | abi::BPF_F_VTYPE_BTF_OBJ_FD;

/// The flags that the kernel adds to a map of this type.
fn added(map_type: MapType) -> MapFlags {
    match map_type {
        MapType::DEVMAP | MapType::DEVMAP_HASH | MapType::INSN_ARRAY => MapFlags::RDONLY_PROG,
        _ => MapFlags::empty(),
    }
}

fn kept(map_type: MapType, flags: MapFlags) -> MapFlags {
    MapFlags::from_bits_retain(flags.bits() & !NOT_KEPT) - added(map_type)
}

/// Fields that are compared on request only.
const NOT_BY_DEFAULT: MapFields = MapFields::MAP_NAME
    .union(MapFields::BTF_KEY_TYPE_ID)
    .union(MapFields::BTF_VALUE_TYPE_ID);

impl MapSpec<'_> {
    /// `BPF_OBJ_GET_INFO_BY_FD`: returns the fields in which the map differs from this spec; none if it
    /// fits. One syscall. Linux 4.13.
    ///
    /// All fields but the name and the types in BTF are compared, or those of
    /// [`compare_fields`](Self::compare_fields). Changes that the kernel makes to a spec are no difference:
    /// the flag [`RDONLY_PROG`](MapFlags::RDONLY_PROG) of device maps; the flags
    /// [`RDONLY`](MapFlags::RDONLY) and [`WRONLY`](MapFlags::WRONLY), which belong to the descriptor; the
    /// entries of an LRU map with [`NO_COMMON_LRU`](MapFlags::NO_COMMON_LRU), a multiple of the number of
    /// CPUs. Neither are changes that loaders make before they call the kernel, as
    /// [`open_or_create`](crate::PinDir::open_or_create) does: the bytes of a ring buffer rounded up to
    /// pages and a power of two; 0 entries, or more than there are CPUs, of a CPU map or perf event array.
    ///
    /// A map does not report its inner map, its NUMA node, or the program of
    /// [`excl_prog_hash`](Self::excl_prog_hash): a map that any program may use fits a spec that keeps it
    /// for one. The id of its BTF is a new one each time the same BTF is loaded, so it is not compared. The
    /// types of key and value in BTF are compared if [`BTF_KEY_TYPE_ID`](MapFields::BTF_KEY_TYPE_ID) and
    /// [`BTF_VALUE_TYPE_ID`](MapFields::BTF_VALUE_TYPE_ID) request it: they are 0 for a map without BTF.
    /// `btf_vmlinux_value_type_id` is a number, and its BTF is not compared.
    ///
    /// # Errors
    ///
    /// [`Operation::Info`](crate::error::Operation::Info) as [`Map::info`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Map, MapSpec, MapType};
    ///
    /// let spec = MapSpec::new(MapType::HASH, 4, 16, 1024);
    /// for mismatch in spec.compare(&Map::open("/sys/fs/bpf/flows")?)? {
    ///     // value_size is 8, not 16
    ///     println!("{mismatch}");
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn compare(&self, map: &Map) -> Result<Vec<Mismatch>> {
        Ok(self.compare_info(&map.info()?))
    }

    /// As [`compare`](Self::compare), with info that was read before.
    pub fn compare_info(&self, found: &MapInfo) -> Vec<Mismatch> {
        if self.is_alike(found) {
            return Vec::new();
        }
        let flags = kept(self.map_type, self.kept_flags());
        let found_flags = kept(found.map_type, found.flags);
        let made_max_entries = || Some(found.max_entries) == self.made_max_entries();
        /// The field, if it is not the same.
        macro_rules! differ {
            ($mismatch:ident, $expected:expr, $found:expr) => {{
                let (expected, found) = ($expected, $found);
                (expected != found).then_some(Mismatch::$mismatch { expected, found })
            }};
        }
        let all = [
            differ!(MapType, self.map_type, found.map_type),
            differ!(KeySize, self.key_size, found.key_size),
            differ!(ValueSize, self.value_size, found.value_size),
            differ!(MaxEntries, self.max_entries, found.max_entries)
                .filter(|_| !made_max_entries()),
            differ!(MapFlags, flags, found_flags),
            differ!(MapExtra, self.map_extra, found.map_extra),
            differ!(MapIfindex, self.ifindex, found.ifindex),
            differ!(
                BtfVmlinuxValueTypeId,
                self.btf_vmlinux_value_type_id,
                found.btf_vmlinux_value_type_id
            ),
            differ!(BtfKeyTypeId, self.btf_key_type_id, found.btf_key_type_id),
            differ!(
                BtfValueTypeId,
                self.btf_value_type_id,
                found.btf_value_type_id
            ),
            differ!(MapName, self.name, found.name),
        ];
        let compared = |mismatch: &Mismatch| self.compared.contains(mismatch.field());
        all.into_iter().flatten().filter(compared).collect()
    }

    /// `BPF_MAP_CREATE`, by what loaders make of a spec before they ask the kernel.
    pub(crate) fn create_rounded(&self) -> Result<Map> {
        match self.rounded_max_entries() {
            Some(max_entries) if max_entries != self.max_entries => {
                let mut rounded = self.clone();
                rounded.max_entries = max_entries;
                rounded.create()
            }
            _ => self.create(),
        }
    }

    /// True if every field is the same, which is the common case. Compares the same fields as above.
    #[inline]
    fn is_alike(&self, found: &MapInfo) -> bool {
        self.map_type == found.map_type
            && self.key_size == found.key_size
            && self.value_size == found.value_size
            && self.max_entries == found.max_entries
            && self.kept_flags() == found.flags
            && self.map_extra == found.map_extra
            && self.ifindex == found.ifindex
            && self.btf_vmlinux_value_type_id == found.btf_vmlinux_value_type_id
            && !self.compared.intersects(NOT_BY_DEFAULT)
    }

    /// The `max_entries` of the created map, if the kernel does not keep them as they are.
    #[cold]
    fn made_max_entries(&self) -> Option<u32> {
        match self.map_type {
            MapType::LRU_HASH | MapType::LRU_PERCPU_HASH
                if self.flags.contains(MapFlags::NO_COMMON_LRU) =>
            {
                let cpus = cpus()?;
                // Down where up is too much.
                let up = self.max_entries.checked_next_multiple_of(cpus);
                up.or(Some(self.max_entries / cpus * cpus))
            }
            _ => self.rounded_max_entries(),
        }
    }

    /// The same where it is not the kernel that does it.
    fn rounded_max_entries(&self) -> Option<u32> {
        match self.map_type {
            MapType::RINGBUF | MapType::USER_RINGBUF => {
                let page = sys::page_size() as u32;
                self.max_entries.max(page).checked_next_power_of_two()
            }
            MapType::CPUMAP | MapType::PERF_EVENT_ARRAY => {
                cpus().filter(|&cpus| self.max_entries == 0 || self.max_entries > cpus)
            }
            _ => None,
        }
    }

    /// Which fields a map must share with this to fit. If nothing else is said,
    /// [all but](MapFields::default) the name and the types in BTF.
    ///
    /// ```
    /// use bpf_pin::map::MapFields;
    /// use bpf_pin::{MapSpec, MapType};
    ///
    /// // A map of any number of entries will do.
    /// let spec = MapSpec::new(MapType::HASH, 4, 8, 1024)
    ///     .compare_fields(MapFields::default() - MapFields::MAX_ENTRIES);
    /// ```
    pub fn compare_fields(mut self, fields: MapFields) -> Self {
        self.compared = fields;
        self
    }
}

impl MapSpec<'static> {
    /// `BPF_OBJ_GET_INFO_BY_FD`: the spec that the map was created from, as far as the kernel reports it,
    /// and without what the kernel has added. The map fits it. One syscall. Linux 4.13.
    ///
    /// [`create`](Self::create) makes an equal map of most types. The spec has no inner map, BTF, token and
    /// [`excl_prog_hash`](Self::excl_prog_hash), and node 0 for a map with memory on one NUMA node. A map of
    /// maps needs [`inner_map`](Self::inner_map) to be created; struct_ops and the storage of sockets,
    /// inodes, tasks and cgroups need [`btf`](Self::btf). Other maps come without locks and timers in their
    /// values, because only BTF describes where these are.
    ///
    /// # Errors
    ///
    /// [`Operation::Info`](crate::error::Operation::Info) as [`Map::info`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Map, MapSpec};
    ///
    /// // Another map like this one, empty.
    /// let flows = Map::open("/sys/fs/bpf/flows")?;
    /// let other = MapSpec::of(&flows)?.create()?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn of(map: &Map) -> Result<Self> {
        Ok(Self::of_info(&map.info()?))
    }

    /// As [`of`](Self::of), from info that was read before.
    pub fn of_info(info: &MapInfo) -> Self {
        let flags = kept(info.map_type, info.flags);
        let mut spec = Self::new(
            info.map_type,
            info.key_size,
            info.value_size,
            info.max_entries,
        )
        .flags(flags)
        .ifindex(info.ifindex)
        .map_extra(info.map_extra)
        .btf_vmlinux_value_type_id(info.btf_vmlinux_value_type_id);
        spec.name = info.name;
        spec
    }
}

fn cpus() -> Option<u32> {
    cpu::possible().ok()?.try_into().ok()
}
