//! What this thread may do with bpf(2), determined without doing it.

use std::fmt;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::diagnose;
use crate::error::Cause;
use crate::process::{
    Capability, Lockdown, in_user_namespace, is_filtered, lacks, lockdown,
    unprivileged_bpf_disabled,
};
use crate::sys;

use super::memlock::Charge;

/// An action that [`Capabilities`] predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// `BPF_MAP_CREATE`.
    CreateMaps,
    /// `BPF_PROG_LOAD`.
    LoadProgs,
    /// `BPF_OBJ_PIN`, as far as the directory's mode lets it.
    Pin,
    /// `BPF_OBJ_GET`, as far as the pin's mode lets it.
    Open,
    /// `BPF_*_GET_FD_BY_ID` and `BPF_*_GET_NEXT_ID`.
    OpenById,
    /// `fsopen(2)`, `mount(2)`: a bpffs of its own.
    Mount,
}

impl Action {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::CreateMaps,
        Self::LoadProgs,
        Self::Pin,
        Self::Open,
        Self::OpenById,
        Self::Mount,
    ];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateMaps => "create maps",
            Self::LoadProgs => "load programs",
            Self::Pin => "pin",
            Self::Open => "open pins",
            Self::OpenById => "open objects by their ids",
            Self::Mount => "mount a bpffs",
        })
    }
}

/// Whether this thread may do an [`Action`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Permission {
    /// It may.
    Granted,
    /// It may, within limits.
    Partly {
        /// The limits, at least one.
        limits: Vec<Limit>,
    },
    /// It may not.
    Denied(Cause),
    /// Could not be determined: without /proc, or because a seccomp filter may answer instead of the
    /// kernel.
    Unknown,
}

impl Permission {
    /// The same, within one more limit.
    fn within(self, limit: Limit) -> Self {
        match self {
            Self::Granted => Self::Partly {
                limits: vec![limit],
            },
            Self::Partly { mut limits } => {
                limits.push(limit);
                Self::Partly { limits }
            }
            other => other,
        }
    }

    fn is_for_some(&self) -> bool {
        matches!(self, Self::Granted | Self::Partly { .. })
    }
}

/// A limit of what may be done, see [`Permission::Partly`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// For some types only: which, in words.
    Types(&'static str),
    /// The kernel is locked down, and withholds helpers from tracing programs.
    Lockdown {
        /// The level: "integrity" or "confidentiality".
        level: String,
    },
    /// Whether the kernel is locked down cannot be read.
    LockdownUnknown,
    /// This kernel charges maps and programs to `RLIMIT_MEMLOCK`, as Linux before 5.11 does, and refuses
    /// those over the limit.
    Memlock {
        /// The limit in bytes.
        limit: u64,
    },
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Types(which) => f.write_str(which),
            Self::Lockdown { level } => {
                write!(f, "those that call no helper that lockdown ({level}) withholds")
            }
            Self::LockdownUnknown => f.write_str(
                "those that call no helper that lockdown withholds, if the kernel is locked down, which cannot be read",
            ),
            Self::Memlock { limit } => write!(
                f,
                "as much as RLIMIT_MEMLOCK, which is {limit} bytes and charged before Linux 5.11, has room for"
            ),
        }
    }
}

