//! NUL-terminated paths, stored inline if they are short.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A NUL-terminated text of up to `ROOM - 1` bytes, stored inline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct InlineCStr<const ROOM: usize = 256> {
    len: u8,
    /// Zeroes after the first `len` bytes.
    bytes: [u8; ROOM],
}

impl<const ROOM: usize> Default for InlineCStr<ROOM> {
    fn default() -> Self {
        let (len, bytes) = (0, [0; ROOM]);
        Self { len, bytes }
    }
}

impl<const ROOM: usize> InlineCStr<ROOM> {
    /// The longest text, without its NUL.
    pub(crate) const MAX: usize = {
        assert!(ROOM <= 256);
        ROOM - 1
    };

    /// `None` if the text is too long. It must not hold a NUL.
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        let mut this = Self::default();
        this.push(text)?;
        Some(this)
    }

    /// A formatted text, truncated if it does not fit.
    pub(crate) fn format(arguments: fmt::Arguments<'_>) -> Self {
        Self::default().with(arguments)
    }

    /// This text with another appended, truncated if it does not fit.
    pub(crate) fn with(mut self, arguments: fmt::Arguments<'_>) -> Self {
        let _ = fmt::Write::write_fmt(&mut self, arguments);
        self
    }

    /// Appends `text`, or nothing if it does not fit.
    pub(crate) fn push(&mut self, text: &[u8]) -> Option<()> {
        let begin = usize::from(self.len);
        let end = begin + text.len();
        self.bytes[..Self::MAX]
            .get_mut(begin..end)?
            .copy_from_slice(text);
        self.len = u8::try_from(end).ok()?;
        Some(())
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }

    pub(crate) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(self.as_bytes())
    }
}

impl<const ROOM: usize> AsRef<CStr> for InlineCStr<ROOM> {
    fn as_ref(&self) -> &CStr {
        self.as_c_str()
    }
}

impl<const ROOM: usize> AsRef<Path> for InlineCStr<ROOM> {
    fn as_ref(&self) -> &Path {
        Path::new(self.as_os_str())
    }
}

impl<const ROOM: usize> fmt::Debug for InlineCStr<ROOM> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_os_str().fmt(f)
    }
}

impl<const ROOM: usize> fmt::Write for InlineCStr<ROOM> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes()).ok_or(fmt::Error)
    }
}

/// A NUL-terminated path: inline below 256 bytes, on the heap above.
#[allow(clippy::large_enum_variant, reason = "avoids an allocation")]
#[derive(Clone)]
pub(crate) enum Pathname {
    Inline(InlineCStr),
    Heap(CString),
}

/// The path holds a NUL, and the kernel would read only the part before it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InteriorNul {
    pub(crate) position: usize,
}

impl InteriorNul {
    #[cold]
    pub(super) fn of(text: &[u8]) -> Self {
        let position = text.iter().position(|&byte| byte == 0);
        let position = position.unwrap_or(text.len());
        Self { position }
    }
}

impl Pathname {
    pub(crate) fn new(path: &Path) -> Result<Self, InteriorNul> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.contains(&0) {
            return Err(InteriorNul::of(bytes));
        }
        Ok(Self::of_bytes(bytes))
    }

    /// For a path that is known to hold no NUL.
    #[inline(never)]
    pub(crate) fn known(path: &Path) -> Self {
        Self::of_bytes(path.as_os_str().as_bytes())
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        match InlineCStr::of(bytes) {
            Some(text) => Self::Inline(text),
            None => Self::Heap(CString::new(bytes).unwrap_or_default()),
        }
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        match self {
            Self::Inline(text) => text.as_c_str(),
            Self::Heap(path) => path,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline(text) => text.as_bytes(),
            Self::Heap(path) => path.as_bytes(),
        }
    }

    /// The path of `name` in the directory at this path.
    pub(crate) fn join(&self, name: &(impl AsRef<CStr> + ?Sized)) -> Self {
        let (base, name) = (self.as_bytes(), name.as_ref().to_bytes());
        let slash: &[u8] = if base.ends_with(b"/") { b"" } else { b"/" };
        if let Self::Inline(mut text) = *self {
            if text.push(slash).and_then(|()| text.push(name)).is_some() {
                return Self::Inline(text);
            }
        }
        Self::of_bytes(&[base, slash, name].concat())
    }

    pub(crate) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.as_bytes()))
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
    fn a_text_ends_with_a_nul_and_fits_the_buffer() {
        for len in [0, 1, 7, 8, 254, 255] {
            let bytes = vec![b'x'; len];
            let text = <InlineCStr>::of(&bytes).unwrap();
            assert_eq!(text.as_bytes(), bytes);
            assert_eq!(text.as_c_str().to_bytes(), bytes);
        }
        assert!(<InlineCStr>::of(&[b'x'; 256]).is_none());
        let mut text = InlineCStr::<8>::of(b"12345").unwrap();
        assert_eq!(text.push(b"678"), None);
        assert_eq!(text.push(b"67"), Some(()));
        assert_eq!(text.as_c_str(), c"1234567");
    }

    #[test]
    fn short_paths_are_inline_and_long_ones_on_the_heap() {
        for n in [0, 1, 254, 255, 256, 257, 5000] {
            let text = "x".repeat(n);
            let path = Pathname::new(Path::new(&text)).unwrap();
            assert_eq!(matches!(path, Pathname::Inline(_)), n < 256);
            assert_eq!(path.as_path(), Path::new(&text));
            assert_eq!(path.as_c_str().to_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn a_name_is_joined_inline_and_on_the_heap() {
        for n in [1, 249, 250, 251, 252, 255, 256, 4000] {
            for end in ["", "/"] {
                let base = "x".repeat(n) + end;
                let joined = Pathname::new(Path::new(&base)).unwrap().join(c"name");
                assert_eq!(joined.as_path(), Path::new(&base).join("name"));
                let c_str = joined.as_c_str().to_bytes().to_vec();
                assert_eq!(c_str, joined.as_path().as_os_str().as_bytes());
            }
        }
    }

    #[test]
    fn a_nul_is_found_at_any_position() {
        let long = format!("{}\0b", "x".repeat(400));
        for (text, position) in [("\0", 0), ("a\0", 1), ("a\0b", 1), (&long, 400)] {
            let nul = Pathname::new(Path::new(text)).unwrap_err();
            assert_eq!(nul, InteriorNul { position });
        }
    }
}
