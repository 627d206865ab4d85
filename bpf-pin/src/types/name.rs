//! Names of maps and programs, up to 15 bytes.

use std::fmt;

use bpf_pin_sys::BPF_OBJ_NAME_LEN;

/// The name of a map or program: up to 15 letters, digits, '_' and '.'. Linux 4.15.
///
/// A name may be empty, and several objects may have the same name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ObjName([u8; BPF_OBJ_NAME_LEN]);

/// A name that the kernel rejects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidName {
    pub(crate) name: String,
}

impl ObjName {
    /// A name that the kernel reported.
    pub(crate) fn from_raw(bytes: [u8; BPF_OBJ_NAME_LEN]) -> Self {
        Self(bytes)
    }

    /// Checks the name. For an invalid one the kernel reports only EINVAL.
    pub(crate) fn new(name: &str) -> Result<Self, InvalidName> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.".contains(byte);
        let mut bytes = [0; BPF_OBJ_NAME_LEN];
        // The last byte stays NUL.
        if name.len() >= bytes.len() || !name.as_bytes().iter().all(allowed) {
            let name = name.to_owned();
            return Err(InvalidName { name });
        }
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self(bytes))
    }

    pub(crate) fn into_raw(self) -> [u8; BPF_OBJ_NAME_LEN] {
        self.0
    }

    /// The name without the trailing NULs.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0);
        let bytes = &self.0[..end.unwrap_or(self.0.len())];
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl fmt::Display for ObjName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ObjName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl PartialEq<str> for ObjName {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for ObjName {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_up_to_fifteen_allowed_bytes() {
        for good in ["", "a", "flows_4.rodata", "exactly_fifteen"] {
            assert_eq!(ObjName::new(good).unwrap(), good);
        }
        for bad in ["sixteen_is_a_lot", "a-b", "a b", "a\0b", "ä", "a/b"] {
            let name = bad.to_owned();
            assert_eq!(ObjName::new(bad), Err(InvalidName { name }));
        }
    }
}