/// What this thread may do, from its effective capabilities, `kernel.unprivileged_bpf_disabled`, the
/// user namespace, lockdown and `RLIMIT_MEMLOCK`.
///
/// This is a prediction: security modules and the modes of files may still refuse. Another thread may have
/// other capabilities.
///
/// # Examples
///
/// ```
/// use bpf_pin::probe::{Action, Capabilities, Permission};
///
/// let thread = Capabilities::of_this_thread();
/// if let Permission::Denied(cause) = thread.may(Action::CreateMaps) {
///     eprintln!("cannot make maps here: {cause}");
/// }
/// println!("{thread}");
/// ```
///
/// # References
///
/// [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html),
/// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html)
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Capabilities {
    /// Those of the effective set, where `CAP_SYS_ADMIN` stands for all.
    pub effective: Vec<Capability>,
    /// Whether they belong to a user namespace other than the initial one: bpf(2) does not count those.
    /// None without /proc.
    pub in_user_namespace: Option<bool>,
    /// `kernel.unprivileged_bpf_disabled`: 0, 1 until reboot, 2 until root resets it. None if it
    /// cannot be read.
    pub unprivileged_bpf_disabled: Option<u8>,
    /// Whether the kernel is locked down.
    pub lockdown: Lockdown,
    /// `RLIMIT_MEMLOCK` in bytes, which maps and programs are charged to before Linux 5.11; None for
    /// no limit.
    pub memlock: Option<u64>,
    /// Whether this kernel charges them, found by asking for a map that is over the limit. None if that is
    /// not proven: no map could be over the limit, this thread may create no map, or a seccomp filter may
    /// answer instead of the kernel.
    pub memlock_is_charged: Option<bool>,
    /// What fits into that limit, if it is charged.
    charge: Option<Charge>,
    /// `CAP_NET_ADMIN` itself.
    net_admin: bool,
    /// Why bpf(2) is closed to this thread as a whole, as it may be before Linux 5.19.
    closed: Option<Permission>,
}

