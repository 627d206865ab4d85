//! Links.

use std::ffi::CStr;
use std::mem::{offset_of, size_of};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr;

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::object::info;
use super::{Result, address, address_mut, bpf, new_fd, raw};

/// The arguments that depend on the attach point.
#[derive(Clone, Copy)]
pub(crate) enum LinkOpts<'a> {
    None,
    /// For TCX, netkit and control groups: the position among the programs there, and the expected revision.
    Beside {
        relative: u32,
        expected_revision: u64,
    },
    Iter(abi::bpf_iter_link_info_map),
    IterCgroup(abi::bpf_iter_link_info_cgroup),
    IterTask(abi::bpf_iter_link_info_task),
    PerfEvent {
        cookie: u64,
    },
    Tracing {
        target_btf_id: u32,
        cookie: u64,
    },
    Kprobes {
        flags: u32,
        functions: Functions<'a>,
        cookies: &'a [u64],
    },
    Uprobes {
        flags: u32,
        uprobes: Uprobes<'a>,
        cookies: &'a [u64],
    },
    Netfilter(abi::bpf_attr_link_create_netfilter),
}

/// Functions of the kernel, by name or by address.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Functions<'a> {
    Names(&'a [&'a CStr]),
    Addresses(&'a [u64]),
}

impl Functions<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Names(names) => names.len(),
            Self::Addresses(addresses) => addresses.len(),
        }
    }
}

/// Probe points in an executable or library, for [`LinkSpec::uprobe_multi`](crate::LinkSpec::uprobe_multi).
///
/// The caller guarantees that the offsets are right: the kernel writes to the memory of every process that
/// maps the file, this process included.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::link::Uprobes;
/// use bpf_pin::{LinkSpec, Prog};
///
/// let prog = Prog::open("/sys/fs/bpf/on_request")?;
/// // From the file's symbol table.
/// let offsets = [0x1230];
/// // SAFETY: a function starts there.
/// let uprobes = unsafe { Uprobes::new(c"/usr/bin/app", &offsets) };
/// let link = LinkSpec::uprobe_multi(uprobes.pid(1234)).create(&prog)?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
///
/// [`new`](Self::new) and [`ref_ctr_offsets`](Self::ref_ctr_offsets) are unsafe:
///
/// ```compile_fail,E0133
/// let _ = bpf_pin::link::Uprobes::new(c"/proc/self/exe", &[1]);
/// ```
///
/// ```compile_fail,E0133
/// fn count(uprobes: bpf_pin::link::Uprobes<'_>) {
///     let _ = uprobes.ref_ctr_offsets(&[2]);
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Uprobes<'a> {
    path: &'a CStr,
    offsets: &'a [u64],
    ref_ctr_offsets: &'a [u64],
    pid: u32,
}

impl<'a> Uprobes<'a> {
    /// Probe points in all processes, by their offsets from the beginning of the file, in bytes.
    /// `BPF_TRACE_UPROBE_MULTI`, Linux 6.6.
    ///
    /// # Safety
    ///
    /// For as long as a link is created from it and lives, each offset is the start of an instruction in
    /// the file at `path`. The kernel overwrites the byte there with a breakpoint in every process that
    /// maps the file. In the middle of an instruction the breakpoint changes that instruction. This process
    /// is affected too if the file is its own executable or a library that it uses.
    pub const unsafe fn new(path: &'a CStr, offsets: &'a [u64]) -> Self {
        Self {
            path,
            offsets,
            ref_ctr_offsets: &[],
            pid: 0,
        }
    }

    /// Restricts the probes to one process: `uprobe_multi.pid`.
    pub const fn pid(mut self, process: u32) -> Self {
        self.pid = process;
        self
    }

