//! Whether the kernel charges maps and programs to `RLIMIT_MEMLOCK`, found out by calling: no version is
//! parsed.
//!
//! All that is asked for is refused, sooner or later, for what is wrong with it. What is charged is
//! refused in between where it is over the limit.

use std::sync::atomic::{AtomicBool, Ordering};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::prog::Insn;
use crate::sys::{self, ProgData, Records};

/// What there is of the limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Charge {
    /// Whether the least map is within it.
    pub(super) has_room_for_maps: bool,
    /// Whether the least program is.
    pub(super) has_room_for_progs: bool,
}

impl Charge {
    /// Of a thread that may create maps and load programs, of some types at least, on a kernel that
    /// charges them.
    pub(super) fn now() -> Self {
        Self {
            has_room_for_maps: is_refused(create_least) != Some(true),
            has_room_for_progs: is_refused(load_least) != Some(true),
        }
    }
}

/// Whether a map that is over the limit is refused; None where it is not proven. Of a thread that may
/// create maps.
pub(super) fn is_charged(limit: u64) -> Option<bool> {
    /// This kernel was found not to charge them.
    static IS_NOT: AtomicBool = AtomicBool::new(false);

    if IS_NOT.load(Ordering::Relaxed) {
        return Some(false);
    }
    let is_charged = is_refused(|flags| create_over(limit, flags));
    if is_charged == Some(false) {
        IS_NOT.store(true, Ordering::Relaxed);
    }
    is_charged
}

/// No map and no program has it, and what asks for it is refused before it is charged.
const NO_FLAG: u32 = 1 << 31;

/// A security module, which refuses both, is not taken for the limit.
fn is_refused(call: impl Fn(u32) -> Errno) -> Option<bool> {
    match (call(NO_FLAG), call(0)) {
        (Errno::INVAL, Errno::PERM) => Some(true),
        (Errno::INVAL, Errno::INVAL | Errno::ACCESS) => Some(false),
        _ => None,
    }
}

/// A hash that allocates its elements when they come is charged for all of them: it is over the limit,
/// and takes little memory where nothing is charged.
fn create_over(limit: u64, flags: u32) -> Errno {
    const VALUE_SIZE: u32 = 4096;
    let Ok(max_entries) = u32::try_from(limit / u64::from(VALUE_SIZE) + 1) else {
        return Errno::TOOBIG;
    };
    create_misnamed(abi::bpf_attr_map_create {
        map_type: abi::BPF_MAP_TYPE_HASH,
        value_size: VALUE_SIZE,
        max_entries,
        map_flags: abi::BPF_F_NO_PREALLOC | flags,
        ..abi::bpf_attr_map_create::zeroed()
    })
}

fn create_least(flags: u32) -> Errno {
    create_misnamed(abi::bpf_attr_map_create {
        map_type: abi::BPF_MAP_TYPE_ARRAY,
        value_size: 8,
        max_entries: 1,
        map_flags: flags,
        ..abi::bpf_attr_map_create::zeroed()
    })
}

/// The name is looked at when all is allocated, and is none that a map can have.
fn create_misnamed(mut attr: abi::bpf_attr_map_create) -> Errno {
    attr.key_size = 4;
    attr.map_name[0] = b'?' as _;
    sys::map_create(attr, &[]).err().unwrap_or(Errno::IO)
}

/// The verifier refuses a program that returns nothing.
fn load_least(prog_flags: u32) -> Errno {
    let attr = abi::bpf_attr_prog_load {
        prog_type: abi::BPF_PROG_TYPE_SOCKET_FILTER,
        prog_flags,
        ..abi::bpf_attr_prog_load::zeroed()
    };
    let data = ProgData {
        insns: &[Insn::exit()],
        license: c"",
        func_info: Records::default(),
        line_info: Records::default(),
        core_relos: Records::default(),
        fd_array: &[],
        keeps_fd_array: false,
        signature: &[],
    };
    let (loaded, _) = sys::prog_load(attr, &data, &mut []);
    loaded.err().unwrap_or(Errno::IO)
}
