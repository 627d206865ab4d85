//! `BPF_MAP_CREATE`: creates a map.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::diagnose;
use crate::error::mismatch::MapFields;
use crate::error::{Cause, Error, Operation, Reason, Result, Subject};
use crate::map::Map;
use crate::sys::{self, NonZeroFd};
use crate::token::Token;
use crate::types::{Command, InvalidName, MapFlags, MapType, ObjName};

/// The description of a map: the arguments of `BPF_MAP_CREATE`.
///
/// [`new`](Self::new) sets what every map has, the setters add the rest, and [`create`](Self::create) creates
/// the map. The setters check nothing.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::types::MapFlags;
/// use bpf_pin::{MapSpec, MapType};
///
/// let routes = MapSpec::new(MapType::LPM_TRIE, 8, 4, 10_000)
///     .flags(MapFlags::NO_PREALLOC)
///     .name("routes")
///     .create()?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MapSpec<'fd> {
    pub(super) map_type: MapType,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: MapFlags,
    pub(super) name: ObjName,
    /// The argument of [`name`](Self::name), if it is not a valid name.
    invalid_name: Option<String>,
    pub(super) inner: Option<BorrowedFd<'fd>>,
    numa_node: Option<u32>,
    pub(super) ifindex: u32,
    btf: Option<BorrowedFd<'fd>>,
    pub(super) btf_key_type_id: u32,
    pub(super) btf_value_type_id: u32,
    pub(super) btf_vmlinux_value_type_id: u32,
    pub(super) map_extra: u64,
    value_type_btf: Option<BorrowedFd<'fd>>,
    token: Option<&'fd Token>,
    excl_prog_hash: &'fd [u8],
    pub(super) compared: MapFields,
}

impl<'fd> MapSpec<'fd> {
    /// Describes a map with room for `max_entries` elements. Key and value sizes are in bytes.
    pub fn new(map_type: MapType, key_size: u32, value_size: u32, max_entries: u32) -> Self {
        Self {
            map_type,
            key_size,
            value_size,
            max_entries,
            flags: MapFlags::empty(),
            name: ObjName::default(),
            invalid_name: None,
            inner: None,
            numa_node: None,
            ifindex: 0,
            btf: None,
            btf_key_type_id: 0,
            btf_value_type_id: 0,
            btf_vmlinux_value_type_id: 0,
            map_extra: 0,
            value_type_btf: None,
            token: None,
            excl_prog_hash: &[],
            compared: MapFields::default(),
        }
    }

    /// Sets `map_flags`. Linux 4.6.
    pub fn flags(mut self, flags: MapFlags) -> Self {
        self.flags = flags;
        self
    }

    /// Sets `map_name`: up to 15 letters, digits, '_' and '.'. Linux 4.15; the '.' 5.2.
    pub fn name(mut self, name: &str) -> Self {
        (self.name, self.invalid_name) = match ObjName::new(name) {
            Ok(name) => (name, None),
            Err(invalid) => (ObjName::default(), Some(invalid.name)),
        };
        self
    }

    /// Sets `inner_map_fd`: the template for the maps that a map of maps will hold. Linux 4.12.
    pub fn inner_map(mut self, inner: &'fd Map) -> Self {
        self.inner = Some(inner.as_fd());
        self
    }

    /// Sets `numa_node` and `BPF_F_NUMA_NODE`: the node for the map's memory. Linux 4.14.
    pub fn numa_node(mut self, node: u32) -> Self {
        self.numa_node = Some(node);
        self
    }

    /// The flags, including those that other setters imply.
    pub(super) fn all_flags(&self) -> MapFlags {
        match self.numa_node {
            Some(_) => self.flags | MapFlags::NUMA_NODE,
            None => self.flags,
        }
    }

    /// Sets `map_ifindex`: the device to offload the map to. Linux 4.16.
    pub fn ifindex(mut self, ifindex: u32) -> Self {
        self.ifindex = ifindex;
        self
    }

