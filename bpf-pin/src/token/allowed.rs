//! Sets of commands and types that a bpffs delegates and a token allows, each a mask of 64 bits.

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
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Allowed<T> {
    mask: u64,
    /// A number over 63, which no mask holds: an error when the set is used.
    too_large: Option<u32>,
    of: PhantomData<T>,
}

impl<T: Delegable> Allowed<T> {
    /// The empty set.
    pub const fn none() -> Self {
        Self::from_mask(0)
    }

    /// Everything, on newer kernels too.
    pub const fn any() -> Self {
        Self::from_mask(u64::MAX)
    }

    /// Bit n stands for number n.
    pub const fn from_mask(mask: u64) -> Self {
        Self {
            mask,
            too_large: None,
            of: PhantomData,
        }
    }

    /// Bit n stands for number n.
    pub const fn mask(self) -> u64 {
        self.mask
    }

    /// Whether the set has it.
    pub fn contains(self, what: T) -> bool {
        bit(what.number()).is_some_and(|bit| self.mask & bit != 0)
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.mask == 0 && self.too_large.is_none()
    }

    /// The members by number, including those that this library does not know.
    pub fn iter(self) -> impl Iterator<Item = T> {
        let is_in = move |&number: &u32| self.mask >> number & 1 == 1;
        (0..u64::BITS).filter(is_in).map(T::from_number)
    }

    fn to_option(self) -> DelegateOption {
        DelegateOption {
            name: T::OPTION,
            mask: self.mask,
            too_large: self.too_large,
            is_shown: |mask, mount| Self::from_mask(mask).matches(&ParsedOption::of::<T>(mount)),
        }
    }

    /// Whether this is what mountinfo shows. It leaves out what is newer than the kernel, and shows
    /// "any" if that leaves nothing out. A name that this library does not know stands for one that
    /// seems to be missing.
    fn matches(self, shown: &ParsedOption) -> bool {
        let known = known_to_every_kernel::<T>();
        if shown.mask == u64::MAX {
            return known & !self.mask == 0;
        }
        let missing = known & self.mask & !shown.mask;
        shown.mask & !self.mask == 0 && missing.count_ones() <= shown.unknown_names
    }
}

/// What every kernel with delegation has a name for.
fn known_to_every_kernel<T: Delegable>() -> u64 {
    let names = T::NAMES.0.iter();
    let old = names.filter(|name| SINCE_DELEGATION.at_least(name.since));
    old.filter_map(|name| bit(name.value.try_into().ok()?))
        .fold(0, |mask, bit| mask | bit)
}

fn bit(number: u32) -> Option<u64> {
    1u64.checked_shl(number)
}

/// A delegate option, parsed from mountinfo or fdinfo.
#[derive(Default)]
pub(crate) struct ParsedOption {
    mask: u64,
    /// How many names this library does not know.
    unknown_names: u32,
}

impl ParsedOption {
    /// Parses "any", or names in lower case and a number, separated by ':'.
    pub(crate) fn parse<T: Delegable>(text: &str) -> Self {
        let mut parsed = Self::default();
        let (names, prefix) = T::NAMES;
        for word in text.split(':').filter(|word| !word.is_empty()) {
            let is_it = |name: &&abi::Enumerator| {
                let name = name.name.strip_prefix(prefix);
                name.is_some_and(|name| name.eq_ignore_ascii_case(word))
            };
            let hex = word.strip_prefix("0x");
            let bits = match hex.map(|hex| u64::from_str_radix(hex, 16)) {
                _ if word == "any" => Some(u64::MAX),
                Some(Ok(mask)) => Some(mask),
                _ => names
                    .iter()
                    .find(is_it)
                    .and_then(|name| bit(name.value as u32)),
            };
            match bits {
                Some(bits) => parsed.mask |= bits,
                None => parsed.unknown_names += 1,
            }
        }
        parsed
    }

    fn of<T: Delegable>(mount: &Mount) -> Self {
        let text = mount.super_option(T::OPTION).unwrap_or_default();
        Self::parse::<T>(&text.to_string_lossy())
    }

    pub(crate) fn allowed<T: Delegable>(&self) -> Allowed<T> {
        Allowed::from_mask(self.mask)
    }
}

/// What a bpffs delegates to the [`Token`](crate::token::Token)s created from it, or what a token allows. Linux 6.9.
///
/// What is read from mountinfo or fdinfo lacks whatever the kernel or this library does not know. The set of
/// all that the kernel knows is shown as [`any`](Allowed::any).
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
    /// Whether all sets are empty.
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

    /// From the options that mountinfo shows.
    pub(crate) fn of(mount: &Mount) -> Self {
        Self {
            cmds: ParsedOption::of::<Command>(mount).allowed(),
            maps: ParsedOption::of::<MapType>(mount).allowed(),
            progs: ParsedOption::of::<ProgType>(mount).allowed(),
            attachs: ParsedOption::of::<AttachType>(mount).allowed(),
        }
    }
}

/// A mount option that delegates something.
pub(crate) struct DelegateOption {
    pub(crate) name: &'static str,
    mask: u64,
    pub(crate) too_large: Option<u32>,
    is_shown: fn(u64, &Mount) -> bool,
}

impl DelegateOption {
    /// A number, which the kernel parses without BTF.
    pub(crate) fn value(&self) -> String {
        format!("{:#x}", self.mask)
    }

    /// Whether mountinfo shows it.
    pub(crate) fn is_shown(&self, mount: &Mount) -> bool {
        (self.is_shown)(self.mask, mount)
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
    fn matches_what_mountinfo_shows() {
        let is_shown = |mask: u64, text: &str| {
            Allowed::<MapType>::from_mask(mask).matches(&ParsedOption::parse::<MapType>(text))
        };
        let hash_and_storage = 1 << 1 | 1 << 19;
        let maps = |text| is_shown(hash_and_storage, text);
        assert!(maps("hash:cgroup_storage_deprecated"));
        assert!(maps("hash:cgroup_storage"));
        assert!(maps("0x80002"));
        assert!(maps("hash:renamed"));
        assert!(!maps("hash"));
        assert!(!maps("hash:cgroup_storage:array"));
        assert!(!maps("any"));
        assert!(!maps(""));
        // The kernel does not show what it does not know.
        assert!(is_shown(hash_and_storage | 1 << 60, "hash:cgroup_storage"));
        assert!(is_shown(
            hash_and_storage | 1 << 60,
            "hash:cgroup_storage:brand_new"
        ));
        assert!(is_shown(1 << 60, ""));
        assert!(is_shown(1 << 2 | 1 << 35, "array"));
        // All that it knows is shown as any.
        assert!(is_shown(u64::MAX, "any"));
        assert!(is_shown((1 << 34) - 1, "any"));
        assert!(!is_shown((1 << 33) - 1, "any"));
        assert!(is_shown(0, ""));
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
