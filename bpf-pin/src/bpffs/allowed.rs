//! What a bpffs delegates: sets of commands and types, each a mask of 64 bits.

use std::fmt;
use std::marker::PhantomData;

use bpf_pin_sys as abi;
use bpf_pin_sys::Version;

use crate::mountinfo::Mount;
use crate::sys::sealed::Sealed;
use crate::types::{AttachType, Command, MapType, ProgType};

pub(crate) const SINCE_DELEGATION: Version = Version::new(6, 9);

/// What may stand in an [`Allowed`]: [`Command`], [`MapType`], [`ProgType`], [`AttachType`]. Sealed.
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

/// A set of commands or types that may be used: `Allowed::from([MapType::HASH])`, or
/// [`any`](Self::any).
pub struct Allowed<T> {
    mask: u64,
    /// A number that no mask has room for: refused where it is used.
    too_large: Option<u32>,
    of: PhantomData<T>,
}

impl<T: Delegable> Allowed<T> {
    /// Nothing.
    pub const fn none() -> Self {
        Self::from_mask(0)
    }

    /// Whatever there is, on newer kernels too.
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

    /// Whether it is allowed.
    pub fn contains(self, what: T) -> bool {
        bit(what.number()).is_some_and(|bit| self.mask & bit != 0)
    }

    /// Whether nothing is allowed.
    pub const fn is_empty(self) -> bool {
        self.mask == 0 && self.too_large.is_none()
    }

    /// What is allowed, by number, those included that no kernel known here has.
    pub fn iter(self) -> impl Iterator<Item = T> {
        let is_in = move |&number: &u32| self.mask >> number & 1 == 1;
        (0..u64::BITS).filter(is_in).map(T::from_number)
    }

    pub(crate) fn too_large(self) -> Option<u32> {
        self.too_large
    }

    /// The value of the mount option: a number, which needs no BTF to be understood.
    pub(crate) fn to_option(self) -> String {
        format!("{:#x}", self.mask)
    }

    /// Whether mountinfo shows just this. It leaves out what is newer than the kernel, and says
    /// "any" where nothing else is missing. A name that is newer than this library stands for
    /// something that is missing.
    pub(crate) fn is_shown_as(self, shown: &Shown) -> bool {
        let sure = sure_to_be_shown::<T>();
        if shown.mask == u64::MAX {
            return sure & !self.mask == 0;
        }
        let missing = sure & self.mask & !shown.mask;
        shown.mask & !self.mask == 0 && missing.count_ones() <= shown.unknown_names
    }
}

/// What every kernel with delegation has a name for.
fn sure_to_be_shown<T: Delegable>() -> u64 {
    let names = T::NAMES.0.iter();
    let old = names.filter(|name| SINCE_DELEGATION.at_least(name.since));
    old.filter_map(|name| bit(name.value.try_into().ok()?))
        .fold(0, |mask, bit| mask | bit)
}

fn bit(number: u32) -> Option<u64> {
    1u64.checked_shl(number)
}

/// A delegate option as mountinfo has it.
#[derive(Default)]
pub(crate) struct Shown {
    mask: u64,
    /// How many names there were that are newer than this library.
    unknown_names: u32,
}

impl Shown {
    /// "any", or names in lower case and a number, with ':' between.
    pub(crate) fn parse<T: Delegable>(text: &str) -> Self {
        let mut shown = Self::default();
        let (names, prefix) = T::NAMES;
        for word in text.split(':').filter(|word| !word.is_empty()) {
            let is_it = |name: &&abi::Enumerator| {
                let name = name.name.strip_prefix(prefix);
                name.is_some_and(|name| name.eq_ignore_ascii_case(word))
            };
            let number = word
                .strip_prefix("0x")
                .map(|hex| u64::from_str_radix(hex, 16));
            match (word, number) {
                ("any", _) => shown.mask = u64::MAX,
                (_, Some(Ok(mask))) => shown.mask |= mask,
                _ => match names
                    .iter()
                    .find(is_it)
                    .and_then(|name| bit(name.value as u32))
                {
                    Some(bit) => shown.mask |= bit,
                    None => shown.unknown_names += 1,
                },
            }
        }
        shown
    }

    pub(crate) fn of<T: Delegable>(mount: &Mount) -> Self {
        let text = mount.super_option(T::OPTION).unwrap_or_default();
        Self::parse::<T>(&text.to_string_lossy())
    }

    pub(crate) fn allowed<T: Delegable>(&self) -> Allowed<T> {
        Allowed::from_mask(self.mask)
    }
}

/// What a bpffs delegates to those who make a [`Token`](crate::Token) of it, or what a token allows.
/// Linux 6.9.
///
/// Where it is read from mountinfo or /proc, what is newer than the kernel or than this library is
/// left out, and all that the kernel knows is shown as [`any`](Allowed::any).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Delegation {
    /// The commands of bpf(2).
    pub cmds: Allowed<Command>,
    /// The types of maps that may be created.
    pub maps: Allowed<MapType>,
    /// The types of programs that may be loaded.
    pub progs: Allowed<ProgType>,
    /// What programs may be loaded for.
    pub attachs: Allowed<AttachType>,
}

impl Delegation {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.cmds.is_empty()
            && self.maps.is_empty()
            && self.progs.is_empty()
            && self.attachs.is_empty()
    }

    /// What mountinfo tells of it.
    pub(crate) fn of(mount: &Mount) -> Self {
        Self {
            cmds: Shown::of::<Command>(mount).allowed(),
            maps: Shown::of::<MapType>(mount).allowed(),
            progs: Shown::of::<ProgType>(mount).allowed(),
            attachs: Shown::of::<AttachType>(mount).allowed(),
        }
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

impl<T> Clone for Allowed<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Allowed<T> {}

impl<T> PartialEq for Allowed<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.mask, self.too_large) == (other.mask, other.too_large)
    }
}

impl<T> Eq for Allowed<T> {}

impl<T: Delegable> Default for Allowed<T> {
    fn default() -> Self {
        Self::none()
    }
}

/// "any", "none", or the names with commas between.
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
    fn what_mountinfo_shows_is_what_was_asked_for() {
        let is_shown = |mask: u64, text: &str| {
            Allowed::<MapType>::from_mask(mask).is_shown_as(&Shown::parse::<MapType>(text))
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
        // What the kernel does not know it does not show.
        assert!(is_shown(hash_and_storage | 1 << 60, "hash:cgroup_storage"));
        assert!(is_shown(
            hash_and_storage | 1 << 60,
            "hash:cgroup_storage:brand_new"
        ));
        assert!(is_shown(1 << 60, ""));
        assert!(is_shown(1 << 2 | 1 << 35, "array"));
        // And all that it knows is any.
        assert!(is_shown(u64::MAX, "any"));
        assert!(is_shown((1 << 34) - 1, "any"));
        assert!(!is_shown((1 << 33) - 1, "any"));
        assert!(is_shown(0, ""));
    }

    #[test]
    fn a_number_without_a_bit_is_remembered() {
        let types = Allowed::from([ProgType::XDP, ProgType(64)]);
        assert_eq!(types.too_large(), Some(64));
        assert!(types.contains(ProgType::XDP) && !types.contains(ProgType(64)));
        assert_eq!(Allowed::from([ProgType(63)]).mask(), 1 << 63);
        assert_eq!(types.to_string(), "xdp");
    }
}
