//! Text as the kernel takes it: on the stack, with a NUL at its end.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

/// The room for a text in place, its NUL included.
const ROOM: usize = 256;

/// Where the byte stands first. The C library's is quicker on what is short than the standard one's.
pub(crate) fn find_byte(byte: u8, bytes: &[u8]) -> Option<usize> {
    let begin = bytes.as_ptr();
    // SAFETY: these are bytes.len() bytes.
    let found = unsafe { libc::memchr(begin.cast(), byte.into(), bytes.len()) };
    (!found.is_null()).then(|| found.addr() - begin.addr())
}

/// Calls `call` with these bytes and a NUL: on the stack below 256 bytes, on the heap above. If they
/// hold a NUL themselves, its position.
#[inline]
pub(crate) fn with_c_str<T>(bytes: &[u8], call: impl FnOnce(&CStr) -> T) -> Result<T, usize> {
    if let Some(position) = find_byte(0, bytes) {
        return Err(position);
    }
    let mut room = [MaybeUninit::<u8>::uninit(); ROOM];
    if bytes.len() >= ROOM {
        return Ok(call(&on_the_heap(bytes)));
    }
    // SAFETY: the room is larger than the bytes; what is read of it was just written, and holds a
    // NUL at its end and nowhere else.
    let text = unsafe {
        let begin = room.as_mut_ptr().cast::<u8>();
        begin.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        begin.add(bytes.len()).write(0);
        CStr::from_bytes_with_nul_unchecked(std::slice::from_raw_parts(begin, bytes.len() + 1))
    };
    Ok(call(text))
}

#[cold]
fn on_the_heap(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}

/// A text of up to 255 bytes, in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text {
    len: u8,
    /// None of the first `len` is 0, all others are.
    bytes: [u8; ROOM],
}

impl Default for Text {
    fn default() -> Self {
        let (len, bytes) = (0, [0; ROOM]);
        Self { len, bytes }
    }
}

impl Text {
    /// The most bytes, without the NUL.
    pub(crate) const MAX: usize = ROOM - 1;

    /// None where there is no room; where there is a NUL among the bytes, its position.
    #[inline]
    pub(crate) fn new(source: &[u8]) -> Result<Option<Self>, usize> {
        if let Some(position) = find_byte(0, source) {
            return Err(position);
        }
        let Ok(len) = u8::try_from(source.len()) else {
            return Ok(None);
        };
        let mut bytes = [0; ROOM];
        bytes[..source.len()].copy_from_slice(source);
        Ok(Some(Self { len, bytes }))
    }

    /// No NUL, and nothing where there is no room.
    pub(crate) fn push(&mut self, byte: u8) {
        if usize::from(self.len) < Self::MAX && byte != 0 {
            self.bytes[usize::from(self.len)] = byte;
            self.len += 1;
        }
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        let with_nul = &self.bytes[..=usize::from(self.len)];
        // SAFETY: the field's invariant: a NUL at the end and nowhere else.
        unsafe { CStr::from_bytes_with_nul_unchecked(with_nul) }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_where_it_was_to_end() {
        for len in [0, 1, 7, 8, 254, 255, 256, 257, 5000] {
            let bytes = vec![b'x'; len];
            let text = Text::new(&bytes).unwrap();
            assert_eq!(text.is_some(), len <= Text::MAX);
            if let Some(text) = text {
                assert_eq!(text.as_c_str().to_bytes(), bytes);
                assert_eq!(text.as_bytes(), bytes);
            }
            // Counted anew: a `CStr` knows its own length.
            let counted = with_c_str(&bytes, |text| text.to_owned().into_bytes_with_nul());
            assert_eq!(counted, Ok([&bytes[..], b"\0"].concat()));
        }
    }

    #[test]
    fn a_nul_within_is_found() {
        for (len, position) in [(1, 0), (9, 8), (255, 254), (256, 0), (4000, 3000)] {
            let mut bytes = vec![b'x'; len];
            bytes[position] = 0;
            assert_eq!(Text::new(&bytes).err(), Some(position));
            assert_eq!(with_c_str(&bytes, |_| ()), Err(position));
        }
    }

    #[test]
    fn no_push_breaks_it() {
        let mut text = Text::new(&[b'x'; 253]).unwrap().unwrap();
        b"a\0bcd".iter().for_each(|&byte| text.push(byte));
        assert!(text.as_bytes().ends_with(b"xab"));
        assert_eq!(text.as_c_str().to_bytes().len(), Text::MAX);
    }
}
