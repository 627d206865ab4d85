//! Probes whether the kernel charges maps to `RLIMIT_MEMLOCK`, as before Linux 5.11.
//!
//! The probe requests invalid maps, so none is created. If a map is over the limit, the kernel rejects it for
//! the limit first.

use std::sync::atomic::{AtomicBool, Ordering};

use bpf_pin_sys as abi;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::Cause;
use crate::process::is_filtered;
use crate::sys;

/// The cause of EPERM, if this thread has the privileges to create the map or program.
#[cold]
pub(crate) fn memlock() -> Option<Cause> {
    let limit = getrlimit(Resource::Memlock).current?;
    let is_charged = !is_filtered() && memlock_is_charged(limit) == Some(true);
    is_charged.then_some(Cause::Memlock { limit })
}

/// True if the kernel rejects a map over the limit. `None` if that could not be determined, for example
/// because this thread may not create maps.
pub(crate) fn memlock_is_charged(limit: u64) -> Option<bool> {
    /// Set once this kernel is known not to charge maps.
    static IS_NOT_CHARGED: AtomicBool = AtomicBool::new(false);

    if IS_NOT_CHARGED.load(Ordering::Relaxed) {
        return Some(false);
    }
    let is_charged = fails_for_limit(|flags| create_over(limit, flags));
    if is_charged == Some(false) {
        IS_NOT_CHARGED.store(true, Ordering::Relaxed);
    }
    is_charged
}

/// True if `call` fails because of the limit. With a flag that does not exist it fails before the limit is
/// checked. A security module rejects both calls, so it is not mistaken for the limit.
fn fails_for_limit(call: impl Fn(u32) -> Errno) -> Option<bool> {
    const INVALID_FLAG: u32 = 1 << 31;

    match (call(INVALID_FLAG), call(0)) {
        (Errno::INVAL, Errno::PERM) => Some(true),
        (Errno::INVAL, Errno::INVAL | Errno::ACCESS) => Some(false),
        _ => None,
    }
}

/// Requests a hash that allocates its elements on demand. It is charged for all elements at once, but uses
/// little memory on a kernel that charges nothing.
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

/// Requests a map with an invalid name, which the kernel checks after it has allocated the map.
fn create_misnamed(mut attr: abi::bpf_attr_map_create) -> Errno {
    attr.key_size = 4;
    attr.map_name[0] = b'?' as _;
    sys::map_create(attr, &[]).err().unwrap_or(Errno::IO)
}