impl Capabilities {
    /// The state now: `capget(2)` and the rest.
    pub fn of_this_thread() -> Self {
        const ALL: &[Capability] = &[
            Capability::Bpf,
            Capability::NetAdmin,
            Capability::Perfmon,
            Capability::SysAdmin,
        ];
        let has = |&each: &Capability| lacks(each) == Some(false);
        // The call does nothing. EBADF and EBADFD are the kernel's own answers.
        let closed = match sys::probe_bpf_allowed() {
            Errno::PERM => Some(match diagnose::for_bpf() {
                Some(cause) => Permission::Denied(cause),
                None => Permission::Unknown,
            }),
            Errno::BADF | Errno::BADFD => None,
            _ => Some(Permission::Unknown),
        };
        let mut this = Self {
            effective: ALL.iter().copied().filter(has).collect(),
            in_user_namespace: in_user_namespace(),
            unprivileged_bpf_disabled: unprivileged_bpf_disabled(),
            lockdown: lockdown(),
            memlock: getrlimit(Resource::Memlock).current,
            memlock_is_charged: None,
            charge: None,
            net_admin: capabilities(None)
                .is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN)),
            closed,
        };
        this.find_charge();
        this
    }

    fn find_charge(&mut self) {
        let may = |action| self.may(action).is_for_some();
        if is_filtered() || !may(Action::CreateMaps) || !may(Action::LoadProgs) {
            return;
        }
        self.memlock_is_charged = self.memlock.and_then(diagnose::memlock_is_charged);
        self.charge = (self.memlock_is_charged == Some(true)).then(Charge::now);
    }

    /// Whether it may do this.
    pub fn may(&self, action: Action) -> Permission {
        match (action, &self.closed) {
            // What a seccomp filter answers is known only after the call.
            (Action::Mount, _) => match self.with(Capability::SysAdmin, "mounting a bpffs") {
                Permission::Granted if is_filtered() => Permission::Unknown,
                // Mounting has its own rule for user namespaces.
                Permission::Denied(Cause::UserNamespace) => {
                    Permission::Denied(Cause::NeedsDelegation)
                }
                permission => permission,
            },
            (_, Some(closed)) => closed.clone(),
            (Action::Pin | Action::Open, None) => Permission::Granted,
            (Action::OpenById, None) => {
                self.with(Capability::SysAdmin, "opening an object by its id")
            }
            (Action::CreateMaps, None) => {
                let all = [Capability::Bpf, Capability::NetAdmin];
                let permission =
                    match self.partly("creating a map", &all, MAPS_BY_ANYBODY, MAPS_BY_BPF) {
                        Permission::Granted if !self.net_admin => {
                            Permission::Granted.within(Limit::Types(MAPS_BY_SYS_ADMIN))
                        }
                        permission => permission,
                    };
                self.charged(permission, |charge| charge.has_room_for_maps)
            }
            (Action::LoadProgs, None) => {
                let all = [Capability::Bpf, Capability::NetAdmin, Capability::Perfmon];
                let permission =
                    self.partly("loading a program", &all, PROGS_BY_ANYBODY, PROGS_BY_BPF);
                let permission = self.locked_down(permission);
                self.charged(permission, |charge| charge.has_room_for_progs)
            }
        }
    }

    /// Lockdown affects tracing programs only.
    fn locked_down(&self, permission: Permission) -> Permission {
        let may_trace = self.has(Capability::Bpf)
            && self.has(Capability::Perfmon)
            && self.in_user_namespace == Some(false);
        match &self.lockdown {
            _ if !may_trace => permission,
            Lockdown::Off => permission,
            Lockdown::On { level } => permission.within(Limit::Lockdown {
                level: level.clone(),
            }),
            Lockdown::Unknown => permission.within(Limit::LockdownUnknown),
        }
    }

    fn charged(&self, permission: Permission, has_room: fn(&Charge) -> bool) -> Permission {
        match (self.memlock, &self.charge) {
            (Some(limit), Some(charge)) if !has_room(charge) && permission.is_for_some() => {
                Permission::Denied(Cause::Memlock { limit })
            }
            (Some(limit), Some(_)) => permission.within(Limit::Memlock { limit }),
            _ => permission,
        }
    }

    fn has(&self, capability: Capability) -> bool {
        self.effective.contains(&capability)
    }

    fn with(&self, capability: Capability, needed_for: &'static str) -> Permission {
        match self.has(capability) {
            false => Permission::Denied(Cause::MissingCapability {
                capability,
                needed_for,
            }),
            true => match self.in_user_namespace {
                Some(true) => Permission::Denied(Cause::UserNamespace),
                Some(false) => Permission::Granted,
                None => Permission::Unknown,
            },
        }
    }

    fn partly(
        &self,
        needed_for: &'static str,
        all: &[Capability],
        by_anybody: &'static str,
        by_bpf: &'static str,
    ) -> Permission {
        match self.with(Capability::Bpf, needed_for) {
            Permission::Granted if all.iter().all(|&each| self.has(each)) => Permission::Granted,
            Permission::Granted => Permission::Granted.within(Limit::Types(by_bpf)),
            denied => match self.unprivileged_bpf_disabled {
                Some(0) => Permission::Granted.within(Limit::Types(by_anybody)),
                Some(_) => denied,
                None => Permission::Unknown,
            },
        }
    }

    /// Whether a seccomp filter may answer syscalls instead of the kernel, which makes predictions unsafe.
    pub fn is_filtered(&self) -> bool {
        is_filtered()
    }
}

const MAPS_BY_ANYBODY: &str = "hashes, arrays and others that take no capability";
const MAPS_BY_BPF: &str = "all but those for sockets and devices, which take CAP_NET_ADMIN";
const MAPS_BY_SYS_ADMIN: &str =
    "all but, before Linux 6.9, those for sockets and devices, which take CAP_NET_ADMIN itself";
const PROGS_BY_ANYBODY: &str = "socket filters and control groups' packet filters";
const PROGS_BY_BPF: &str =
    "those for networking take CAP_NET_ADMIN and those for tracing CAP_PERFMON";

/// One sentence for each thing, on lines of their own.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, &action) in Action::ALL.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            match self.may(action) {
                Permission::Granted => write!(f, "may {action}")?,
                Permission::Partly { limits } => {
                    write!(f, "may {action}")?;
                    for (i, limit) in limits.iter().enumerate() {
                        // Each has a comma of its own.
                        let between = if i == 0 { ":" } else { ";" };
                        write!(f, "{between} {limit}")?;
                    }
                }
                Permission::Denied(cause) => write!(f, "may not {action}: {cause}")?,
                Permission::Unknown => write!(f, "may or may not {action}")?,
            }
        }
        Ok(())
    }
}
