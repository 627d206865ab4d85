//! Requirements of a test, probed by calling, and the reason for a skip if one is missing.

use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use rustix::thread::{CapabilitySet, capabilities};

/// A requirement of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A capability in the effective set.
    Cap(CapabilitySet, &'static str),
    /// The oldest kernel.
    Kernel(u32, u32),
    /// A missing privilege: the test runs as an ordinary user.
    Without(&'static str),
    /// A bpffs: the privilege to mount one, or a directory from the environment.
    Bpffs,
    /// A feature that some architectures' kernels are built without, whatever their release.
    Feature(Feature),
    /// A file that this kernel's configuration or this machine's mounts may lack.
    File(&'static str),
    /// A program of another project, and its Debian package.
    Program(&'static str, &'static str),
    /// A limit of mounts per namespace, fs.mount-max, that a test can reach.
    MountMax(u64),
    /// A build dependency: whether it was present at build time, and its package.
    Built(bool, &'static str),
    /// A build dependency in a release that not every distribution has. If it is missing, the test is skipped and
    /// counted even if skips are failures.
    Release(bool, &'static str),
}

/// A feature of the kernel that is not everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// The compiler of programs.
    Jit,
    /// Programs on the hooks of security modules.
    Lsm,
    /// The description of the kernel's own types.
    Btf,
    /// Maps of shared memory.
    Arena,
    /// Programs on many functions at once.
    KprobeMulti,
    /// Programs on entry and exit of the kernel's functions.
    Trampolines,
    /// Programs in place of the kernel's functions.
    StructOps,
    /// Pairs of network devices.
    Veth,
}

impl Feature {
    fn is_present(self) -> bool {
        match self {
            Self::Jit => exists("/proc/sys/net/core/bpf_jit_enable"),
            Self::Btf => exists(super::BTF),
            // The kernel's own types exist only in a build with the feature.
            Self::Lsm => {
                Self::Trampolines.is_present()
                    && super::function_btf_id("bpf_lsm_file_open").is_ok()
            }
            Self::StructOps => {
                let name = "bpf_struct_ops_tcp_congestion_ops";
                Self::Trampolines.is_present() && super::struct_btf_id(name).is_ok()
            }
            Self::KprobeMulti => {
                Self::Btf.is_present() && super::struct_btf_id("bpf_kprobe_multi_link").is_ok()
            }
            Self::Arena => {
                let spec = bpf_pin::MapSpec::new(bpf_pin::types::MapType::ARENA, 0, 0, 1);
                let created = spec.flags(bpf_pin::types::MapFlags::MMAPABLE).create();
                !created.is_err_and(|error| {
                    [Some(libc::EINVAL), Some(libc::EOPNOTSUPP)].contains(&error.raw_os_error())
                })
            }
            // Not known without the privilege to look.
            Self::Veth => {
                !effective().contains(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN)
                    || super::in_network_namespace(|| super::add_device(77, "veth").is_ok())
            }
            // Without the compiler there is no call that could be patched.
            Self::Trampolines => Self::Jit.is_present() && Self::Btf.is_present(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Jit => "JIT",
            Self::Lsm => "BPF LSM",
            Self::Btf => "BTF",
            Self::Arena => "arena",
            Self::KprobeMulti => "kprobe_multi",
            Self::Trampolines => "trampolines",
            Self::StructOps => "struct_ops",
            Self::Veth => "veth",
        }
    }
}

fn exists(path: &str) -> bool {
    fs::exists(path).unwrap_or(false)
}

/// A capability that a test needs.
pub mod cap {
    use super::Need;
    use rustix::thread::CapabilitySet as Set;

    pub const BPF: Need = Need::Cap(Set::BPF, "CAP_BPF");
    pub const NET_ADMIN: Need = Need::Cap(Set::NET_ADMIN, "CAP_NET_ADMIN");
    pub const PERFMON: Need = Need::Cap(Set::PERFMON, "CAP_PERFMON");
    pub const SYS_ADMIN: Need = Need::Cap(Set::SYS_ADMIN, "CAP_SYS_ADMIN");
    pub const SETUID: Need = Need::Cap(Set::SETUID, "CAP_SETUID");
}

/// The oldest kernel that a test supports.
pub const fn kernel(major: u32, minor: u32) -> Need {
    Need::Kernel(major, minor)
}

/// A capability that must be missing, for a test of the error.
pub const fn without(need: Need) -> Need {
    match need {
        Need::Cap(_, name) => Need::Without(name),
        other => other,
    }
}

impl Need {
    /// True if the test must run as an ordinary user.
    pub(crate) fn drops_privileges(self) -> bool {
        matches!(self, Self::Without(_))
    }

    /// True if even a fully equipped machine may lack it.
    pub(crate) fn is_optional(self) -> bool {
        matches!(self, Self::Release(..))
    }

    /// The reason why it is not met, or `None` if it is met.
    pub fn unmet(self) -> Option<String> {
        let met = match self {
            Self::Cap(set, _) => effective().contains(set),
            // The harness drops the privileges.
            Self::Without(..) => true,
            Self::Kernel(major, minor) => running() >= (major, minor),
            Self::Bpffs => {
                effective().contains(CapabilitySet::SYS_ADMIN)
                    || super::bpffs::bpffs_from_environment().is_some()
            }
            Self::Feature(feature) => feature.is_present(),
            Self::File(path) => exists(path),
            Self::Program(name, _) => find_program(name).is_some(),
            Self::MountMax(most) => mount_max().is_some_and(|max| max <= most),
            Self::Built(there, _) | Self::Release(there, _) => there,
        };
        (!met).then(|| format!("needs {self}"))
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cap(_, name) => f.write_str(name),
            Self::Without(name) => write!(f, "no {name}"),
            Self::Kernel(major, minor) => write!(f, "Linux {major}.{minor}"),
            Self::Bpffs => f.write_str("CAP_SYS_ADMIN: or a bpffs to work in, BPF_PIN_TEST_BPFFS"),
            Self::Feature(feature) => write!(f, "feature {}", feature.name()),
            Self::File(path) => write!(f, "file {path}"),
            Self::Program(name, package) => write!(f, "{name}, of Debian's {package}"),
            Self::MountMax(most) => write!(f, "fs.mount-max of {most} or less"),
            Self::Built(_, what) | Self::Release(_, what) => write!(f, "a build with {what}"),
        }
    }
}

/// True on an emulated processor, which is some 20 times slower.
pub fn is_emulated() -> bool {
    env::var_os("BPF_PIN_TEST_PHASE").is_some()
}

/// Reduces the number of rounds on an emulated processor.
pub fn rounds(often: usize) -> usize {
    if is_emulated() { often / 20 } else { often }
}

/// Finds a program in PATH or in the directories for root.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

fn mount_max() -> Option<u64> {
    let text = fs::read_to_string("/proc/sys/fs/mount-max").ok()?;
    text.trim().parse().ok()
}

fn effective() -> CapabilitySet {
    capabilities(None).expect("capget of this thread").effective
}

/// The running kernel's version. Only tests use it, the library never does.
fn running() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    next().zip(next()).expect("a release of the form 6.18…")
}