    /// Sets `btf_fd`, `btf_key_type_id` and `btf_value_type_id`: the types of key and value. Linux 4.18.
    ///
    /// `btf` is an object from `BPF_BTF_LOAD`. Storage of sockets, inodes, tasks and cgroups requires it.
    pub fn btf(mut self, btf: &'fd impl AsFd, key_type_id: u32, value_type_id: u32) -> Self {
        self.btf = Some(btf.as_fd());
        self.btf_key_type_id = key_type_id;
        self.btf_value_type_id = value_type_id;
        self
    }

    /// Sets `btf_vmlinux_value_type_id`: the value type of a struct_ops map, in the kernel's BTF. Linux 5.6.
    ///
    /// The kernel also requires [`btf`](Self::btf), and ignores its contents: pass any BTF object, with 0 for
    /// both types.
    pub fn btf_vmlinux_value_type_id(mut self, id: u32) -> Self {
        self.btf_vmlinux_value_type_id = id;
        self
    }

    /// Sets `value_type_btf_obj_fd` and `BPF_F_VTYPE_BTF_OBJ_FD`: the BTF of the module that defines the type
    /// of [`btf_vmlinux_value_type_id`](Self::btf_vmlinux_value_type_id). Linux 6.9.
    pub fn value_type_btf(mut self, btf: &'fd impl AsFd) -> Self {
        self.value_type_btf = Some(btf.as_fd());
        self
    }

    /// Sets `map_extra`, which has a meaning of its own for each type. Linux 5.16.
    pub fn map_extra(mut self, extra: u64) -> Self {
        self.map_extra = extra;
        self
    }

