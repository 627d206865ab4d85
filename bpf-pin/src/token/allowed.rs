//! Sets of commands and types that a bpffs delegates and a token allows, each as a mask of 64 bits.

use std::fmt;
use std::marker::PhantomData;

use bpf_pin_sys as abi;
use bpf_pin_sys::Version;

use crate::procfs::Mount;
use crate::sys::sealed::Sealed;
use crate::types::{AttachType, Command, MapType, ProgType};

pub(crate) const SINCE_DELEGATION: Version = Version::new(6, 9);

/// The members of an [`Allowed`]: [`Command`], [`MapType`], [`ProgType`], [`AttachType`]. Sealed.
pub trait Delegable: Copy + fmt::Display + Sealed {
    /// The mount option.
    #[doc(hidden)]
    const OPTION: &'static str;
    /// The kernel's names, with their prefix.
    #[doc(hidden)]
    const NAMES: (&'static [abi::Enumerator], &'static str);
    #[doc(hidden)]
    fn number(self) -> u32;
    #[doc(hidden)]
    fn from_number(number: u32) -> Self;
}

macro_rules! delegable {
    ($($type:ident: $option:literal, $names:ident, $prefix:literal;)*) => {$(
        impl Sealed for $type {}

        impl Delegable for $type {
            const OPTION: &'static str = $option;
            const NAMES: (&'static [abi::Enumerator], &'static str) = (abi::$names, $prefix);

            fn number(self) -> u32 {
                self.0
            }

            fn from_number(number: u32) -> Self {
                Self(number)
            }
        }
    )*};
}

delegable! {
    Command: "delegate_cmds", BPF_CMDS, "BPF_";
    MapType: "delegate_maps", BPF_MAP_TYPES, "BPF_MAP_TYPE_";
    ProgType: "delegate_progs", BPF_PROG_TYPES, "BPF_PROG_TYPE_";
    AttachType: "delegate_attachs", BPF_ATTACH_TYPES, "BPF_";
}

/// A set of commands or types: `Allowed::from([MapType::HASH])`, or [`any`](Self::any).
///
/// # Examples
///
/// ```
/// use bpf_pin::token::Allowed;
/// use bpf_pin::types::MapType;
///
/// let maps = Allowed::from([MapType::HASH, MapType::ARRAY]);
/// assert!(maps.contains(MapType::HASH));
/// assert_eq!(maps.to_string(), "hash, array");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Allowed<T> {
    mask: u64,
    /// A number over 63, which fits no mask. Using the set is an error.
    too_large: Option<u32>,
    members: PhantomData<T>,
}

impl<T: Delegable> Allowed<T> {
    /// The empty set.
    pub const fn none() -> Self {
        Self::from_mask(0)
    }

    /// All members, including those that only newer kernels know.
    pub const fn any() -> Self {
        Self::from_mask(u64::MAX)
    }

    /// Creates a set from a mask: bit n stands for number n.
    pub const fn from_mask(mask: u64) -> Self {
        Self {
            mask,
            too_large: None,
            members: PhantomData,
        }
    }

    /// Returns the mask: bit n stands for number n.
    pub const fn mask(self) -> u64 {
        self.mask
    }

    /// Returns whether `what` is a member.
    pub fn contains(self, what: T) -> bool {
        bit(what.number()).is_some_and(|bit| self.mask & bit != 0)
    }

    /// Returns whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.mask == 0 && self.too_large.is_none()
    }

    /// Iterates over the members by number, including those that this library does not know.
    pub fn iter(self) -> impl Iterator<Item = T> {
        let is_in = move |&number: &u32| self.mask >> number & 1 == 1;
        (0..u64::BITS).filter(is_in).map(T::from_number)
    }

    fn to_option(self) -> DelegateOption {
        DelegateOption {
            name: T::OPTION,
            mask: self.mask,
            too_large: self.too_large,
            known: known_to_every_kernel::<T>(),
        }
    }
}

/// The numbers that every kernel with delegation has a name for.
fn known_to_every_kernel<T: Delegable>() -> u64 {
    let names = T::NAMES.0.iter();
    let old = names.filter(|name| SINCE_DELEGATION.at_least(name.since));
    old.filter_map(|name| bit(name.value.try_into().ok()?))
        .fold(0, |mask, bit| mask | bit)
}

fn bit(number: u32) -> Option<u64> {
    1u64.checked_shl(number)
}

impl<T: Delegable> Allowed<T> {
    /// Parses "any", or names in lower case and a number, separated by ':', as mountinfo and fdinfo show
    /// them. Skips names that this library does not know.
    pub(crate) fn parse(text: &str) -> Self {
        let (names, prefix) = T::NAMES;
        let parse_word = |word: &str| {
            if word == "any" {
                return Some(u64::MAX);
            }
            if let Some(hex) = word.strip_prefix("0x") {
                return u64::from_str_radix(hex, 16).ok();
            }
            let is_named = |name: &&abi::Enumerator| {
                let name = name.name.strip_prefix(prefix);
                name.is_some_and(|name| name.eq_ignore_ascii_case(word))
            };
            bit(names.iter().find(is_named)?.value as u32)
        };
        let bits = text.split(':').filter_map(parse_word);
        Self::from_mask(bits.fold(0, |mask, bit| mask | bit))
    }

