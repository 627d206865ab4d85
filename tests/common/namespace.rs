//! Threads with their own namespaces, users and seccomp filters.

use std::io;
use std::mem::zeroed;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use bpf_pin::abi;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags, set_capabilities, set_keep_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
};

use crate::with_same_death_signal;

/// Runs `test` on a thread with its own mounts, which do not propagate to the machine.
pub fn in_mount_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    in_a_namespace(UnshareFlags::NEWNS, || {
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        mount_change("/", private).expect("private mounts");
        test()
    })
}

/// Runs `test` with the root of a bpffs that is mounted for its thread alone.
pub fn with_mounted_bpffs<T: Send>(test: impl FnOnce(&Path) -> T + Send) -> T {
    // Declared first, so that it is removed after the namespace's mounts are gone.
    let root = tempfile::tempdir().expect("a mount point");
    in_mount_namespace(|| {
        mount("bpf", root.path(), "bpf", MountFlags::empty(), None).expect("a bpffs");
        test(root.path())
    })
}

/// Runs `test` on a thread with its own network.
pub fn in_network_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    in_a_namespace(UnshareFlags::NEWNET, test)
}

/// `ip link set lo up` in this thread's network namespace.
pub fn bring_up_loopback() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq consists of integers, so all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request takes the address of an ifreq, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Runs `test` on a thread of an ordinary user that has only these capabilities.
pub fn as_user<T: Send>(capabilities: CapabilitySet, test: impl FnOnce() -> T + Send) -> T {
    on_a_thread(|| {
        become_user(1234, capabilities);
        test()
    })
}

/// Makes this thread run as an ordinary user that has only these capabilities.
pub fn become_user(id: u32, capabilities: CapabilitySet) {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    with_same_death_signal(|| {
        set_thread_groups(&[]).expect("no other groups");
        set_thread_res_gid(group, group, group).expect("another group");
        set_keep_capabilities(true).expect("capabilities that outlast the user");
        set_thread_res_uid(user, user, user).expect("another user");
        keep_only(capabilities);
    });
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
        unsafe { unshare_unsafe(flags) }.expect("a new namespace");
        test()
    })
}

fn on_a_thread<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let result = thread::scope(|scope| scope.spawn(test).join());
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Runs `test` on a thread where a seccomp filter fails bpf(2) with `errno`: calls of this command, or all.
/// Needs no privileges.
pub fn with_bpf_errno<T: Send>(cmd: Option<u32>, errno: u32, test: impl FnOnce() -> T + Send) -> T {
    with_seccomp_errno(libc::SYS_bpf, cmd.map(|cmd| (0, cmd)), errno, test)
}

/// Runs `test` on a thread where a seccomp filter fails a syscall with `errno`, or lets it return 0 without effect if
/// that is 0. `argument` restricts that to calls with this value in the argument of this number.
pub fn with_seccomp_errno<T: Send>(
    call: libc::c_long,
    argument: Option<(u32, u32)>,
    errno: u32,
    test: impl FnOnce() -> T + Send,
) -> T {
    on_a_thread(|| {
        set_seccomp_errno(call, argument, errno);
        test()
    })
}

/// As [`with_seccomp_errno`], for this thread until it ends.
pub fn set_seccomp_errno(call: libc::c_long, argument: Option<(u32, u32)>, errno: u32) {
    set_seccomp(call, argument, libc::SECCOMP_RET_ERRNO | errno, 0);
}

/// Returns the listener if the flags ask for one, and 0 otherwise.
fn set_seccomp(
    call: libc::c_long,
    argument: Option<(u32, u32)>,
    action: u32,
    flags: libc::c_ulong,
) -> libc::c_int {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    // struct seccomp_data: first the number, and from offset 16 on the arguments of 8 bytes each.
    const FIRST_ARGUMENT: u32 = 16 + if cfg!(target_endian = "big") { 4 } else { 0 };
    let op = |code, k, jf| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let equals = |k, jf| op(BPF_JMP | BPF_JEQ | BPF_K, k, jf);
    let load = |at| op(BPF_LD | BPF_W | BPF_ABS, at, 0);
    let answer = |k| op(BPF_RET | BPF_K, k, 0);
    let mut filter = vec![load(0)];
    match argument {
        None => filter.push(equals(call as u32, 1)),
        Some((number, value)) => filter.extend([
            equals(call as u32, 3),
            load(FIRST_ARGUMENT + 8 * number),
            equals(value, 1),
        ]),
    }
    filter.extend([answer(action), answer(libc::SECCOMP_RET_ALLOW)]);
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    set_no_new_privs(true).expect("no new privileges");
    // SAFETY: the program has the given length; only this thread is filtered.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, 1, flags, &raw const program) };
    assert!(done >= 0, "seccomp: {}", io::Error::last_os_error());
    done as libc::c_int
}

/// Runs `test` on a thread where each `BPF_PROG_TEST_RUN` runs the program and then fails with EINTR, as it does before
/// Linux 5.12 if a signal arrives during the run. Returns the result of `test` and the number of runs.
pub fn with_interrupted_runs<T: Send>(test: impl FnOnce() -> T + Send) -> (T, u32) {
    let (sender, listener) = mpsc::channel();
    thread::scope(|scope| {
        let tested = scope.spawn(move || {
            let command = Some((0, abi::BPF_PROG_TEST_RUN));
            let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            let fd = set_seccomp(libc::SYS_bpf, command, libc::SECCOMP_RET_USER_NOTIF, flags);
            // SAFETY: the kernel has just opened it, and nothing else owns it.
            sender.send(unsafe { OwnedFd::from_raw_fd(fd) }).unwrap();
            test()
        });
        let mut runs = 0;
        let Ok(listener) = listener.recv() else {
            panic::resume_unwind(tested.join().err().unwrap());
        };
        while !tested.is_finished() {
            runs += u32::from(interrupt_run(&listener));
        }
        let result = tested.join();
        (
            result.unwrap_or_else(|panic| panic::resume_unwind(panic)),
            runs,
        )
    })
}

/// Answers one call of the filtered thread, after up to 10 ms: runs the program for it and fails the call with EINTR.
/// False if there was no run.
fn interrupt_run(listener: &OwnedFd) -> bool {
    let mut ready = libc::pollfd {
        fd: listener.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&raw mut ready, 1, 10) };
    if ready.revents & libc::POLLIN == 0 {
        return false;
    }
    let fd = listener.as_raw_fd();
    // SAFETY: zeroes are a valid value of both structs, and the kernel requires them. The thread waits with its attr,
    // whose addresses stay valid until the answer. The run writes to a copy of it.
    unsafe {
        let mut call: libc::seccomp_notif = zeroed();
        let received = libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call);
        assert_eq!(received, 0, "{}", io::Error::last_os_error());
        let attr = call.data.args[1] as *const abi::bpf_attr_test;
        let has_run = !attr.is_null();
        if has_run {
            let mut attr = attr.read();
            let size = size_of_val(&attr) as u32;
            let ran = abi::bpf(abi::BPF_PROG_TEST_RUN, (&raw mut attr).cast(), size);
            assert_eq!(ran, 0, "{}", io::Error::last_os_error());
        }
        let mut answer: libc::seccomp_notif_resp = zeroed();
        answer.id = call.id;
        // A call without an attr asks for filters, and is answered as the kernel does.
        answer.error = if has_run { -libc::EINTR } else { -libc::EFAULT };
        let sent = libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
        assert_eq!(sent, 0, "{}", io::Error::last_os_error());
        has_run
    }
}
