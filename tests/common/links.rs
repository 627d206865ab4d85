//! Programs and targets for links, and queries of attached programs.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bpf_pin::link::LinkInfo;
use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, Prog, ProgSpec, abi};
use btf_rs::{Btf, Type};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// The loopback device of every network namespace.
pub const LOOPBACK: u32 = 1;

/// The kernel's own BTF.
pub const BTF: &str = "/sys/kernel/btf/vmlinux";

/// A kernel without kprobes has no tracing of its functions.
pub const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

/// A program that returns a number.
pub fn prog_returning(prog_type: ProgType, attach_type: AttachType, value: i32) -> Prog {
    let insns = [Insn::mov64_imm(0, value), Insn::exit()];
    let spec = ProgSpec::new(prog_type, &insns).expected_attach_type(attach_type);
    spec.load().expect("a program that returns a number")
}

/// `XDP_PASS`
pub fn xdp_prog() -> Prog {
    prog_returning(ProgType::XDP, AttachType(0), 2)
}

/// `TC_ACT_OK`
pub fn tcx_prog() -> Prog {
    prog_returning(ProgType::SCHED_CLS, AttachType(0), 0)
}

pub fn cgroup_prog() -> Prog {
    let attach_type = AttachType::CGROUP_INET_EGRESS;
    prog_returning(ProgType::CGROUP_SKB, attach_type, 1)
}

/// The id of a kernel's function in its BTF.
pub fn function_btf_id(name: &str) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    type_id(name, |found| matches!(found, Type::Func(_)))
}

/// The id of a struct in the kernel's BTF.
pub fn struct_btf_id(name: &str) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    type_id(name, |found| matches!(found, Type::Struct(_)))
}

/// The id of the type of a raw tracepoint in the kernel's BTF.
pub fn tracepoint_btf_id(name: &str) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    let name = format!("btf_trace_{name}");
    type_id(&name, |found| matches!(found, Type::Typedef(_)))
}

/// The kernel's BTF, read once.
pub fn kernels_btf() -> &'static Btf {
    static KERNEL: OnceLock<Btf> = OnceLock::new();
    KERNEL.get_or_init(|| Btf::from_file(BTF).expect("the kernel's BTF"))
}

pub(crate) fn type_id(
    name: &str,
    is_it: impl Fn(&Type) -> bool,
) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    let btf = kernels_btf();
    let is_one = |id: &u32| btf.resolve_type_by_id(*id).is_ok_and(|found| is_it(&found));
    let id = btf.resolve_ids_by_name(name)?.into_iter().find(is_one);
    Ok(id.ok_or(format!("no {name} in the kernel's BTF"))?)
}

/// The ids of all links.
pub fn link_ids() -> Vec<u32> {
    let mut ids = vec![];
    let mut attr = abi::bpf_attr_get_id::zeroed();
    let size = size_of_val(&attr) as u32;
    loop {
        // SAFETY: the argument has that many bytes and no addresses.
        let done = unsafe { abi::bpf(abi::BPF_LINK_GET_NEXT_ID, (&raw mut attr).cast(), size) };
        if done < 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
            return ids;
        }
        ids.push(attr.next_id);
        attr.start_id = attr.next_id;
    }
}

/// The links that hold one of these programs and are not reported as detached.
pub fn links_of_progs(progs: &[u32]) -> Vec<LinkInfo> {
    let living = |id: u32| Link::from_id(id).and_then(|link| link.info()).ok();
    let is_of = |info: &LinkInfo| progs.contains(&info.prog_id) && !info.target.is_gone();
    link_ids()
        .into_iter()
        .filter_map(living)
        .filter(is_of)
        .collect()
}

/// The programs that are attached to a target, in order, and the revision. The target is the number of a device or
/// a descriptor. The revision is 0 before Linux 6.6.
pub fn attached_progs(target: u32, attach_type: AttachType) -> (Vec<u32>, u64) {
    let mut ids = [0u32; 64];
    let mut attr = abi::bpf_attr_query {
        target_fd: target,
        attach_type: attach_type.0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..abi::bpf_attr_query::zeroed()
    };
    let size = size_of_val(&attr) as u32;
    // SAFETY: prog_ids is the address of prog_cnt writable ids.
    let done = unsafe { abi::bpf(abi::BPF_PROG_QUERY, (&raw mut attr).cast(), size) };
    match done {
        0 => (ids[..attr.prog_cnt as usize].to_vec(), attr.revision),
        _ => {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
            (vec![], 0)
        }
    }
}

/// A new control group, in a cgroup2 that only this thread sees.
pub struct Cgroup {
    _root: tempfile::TempDir,
    pub path: PathBuf,
}

impl Cgroup {
    /// Must be called within `in_mount_namespace`.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let root = tempfile::tempdir().expect("a mount point");
        mount("cgroup2", root.path(), "cgroup2", MountFlags::empty(), None).expect("a cgroup2");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = root.path().join(crate::cleanup::unique(number));
        fs::create_dir(&path).expect("a control group");
        Self { _root: root, path }
    }

    pub fn open(&self) -> File {
        File::open(&self.path).expect("a control group's directory")
    }
}

impl Default for Cgroup {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = crate::cleanup::remove_cgroup(&self.path);
        let root = self.path.parent().unwrap_or(Path::new("/nowhere"));
        let _ = unmount(root, UnmountFlags::DETACH);
    }
}

/// The id of a control group. On a 32-bit kernel the inode number is only its lower half.
pub fn cgroup_id(directory: impl AsFd) -> u64 {
    /// `struct file_handle` with room for an id.
    #[repr(C)]
    struct Handle {
        handle_bytes: u32,
        handle_type: i32,
        id: [u8; 8],
    }

    let fd = directory.as_fd().as_raw_fd();
    let (mut handle, mut mount_id) = (
        Handle {
            handle_bytes: 8,
            handle_type: 0,
            id: [0; 8],
        },
        0,
    );
    let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the path is a C string, the handle is as long as it says, and the mount's id is an int.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            fd,
            path,
            &raw mut handle,
            &raw mut mount_id,
            flags,
        )
    };
    assert_eq!(
        (result, handle.handle_bytes),
        (0, 8),
        "{}",
        io::Error::last_os_error()
    );
    u64::from_ne_bytes(handle.id)
}
