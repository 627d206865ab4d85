//! In what a map or a link differs from what was asked for.

use std::fmt;

use bitflags::bitflags;

use crate::types::MapFlags;
use crate::types::MapType;
use crate::types::ObjName;

bitflags! {
    /// The fields of `BPF_MAP_CREATE` that can be compared with a map's info.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::MapFields;
    /// use bpf_pin::{Map, MapSpec, MapType};
    ///
    /// let spec = MapSpec::new(MapType::HASH, 4, 8, 1024).name("flows");
    /// let flows = Map::open("/sys/fs/bpf/flows")?;
    /// for mismatch in spec.compare_fields(MapFields::all()).compare(&flows)? {
    ///     println!("{mismatch}");
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct MapFields: u32 {
        /// `map_type`
        const MAP_TYPE = 1;
        /// `key_size`
        const KEY_SIZE = 1 << 1;
        /// `value_size`
        const VALUE_SIZE = 1 << 2;
        /// `max_entries`
        const MAX_ENTRIES = 1 << 3;
        /// `map_flags`
        const MAP_FLAGS = 1 << 4;
        /// `map_extra`
        const MAP_EXTRA = 1 << 5;
        /// `map_ifindex`
        const MAP_IFINDEX = 1 << 6;
        /// `map_name`. A name makes no map unfit: compared only when asked for.
        const MAP_NAME = 1 << 7;
        /// `btf_vmlinux_value_type_id`
        const BTF_VMLINUX_VALUE_TYPE_ID = 1 << 8;
        /// `btf_key_type_id`, 0 without BTF. The types' numbers change with the program that they are
        /// compiled with: compared only when asked for.
        const BTF_KEY_TYPE_ID = 1 << 9;
        /// `btf_value_type_id`, likewise.
        const BTF_VALUE_TYPE_ID = 1 << 10;
        /// `inner_map_fd`: the type, sizes, flags and number of entries of the inner map, as far as the
        /// kernel compares them.
        const INNER_MAP = 1 << 11;
    }
}

/// All but the name and the types in BTF.
impl Default for MapFields {
    fn default() -> Self {
        Self::all() - Self::MAP_NAME - Self::BTF_KEY_TYPE_ID - Self::BTF_VALUE_TYPE_ID
    }
}

/// A field in which a map differs from what was asked for.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::error::Cause;
/// use bpf_pin::reuse::Reuse;
/// use bpf_pin::{MapSpec, MapType, PinDir};
///
/// let app = PinDir::open("/sys/fs/bpf/app")?;
/// let spec = MapSpec::new(MapType::HASH, 4, 16, 1024);
/// if let Err(error) = app.open_or_create("flows", &spec, Reuse::Exact) {
///     if let Some(Cause::Mismatch { mismatches, .. }) = error.cause() {
///         mismatches.iter().for_each(|mismatch| println!("{mismatch}"));
///     }
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is what it is called")]
pub enum Mismatch {
    /// `map_type`
    MapType { expected: MapType, found: MapType },
    /// `key_size`, in bytes.
    KeySize { expected: u32, found: u32 },
    /// `value_size`, in bytes.
    ValueSize { expected: u32, found: u32 },
    /// `max_entries`
    MaxEntries { expected: u32, found: u32 },
    /// `map_flags`, less those that a map does not keep and those that the kernel adds.
    MapFlags { expected: MapFlags, found: MapFlags },
    /// `map_extra`
    MapExtra { expected: u64, found: u64 },
    /// `map_ifindex`
    MapIfindex { expected: u32, found: u32 },
    /// `btf_vmlinux_value_type_id`
    BtfVmlinuxValueTypeId { expected: u32, found: u32 },
    /// `btf_key_type_id`
    BtfKeyTypeId { expected: u32, found: u32 },
    /// `btf_value_type_id`
    BtfValueTypeId { expected: u32, found: u32 },
    /// `map_name`
    MapName { expected: ObjName, found: ObjName },
    /// The inner map's `map_type`.
    InnerMapType { expected: MapType, found: MapType },
    /// The inner map's `key_size`, in bytes.
    InnerKeySize { expected: u32, found: u32 },
    /// The inner map's `value_size`, in bytes.
    InnerValueSize { expected: u32, found: u32 },
    /// The inner map's `max_entries`.
    InnerMaxEntries { expected: u32, found: u32 },
    /// The inner map's `map_flags`.
    InnerMapFlags { expected: MapFlags, found: MapFlags },
}

