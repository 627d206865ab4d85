//! Names that are nobody's for long: of pins and directories on their way to the name they are for.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::cause::Cause;
use crate::filename::Filename;
pub(super) use crate::random::random as token;

/// What such names begin with.
const PREFIX: &[u8] = b"_bpf-pin-";

/// What the name of what was moved out of the way ends in.
const ASIDE: &str = "-aside";

/// What stands under such a name, if its process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// A pin that was to replace another, or a directory that was not published or is to be removed.
    Unfinished,
    /// A directory with one that was moved out of the way of another.
    Aside,
}

/// "_bpf-pin-", 16 digits of the token and "-".
pub(super) fn stem<const ROOM: usize>(token: u64) -> Filename<ROOM> {
    const DIGITS: usize = 16;
    const LEN: usize = PREFIX.len() + DIGITS + 1;

    let mut text = [b'-'; LEN];
    text[..PREFIX.len()].copy_from_slice(PREFIX);
    for (i, digit) in text[PREFIX.len()..LEN - 1].iter_mut().enumerate() {
        let nibble = token >> (4 * (DIGITS - 1 - i)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    Filename::of_entry(&text)
}

/// A name that nobody else makes up: the stem, a number, and what is under it.
pub(super) fn passing(token: u64, number: u64, left: Left) -> Filename {
    let name = stem(token).with_number(number);
    match left {
        Left::Unfinished => name,
        Left::Aside => name.with_suffix(ASIDE),
    }
}

/// The token in such a name, and what it is the name of.
pub(super) fn parse(name: &[u8]) -> Option<(u64, Left)> {
    let rest = std::str::from_utf8(name.strip_prefix(PREFIX)?).ok()?;
    let (token, rest) = rest.split_at_checked(16)?;
    let rest = rest.strip_prefix('-')?;
    let (number, left) = match rest.strip_suffix(ASIDE) {
        Some(number) => (number, Left::Aside),
        None => (rest, Left::Unfinished),
    };
    let parse = |digits| u64::from_str_radix(digits, 16).ok();
    let (token, number) = (parse(token)?, parse(number)?);
    // Nothing but what is made above: no sign, no upper case, no leading zeroes.
    (passing(token, number, left).as_bytes() == name).then_some((token, left))
}

/// A number for a name, the same in every process: 63 bits, not 0. FNV-1a.
pub(super) fn number(name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash & i64::MAX as u64).max(1)
}

/// What the names begin with of maps that were migrated away from.
const OLD: &[u8] = b"old-";

/// Under which name the map is kept that another, of this id, takes a name from.
pub(crate) fn kept(name: &Filename, id: u32) -> Result<Filename, Cause> {
    let prefix = stem_of_old(id);
    let length = prefix.len() + name.as_bytes().len();
    let mut text = [0; 255];
    let Some(kept) = text.get_mut(..length) else {
        return Err(Cause::NameTooLong { length });
    };
    kept[..prefix.len()].copy_from_slice(&prefix);
    kept[prefix.len()..].copy_from_slice(name.as_bytes());
    Ok(Filename::of_entry(kept))
}

/// "_bpf-pin-old-", 8 digits of the id and "-".
fn stem_of_old(id: u32) -> [u8; PREFIX.len() + OLD.len() + 9] {
    let mut text = [b'-'; PREFIX.len() + OLD.len() + 9];
    let (prefix, rest) = text.split_at_mut(PREFIX.len());
    let (old, digits) = rest.split_at_mut(OLD.len());
    prefix.copy_from_slice(PREFIX);
    old.copy_from_slice(OLD);
    for (i, digit) in digits[..8].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(id >> (28 - 4 * i) & 0xf) as usize];
    }
    text
}

/// The name that it was kept for, and the id of the map that has taken that.
pub(super) fn parse_kept(kept_as: &[u8]) -> Option<(Filename, u32)> {
    let rest = kept_as.strip_prefix(PREFIX)?.strip_prefix(OLD)?;
    let (id, rest) = rest.split_at_checked(8)?;
    let name = Filename::new(OsStr::from_bytes(rest.strip_prefix(b"-")?)).ok()?;
    let id = u32::from_str_radix(std::str::from_utf8(id).ok()?, 16).ok()?;
    // No sign and no upper case.
    let is_made_so = kept(&name, id).is_ok_and(|kept| kept.as_bytes() == kept_as);
    is_made_so.then_some((name, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_token() {
        for (token, number) in [(0, 0), (u64::MAX >> 1, u64::MAX), (0xabc, 17)] {
            for left in [Left::Unfinished, Left::Aside] {
                let name = passing(token, number, left);
                assert_eq!(parse(name.as_bytes()), Some((token, left)), "{name:?}");
            }
        }
    }

    #[test]
    fn other_names_are_nobody_elses_business() {
        for name in [
            "",
            "flows",
            "_bpf-pin-",
            "_bpf-pin-0123456789abcdef",
            "_bpf-pin-0123456789abcdef-",
            "_bpf-pin-0123456789ABCDEF-1",
            "_bpf-pin-0123456789abcdef-01",
            "_bpf-pin-0123456789abcdef-+1",
            "_bpf-pin-0123456789abcdef-1-asid",
            "_bpf-pin-0123456789abcdef-1-aside-aside",
            "x_bpf-pin-0123456789abcdef-1",
            "_bpf-pin-\u{e9}123456789abcdef-1",
        ] {
            assert_eq!(parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn what_is_kept_is_not_on_its_way() {
        let name = |name: &str| Filename::of_entry(name.as_bytes());
        for (text, id) in [("flows", 1), ("0123456789abcdef-1", u32::MAX), ("-", 0xabc)] {
            let kept = kept(&name(text), id).unwrap();
            assert_eq!(parse(kept.as_bytes()), None, "{kept:?}");
            let (of, found) = parse_kept(kept.as_bytes()).unwrap();
            assert_eq!((of.as_bytes(), found), (text.as_bytes(), id));
        }
        assert!(kept(&name(&"n".repeat(255 - 22)), 7).is_ok());
        assert!(matches!(
            kept(&name(&"n".repeat(255 - 21)), 7),
            Err(Cause::NameTooLong { .. })
        ));
    }

    #[test]
    fn other_names_are_not_kept() {
        for name in [
            "flows",
            "_bpf-pin-old-",
            "_bpf-pin-old-flows",
            "_bpf-pin-old-0000001-flows",
            "_bpf-pin-old-0000000A-flows",
            "_bpf-pin-old-+0000001-flows",
            "_bpf-pin-old-00000001-",
            "_bpf-pin-old-00000001-a.b",
            "_bpf-pin-0123456789abcdef-1",
        ] {
            assert!(parse_kept(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn a_name_has_one_number() {
        assert_eq!(number(b"flows"), number(b"flows"));
        assert_ne!(number(b"flows"), number(b"flow"));
        assert!((1..=i64::MAX as u64).contains(&number(b"")));
    }
}
