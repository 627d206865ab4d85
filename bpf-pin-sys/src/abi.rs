//! What the tables are made of, and the macros that prove a layout where it is written down.

use core::fmt;

/// A Linux release: `Version::new(5, 15)` is Linux 5.15.
///
/// Stable updates are not told apart, and a few of them brought a newer release's flag to an older
/// one. A name is listed with the release that first had it from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The number before the dot.
    pub major: u8,
    /// The number after the dot.
    pub minor: u8,
}

impl Version {
    /// The release `major.minor`.
    #[must_use]
    pub const fn new(major: u8, minor: u8) -> Self {
        Self { major, minor }
    }

    /// Whether `self` is `other` or a later release. What `>=` says, in a constant.
    #[must_use]
    pub const fn at_least(self, other: Self) -> bool {
        self.major > other.major || (self.major == other.major && self.minor >= other.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One name of a struct's member: where it lies, and the first release that had it.
///
/// Names that C puts into an anonymous union of one type (`value`, `next_key`) are one field in
/// Rust and one entry each here, at the same offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name, as the kernel spells it.
    pub name: &'static str,
    /// Bytes from the beginning of the struct.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// The first release that had it.
    pub since: Version,
}

/// A struct, or the arm of a union, with its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm {
    /// The C path the fields stand under. Empty in [`ARMS`](crate::ARMS) for a struct that C leaves
    /// anonymous: its fields are members of `union bpf_attr` itself.
    pub name: &'static str,
    /// The name of the Rust type.
    pub rust: &'static str,
    /// Bytes from the beginning of the outermost union or struct.
    pub offset: usize,
    /// Size in bytes, trailing padding included.
    pub size: usize,
    /// The members, in the order of their offsets. Padding is not listed.
    pub fields: &'static [Field],
}

/// A constant of the kernel's: a member of an enum or a `#define`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enumerator {
    /// The name, as the kernel spells it.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// The first release that had it.
    pub since: Version,
    /// Whether every kernel that has it lists it in its BTF, from 5.7 on. A `#define` leaves no
    /// trace there, nor does an enum that the kernel does not use itself.
    pub in_btf: bool,
}

/// A C name out of a Rust one: `r#type` is `type`.
pub(crate) const fn unraw(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', rest @ ..] => match core::str::from_utf8(rest) {
            Ok(name) => name,
            Err(_) => name,
        },
        _ => name,
    }
}

/// Proves size and alignment, and adds what every struct and union here has.
macro_rules! abi_common {
    ($name:ident, $size:literal, $align:literal) => {
        const _: () = assert!(size_of::<$name>() == $size);
        const _: () = assert!(align_of::<$name>() == $align);

        impl $name {
            /// All bytes zero: what the kernel takes for "not given".
            #[must_use]
            pub const fn zeroed() -> Self {
                // SAFETY: integers, and structs and unions of integers: all-zero bytes are a value.
                unsafe { core::mem::zeroed() }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::zeroed()
            }
        }
    };
}

/// A struct: `name[size, align] { field: type @ offset since (major, minor), … }`.
///
/// Size, alignment and every offset are proven at compile time, and are the table `FIELDS`. A
/// member without `since` is padding or a union with fields of its own: proven, not listed.
/// `also "name" (major, minor)` is a further C name of the same member.
macro_rules! abi_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident[$size:literal, $align:literal] {
            $(
                $(#[$fmeta:meta])*
                $field:ident: $ty:tt @ $offset:literal
                $(since ($major:literal, $minor:literal)
                    $(also $alias:literal ($amajor:literal, $aminor:literal))*)?
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[allow(non_camel_case_types)]
        #[repr(C, align($align))]
        #[derive(Clone, Copy, Debug)]
        pub struct $name {
            $(
                $(#[$fmeta])*
                $(
                    #[doc = concat!("\n\nOffset ", $offset, ". Linux ", $major, ".", $minor, ".")]
                    $(
                        #[doc = concat!("Also `", $alias, "`, Linux ", $amajor, ".", $aminor, ".")]
                        #[doc(alias = $alias)]
                    )*
                )?
                pub $field: $ty,
            )*
        }

        $(const _: () = assert!(core::mem::offset_of!($name, $field) == $offset);)*
        abi_common!($name, $size, $align);

        impl $name {
            /// The members in the order of their offsets, without the padding.
            pub const FIELDS: &'static [crate::Field] = &[$($(
                crate::Field {
                    name: crate::abi::unraw(stringify!($field)),
                    offset: core::mem::offset_of!($name, $field),
                    size: size_of::<$ty>(),
                    since: crate::Version::new($major, $minor),
                },
                $(
                    crate::Field {
                        name: $alias,
                        offset: core::mem::offset_of!($name, $field),
                        size: size_of::<$ty>(),
                        since: crate::Version::new($amajor, $aminor),
                    },
                )*
            )?)*];
        }
    };
}

/// A union: `name[size, align] { arm: type, … }`, sized and aligned as said, every arm at zero.
///
/// An arm with `since` is an integer of its own and is listed in `FIELDS`; the others are structs.
macro_rules! abi_union {
    (
        $(#[$meta:meta])*
        pub union $name:ident[$size:literal, $align:literal] {
            $(
                $(#[$fmeta:meta])*
                $arm:ident: $ty:tt
                $(since ($major:literal, $minor:literal))?
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[allow(non_camel_case_types)]
        #[repr(C, align($align))]
        #[derive(Clone, Copy)]
        pub union $name {
            $(
                $(#[$fmeta])*
                $(#[doc = concat!("\n\nLinux ", $major, ".", $minor, ".")])?
                pub $arm: $ty,
            )*
        }

        abi_common!($name, $size, $align);

        impl $name {
            /// The arms that are integers of their own.
            pub const FIELDS: &'static [crate::Field] = &[$($(
                crate::Field {
                    name: crate::abi::unraw(stringify!($arm)),
                    offset: core::mem::offset_of!($name, $arm),
                    size: size_of::<$ty>(),
                    since: crate::Version::new($major, $minor),
                },
            )?)*];
        }

        // Which arm holds is not known here, so no bytes are shown.
        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

/// Constants and their table:
/// `pub TABLE: type, btf { NAME = value, since (major, minor); … }`.
///
/// `btf` are those the kernel's BTF has, `header` those that only the header has.
macro_rules! abi_consts {
    (@in_btf btf) => { true };
    (@in_btf header) => { false };
    (
        $(#[$tmeta:meta])*
        pub $table:ident: $ty:ty, $how:tt {
            $(
                $(#[$meta:meta])*
                $name:ident = $value:expr, since ($major:literal, $minor:literal);
            )*
        }
    ) => {
        $(
            $(#[$meta])*
            #[doc = concat!("\n\nLinux ", $major, ".", $minor, ".")]
            #[allow(non_upper_case_globals)]
            pub const $name: $ty = $value;
        )*

        $(#[$tmeta])*
        pub const $table: &[crate::Enumerator] = &[$(
            crate::Enumerator {
                name: stringify!($name),
                value: $name as u64,
                since: crate::Version::new($major, $minor),
                in_btf: abi_consts!(@in_btf $how),
            },
        )*];
    };
}
