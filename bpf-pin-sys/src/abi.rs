//! The types of the tables, and the macros that define a layout and prove it.

use core::fmt;

/// A Linux release: `Version::new(5, 15)` is Linux 5.15.
///
/// Stable updates are not distinguished. A few of them backported a flag to an older release. A name is
/// listed with the first release that had it without a stable update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The number before the dot.
    pub major: u8,
    /// The number after the dot.
    pub minor: u8,
}

impl Version {
    /// Returns the release `major.minor`.
    #[must_use]
    pub const fn new(major: u8, minor: u8) -> Self {
        Self { major, minor }
    }

    /// Returns whether `self` is `other` or a later release: `>=` for constants.
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

/// A name of a struct's member, with its offset, size and first release.
///
/// Names that C puts into an anonymous union of one type (`value`, `next_key`) are one field in Rust. Here each of
/// them is an entry, at the same offset.
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

/// A struct, or an arm of a union, with its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm {
    /// The C path of the struct that has the fields. Empty in [`ARMS`](crate::ARMS) for a struct that C leaves
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

/// A constant of the kernel: a member of an enum, or a `#define`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enumerator {
    /// The name, as the kernel spells it.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// The first release that had it.
    pub since: Version,
    /// Since 5.7: whether the BTF of every kernel that has the constant lists it. BTF lists no `#define`, and no enum
    /// that the kernel itself does not use.
    pub in_btf: bool,
}

/// Returns the C name of a Rust name: `type` for `r#type`.
pub(crate) const fn unraw(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', rest @ ..] => match core::str::from_utf8(rest) {
            Ok(name) => name,
            Err(_) => name,
        },
        _ => name,
    }
}

/// Proves size and alignment, and defines the methods that every struct and union here has.
macro_rules! abi_common {
    ($name:ident, $size:literal, $align:literal) => {
        const _: () = assert!(size_of::<$name>() == $size);
        const _: () = assert!(align_of::<$name>() == $align);

        impl $name {
            /// Returns a value with all bytes zero. The kernel reads zero as "not given".
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

/// Defines a struct: `name[size, align] { field: type @ offset since (major, minor), … }`.
///
/// Size, alignment and every offset are proven at compile time. The table `FIELDS` lists the fields. A member without
/// `since` is padding or a union with fields of its own: its offset is proven, but it is not listed.
/// `also "name" (major, minor)` is another C name of the same member.
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

/// Defines a union: `name[size, align] { arm: type, … }`. It has this size and alignment, and every arm is at offset 0.
///
/// An arm with `since` is an integer and is listed in `FIELDS`. The other arms are structs.
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
            /// The arms that are integers.
            pub const FIELDS: &'static [crate::Field] = &[$($(
                crate::Field {
                    name: crate::abi::unraw(stringify!($arm)),
                    offset: core::mem::offset_of!($name, $arm),
                    size: size_of::<$ty>(),
                    since: crate::Version::new($major, $minor),
                },
            )?)*];
        }

        // It is not known which arm is valid, so none is printed.
        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

/// Defines constants and their table:
/// `pub TABLE: type, btf { NAME = value, since (major, minor); … }`.
///
/// `btf` marks constants that the kernel's BTF lists, and `header` those that only the header has.
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
