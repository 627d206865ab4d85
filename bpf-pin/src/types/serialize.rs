//! How values without an obvious form are serialized.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{AttachType, FileSystem, LinkTarget, MapFlags, ObjName};

/// A path or another text of the kernel: a string, or an array of its bytes if it is not UTF-8.
pub(crate) fn text<S: Serializer>(
    text: &impl AsRef<OsStr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = text.as_ref();
    match text.to_str() {
        Some(text) => serializer.serialize_str(text),
        None => serializer.serialize_bytes(text.as_bytes()),
    }
}

/// Hexadecimal digits, as the kernel writes a program's tag.
pub(crate) fn hex<S: Serializer>(bytes: &[u8; 8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:016x}", u64::from_be_bytes(*bytes)))
}

/// Nanoseconds, the kernel's unit.
pub(crate) fn nanoseconds<S: Serializer>(
    time: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // Made from a u64.
    serializer.serialize_u64(time.as_nanos() as u64)
}

/// The kernel has no arm for an unknown type of link.
pub(crate) fn is_other(target: &LinkTarget) -> bool {
    *target == LinkTarget::Other
}

/// An extension has no attach type.
pub(super) fn is_zero(attach_type: &AttachType) -> bool {
    attach_type.0 == 0
}

/// The bits, as the kernel's field holds them.
impl Serialize for MapFlags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.bits())
    }
}

/// The name as a string.
impl Serialize for ObjName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The [`name`](FileSystem::name) as a string, or the magic number if that is unknown.
impl Serialize for FileSystem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_u32(self.magic()),
        }
    }
}
