//! A name in a directory: one component, as bpffs allows it.

use std::borrow::Cow;
use std::ffi::{CStr, OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::cause::Cause;
use crate::sys::{Text, has_zero, with_c_str};

/// A NUL-terminated name, in place: 255 bytes is the longest, and there may be room for fewer.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Filename<const ROOM: usize = 256>(Text<ROOM>);

impl Filename {
    /// A name that bpffs would take.
    pub(crate) fn new(name: &OsStr) -> Result<Self, Cause> {
        let mut this = Self::default();
        this.set(name)?;
        Ok(this)
    }

    /// The same where it stands: a result would move it.
    #[inline]
    pub(crate) fn set<'n>(&mut self, name: &'n OsStr) -> Result<(), BadName<'n>> {
        let bytes = checked(name)?;
        match self.0.set(bytes) == bytes.len() {
            true => Ok(()),
            false => Err(BadName(name)),
        }
    }
}

impl<const ROOM: usize> Filename<ROOM> {
    /// A name that the kernel gave: it may hold a '.', as the kernel's own do.
    pub(crate) fn of_entry(name: &[u8]) -> Self {
        // The kernel's have no NUL and are no longer.
        Self(Text::truncated(name))
    }

    /// This and a number in hexadecimal digits, as far as there is room.
    pub(crate) fn with_number(&self, number: u64) -> Self {
        let mut this = *self;
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let nibble = (number >> (4 * digit)) as usize & 0xf;
            this.0.push(b"0123456789abcdef"[nibble]);
        }
        this
    }

    pub(crate) fn with_suffix(&self, suffix: &str) -> Self {
        let mut this = *self;
        suffix.bytes().for_each(|byte| this.0.push(byte));
        this
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        self.0.as_c_str()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(self.as_bytes())
    }
}

impl<const ROOM: usize> AsRef<CStr> for Filename<ROOM> {
    fn as_ref(&self) -> &CStr {
        self.as_c_str()
    }
}

impl<const ROOM: usize> AsRef<Path> for Filename<ROOM> {
    fn as_ref(&self) -> &Path {
        Path::new(self.as_os_str())
    }
}

impl<const ROOM: usize> fmt::Debug for Filename<ROOM> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_os_str().fmt(f)
    }
}

/// A name that bpffs would not take.
#[derive(Debug)]
pub(crate) struct BadName<'n>(&'n OsStr);

impl From<BadName<'_>> for Cause {
    fn from(name: BadName<'_>) -> Self {
        fault(name.0)
    }
}

/// Calls `call` with a name that bpffs would take, for what does not keep it.
#[inline]
pub(crate) fn with_name<T>(name: &OsStr, call: impl FnOnce(&CStr) -> T) -> Result<T, BadName<'_>> {
    with_c_str(checked(name)?, call).map_err(|_| BadName(name))
}

/// The bytes of a name without fault, unless they hold a NUL.
#[inline]
fn checked(name: &OsStr) -> Result<&[u8], BadName<'_>> {
    let bytes = name.as_bytes();
    match bytes.is_empty() || bytes.len() > <Text>::MAX || has_dot_or_slash(bytes) {
        true => Err(BadName(name)),
        false => Ok(bytes),
    }
}

/// One byte is the other but for its last bit, so both are looked for at once: in eight at a time.
#[inline]
fn has_dot_or_slash(bytes: &[u8]) -> bool {
    const EITHER: u64 = u64::from_ne_bytes([b'/'; 8]);
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let has = |word: [u8; 8]| has_zero((u64::from_ne_bytes(word) | ONES) ^ EITHER);
    match bytes.last_chunk() {
        Some(&last) => {
            let words = bytes.chunks_exact(8).map(|word| word.try_into());
            has(last) || words.flatten().any(has)
        }
        // Four to seven are eight with some of them twice.
        None => match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(&[a, b, c, d]), Some(&[e, f, g, h])) => has([a, b, c, d, e, f, g, h]),
            _ => bytes.iter().any(|byte| byte | 1 == b'/'),
        },
    }
}

#[cold]
fn fault(name: &OsStr) -> Cause {
    let bytes = name.as_bytes();
    if let Some(position) = bytes.iter().position(|&byte| byte == 0) {
        return Cause::InteriorNul { position };
    }
    if bytes.contains(&b'/') {
        let name = name.to_owned();
        return Cause::Slash { name };
    }
    if bytes.contains(&b'.') {
        let component = name.to_owned();
        return Cause::Dot { component };
    }
    match bytes.len() {
        0 => Cause::EmptyPath,
        length => Cause::NameTooLong { length },
    }
}

/// What stands for a byte that no name may hold: '%' and two hexadecimal digits.
const ESCAPE: u8 = b'%';

fn must_be_escaped(byte: u8) -> bool {
    matches!(byte, b'.' | b'/' | 0 | ESCAPE)
}

