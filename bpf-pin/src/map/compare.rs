//! Compares maps with specs, and derives specs from maps.

use bpf_pin_sys as abi;

use crate::error::Result;
use crate::error::mismatch::{MapFields, Mismatch};
use crate::map::{Map, MapInfo, MapSpec};
use crate::sys;
use crate::sys::cpu;
use crate::types::MapFlags;
use crate::types::MapType;

/// Flags of `BPF_MAP_CREATE` that the map does not report.
const NOT_REPORTED: u32 =
    abi::BPF_F_RDONLY | abi::BPF_F_WRONLY | abi::BPF_F_TOKEN_FD | abi::BPF_F_VTYPE_BTF_OBJ_FD;

/// The flags that the kernel adds to maps of this type.
fn added_flags(map_type: MapType) -> MapFlags {
    match map_type {
        MapType::DEVMAP | MapType::DEVMAP_HASH | MapType::INSN_ARRAY => MapFlags::RDONLY_PROG,
        _ => MapFlags::empty(),
    }
}

/// The flags to compare.
fn comparable_flags(map_type: MapType, flags: MapFlags) -> MapFlags {
    MapFlags::from_bits_retain(flags.bits() & !NOT_REPORTED) - added_flags(map_type)
}

impl MapSpec<'_> {
    /// `BPF_OBJ_GET_INFO_BY_FD`: returns the fields in which `map` differs from this spec, or none if it
    /// fits. One syscall, or more for a map of maps. Linux 4.13.
    ///
    /// All fields except the name and the BTF types are compared, or those of
    /// [`compare_fields`](Self::compare_fields).
    ///
    /// # What counts as equal
    ///
    /// The kernel changes some fields of a spec when it creates the map. These are no differences:
    /// - The kernel adds [`RDONLY_PROG`](MapFlags::RDONLY_PROG) to device maps.
    /// - [`RDONLY`](MapFlags::RDONLY) and [`WRONLY`](MapFlags::WRONLY) belong to the descriptor, not to the
    ///   map.
    /// - An LRU map with [`NO_COMMON_LRU`](MapFlags::NO_COMMON_LRU) has a multiple of the number of CPUs as
    ///   its number of entries.
    ///
    /// Loaders round some fields before they create the map, as
    /// [`open_or_create`](crate::PinDir::open_or_create) does. These are no differences either:
    /// - The bytes of a ring buffer are rounded up to pages and a power of two.
    /// - A CPU map or perf event array with 0 entries, or more than there are CPUs, gets one entry per CPU.
    ///
    /// # What is not compared
    ///
    /// - A map does not report its NUMA node or the program of [`excl_prog_hash`](Self::excl_prog_hash). A map
    ///   that any program may use fits a spec for one program.
    /// - A spec does not say which programs a prog array is for, so a prog array for programs of another type fits.
    ///   Inserting a program then fails with [`OtherProgType`](crate::error::Cause::OtherProgType) or
    ///   [`IncompatibleProg`](crate::error::Cause::IncompatibleProg).
    /// - The id of a BTF object changes whenever the same BTF is loaded again. Compare the type ids of key
    ///   and value with [`BTF_KEY_TYPE_ID`](MapFields::BTF_KEY_TYPE_ID) and
    ///   [`BTF_VALUE_TYPE_ID`](MapFields::BTF_VALUE_TYPE_ID). They are 0 for a map without BTF.
    /// - `btf_vmlinux_value_type_id` is compared as a number, without its BTF.
    ///
    /// # The inner map of a map of maps
    ///
    /// The kernel does not report it, but every map in a map of maps equals it. So a map of maps takes more
    /// syscalls: a map in it is opened by its id (`CAP_SYS_ADMIN`) and compared with
    /// [`inner_map`](Self::inner_map). If there is none, or it may not be opened, a few programs are loaded
    /// and dropped (`CAP_BPF`), for which the verifier checks the sizes of key and value. Type, flags and
    /// entries are then not compared. The types in BTF, with their locks and timers, never are.
    ///
    /// [`OpenedMap::unverified`](crate::reuse::OpenedMap::unverified) contains
    /// [`INNER_MAP`](MapFields::INNER_MAP) if the inner map was not compared as a whole.
    ///
    /// # Errors
    ///
    /// [`Operation::Info`](crate::error::Operation::Info), as [`Map::info`].
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
        Ok(self.compare_whole(map, &map.info()?).0)
    }

    /// Compares with info that was read before, which does not describe an inner map. See
    /// [`compare`](Self::compare).
    pub fn compare_info(&self, found: &MapInfo) -> Vec<Mismatch> {
        let flags = comparable_flags(self.map_type, self.all_flags());
        let found_flags = comparable_flags(found.map_type, found.flags);
        let mut mismatches = vec![];
        macro_rules! compare {
            ($mismatch:ident, $expected:expr, $found:expr) => {{
                let (expected, found) = ($expected, $found);
                let mismatch = Mismatch::$mismatch { expected, found };
                if expected != found && self.compared.contains(mismatch.field()) {
                    mismatches.push(mismatch);
                }
            }};
        }
        compare!(MapType, self.map_type, found.map_type);
        compare!(KeySize, self.key_size, found.key_size);
        compare!(ValueSize, self.value_size, found.value_size);
        // The kernel's rounding is found out only for numbers that differ.
        let differs = self.max_entries != found.max_entries;
        if differs && self.final_max_entries() != Some(found.max_entries) {
            compare!(MaxEntries, self.max_entries, found.max_entries);
        }
        compare!(MapFlags, flags, found_flags);
        compare!(MapExtra, self.map_extra, found.map_extra);
        compare!(MapIfindex, self.ifindex, found.ifindex);
        compare!(
            BtfVmlinuxValueTypeId,
            self.btf_vmlinux_value_type_id,
            found.btf_vmlinux_value_type_id
        );
        compare!(BtfKeyTypeId, self.btf_key_type_id, found.btf_key_type_id);
        compare!(
            BtfValueTypeId,
            self.btf_value_type_id,
            found.btf_value_type_id
        );
        compare!(MapName, self.name, found.name);
        mismatches
    }

    /// Creates the map after rounding the number of entries as loaders do.
    pub(crate) fn create_rounded(&self) -> Result<Map> {
        match self.rounded_max_entries() {
            Some(max_entries) => {
                let mut rounded = self.clone();
                rounded.max_entries = max_entries;
                rounded.create()
            }
            None => self.create(),
        }
    }

    /// The number of entries of the created map, if it may differ from the spec.
    #[cold]
    fn final_max_entries(&self) -> Option<u32> {
        match self.map_type {
            MapType::LRU_HASH | MapType::LRU_PERCPU_HASH
                if self.flags.contains(MapFlags::NO_COMMON_LRU) =>
            {
                let cpus = possible_cpus()?;
                // Rounded down if rounding up overflows.
                let up = self.max_entries.checked_next_multiple_of(cpus);
                up.or(Some(self.max_entries / cpus * cpus))
            }
            _ => self.rounded_max_entries(),
        }
    }

    /// The number of entries after the rounding that loaders do.
    fn rounded_max_entries(&self) -> Option<u32> {
        match self.map_type {
            MapType::RINGBUF | MapType::USER_RINGBUF => {
                let page = sys::page_size() as u32;
                self.max_entries.max(page).checked_next_power_of_two()
            }
            MapType::CPUMAP | MapType::PERF_EVENT_ARRAY => {
                possible_cpus().filter(|&cpus| self.max_entries == 0 || self.max_entries > cpus)
            }
            _ => None,
        }
    }

    /// Sets the fields that [`compare`](Self::compare) compares. The default is
    /// [all except](MapFields::default) the name and the BTF types.
    ///
    /// # Examples
    ///
    /// ```
    /// use bpf_pin::map::MapFields;
    /// use bpf_pin::{MapSpec, MapType};
    ///
    /// // Accepts any number of entries.
    /// let spec = MapSpec::new(MapType::HASH, 4, 8, 1024)
    ///     .compare_fields(MapFields::default() - MapFields::MAX_ENTRIES);
    /// ```
    pub fn compare_fields(mut self, fields: MapFields) -> Self {
        self.compared = fields;
        self
    }
}

impl MapSpec<'static> {
    /// `BPF_OBJ_GET_INFO_BY_FD`: returns the spec of an existing map, without the flags that the kernel
    /// added. One syscall. Linux 4.13.
    ///
    /// The map fits the spec. [`create`](Self::create) creates an equal map for most types. The spec lacks
    /// what a map does not report:
    /// - the inner map: set [`inner_map`](Self::inner_map) for a map of maps
    /// - BTF: set [`btf`](Self::btf) for struct_ops and for storage of sockets, inodes, tasks and cgroups.
    ///   Other maps are created without the locks and timers in their values, because only BTF describes
    ///   them.
    /// - the token and [`excl_prog_hash`](Self::excl_prog_hash)
    /// - the NUMA node: it is 0 for a map with memory on one node
    ///
    /// # Errors
    ///
    /// [`Operation::Info`](crate::error::Operation::Info), as [`Map::info`].
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

    /// Derives the spec from info that was read before. See [`of`](Self::of).
    pub fn of_info(info: &MapInfo) -> Self {
        let flags = comparable_flags(info.map_type, info.flags);
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

fn possible_cpus() -> Option<u32> {
    cpu::possible().ok()?.try_into().ok()
}
