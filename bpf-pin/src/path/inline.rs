//! A path as bpf(2) takes it.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::filename::Filename;
use crate::sys::Text;

/// A NUL-terminated path: in place below 256 bytes, on the heap above.
#[allow(clippy::large_enum_variant, reason = "in place is the point")]
#[derive(Clone)]
pub(crate) enum Pathname {
    Inline(Text),
    Heap(CString),
}

const MAX_INLINE: usize = <Text>::MAX;

/// The path holds a NUL, so the kernel would see only what stands before it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InteriorNul {
    pub(crate) position: usize,
}

impl Pathname {
    #[inline]
    pub(crate) fn new(path: &Path) -> Result<Self, InteriorNul> {
        let source = path.as_os_str().as_bytes();
        match Text::new(source) {
            Ok(Some(text)) => Ok(Self::Inline(text)),
            Ok(None) => Ok(Self::long(source)),
            Err(position) => Err(InteriorNul { position }),
        }
    }

    /// Of a path that was seen to hold no NUL.
    #[inline]
    pub(crate) fn known(path: &Path) -> Self {
        let source = path.as_os_str().as_bytes();
        match source.len() {
            0..=MAX_INLINE => Self::Inline(Text::truncated(source)),
            _ => Self::long(source),
        }
    }

    /// Of what holds no NUL.
    #[cold]
    fn long(source: &[u8]) -> Self {
        Self::Heap(CString::new(source).unwrap_or_default())
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        match self {
            Self::Inline(text) => text.as_c_str(),
            Self::Heap(path) => path,
        }
    }

    /// The path of a name in the directory that this is the path of.
    pub(crate) fn join(&self, name: &Filename) -> Self {
        let (base, name) = (self.as_path().as_os_str().as_bytes(), name.as_bytes());
        let slash: &[u8] = if base.ends_with(b"/") { b"" } else { b"/" };
        let parts = [base, slash, name];
        match (self, parts.map(<[u8]>::len).iter().sum()) {
            (Self::Inline(base), 0..=MAX_INLINE) => {
                let mut text = *base;
                let more = parts[1..].iter().copied().flatten();
                more.for_each(|&byte| text.push(byte));
                Self::Inline(text)
            }
            _ => Self::long(&parts.concat()),
        }
    }

    pub(crate) fn as_path(&self) -> &Path {
        let bytes = match self {
            Self::Inline(text) => text.as_bytes(),
            Self::Heap(path) => path.as_bytes(),
        };
        Path::new(OsStr::from_bytes(bytes))
    }
}

impl fmt::Debug for Pathname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_path().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_paths_stay_in_place_and_long_ones_do_not() {
        for n in [0, 1, 254, 255, 256, 257, 5000] {
            let text = "x".repeat(n);
            let path = Pathname::new(Path::new(&text)).unwrap();
            assert_eq!(matches!(path, Pathname::Inline(_)), n < 256);
            assert_eq!(path.as_path(), Path::new(&text));
            assert_eq!(path.as_c_str().to_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn a_name_is_joined_in_place_and_on_the_heap() {
        let name = Filename::new(OsStr::new("name")).unwrap();
        for n in [1, 249, 250, 251, 252, 255, 256, 4000] {
            for end in ["", "/"] {
                let base = "x".repeat(n) + end;
                let joined = Pathname::new(Path::new(&base)).unwrap().join(&name);
                assert_eq!(joined.as_path(), Path::new(&base).join("name"));
                let c_str = joined.as_c_str().to_bytes().to_vec();
                assert_eq!(c_str, joined.as_path().as_os_str().as_bytes());
            }
        }
    }

    #[test]
    fn a_nul_is_found_wherever_it_stands() {
        for (text, position) in [("\0", 0), ("a\0", 1), ("a\0b", 1)] {
            let nul = Pathname::new(Path::new(text)).unwrap_err();
            assert_eq!(nul, InteriorNul { position });
        }
        let long = format!("{}\0b", "x".repeat(400));
        let nul = Pathname::new(Path::new(&long)).unwrap_err();
        assert_eq!(nul, InteriorNul { position: 400 });
    }
}
