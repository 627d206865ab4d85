//! Names of pins: one path component that bpffs accepts.

use std::borrow::Cow;
use std::ffi::{CStr, OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::path::Arg;

use super::inline::InlineCStr;

/// The longest name.
pub(crate) const NAME_MAX: usize = 255;
/// The longest path, without its NUL.
pub(crate) const PATH_MAX: usize = 4095;

/// A name, stored inline.
pub(crate) type Component<const ROOM: usize = 256> = InlineCStr<ROOM>;

impl Component {
    /// Checks that bpffs accepts the name.
    pub(crate) fn new(name: &OsStr) -> Result<Self, InvalidComponent> {
        Self::of(checked(name)?).ok_or_else(|| invalid(name))
    }
}

impl<const ROOM: usize> Component<ROOM> {
    /// A name that the kernel returned, which has no NUL and at most 255 bytes. It may hold a '.', as the
    /// names of the kernel's own files do.
    pub(crate) fn of_entry(name: &[u8]) -> Self {
        Self::of(name).unwrap_or_default()
    }
}

/// A name that bpffs does not accept.
#[derive(Debug)]
pub(crate) struct InvalidComponent(pub(crate) OsString);

/// Calls `call` with a name that bpffs accepts.
#[inline]
pub(crate) fn with_name<T>(
    name: &OsStr,
    call: impl FnOnce(&CStr) -> T,
) -> Result<T, InvalidComponent> {
    checked(name)?
        .into_with_c_str(|name| Ok(call(name)))
        .map_err(|_| invalid(name))
}

#[inline]
fn checked(name: &OsStr) -> Result<&[u8], InvalidComponent> {
    let bytes = name.as_bytes();
    let is_refused = |byte| matches!(byte, 0 | b'.' | b'/');
    match bytes.len() {
        1..=NAME_MAX if !bytes.iter().copied().any(is_refused) => Ok(bytes),
        _ => Err(invalid(name)),
    }
}

#[cold]
fn invalid(name: &OsStr) -> InvalidComponent {
    InvalidComponent(name.to_owned())
}

fn must_be_escaped(byte: u8) -> bool {
    matches!(byte, b'.' | b'/' | 0 | b'%')
}

/// Turns any text into a name that bpffs accepts.
///
/// As in a URL, '%' and the bytes that no name may hold ('.', '/' and NUL) become '%' and two hexadecimal
/// digits. Different texts become different names, and [`unescape_name`] returns the text. The name is up to
/// three times as long as the text, but a name may have at most 255 bytes.
///
/// # Examples
///
/// ```
/// use bpf_pin::dir::{escape_name, unescape_name};
///
/// assert_eq!(*escape_name("vxlan.calico"), *"vxlan%2Ecalico");
/// assert_eq!(*escape_name("flows"), *"flows");
/// assert_eq!(*unescape_name("vxlan%2Ecalico").unwrap(), *"vxlan.calico");
/// assert!(unescape_name("50%").is_none());
/// ```
pub fn escape_name<S: AsRef<OsStr> + ?Sized>(name: &S) -> Cow<'_, OsStr> {
    let name = name.as_ref();
    if !name.as_bytes().iter().copied().any(must_be_escaped) {
        return Cow::Borrowed(name);
    }
    let mut escaped = Vec::with_capacity(name.len() + 8);
    for &byte in name.as_bytes() {
        if must_be_escaped(byte) {
            // Writing to a Vec does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        } else {
            escaped.push(byte);
        }
    }
    Cow::Owned(OsString::from_vec(escaped))
}

/// Returns the text that [`escape_name`] turned into this name, or `None` if no text becomes this name.
pub fn unescape_name<S: AsRef<OsStr> + ?Sized>(name: &S) -> Option<Cow<'_, OsStr>> {
    let name = name.as_ref();
    let mut parts = name.as_bytes().split(|&byte| byte == b'%');
    let mut text = parts.next()?.to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        text.push(u8::from_str_radix(digits, 16).ok()?);
        text.extend(rest);
    }
    let text = OsString::from_vec(text);
    // Rejects a sign, lower-case digits, needless escapes and missing ones.
    match escape_name(&text) {
        escaped if *escaped != *name => None,
        Cow::Borrowed(_) => Some(Cow::Borrowed(name)),
        Cow::Owned(_) => Some(Cow::Owned(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component_without_a_dot() {
        let of = |bytes| Component::new(OsStr::from_bytes(bytes));
        for bytes in [&b"a"[..], b"with space", b"\xff\x01", &[b'n'; 255]] {
            let name = of(bytes).unwrap();
            assert_eq!(name.as_bytes(), bytes);
            assert_eq!(name.as_c_str().to_bytes(), bytes);
        }
        for bytes in [
            &b""[..],
            b".",
            b"..",
            b"a.b",
            b".a",
            b"a.",
            b"/",
            b"a/b",
            b"a/",
            b"../a",
            b"/a",
            b"a\0b",
            &[b'n'; 256],
        ] {
            assert!(of(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn every_text_survives_escaping_and_unescaping() {
        // All texts of up to three of these bytes.
        let bytes = [b'.', b'/', 0, b'%', b'2', b'5', b'E', b'e', b'+', 0xff];
        let mut texts = vec![vec![]];
        for _ in 0..3 {
            let longer = texts.iter().flat_map(|text: &Vec<u8>| {
                bytes.iter().map(move |&byte| [&text[..], &[byte]].concat())
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
            assert!(text.is_empty() || Component::new(&name).is_ok(), "{name:?}");
            assert_eq!(unescape_name(&name).as_deref(), Some(text));
            assert!(seen.insert(name), "two texts, one name");
            if let Some(back) = unescape_name(text) {
                assert_eq!(escape_name(&back), text);
            }
        }
    }
}