/// A name for bpffs from any text: '.', '/' and NUL, which no name may hold, and '%' become '%'
/// and two digits, as in an URL.
///
/// No two texts become the same name, and [`unescape_name`] is the way back. The result is up to
/// three times as long, and 255 bytes is the most that a name may have.
///
/// # Examples
///
/// ```
/// use bpf_pin::{escape_name, unescape_name};
///
/// assert_eq!(*escape_name("vxlan.calico"), *"vxlan%2Ecalico");
/// assert_eq!(*escape_name("flows"), *"flows");
/// assert_eq!(*unescape_name("vxlan%2Ecalico").unwrap(), *"vxlan.calico");
/// assert!(unescape_name("50%").is_none());
/// ```
pub fn escape_name<S: AsRef<OsStr> + ?Sized>(name: &S) -> Cow<'_, OsStr> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";

    let name = name.as_ref();
    if !name.as_bytes().iter().copied().any(must_be_escaped) {
        return Cow::Borrowed(name);
    }
    let mut escaped = Vec::with_capacity(name.len() + 8);
    for &byte in name.as_bytes() {
        if must_be_escaped(byte) {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            escaped.push(ESCAPE);
            escaped.extend(digits);
        } else {
            escaped.push(byte);
        }
    }
    Cow::Owned(OsString::from_vec(escaped))
}

/// The text that [`escape_name`] made this name of, or None of a name that it never makes.
pub fn unescape_name<S: AsRef<OsStr> + ?Sized>(name: &S) -> Option<Cow<'_, OsStr>> {
    let name = name.as_ref();
    let mut parts = name.as_bytes().split(|&byte| byte == ESCAPE);
    let first = parts.next()?;
    let mut text = first.to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        // Digits alone: from_str_radix takes a sign.
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        text.push(byte);
        text.extend(rest);
    }
    let text = OsString::from_vec(text);
    // Lower-case digits, escapes that need not be, and what should have been one.
    if escape_name(&text) != name {
        return None;
    }
    Some(if first.len() == name.len() {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Filename, Cause> {
        Filename::new(OsStr::from_bytes(bytes))
    }

    #[test]
    fn a_name_is_one_component_without_a_dot() {
        for bytes in [&b"a"[..], b"with space", b"\xff\x01", &[b'n'; 255]] {
            let name = of(bytes).unwrap();
            assert_eq!(name.as_bytes(), bytes);
            assert_eq!(name.as_c_str().to_bytes(), bytes);
        }
        assert_eq!(of(b""), Err(Cause::EmptyPath));
        for bytes in [&b"."[..], b"..", b"a.b", b".a", b"a."] {
            assert!(matches!(of(bytes), Err(Cause::Dot { .. })), "{bytes:?}");
        }
        for bytes in [&b"/"[..], b"a/b", b"a/", b"../a", b"/a"] {
            assert!(matches!(of(bytes), Err(Cause::Slash { .. })), "{bytes:?}");
        }
        assert_eq!(of(b"a\0b"), Err(Cause::InteriorNul { position: 1 }));
        let length = 256;
        assert_eq!(of(&[b'n'; 256]), Err(Cause::NameTooLong { length }));
    }

    #[test]
    fn a_dot_and_a_slash_are_found_wherever_they_stand() {
        for len in 1..=40 {
            for position in 0..len {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'0'; len];
                    bytes[position] = byte;
                    let expected = byte == b'.' || byte == b'/';
                    assert_eq!(has_dot_or_slash(&bytes), expected, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn a_number_is_appended_as_far_as_there_is_room() {
        let stem = of(b"x-").unwrap();
        for number in [0, 1, 15, 16, 255, 0x1234_5678_9abc, u64::MAX] {
            let name = stem.with_number(number);
            assert_eq!(name.as_bytes(), format!("x-{number:x}").as_bytes());
            let c_str = name.as_c_str().to_bytes();
            assert_eq!(c_str, name.as_bytes());
        }
        let long = of(&[b'n'; 254]).unwrap().with_number(0xab);
        assert_eq!(long.as_bytes().len(), 255);
        assert!(long.as_bytes().ends_with(b"na"));
    }

    #[test]
    fn every_text_becomes_a_name_and_comes_back() {
        // All texts of up to three bytes over what matters.
        let bytes = [b'.', b'/', 0, b'%', b'2', b'5', b'E', b'e', b'+', 0xff];
        let mut texts = vec![vec![]];
        for _ in 0..3 {
            let longer = texts.iter().flat_map(|text: &Vec<u8>| {
                bytes.iter().map(move |&byte| {
                    let mut text = text.clone();
                    text.push(byte);
                    text
                })
            });
            let longer: Vec<_> = longer.collect();
            texts.extend(longer);
        }
        texts.sort();
        texts.dedup();
        let mut seen = std::collections::HashSet::new();
        for text in &texts {
            let text = OsStr::from_bytes(text);
            let name = escape_name(text).into_owned();
            assert!(text.is_empty() || Filename::new(&name).is_ok(), "{name:?}");
            assert_eq!(unescape_name(&name).as_deref(), Some(text));
            assert!(seen.insert(name), "two texts, one name");
            // Whatever has a way back is what that way's end becomes.
            if let Some(back) = unescape_name(text) {
                assert_eq!(escape_name(&back), text);
            }
        }
    }
}