    /// Sets the offset of each probe point's semaphore, which counts its observers:
    /// `uprobe_multi.ref_ctr_offsets`.
    ///
    /// # Safety
    ///
    /// At each offset the file has a `u16` that is a semaphore for probe points (SystemTap's `sdt.h`), and
    /// that the programs using it only compare with zero. The kernel adds 1 to it in every private writable
    /// mapping of the file, in this process's data too, and subtracts 1 when the link is freed.
    pub const unsafe fn ref_ctr_offsets(mut self, offsets: &'a [u64]) -> Self {
        self.ref_ctr_offsets = offsets;
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// The number of semaphores.
    pub(crate) fn counters(&self) -> usize {
        self.ref_ctr_offsets.len()
    }

    /// The process, or 0 for all.
    pub(crate) fn process(&self) -> u32 {
        self.pid
    }
}

/// `BPF_LINK_CREATE`. The descriptors that the arguments name by number must be open.
pub(crate) fn link_create(
    prog: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
    opts: LinkOpts<'_>,
) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_link_create {
        prog_fd: raw(prog),
        target_fd: target,
        attach_type,
        flags,
        ..abi::bpf_attr_link_create::zeroed()
    };
    // The arm holds their addresses until the call returns.
    let mut iter = abi::bpf_iter_link_info::zeroed();
    let names: Vec<u64>;
    match opts {
        LinkOpts::None => {}
        // The three attach points have the same arm.
        LinkOpts::Beside {
            relative,
            expected_revision,
        } => {
            attr.opts.tcx = abi::bpf_attr_link_create_tcx {
                relative_fd: relative,
                expected_revision,
                ..abi::bpf_attr_link_create_tcx::zeroed()
            };
        }
        LinkOpts::Iter(map) => iter.map = map,
        LinkOpts::IterCgroup(cgroup) => iter.cgroup = cgroup,
        LinkOpts::IterTask(task) => iter.task = task,
        LinkOpts::PerfEvent { cookie } => attr.opts.perf_event.bpf_cookie = cookie,
        LinkOpts::Tracing {
            target_btf_id,
            cookie,
        } => {
            attr.opts.tracing = abi::bpf_attr_link_create_tracing {
                target_btf_id,
                cookie,
                ..abi::bpf_attr_link_create_tracing::zeroed()
            };
        }
        LinkOpts::Kprobes {
            flags,
            functions,
            cookies,
        } => {
            let (syms, addrs) = match functions {
                Functions::Names(symbols) => {
                    names = symbols.iter().map(|name| name.as_ptr() as u64).collect();
                    (address(names.as_slice()), 0)
                }
                Functions::Addresses(addresses) => (0, address(addresses)),
            };
            attr.opts.kprobe_multi = abi::bpf_attr_link_create_kprobe_multi {
                flags,
                cnt: u32::try_from(functions.len()).map_err(|_| Errno::TOOBIG)?,
                syms,
                addrs,
                cookies: column(cookies, functions.len())?,
            };
        }
        LinkOpts::Uprobes {
            flags,
            uprobes,
            cookies,
        } => {
            let count = uprobes.offsets.len();
            attr.opts.uprobe_multi = abi::bpf_attr_link_create_uprobe_multi {
                path: uprobes.path.as_ptr() as u64,
                offsets: address(uprobes.offsets),
                ref_ctr_offsets: column(uprobes.ref_ctr_offsets, count)?,
                cookies: column(cookies, count)?,
                cnt: u32::try_from(count).map_err(|_| Errno::TOOBIG)?,
                flags,
                pid: uprobes.pid,
                ..abi::bpf_attr_link_create_uprobe_multi::zeroed()
            };
        }
        LinkOpts::Netfilter(netfilter) => attr.opts.netfilter = netfilter,
    }
    if let LinkOpts::Iter(_) | LinkOpts::IterCgroup(_) | LinkOpts::IterTask(_) = opts {
        attr.opts.iter = abi::bpf_attr_link_create_iter {
            iter_info: address(&iter),
            iter_info_len: size_of_val(&iter) as u32,
            ..abi::bpf_attr_link_create_iter::zeroed()
        };
    }
    // SAFETY: every address outlives the call and is that of a terminated string, of an initialised struct
    // of the given length, or of an array of cnt elements. LINK_CREATE writes to none of them and returns a
    // descriptor. Only uprobes write to the memory of processes, and the caller that created a Uprobes has
    // guaranteed that this is sound.
    unsafe { new_fd(bpf(abi::BPF_LINK_CREATE, &mut attr)) }
}

