//! Namespaces and users of a test's own, gone with the thread that has them.

use std::panic;
use std::thread;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags, set_capabilities, set_keep_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
};

/// Runs `test` on a thread with mounts of its own, none of which reach the machine's.
pub fn own_mounts<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    in_a_namespace(UnshareFlags::NEWNS, || {
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        mount_change("/", private).expect("private mounts");
        test()
    })
}

/// Runs `test` on a thread with a network of its own.
pub fn own_network<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    in_a_namespace(UnshareFlags::NEWNET, test)
}

/// Runs `test` on a thread of an ordinary user that has these capabilities and no others.
pub fn as_user<T: Send>(capabilities: CapabilitySet, test: impl FnOnce() -> T + Send) -> T {
    on_a_thread(|| {
        become_user(1234, capabilities);
        test()
    })
}

/// Makes this thread one of an ordinary user that has these capabilities and no others.
pub fn become_user(id: u32, capabilities: CapabilitySet) {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_groups(&[]).expect("no other groups");
    set_thread_res_gid(group, group, group).expect("another group");
    set_keep_capabilities(true).expect("capabilities that outlast the user");
    set_thread_res_uid(user, user, user).expect("another user");
    keep_only(capabilities);
}

/// Runs `test` on a thread of the same user that has no capabilities.
pub(crate) fn without_capabilities<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    on_a_thread(|| {
        keep_only(CapabilitySet::empty());
        test()
    })
}

fn keep_only(capabilities: CapabilitySet) {
    let sets = CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).expect("fewer capabilities");
}

fn in_a_namespace<T: Send>(flags: UnshareFlags, test: impl FnOnce() -> T + Send) -> T {
    on_a_thread(|| {
        // SAFETY: no NEWUSER or FILES: only this thread's view of mounts or network changes.
        unsafe { unshare_unsafe(flags) }.expect("a namespace of the test's own");
        test()
    })
}

fn on_a_thread<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let result = thread::scope(|scope| scope.spawn(test).join());
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}
