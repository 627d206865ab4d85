//! Why a program could not be attached.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bpf_pin_sys as abi;
use bpf_pin_sys::Version;
use rustix::fs::{FileType, fstat, fstatfs};
use rustix::io::Errno;
use rustix::net::netdevice::index_to_name_inlined;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::Cause;
use crate::process::is_filtered;
use crate::sys::{self, ProgData};
use crate::types::{AttachType, FileSystem};

/// EINVAL for a device's attach type: a query shows whether the kernel has it.
pub(crate) fn for_attach_type(attach_type: AttachType) -> Option<Cause> {
    let (what, since) = match attach_type {
        AttachType::TCX_INGRESS => ("BPF_TCX_INGRESS", Version::new(6, 6)),
        AttachType::TCX_EGRESS => ("BPF_TCX_EGRESS", Version::new(6, 6)),
        AttachType::NETKIT_PRIMARY => ("BPF_NETKIT_PRIMARY", Version::new(6, 7)),
        AttachType::NETKIT_PEER => ("BPF_NETKIT_PEER", Version::new(6, 7)),
        _ => return None,
    };
    let is_unknown = !is_filtered() && sys::probe_attach_type(attach_type.0) == Errno::INVAL;
    is_unknown.then_some(Cause::Unsupported { what, since })
}

/// ENOENT of a raw tracepoint: only the lookup of its name returns that.
pub(crate) fn for_tracepoint(name: &CStr) -> Option<Cause> {
    let what = format!("tracepoint {}", name.to_string_lossy());
    (!is_filtered()).then_some(Cause::NoTarget { what })
}

/// EINVAL of a raw tracepoint with a cookie.
pub(crate) fn for_tracepoint_cookie() -> Option<Cause> {
    let is_unknown = !is_filtered() && sys::probe_raw_tracepoint_cookie() == Errno::INVAL;
    is_unknown.then_some(Cause::Unsupported {
        what: "raw_tracepoint.cookie",
        since: Version::new(6, 10),
    })
}

/// ENODEV, or EINVAL, which XDP returns instead.
pub(crate) fn for_device(ifindex: u32) -> Option<Cause> {
    let flags = SocketFlags::CLOEXEC;
    let any = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).ok()?;
    let is_missing = index_to_name_inlined(any, ifindex) == Err(Errno::NODEV);
    is_missing.then(|| Cause::no_device(ifindex))
}

/// EBUSY or EEXIST of XDP: finds the program that the device has.
pub(crate) fn for_xdp(ifindex: u32) -> Option<Cause> {
    let progs = sys::xdp_progs(ifindex).ok()?;
    let by_mode = [progs.driver, progs.generic, progs.offloaded];
    let prog_id = by_mode.into_iter().find(|id| *id != 0)?;
    Some(Cause::XdpAttached { ifindex, prog_id })
}

/// EINVAL of an update of an XDP link: the programs were loaded with different expected attach types, which the
/// kernel does not report. Proven with scratch prog arrays if the kernel compares the types there. Otherwise it
/// is likely, and the cause says so. `None` if they are proven to be the same.
pub(crate) fn for_xdp_update(new: BorrowedFd<'_>, old: Option<BorrowedFd<'_>>) -> Option<Cause> {
    let old = old.and_then(xdp_attach_type);
    match (old, xdp_attach_type(new)) {
        (Some(expected), Some(found)) if expected == found => None,
        (expected, found) => Some(Cause::ExpectedAttachType { expected, found }),
    }
}

/// 0 or XDP. `None` if the program has another type, or other properties that prog arrays compare.
fn xdp_attach_type(prog: BorrowedFd<'_>) -> Option<AttachType> {
    let load = |attach_type: AttachType| {
        let attr = abi::bpf_attr_prog_load {
            prog_type: abi::BPF_PROG_TYPE_XDP,
            expected_attach_type: attach_type.0,
            ..abi::bpf_attr_prog_load::zeroed()
        };
        let insns = [abi::bpf_insn::mov64_imm(0, 2), abi::bpf_insn::exit()];
        let data = ProgData::new(&insns);
        sys::prog_load(attr, &data, &mut []).0.ok()
    };
    let types = [AttachType(0), AttachType::XDP];
    let scratch = [load(types[0])?, load(types[1])?];
    let accepts = |scratch: &OwnedFd, prog| sys::share_prog_array(scratch.as_fd(), prog).ok();
    // Before Linux 6.18 and its backports prog arrays do not compare the type.
    if accepts(&scratch[0], scratch[1].as_fd())? {
        return None;
    }
    let found = scratch
        .iter()
        .position(|it| accepts(it, prog) == Some(true));
    found.map(|at| types[at])
}

/// EBADF for a control group.
pub(crate) fn for_cgroup(fd: BorrowedFd<'_>) -> Option<Cause> {
    let found = FileSystem::from_stat(&fstatfs(fd).ok()?);
    // A file of the group, such as cgroup.procs, is none either.
    let is_directory = || {
        let stat = fstat(fd).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    };
    let is_wrong = found != FileSystem::CGROUP2 || is_directory() == Some(false);
    is_wrong.then(|| Cause::WrongDescriptor {
        expected: "a cgroup2 directory",
        found: Some(format!("a file on {found}")),
    })
}

/// ENOENT for a control group: a query of it fails likewise if it was removed.
pub(crate) fn for_removed_cgroup(fd: BorrowedFd<'_>, attach_type: AttachType) -> Option<Cause> {
    let buffers = sys::QueryBuffers {
        prog_ids: &mut [],
        link_ids: &mut [],
        prog_flags: &mut [],
    };
    let (result, _) = sys::prog_query(fd.as_raw_fd() as u32, attach_type.0, 0, buffers);
    if result != Err(Errno::NOENT) || is_filtered() {
        return None;
    }
    let id = sys::kernfs_id(fd).ok()?;
    let what = format!("control group {id}: it was removed");
    Some(Cause::NoTarget { what })
}

/// Checks a program before a control group's link is updated with it.
///
/// When a program is attached, the kernel compares its `expected_attach_type`; when a link is updated, only
/// the program's type. The probe attaches to no group, so it has no effect.
pub(crate) fn for_prog_of_link(prog: BorrowedFd<'_>, attach_type: AttachType) -> Option<Cause> {
    let is_rejected =
        sys::probe_cgroup_attach(prog, attach_type.0) == Errno::INVAL && !is_filtered();
    is_rejected.then_some(Cause::NotLoadedFor { attach_type })
}