    fn of(mount: &Mount) -> Self {
        let text = mount.super_option(T::OPTION).unwrap_or_default();
        Self::parse(&text.to_string_lossy())
    }
}

/// The commands and types that a bpffs delegates to a [`Token`](crate::token::Token), or that a token allows.
/// Linux 6.9.
///
/// A delegation read from mountinfo or fdinfo contains only what both the kernel and this library know. If it
/// contains everything that the kernel knows, it is [`any`](Allowed::any).
///
/// # Examples
///
/// See [`Token`](crate::token::Token).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Delegation {
    /// The commands of bpf(2).
    pub cmds: Allowed<Command>,
    /// The types of maps that may be created.
    pub maps: Allowed<MapType>,
    /// The types of programs that may be loaded.
    pub progs: Allowed<ProgType>,
    /// The attach types that programs may be loaded for.
    pub attachs: Allowed<AttachType>,
}

impl Delegation {
    /// Returns whether all sets are empty.
    pub fn is_empty(&self) -> bool {
        self.options().next().is_none()
    }

    /// The mount options for the sets that are not empty.
    pub(crate) fn options(&self) -> impl Iterator<Item = DelegateOption> {
        [
            self.cmds.to_option(),
            self.maps.to_option(),
            self.progs.to_option(),
            self.attachs.to_option(),
        ]
        .into_iter()
        .filter(|option| option.mask != 0 || option.too_large.is_some())
    }

    /// Reads the options that mountinfo shows.
    pub(crate) fn of(mount: &Mount) -> Self {
        Self {
            cmds: Allowed::of(mount),
            maps: Allowed::of(mount),
            progs: Allowed::of(mount),
            attachs: Allowed::of(mount),
        }
    }
}

/// A mount option that delegates something.
pub(crate) struct DelegateOption {
    pub(crate) name: &'static str,
    mask: u64,
    pub(crate) too_large: Option<u32>,
    known: u64,
}

impl DelegateOption {
    /// A number, which the kernel parses without BTF.
    pub(crate) fn value(&self) -> String {
        format!("{:#x}", self.mask)
    }

    /// True if mountinfo shows the option. The kernel leaves it out if it knows no name in it.
    pub(crate) fn is_accepted(&self, mount: &Mount) -> bool {
        self.mask & self.known == 0 || mount.super_option(self.name).is_some()
    }
}

impl<T: Delegable> FromIterator<T> for Allowed<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut allowed = Self::none();
        for number in all.into_iter().map(T::number) {
            match bit(number) {
                Some(bit) => allowed.mask |= bit,
                None => allowed.too_large = Some(number),
            }
        }
        allowed
    }
}

impl<T: Delegable, const N: usize> From<[T; N]> for Allowed<T> {
    fn from(all: [T; N]) -> Self {
        all.into_iter().collect()
    }
}

impl<T: Delegable> Default for Allowed<T> {
    fn default() -> Self {
        Self::none()
    }
}

/// "any", "none", or the names separated by commas.
impl<T: Delegable> fmt::Display for Allowed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mask {
            0 => f.write_str("none"),
            u64::MAX => f.write_str("any"),
            _ => self.iter().enumerate().try_for_each(|(at, each)| {
                let comma = if at == 0 { "" } else { ", " };
                write!(f, "{comma}{each}")
            }),
        }
    }
}

impl<T: Delegable> fmt::Debug for Allowed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Allowed({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_mountinfo_shows() {
        let hash_and_storage = 1 << 1 | 1 << 19;
        let cases = [
            ("", 0),
            ("any", u64::MAX),
            ("hash", 1 << 1),
            ("hash:cgroup_storage_deprecated", hash_and_storage),
            ("hash:cgroup_storage", hash_and_storage),
            ("0x80002", hash_and_storage),
            ("hash:brand_new:0x80000", hash_and_storage),
        ];
        for (text, mask) in cases {
            assert_eq!(Allowed::<MapType>::parse(text).mask(), mask, "{text}");
        }
    }

    #[test]
    fn a_number_over_63_is_kept_as_an_error() {
        let types = Allowed::from([ProgType::XDP, ProgType(64)]);
        assert_eq!(types.too_large, Some(64));
        assert!(types.contains(ProgType::XDP) && !types.contains(ProgType(64)));
        assert_eq!(Allowed::from([ProgType(63)]).mask(), 1 << 63);
        assert_eq!(types.to_string(), "xdp");
    }
}
