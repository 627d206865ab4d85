//! Links.

use std::ffi::CStr;
use std::mem::{offset_of, size_of};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr;

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::object::info;
use super::{Result, address, address_mut, bpf, new_fd, raw};

/// What only some attach points have.
#[derive(Clone, Copy)]
pub(crate) enum LinkOpts<'a> {
    None,
    /// TCX, netkit and control groups: beside what, and at which revision.
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

/// Functions of the kernel.
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
/// Whoever makes one vouches for the offsets: the kernel writes to the memory of every process that maps
/// the file, this one included.
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
/// Safe code makes none:
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
    /// `BPF_TRACE_UPROBE_MULTI`: probe points by their offsets in bytes from the beginning of the file, in
    /// all processes. Linux 6.6.
    ///
    /// # Safety
    ///
    /// For as long as a link is created from it and lives, each offset is the start of an instruction in
    /// the file at `path`. The kernel overwrites the byte there with a breakpoint in every process that
    /// maps the file. In the middle of an instruction that makes another instruction of it, in this
    /// process too if the file is its own executable or a library that it uses.
    pub const unsafe fn new(path: &'a CStr, offsets: &'a [u64]) -> Self {
        Self {
            path,
            offsets,
            ref_ctr_offsets: &[],
            pid: 0,
        }
    }

    /// `uprobe_multi.pid`: only in this process.
    pub const fn pid(mut self, process: u32) -> Self {
        self.pid = process;
        self
    }

    /// `uprobe_multi.ref_ctr_offsets`: for each probe point the offset of its semaphore, the counter of
    /// those that watch it.
    ///
    /// # Safety
    ///
    /// Each offset is that of a `u16` in the file that is a semaphore for probe points (SystemTap's
    /// `sdt.h`), and that programs only test for zero. The kernel adds 1 to it in every private writable
    /// mapping of the file, this process's data included, and subtracts 1 when the link dies.
    pub const unsafe fn ref_ctr_offsets(mut self, offsets: &'a [u64]) -> Self {
        self.ref_ctr_offsets = offsets;
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// How many semaphores are named.
    pub(crate) fn counters(&self) -> usize {
        self.ref_ctr_offsets.len()
    }

    /// 0 for all.
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
    // What the arm has addresses of, until the call is done.
    let mut iter = abi::bpf_iter_link_info::zeroed();
    let names: Vec<u64>;
    match opts {
        LinkOpts::None => {}
        // The three arms are one.
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
    // SAFETY: every address is of something that outlives the call: a terminated string, an
    // initialised struct of the length given, or an array of as many elements as cnt says;
    // LINK_CREATE writes to none of them and returns a descriptor. Of what it can be attached to, only
    // uprobes write to the memory of processes, and who has made a Uprobes has vouched for those.
    unsafe { new_fd(bpf(abi::BPF_LINK_CREATE, &mut attr)) }
}

/// The address of one number for each of `count`, or 0 for none.
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

/// `BPF_RAW_TRACEPOINT_OPEN`; without a name, of a program that names its own.
pub(crate) fn raw_tracepoint_open(
    prog: BorrowedFd<'_>,
    name: Option<&CStr>,
    cookie: u64,
) -> Result<OwnedFd> {
    open_raw_tracepoint(raw(prog), name, cookie)
}

/// `BPF_RAW_TRACEPOINT_OPEN` of no program, with a cookie: EBADF where the kernel knows of those.
pub(crate) fn no_raw_tracepoint_with_cookie() -> Errno {
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

/// `BPF_LINK_CREATE` of no program: EBADF where the kernel knows the command.
pub(crate) fn no_link_create() -> Errno {
    let mut attr = abi::bpf_attr_link_create {
        prog_fd: u32::MAX,
        ..abi::bpf_attr_link_create::zeroed()
    };
    // SAFETY: zeroed options hold no address; LINK_CREATE returns a descriptor.
    let result = unsafe { new_fd(bpf(abi::BPF_LINK_CREATE, &mut attr)) };
    result.err().unwrap_or(Errno::INVAL)
}

/// `BPF_LINK_CREATE` at no target: EBADF where the program may be attached to a control group in this
/// way, EINVAL where it may not.
pub(crate) fn link_create_nowhere(prog: BorrowedFd<'_>, attach_type: u32) -> Errno {
    let result = link_create(prog, u32::MAX, attach_type, 0, LinkOpts::None);
    // The number is no descriptor, so there is none to attach to.
    result.err().unwrap_or(Errno::BADF)
}

/// `BPF_PROG_QUERY` of no device: EINVAL where the kernel does not know the attach type.
pub(crate) fn query_no_device(attach_type: u32) -> Errno {
    let mut attr = abi::bpf_attr_query {
        attach_type,
        ..abi::bpf_attr_query::zeroed()
    };
    // SAFETY: the arm holds no address and room for nothing.
    let result = unsafe { bpf(abi::BPF_PROG_QUERY, &mut attr) };
    result.err().unwrap_or(Errno::NODEV)
}

/// `BPF_LINK_UPDATE`, with `BPF_F_REPLACE` where the old program is given; or of maps.
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

/// `BPF_ITER_CREATE`: a descriptor to read from.
pub(crate) fn iter_create(link: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_iter_create {
        link_fd: raw(link),
        flags: 0,
    };
    // SAFETY: the arm holds no address; ITER_CREATE returns a descriptor.
    unsafe { new_fd(bpf(abi::BPF_ITER_CREATE, &mut attr)) }
}

/// A part of a link's info that depends on its type.
///
/// # Safety
///
/// Integers alone.
pub(crate) unsafe trait LinkArm {
    /// Where it stands in the union.
    const AT: usize = 0;
}

macro_rules! link_arms {
    ($($arm:ident $(in $around:ident.$field:ident)?,)*) => {
        $(
            // SAFETY: integers alone.
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
    // SAFETY: any initialised bytes are integers; and the kernel, or else zeroed(), has written all.
    unsafe {
        ptr::from_ref(&info.details)
            .byte_add(A::AT)
            .cast::<A>()
            .read()
    }
}

/// The name of a raw tracepoint, or of what an iterator goes through, with a NUL behind it.
///
/// ENOSPC where there is not room enough; EINVAL for a link of another type.
pub(crate) fn link_name(link: BorrowedFd<'_>, room: &mut [u8]) -> Result<()> {
    type Tracepoint = abi::bpf_link_info_raw_tracepoint;
    type Iter = abi::bpf_link_info_iter;
    // One arm serves for both.
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
    let mut with_room = abi::bpf_link_info::zeroed();
    with_room.details.raw_tracepoint = abi::bpf_link_info_raw_tracepoint {
        tp_name: address_mut(room),
        tp_name_len: u32::try_from(room.len()).map_err(|_| Errno::TOOBIG)?,
        ..abi::bpf_link_info_raw_tracepoint::zeroed()
    };
    let mut attr = abi::bpf_attr_info {
        bpf_fd: raw(link),
        info_len: size_of_val(&with_room) as u32,
        info: address_mut(&mut with_room),
    };
    // SAFETY: info is info_len writable bytes; a link keeps its type, and of one of these two the
    // kernel writes to the one address, no more than tp_name_len bytes.
    unsafe { bpf(abi::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}