    /// Sets `map_token_fd` and `BPF_F_TOKEN_FD`: the token that allows creating the map. Linux 6.9.
    pub fn token(mut self, token: &'fd Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Sets `excl_prog_hash`: only the program with this SHA-256, of 32 bytes, may use the map. Linux 6.18.
    pub fn excl_prog_hash(mut self, hash: &'fd [u8]) -> Self {
        self.excl_prog_hash = hash;
        self
    }

    /// `BPF_MAP_CREATE`: creates the map. Linux 3.18.
    ///
    /// The numbers are passed to the kernel as they are. [`open_or_create`](crate::PinDir::open_or_create)
    /// rounds them first, for example the size of a ring buffer.
    ///
    /// # Errors
    ///
    /// [`Operation::CreateMap`](crate::error::Operation::CreateMap):
    /// - [`InvalidArgument`](Cause::InvalidArgument), without a syscall, for an invalid name, for a map of
    ///   maps without [`inner_map`](Self::inner_map), and for
    ///   [`btf_vmlinux_value_type_id`](Self::btf_vmlinux_value_type_id) without [`btf`](Self::btf)
    /// - [`InvalidArgument`](Cause::InvalidArgument) (EINVAL) for a size or flag that violates a rule of the
    ///   type
    /// - EINVAL for other invalid combinations of fields, and for a type that the kernel does not know
    /// - E2BIG if the map would be too large: [`InvalidArgument`](Cause::InvalidArgument) if a map with one
    ///   entry would not be
    /// - ENOMEM
    /// - [`MissingCapability`](Cause::MissingCapability), [`UserNamespace`](Cause::UserNamespace) or
    ///   [`Memlock`](Cause::Memlock) (EPERM)
    /// - [`NotDelegated`](Cause::NotDelegated) (EPERM) for what the [`token`](Self::token) does not allow. What it
    ///   allows still takes the capability, in the token's user namespace.
    /// - [`Filtered`](Cause::Filtered) if a seccomp filter rejects the command
    ///
    /// # References
    ///
    /// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), kernel/bpf/syscall.c: `map_create`
    pub fn create(&self) -> Result<Map> {
        if let Some(name) = &self.invalid_name {
            let name = name.clone();
            return Err(self.error(InvalidName { name }.into()));
        }
        self.check_descriptors()
            .map_err(|cause| self.error(cause.into()))?;
        self.create_raw().map_err(|errno| {
            let cause = match errno {
                Errno::PERM => self.memlock().or_else(|| self.unprivileged()),
                Errno::INVAL => self.violated_rule(),
                Errno::TOOBIG => self.too_many_entries(),
                _ => None,
            };
            self.error(Reason::new(errno, cause))
        })
    }

    /// Rejects fields that need a descriptor and have none: the kernel would read them as descriptor 0.
    fn check_descriptors(&self) -> Result<(), Cause> {
        let is_of_maps = matches!(
            self.map_type,
            MapType::ARRAY_OF_MAPS | MapType::HASH_OF_MAPS
        );
        let has_flag = |flag| self.flags.bits() & flag != 0;
        let what = if is_of_maps && self.inner.is_none() {
            "inner_map"
        } else if self.btf_vmlinux_value_type_id != 0 && self.btf.is_none() {
            "btf"
        } else if has_flag(abi::BPF_F_VTYPE_BTF_OBJ_FD) && self.value_type_btf.is_none() {
            "BPF_F_VTYPE_BTF_OBJ_FD"
        } else if has_flag(abi::BPF_F_TOKEN_FD) && self.token.is_none() {
            "BPF_F_TOKEN_FD"
        } else {
            return Ok(());
        };
        Err(Cause::no_descriptor(what))
    }

    fn create_raw(&self) -> Result<Map, Errno> {
        let inner = NonZeroFd::new(self.inner)?;
        let btf = NonZeroFd::new(self.btf)?;
        let (token_fd, token_flag) = Token::argument(self.token);
        let (value_type_btf, value_type_flag) = match self.value_type_btf {
            Some(btf) => (btf.as_raw_fd(), abi::BPF_F_VTYPE_BTF_OBJ_FD),
            None => (0, 0),
        };
        let attr = abi::bpf_attr_map_create {
            map_type: self.map_type.0,
            key_size: self.key_size,
            value_size: self.value_size,
            max_entries: self.max_entries,
            map_flags: self.all_flags().bits() | token_flag | value_type_flag,
            inner_map_fd: inner.number(),
            numa_node: self.numa_node.unwrap_or(0),
            map_name: self.name.into_raw(),
            map_ifindex: self.ifindex,
            btf_fd: btf.number(),
            btf_key_type_id: self.btf_key_type_id,
            btf_value_type_id: self.btf_value_type_id,
            btf_vmlinux_value_type_id: self.btf_vmlinux_value_type_id,
            map_extra: self.map_extra,
            value_type_btf_obj_fd: value_type_btf,
            map_token_fd: token_fd,
            ..abi::bpf_attr_map_create::zeroed()
        };
        sys::map_create(attr, self.excl_prog_hash).map(Map::from_proven_fd)
    }

    #[cold]
    fn unprivileged(&self) -> Option<Cause> {
        let forbidden = self.token.and_then(|token| {
            token.forbids(Command::MAP_CREATE, |allowed| {
                let is_allowed = allowed.maps.contains(self.map_type);
                (!is_allowed).then(|| format!("maps of type {}", self.map_type))
            })
        });
        forbidden.or_else(|| diagnose::for_map(self.map_type, self.token.is_some()))
    }

    /// `RLIMIT_MEMLOCK` is the cause if the smallest map of the type can be created.
    #[cold]
    fn memlock(&self) -> Option<Cause> {
        diagnose::memlock().filter(|_| self.is_created_with_one_entry())
    }

    #[cold]
    fn too_many_entries(&self) -> Option<Cause> {
        let (max_entries, map_type) = (self.max_entries, self.map_type);
        self.is_created_with_one_entry().then(|| {
            let problem =
                format!("is {max_entries}, more than this kernel allows for this {map_type} map");
            Cause::invalid("max_entries", problem)
        })
    }

    fn is_created_with_one_entry(&self) -> bool {
        // The smallest ring buffer depends on the page size.
        if matches!(self.map_type, MapType::RINGBUF | MapType::USER_RINGBUF) || self.max_entries < 2
        {
            return false;
        }
        let smallest = Self {
            max_entries: 1,
            ..self.clone()
        };
        smallest.create_raw().is_ok()
    }

    #[cold]
    pub(super) fn error(&self, reason: Reason) -> Error {
        Error::new(Operation::CreateMap, reason).of(Subject::Map {
            map_type: self.map_type,
            name: self.name.to_string(),
        })
    }
}