/// The address of `count` numbers, or 0 if there are none.
fn column(numbers: &[u64], count: usize) -> Result<u64> {
    match numbers.len() {
        0 => Ok(0),
        len if len == count => Ok(address(numbers)),
        _ => Err(Errno::INVAL),
    }
}

/// `BPF_LINK_CREATE` of a `BPF_MAP_TYPE_STRUCT_OPS` map.
pub(crate) fn link_create_struct_ops(map: BorrowedFd<'_>) -> Result<OwnedFd> {
    link_create(map, 0, abi::BPF_STRUCT_OPS, 0, LinkOpts::None)
}

/// `BPF_RAW_TRACEPOINT_OPEN`. Without a name the program's own attach point is used.
pub(crate) fn raw_tracepoint_open(
    prog: BorrowedFd<'_>,
    name: Option<&CStr>,
    cookie: u64,
) -> Result<OwnedFd> {
    open_raw_tracepoint(raw(prog), name, cookie)
}

/// `BPF_RAW_TRACEPOINT_OPEN` with a cookie and no program: EBADF if the kernel supports cookies there.
pub(crate) fn probe_raw_tracepoint_cookie() -> Errno {
    let result = open_raw_tracepoint(u32::MAX, None, 1);
    result.err().unwrap_or(Errno::INVAL)
}

fn open_raw_tracepoint(prog_fd: u32, name: Option<&CStr>, cookie: u64) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_raw_tracepoint {
        name: name.map_or(0, |name| name.as_ptr() as u64),
        prog_fd,
        cookie,
        ..abi::bpf_attr_raw_tracepoint::zeroed()
    };
    // SAFETY: the name is NUL-terminated and outlives the call; it returns a descriptor.
    unsafe { new_fd(bpf(abi::BPF_RAW_TRACEPOINT_OPEN, &mut attr)) }
}

/// `BPF_LINK_CREATE` without a program: EBADF if the kernel has the command.
pub(crate) fn probe_link_create() -> Errno {
    let mut attr = abi::bpf_attr_link_create {
        prog_fd: u32::MAX,
        ..abi::bpf_attr_link_create::zeroed()
    };
    // SAFETY: zeroed options hold no address; LINK_CREATE returns a descriptor.
    let result = unsafe { new_fd(bpf(abi::BPF_LINK_CREATE, &mut attr)) };
    result.err().unwrap_or(Errno::INVAL)
}

/// `BPF_LINK_CREATE` without a target: EBADF if the program may be attached to a control group with this
/// type, EINVAL if not.
pub(crate) fn probe_cgroup_attach(prog: BorrowedFd<'_>, attach_type: u32) -> Errno {
    let result = link_create(prog, u32::MAX, attach_type, 0, LinkOpts::None);
    result.err().unwrap_or(Errno::BADF)
}

/// `BPF_PROG_QUERY` without a device: EINVAL if the kernel does not have the attach type.
pub(crate) fn probe_attach_type(attach_type: u32) -> Errno {
    let mut attr = abi::bpf_attr_query {
        attach_type,
        ..abi::bpf_attr_query::zeroed()
    };
    // SAFETY: the arm holds no address, and its buffers have no bytes.
    let result = unsafe { bpf(abi::BPF_PROG_QUERY, &mut attr) };
    result.err().unwrap_or(Errno::NODEV)
}

