//! Text as the kernel takes it: on the stack, with a NUL at its end.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::slice;

/// The room for a text on the stack, its NUL included.
const STACK: usize = 256;

/// Whether one of the eight bytes is 0.
#[inline]
pub(crate) fn has_zero(word: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // A byte that is 0 borrows into its top bit, which it did not have.
    word.wrapping_sub(ONES) & !word & (ONES << 7) != 0
}

/// Copies the bytes into the room, up to a NUL among them or to its end, and puts a NUL behind them:
/// how many. One call of the C library does both.
#[inline]
fn copy<const ROOM: usize>(bytes: &[u8], room: &mut [MaybeUninit<u8>; ROOM]) -> usize {
    let begin = room.as_mut_ptr().cast::<u8>();
    let len = bytes.len().min(ROOM - 1);
    // SAFETY: it reads and writes len bytes at most, of which there are as many in both, and the room
    // has one more; what it returns is where it has written the first NUL, or the end of them.
    unsafe {
        let end = libc::stpncpy(begin.cast(), bytes.as_ptr().cast(), len);
        *end = 0;
        end.addr() - begin.addr()
    }
}

/// Calls `call` with these bytes and a NUL: on the stack below 256 bytes, on the heap above. If they
/// hold a NUL themselves, its position.
#[inline]
pub(crate) fn with_c_str<T>(bytes: &[u8], call: impl FnOnce(&CStr) -> T) -> Result<T, usize> {
    let (long, mut room);
    let text = if bytes.len() >= STACK {
        long = on_the_heap(bytes)?;
        long.as_c_str()
    } else {
        room = [const { MaybeUninit::uninit() }; STACK];
        let len = copy(bytes, &mut room);
        if len != bytes.len() {
            return Err(len);
        }
        // SAFETY: as many were just written, with a NUL at the end and nowhere else.
        unsafe { c_str(&room, len) }
    };
    // In one place, so that it is compiled into its caller.
    Ok(call(text))
}

#[cold]
fn on_the_heap(bytes: &[u8]) -> Result<CString, usize> {
    CString::new(bytes).map_err(|nul| nul.nul_position())
}

/// # Safety
///
/// The room holds `len` bytes that are not 0, and a 0.
unsafe fn c_str<const ROOM: usize>(room: &[MaybeUninit<u8>; ROOM], len: usize) -> &CStr {
    // SAFETY: the caller's.
    unsafe {
        let bytes = slice::from_raw_parts(room.as_ptr().cast(), len + 1);
        CStr::from_bytes_with_nul_unchecked(bytes)
    }
}

/// A text in place, of up to 255 bytes or less.
#[derive(Clone, Copy)]
pub(crate) struct Text<const ROOM: usize = 256> {
    len: u8,
    /// `len` bytes that are not 0, and a 0.
    bytes: [MaybeUninit<u8>; ROOM],
}

impl<const ROOM: usize> Default for Text<ROOM> {
    fn default() -> Self {
        let () = Self::CHECK_SIZE;
        let (len, mut bytes) = (0, [MaybeUninit::uninit(); ROOM]);
        bytes[0].write(0);
        Self { len, bytes }
    }
}

impl<const ROOM: usize> PartialEq for Text<ROOM> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl<const ROOM: usize> Eq for Text<ROOM> {}

impl<const ROOM: usize> Text<ROOM> {
    /// The most bytes, without the NUL.
    pub(crate) const MAX: usize = {
        let () = Self::CHECK_SIZE;
        ROOM - 1
    };

    /// The length is kept in a byte, and the NUL needs one.
    const CHECK_SIZE: () = assert!(1 <= ROOM && ROOM <= 256);

    /// The bytes up to a NUL among them, or to where the room ends.
    #[inline]
    pub(crate) fn truncated(source: &[u8]) -> Self {
        let mut this = Self::default();
        this.set(source);
        this
    }

    /// The same in the place of what it was; how many they are.
    #[inline]
    pub(crate) fn set(&mut self, source: &[u8]) -> usize {
        let len = copy(source, &mut self.bytes);
        // 255 is the most.
        self.len = len as u8;
        len
    }

    /// None where there is no room; where there is a NUL among the bytes, its position.
    #[inline]
    pub(crate) fn new(source: &[u8]) -> Result<Option<Self>, usize> {
        if source.len() > Self::MAX {
            return match source.iter().position(|&byte| byte == 0) {
                Some(position) => Err(position),
                None => Ok(None),
            };
        }
        let this = Self::truncated(source);
        match this.len.into() {
            len if len == source.len() => Ok(Some(this)),
            position => Err(position),
        }
    }

    /// No NUL, and nothing where there is no room.
    pub(crate) fn push(&mut self, byte: u8) {
        let end = usize::from(self.len);
        if end < Self::MAX && byte != 0 {
            self.bytes[end].write(byte);
            self.bytes[end + 1].write(0);
            self.len += 1;
        }
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        // SAFETY: the field's invariant.
        unsafe { c_str(&self.bytes, self.len.into()) }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.as_c_str().to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_where_it_was_to_end() {
        for len in (0..=40).chain([254, 255, 256, 257, 5000]) {
            let bytes = vec![b'x'; len];
            let text = <Text>::new(&bytes).unwrap();
            assert_eq!(text.is_some(), len <= <Text>::MAX);
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
        for len in 1..=40 {
            for position in 0..len {
                let mut bytes = vec![b'x'; len];
                bytes[position..].fill(0);
                assert_eq!(with_c_str(&bytes, |_| ()), Err(position));
                assert_eq!(<Text>::truncated(&bytes).as_bytes(), &bytes[..position]);
            }
        }
        for (len, position) in [(1, 0), (9, 8), (255, 254), (256, 0), (4000, 3000)] {
            let mut bytes = vec![b'x'; len];
            bytes[position] = 0;
            assert_eq!(<Text>::new(&bytes).err(), Some(position));
            assert_eq!(with_c_str(&bytes, |_| ()), Err(position));
        }
    }

    #[test]
    fn no_push_breaks_it() {
        let mut text = <Text>::new(&[b'x'; 253]).unwrap().unwrap();
        b"a\0bcd".iter().for_each(|&byte| text.push(byte));
        assert!(text.as_bytes().ends_with(b"xab"));
        assert_eq!(text.as_c_str().to_bytes().len(), <Text>::MAX);
    }
}
