//! Owned descriptors of maps.

use super::pinned::PinnedMap;
use super::typed::*;
use crate::types::{MapFlags, MapType, ObjName};

typed_object! {
    /// An owned descriptor of a map.
    ///
    /// Dropping it closes the descriptor. The map is freed with its last descriptor unless it is pinned or
    /// a program uses it.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::ElemFlags;
    /// use bpf_pin::{Map, MapSpec, MapType};
    ///
    /// let map = MapSpec::new(MapType::HASH, 4, 8, 1024).name("flows").create()?;
    /// let flows = map.elements::<u32, u64>()?;
    /// flows.update(&7, &1, ElemFlags::ANY)?;
    /// assert_eq!(flows.lookup(&7)?, Some(1));
    /// map.pin("/sys/fs/bpf/flows")?;
    ///
    /// // Another process.
    /// let map = Map::open("/sys/fs/bpf/flows")?;
    /// println!("{:?}", map.info()?);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    ///
    /// # In C signatures
    ///
    /// A map has the layout of an [`OwnedFd`], so an `extern "C"` signature can contain `Option<Map>`. There it
    /// is an `int`, and `None` is -1. The same holds for [`Prog`](crate::Prog) and [`Link`](crate::Link). C code
    /// must pass a map descriptor that it owns, or -1: the kind of such an `int` is not checked. To check it,
    /// take an `Option<OwnedFd>` and call `Map::try_from`.
    ///
    /// ```
    /// use bpf_pin::Map;
    ///
    /// /// int first_of(int map, int other): takes both descriptors and returns one.
    /// extern "C" fn first_of(map: Option<Map>, other: Option<Map>) -> Option<Map> {
    ///     map.or(other)
    /// }
    /// ```
    Map, PinnedMap, "map", "flows", MapInfo, bpf_map_info;

    /// Linux 4.4. The proof is a batch of no elements: only for a map it succeeds or fails with ENOTSUPP. A
    /// seccomp filter that returns one of these results for `BPF_MAP_LOOKUP_BATCH` makes any object look like a
    /// map. The kernel then rejects the calls on that object.
    open;

    /// Linux 4.15. Proving a map that is opened for writing only takes one more system call.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    open_with;

    /// `BPF_MAP_GET_FD_BY_ID`. Linux 4.13. Opens it for reading and writing;
    /// [`from_id_with`](Self::from_id_with) opens it with another access mode.
    from_id;

    /// `BPF_MAP_GET_NEXT_ID`. Linux 4.13.
    ids;

    /// Linux 4.13.
    info;

    /// Linux 4.4.
    pin;
}

impl Map {
    /// Opens the living map that has this id for `access`.
    ///
    /// As [`from_id`](Self::from_id), with `BPF_F_RDONLY` or `BPF_F_WRONLY` in `open_flags`. Linux 4.15. Only
    /// maps have this: the commands for programs and links reject the field with EINVAL.
    ///
    /// # Errors
    ///
    /// As [`from_id`](Self::from_id).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Access, Map};
    ///
    /// match Map::from_id_with(17, Access::ReadOnly) {
    ///     Ok(map) => println!("{}", map.info()?.name),
    ///     Err(error) if error.is_missing() => println!("no such map"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn from_id_with(id: u32, access: Access) -> Result<Self> {
        ids::open_by_id(Kind::Map, id, access.flags()).map(Self::from_proven_fd)
    }
}

/// `struct bpf_map_info`: the kernel's description of a map. Linux 4.13. Fields that the kernel does not have
/// are 0.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{Map, MapType};
///
/// let info = Map::open("/sys/fs/bpf/flows")?.info()?;
/// assert_eq!(info.map_type, MapType::HASH);
/// println!("{}: {} byte keys, {} byte values", info.name, info.key_size, info.value_size);
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MapInfo {
    /// The type.
    #[cfg_attr(feature = "serde", serde(rename = "type"))]
    pub map_type: MapType,
    /// The id, unique among living maps.
    pub id: u32,
    /// The size of a key, in bytes.
    pub key_size: u32,
    /// The size of a value, in bytes. For a per-CPU map the size of one CPU's value.
    pub value_size: u32,
    /// The maximum number of elements. For a ring buffer its size in bytes.
    pub max_entries: u32,
    /// The flags that it was created with, without `RDONLY` and `WRONLY`, plus flags that the kernel added.
    #[cfg_attr(feature = "serde", serde(rename = "map_flags"))]
    pub flags: MapFlags,
    /// The name that it was created with, or empty. Linux 4.15.
    pub name: ObjName,
    /// The network device that it was offloaded to, or 0. Linux 4.16.
    pub ifindex: u32,
    /// The device of that device's network namespace. Linux 4.16.
    pub netns_dev: u64,
    /// The inode of that device's network namespace. Linux 4.16.
    pub netns_ino: u64,
    /// The BTF object that describes key and value, or 0. Linux 4.18.
    pub btf_id: u32,
    /// The key's type in that BTF object. Linux 4.18.
    pub btf_key_type_id: u32,
    /// The value's type in that BTF object. Linux 4.18.
    pub btf_value_type_id: u32,
    /// The value's type in the kernel's BTF, for a struct_ops map. Linux 5.6.
    pub btf_vmlinux_value_type_id: u32,
    /// A number that depends on the type: a bloom filter's count of hash functions, an arena's address. Linux 5.16.
    pub map_extra: u64,
}

impl MapInfo {
    pub(crate) fn from_raw(raw: abi::bpf_map_info) -> Self {
        Self {
            map_type: MapType(raw.r#type),
            id: raw.id,
            key_size: raw.key_size,
            value_size: raw.value_size,
            max_entries: raw.max_entries,
            flags: MapFlags::from_bits_retain(raw.map_flags),
            name: ObjName::from_raw(raw.name),
            ifindex: raw.ifindex,
            netns_dev: raw.netns_dev,
            netns_ino: raw.netns_ino,
            btf_id: raw.btf_id,
            btf_key_type_id: raw.btf_key_type_id,
            btf_value_type_id: raw.btf_value_type_id,
            btf_vmlinux_value_type_id: raw.btf_vmlinux_value_type_id,
            map_extra: raw.map_extra,
        }
    }
}