/// `BPF_LINK_UPDATE` of a program or map, with `BPF_F_REPLACE` if the old one is given.
pub(crate) fn link_update(
    link: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
    old: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attr = abi::bpf_attr_link_update {
        link_fd: raw(link),
        new_prog_fd: raw(new),
        flags: if old.is_some() { abi::BPF_F_REPLACE } else { 0 },
        old_prog_fd: old.map_or(0, raw),
    };
    // SAFETY: the arm holds no address.
    unsafe { bpf(abi::BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

pub(crate) fn link_detach(link: BorrowedFd<'_>) -> Result<()> {
    let mut attr = abi::bpf_attr_link_detach { link_fd: raw(link) };
    // SAFETY: the arm holds no address.
    unsafe { bpf(abi::BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// `BPF_ITER_CREATE`: returns a descriptor to read from.
pub(crate) fn iter_create(link: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_iter_create {
        link_fd: raw(link),
        flags: 0,
    };
    // SAFETY: the arm holds no address; ITER_CREATE returns a descriptor.
    unsafe { new_fd(bpf(abi::BPF_ITER_CREATE, &mut attr)) }
}

/// The part of a link's info that depends on its type.
///
/// # Safety
///
/// Consists of integers only.
pub(crate) unsafe trait LinkArm {
    /// The offset in the union.
    const AT: usize = 0;
}

macro_rules! link_arms {
    ($($arm:ident $(in $around:ident.$field:ident)?,)*) => {
        $(
            // SAFETY: integers only.
            unsafe impl LinkArm for abi::$arm {
                $(const AT: usize = offset_of!(abi::$around, $field);)?
            }
        )*
    };
}

link_arms! {
    bpf_link_info_raw_tracepoint,
    bpf_link_info_tracing,
    bpf_link_info_cgroup,
    bpf_link_info_iter_map in bpf_link_info_iter.map,
    bpf_link_info_iter_cgroup in bpf_link_info_iter.details,
    bpf_link_info_iter_task in bpf_link_info_iter.details,
    bpf_link_info_netns,
    bpf_link_info_xdp,
    bpf_link_info_struct_ops,
    bpf_link_info_netfilter,
    bpf_link_info_kprobe_multi,
    bpf_link_info_uprobe_multi,
    bpf_link_info_perf_event,
    bpf_link_info_perf_event_uprobe in bpf_link_info_perf_event.details,
    bpf_link_info_perf_event_kprobe in bpf_link_info_perf_event.details,
    bpf_link_info_perf_event_tracepoint in bpf_link_info_perf_event.details,
    bpf_link_info_perf_event_event in bpf_link_info_perf_event.details,
    bpf_link_info_tcx,
    bpf_link_info_netkit,
    bpf_link_info_sockmap,
}

pub(crate) fn link_arm<A: LinkArm>(info: &abi::bpf_link_info) -> A {
    const { assert!(A::AT + size_of::<A>() <= size_of::<abi::bpf_link_info_details>()) };
    // SAFETY: any initialised bytes are valid integers, and zeroed() has initialised all of them.
    unsafe {
        ptr::from_ref(&info.details)
            .byte_add(A::AT)
            .cast::<A>()
            .read()
    }
}

/// Writes the name of a raw tracepoint, or of an iterator's target, and a NUL to `buffer`.
///
/// ENOSPC if the buffer is too small; EINVAL for a link of another type.
pub(crate) fn link_name(link: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<()> {
    type Tracepoint = abi::bpf_link_info_raw_tracepoint;
    type Iter = abi::bpf_link_info_iter;
    // The name is at the same place for both types.
    const {
        assert!(offset_of!(Tracepoint, tp_name) == offset_of!(Iter, target_name));
        assert!(offset_of!(Tracepoint, tp_name_len) == offset_of!(Iter, target_name_len));
    }
    let found: abi::bpf_link_info = info(link)?;
    if !matches!(
        found.r#type,
        abi::BPF_LINK_TYPE_RAW_TRACEPOINT | abi::BPF_LINK_TYPE_ITER
    ) {
        return Err(Errno::INVAL);
    }
    let mut with_buffer = abi::bpf_link_info::zeroed();
    with_buffer.details.raw_tracepoint = abi::bpf_link_info_raw_tracepoint {
        tp_name: address_mut(buffer),
        tp_name_len: u32::try_from(buffer.len()).map_err(|_| Errno::TOOBIG)?,
        ..abi::bpf_link_info_raw_tracepoint::zeroed()
    };
    let mut attr = abi::bpf_attr_info {
        bpf_fd: raw(link),
        info_len: size_of_val(&with_buffer) as u32,
        info: address_mut(&mut with_buffer),
    };
    // SAFETY: info is info_len writable bytes. A link keeps its type, and for these two types the kernel
    // writes at most tp_name_len bytes to the one address.
    unsafe { bpf(abi::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}
