//! Whether a map is what a spec asks for, and in what it differs.

use bpf_pin_sys as abi;

use crate::error::Result;
use crate::flags::MapFlags;
use crate::map::{Map, MapInfo, MapSpec};
use crate::mismatch::{MapFields, Mismatch};
use crate::procfs::cpu;
use crate::sys;
use crate::types::MapType;

/// What `BPF_MAP_CREATE` is told by a flag and the map does not keep.
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

/// Fields that hardly anybody has compared.
const NOT_BY_DEFAULT: MapFields = MapFields::MAP_NAME
    .union(MapFields::BTF_KEY_TYPE_ID)
    .union(MapFields::BTF_VALUE_TYPE_ID);

impl MapSpec<'_> {
    /// `BPF_OBJ_GET_INFO_BY_FD`: in what the map differs from what this asks for; nothing where it
    /// fits. One syscall. Linux 4.13.
    ///
    /// All fields but the name and the types in BTF are compared, or those that
    /// [`compare_fields`](Self::compare_fields) says. What the kernel itself makes of a spec is no
    /// difference: the flag [`RDONLY_PROG`](MapFlags::RDONLY_PROG) of device maps; the flags
    /// [`RDONLY`](MapFlags::RDONLY) and [`WRONLY`](MapFlags::WRONLY), which are the descriptor's; the
    /// entries of an LRU map with [`NO_COMMON_LRU`](MapFlags::NO_COMMON_LRU), a multiple of the number
    /// of CPUs. Nor is what loaders make of one before they ask the kernel, as
    /// [`open_or_create`](crate::PinDir::open_or_create) does: the bytes of a ring buffer rounded up to
    /// pages and a power of two; 0 entries, or more than there are CPUs, of a CPU map or perf event array.
    ///
    /// A map does not tell its inner map, its NUMA node, and which program
    /// [`excl_prog_hash`](Self::excl_prog_hash) keeps it for: a map that any program may use fits a spec
    /// that keeps it for one. Of its BTF it tells the id, which is another each time that the same BTF is
    /// loaded, and so is not compared, and the types of key and value there, which are compared where
    /// [`BTF_KEY_TYPE_ID`](MapFields::BTF_KEY_TYPE_ID) and
    /// [`BTF_VALUE_TYPE_ID`](MapFields::BTF_VALUE_TYPE_ID) say so: they are 0 of a map without BTF.
    /// `btf_vmlinux_value_type_id` is a number, whatever BTF it is of.
    ///
    /// # Errors
    ///
    /// [`Operation::Info`](crate::Operation::Info) as [`Map::info`].
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

    /// As [`compare`](Self::compare), with what a map has told before.
    pub fn compare_info(&self, found: &MapInfo) -> Vec<Mismatch> {
        if self.is_alike(found) {
            return Vec::new();
        }
        let found_flags = kept(found.map_type, found.flags);
        let flags = kept(self.map_type, self.flags);
        let mut mismatches = Vec::new();
        let mut note = |mismatch: Option<Mismatch>| {
            let compared = |mismatch: &Mismatch| self.compared.contains(mismatch.field());
            mismatches.extend(mismatch.filter(compared));
        };
        note(
            differ(self.map_type, found.map_type)
                .map(|(expected, found)| Mismatch::MapType { expected, found }),
        );
        note(
            differ(self.key_size, found.key_size)
                .map(|(expected, found)| Mismatch::KeySize { expected, found }),
        );
        note(
            differ(self.value_size, found.value_size)
                .map(|(expected, found)| Mismatch::ValueSize { expected, found }),
        );
        note(
            differ(self.max_entries, found.max_entries)
                .filter(|_| Some(found.max_entries) != self.made_max_entries())
                .map(|(expected, found)| Mismatch::MaxEntries { expected, found }),
        );
        note(
            differ(flags, found_flags)
                .map(|(expected, found)| Mismatch::MapFlags { expected, found }),
        );
        note(
            differ(self.map_extra, found.map_extra)
                .map(|(expected, found)| Mismatch::MapExtra { expected, found }),
        );
        note(
            differ(self.ifindex, found.ifindex)
                .map(|(expected, found)| Mismatch::MapIfindex { expected, found }),
        );
        note(
            differ(
                self.btf_vmlinux_value_type_id,
                found.btf_vmlinux_value_type_id,
            )
            .map(|(expected, found)| Mismatch::BtfVmlinuxValueTypeId { expected, found }),
        );
        note(
            differ(self.btf_key_type_id, found.btf_key_type_id)
                .map(|(expected, found)| Mismatch::BtfKeyTypeId { expected, found }),
        );
        note(
            differ(self.btf_value_type_id, found.btf_value_type_id)
                .map(|(expected, found)| Mismatch::BtfValueTypeId { expected, found }),
        );
        note(
            differ(self.name, found.name)
                .map(|(expected, found)| Mismatch::MapName { expected, found }),
        );
        mismatches
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

    /// Whether every field is the same, as it nearly always is: then nothing is to be found out. What
    /// is compared above is compared here.
    #[inline]
    fn is_alike(&self, found: &MapInfo) -> bool {
        self.map_type == found.map_type
            && self.key_size == found.key_size
            && self.value_size == found.value_size
            && self.max_entries == found.max_entries
            && self.flags == found.flags
            && self.map_extra == found.map_extra
            && self.ifindex == found.ifindex
            && self.btf_vmlinux_value_type_id == found.btf_vmlinux_value_type_id
            && !self.compared.intersects(NOT_BY_DEFAULT)
    }

    /// What becomes of `max_entries` where it is not kept as it is.
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
    /// use bpf_pin::{MapFields, MapSpec, MapType};
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
    /// `BPF_OBJ_GET_INFO_BY_FD`: what the map was made from, as far as it tells, and without what the
    /// kernel has added: the map fits it. One syscall. Linux 4.13.
    ///
    /// [`create`](Self::create) makes the like of most maps. It is without inner map, BTF, token and
    /// [`excl_prog_hash`](Self::excl_prog_hash), and of memory on one NUMA node with node 0: to create
    /// the like of a map of maps say [`inner_map`](Self::inner_map), of struct_ops and of the storage of
    /// sockets, inodes, tasks and cgroups [`btf`](Self::btf). Of other maps the like has no
    /// locks and timers in its values either, for it takes BTF to tell the kernel where they are.
    ///
    /// # Errors
    ///
    /// [`Operation::Info`](crate::Operation::Info) as [`Map::info`].
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

    /// As [`of`](Self::of), from what a map has told before.
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

fn differ<T: PartialEq>(expected: T, found: T) -> Option<(T, T)> {
    (expected != found).then_some((expected, found))
}