impl Mismatch {
    /// Which field it is.
    pub fn field(&self) -> MapFields {
        match self {
            Self::MapType { .. } => MapFields::MAP_TYPE,
            Self::KeySize { .. } => MapFields::KEY_SIZE,
            Self::ValueSize { .. } => MapFields::VALUE_SIZE,
            Self::MaxEntries { .. } => MapFields::MAX_ENTRIES,
            Self::MapFlags { .. } => MapFields::MAP_FLAGS,
            Self::MapExtra { .. } => MapFields::MAP_EXTRA,
            Self::MapIfindex { .. } => MapFields::MAP_IFINDEX,
            Self::BtfVmlinuxValueTypeId { .. } => MapFields::BTF_VMLINUX_VALUE_TYPE_ID,
            Self::BtfKeyTypeId { .. } => MapFields::BTF_KEY_TYPE_ID,
            Self::BtfValueTypeId { .. } => MapFields::BTF_VALUE_TYPE_ID,
            Self::MapName { .. } => MapFields::MAP_NAME,
            Self::InnerMapType { .. }
            | Self::InnerKeySize { .. }
            | Self::InnerValueSize { .. }
            | Self::InnerMaxEntries { .. }
            | Self::InnerMapFlags { .. } => MapFields::INNER_MAP,
        }
    }

    /// The same difference of inner maps.
    #[cfg(feature = "map")]
    pub(crate) fn of_inner(self) -> Self {
        match self {
            Self::MapType { expected, found } => Self::InnerMapType { expected, found },
            Self::KeySize { expected, found } => Self::InnerKeySize { expected, found },
            Self::ValueSize { expected, found } => Self::InnerValueSize { expected, found },
            Self::MaxEntries { expected, found } => Self::InnerMaxEntries { expected, found },
            Self::MapFlags { expected, found } => Self::InnerMapFlags { expected, found },
            other => other,
        }
    }
}

/// As in "max_entries is 1024, not 4096", and "the inner map's value_size is 8, not 16".
impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field() == MapFields::INNER_MAP {
            f.write_str("the inner map's ")?;
        }
        let field = match self {
            Self::MapType { .. } | Self::InnerMapType { .. } => "map_type",
            Self::KeySize { .. } | Self::InnerKeySize { .. } => "key_size",
            Self::ValueSize { .. } | Self::InnerValueSize { .. } => "value_size",
            Self::MaxEntries { .. } | Self::InnerMaxEntries { .. } => "max_entries",
            Self::MapFlags { .. } | Self::InnerMapFlags { .. } => "map_flags",
            Self::MapExtra { .. } => "map_extra",
            Self::MapIfindex { .. } => "map_ifindex",
            Self::BtfVmlinuxValueTypeId { .. } => "btf_vmlinux_value_type_id",
            Self::BtfKeyTypeId { .. } => "btf_key_type_id",
            Self::BtfValueTypeId { .. } => "btf_value_type_id",
            Self::MapName { .. } => "map_name",
        };
        write!(f, "{field} is ")?;
        match self {
            Self::MapType { expected, found } | Self::InnerMapType { expected, found } => {
                write!(f, "{found}, not {expected}")
            }
            Self::MapFlags { expected, found } | Self::InnerMapFlags { expected, found } => {
                write!(f, "{}, not {}", Flags(*found), Flags(*expected))
            }
            Self::MapExtra { expected, found } => write!(f, "{found:#x}, not {expected:#x}"),
            Self::MapName { expected, found } => write!(f, "{found:?}, not {expected:?}"),
            Self::KeySize { expected, found }
            | Self::ValueSize { expected, found }
            | Self::MaxEntries { expected, found }
            | Self::InnerKeySize { expected, found }
            | Self::InnerValueSize { expected, found }
            | Self::InnerMaxEntries { expected, found }
            | Self::MapIfindex { expected, found }
            | Self::BtfVmlinuxValueTypeId { expected, found }
            | Self::BtfKeyTypeId { expected, found }
            | Self::BtfValueTypeId { expected, found } => write!(f, "{found}, not {expected}"),
        }
    }
}

/// As in "NO_PREALLOC|MMAPABLE", or 0.
struct Flags(MapFlags);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_empty() {
            true => f.write_str("0"),
            false => bitflags::parser::to_writer(&self.0, f),
        }
    }
}

/// An option of a [`LinkSpec`](crate::LinkSpec) that a pinned link does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkMismatch {
    /// [`xdp_flags`](crate::LinkSpec::xdp_flags): "driver", "generic" or "offloaded".
    XdpMode {
        /// The mode of the spec.
        expected: &'static str,
        /// The mode of the program. `None` if it could not be read.
        found: Option<&'static str>,
    },
    /// [`position`](crate::LinkSpec::position). A link gets another place when others are attached around it.
    Position {
        /// The position of the spec: "first", "directly before link 7", ….
        expected: String,
        /// The place of the program, from 1, and the number of programs. `None` if the place, or that of the
        /// position's anchor, could not be read.
        found: Option<(usize, usize)>,
    },
}

impl fmt::Display for LinkMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::XdpMode {
                expected,
                found: Some(found),
            } => write!(f, "the XDP mode is {found}, not {expected}"),
            Self::XdpMode { expected, .. } => {
                write!(f, "the XDP mode could not be read, expected {expected}")
            }
            Self::Position {
                expected,
                found: Some((place, count)),
            } => write!(f, "the position is {place} of {count}, not {expected}"),
            Self::Position { expected, .. } => {
                write!(f, "the position could not be read, expected {expected}")
            }
        }
    }
}
