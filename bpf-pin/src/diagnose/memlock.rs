//! Whether the kernel charges maps to `RLIMIT_MEMLOCK`, as before Linux 5.11, found by calling.
//!
//! The maps asked for are invalid, so none is created. One that is over the limit is refused for that
//! first.

use std::sync::atomic::{AtomicBool, Ordering};

use bpf_pin_sys as abi;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::Cause;
use crate::process::is_filtered;
use crate::sys;

/// EPERM of a map or program that the thread may create otherwise, if this kernel charges it to the limit.
#[cold]
pub(crate) fn memlock() -> Option<Cause> {
    let limit = getrlimit(Resource::Memlock).current?;
    let is_charged = !is_filtered() && memlock_is_charged(limit) == Some(true);
    is_charged.then_some(Cause::Memlock { limit })
}

/// Whether a map that is over the limit is refused. None if that is not proven, as for a thread that may
/// create no maps.
pub(crate) fn memlock_is_charged(limit: u64) -> Option<bool> {
    /// This kernel does not charge maps.
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

/// Whether `call` fails for the limit. With a flag that no map and no program has it fails before that. A
/// security module refuses both calls, and is not mistaken for the limit.
pub(crate) fn is_refused(call: impl Fn(u32) -> Errno) -> Option<bool> {
    const NO_FLAG: u32 = 1 << 31;

    match (call(NO_FLAG), call(0)) {
        (Errno::INVAL, Errno::PERM) => Some(true),
        (Errno::INVAL, Errno::INVAL | Errno::ACCESS) => Some(false),
        _ => None,
    }
}

/// A hash that allocates elements on demand is charged for all of them at once, and takes little memory on
/// a kernel that charges nothing.
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

/// The kernel checks the name after it has allocated the map, and no map can have this one.
pub(crate) fn create_misnamed(mut attr: abi::bpf_attr_map_create) -> Errno {
    attr.key_size = 4;
    attr.map_name[0] = b'?' as _;
    sys::map_create(attr, &[]).err().unwrap_or(Errno::IO)
}
