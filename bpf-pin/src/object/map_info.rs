//! `struct bpf_map_info`.

use bpf_pin_sys as abi;

use crate::flags::MapFlags;
use crate::name::ObjName;
use crate::types::MapType;

/// `struct bpf_map_info`: what the kernel tells of a map. Linux 4.13; fields that the kernel
/// does not know are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapInfo {
    /// The type.
    pub map_type: MapType,
    /// Unique among living maps.
    pub id: u32,
    /// Of one key, in bytes.
    pub key_size: u32,
    /// Of one value, in bytes; of one CPU's where the map is per CPU.
    pub value_size: u32,
    /// How many elements it has room for; bytes where it is a ring buffer.
    pub max_entries: u32,
    /// As it was created, less `RDONLY` and `WRONLY`, plus what the kernel adds.
    pub flags: MapFlags,
    /// Linux 4.15.
    pub name: ObjName,
    /// The device that it was offloaded to, or 0. Linux 4.16.
    pub ifindex: u32,
    /// The device of that device's network namespace. Linux 4.16.
    pub netns_dev: u64,
    /// The inode of that device's network namespace. Linux 4.16.
    pub netns_ino: u64,
    /// The BTF object that describes key and value, or 0. Linux 4.18.
    pub btf_id: u32,
    /// The key's type there. Linux 4.18.
    pub btf_key_type_id: u32,
    /// The value's type there. Linux 4.18.
    pub btf_value_type_id: u32,
    /// The value's type in the kernel's BTF, for a map of struct_ops. Linux 5.6.
    pub btf_vmlinux_value_type_id: u32,
    /// What its type makes of it: a bloom filter's hash functions, an arena's address. Linux 5.16.
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
