//! Predicts which uses of bpf(2) this thread is permitted.

use std::fmt;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::diagnose;
use crate::error::Cause;
use crate::process::{
    Capability, Lockdown, filter_errno, in_user_namespace, is_filtered, lacks, lockdown,
    unprivileged_bpf_disabled,
};
use crate::sys;
use crate::types::Command;

/// An action that [`Capabilities`] predicts.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::probe::{Action, Capabilities};
///
/// let thread = Capabilities::of_this_thread();
/// for action in Action::ALL {
///     println!("{action}: {:?}", thread.may(*action));
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// `BPF_MAP_CREATE`.
    CreateMaps,
    /// `BPF_PROG_LOAD`.
    LoadProgs,
    /// `BPF_OBJ_PIN`. The directory's mode is not checked.
    Pin,
    /// `BPF_OBJ_GET`. The pin's mode is not checked.
    Open,
    /// `BPF_*_GET_FD_BY_ID` and `BPF_*_GET_NEXT_ID`.
    OpenById,
    /// `fsopen(2)` and `mount(2)` of a new bpffs.
    Mount,
}

impl Action {
    /// All actions.
    pub const ALL: &[Self] = &[
        Self::CreateMaps,
        Self::LoadProgs,
        Self::Pin,
        Self::Open,
        Self::OpenById,
        Self::Mount,
    ];

    /// The command of bpf(2) that it begins with. Mounting has none.
    fn command(self) -> Option<Command> {
        Some(match self {
            Self::CreateMaps => Command::MAP_CREATE,
            Self::LoadProgs => Command::PROG_LOAD,
            Self::Pin => Command::OBJ_PIN,
            Self::Open => Command::OBJ_GET,
            Self::OpenById => Command::MAP_GET_FD_BY_ID,
            Self::Mount => return None,
        })
    }
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

/// The prediction for an [`Action`], from [`Capabilities::may`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Permission {
    /// The action is permitted.
    Granted,
    /// The action is permitted within limits.
    Partly {
        /// The limits, at least one.
        limits: Vec<Limit>,
    },
    /// The action is denied.
    Denied(Cause),
    /// Could not be determined: /proc is missing, or a seccomp filter may answer instead of the kernel, which is
    /// not proven.
    Unknown,
}

impl Permission {
    /// Adds a limit.
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

    fn is_granted_or_partly(&self) -> bool {
        matches!(self, Self::Granted | Self::Partly { .. })
    }
}

/// A limit of a permission, see [`Permission::Partly`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Some types only. The string describes them.
    Types(&'static str),
    /// The kernel is locked down, and withholds helpers from tracing programs.
    Lockdown {
        /// The level: "integrity" or "confidentiality".
        level: String,
    },
    /// The kernel may be locked down: the state cannot be read.
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

/// The permissions of this thread, predicted from its effective capabilities,
/// `kernel.unprivileged_bpf_disabled`, the user namespace, lockdown, `RLIMIT_MEMLOCK`, and the commands that a
/// seccomp filter rejects.
///
/// Security modules and the modes of files may still deny an action. Another thread may have other
/// capabilities.
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
    /// The capabilities of the effective set that matter to bpf(2). `CAP_SYS_ADMIN` implies the others.
    pub effective: Vec<Capability>,
    /// True if they belong to a user namespace other than the initial one: bpf(2) ignores those. None
    /// without /proc.
    pub in_user_namespace: Option<bool>,
    /// `kernel.unprivileged_bpf_disabled`: 0, 1 until reboot, 2 until root resets it. None if it
    /// cannot be read.
    pub unprivileged_bpf_disabled: Option<u8>,
    /// The state of lockdown.
    pub lockdown: Lockdown,
    /// `RLIMIT_MEMLOCK` in bytes, which maps and programs are charged to before Linux 5.11; None for
    /// no limit.
    pub memlock: Option<u64>,
    /// True if this kernel charges them, found by asking for a map that is over the limit. None if it
    /// is not proven: no map can be over the limit, this thread may create no map, or a seccomp filter may
    /// answer instead of the kernel.
    pub memlock_is_charged: Option<bool>,
    /// `CAP_NET_ADMIN` itself, not implied by `CAP_SYS_ADMIN`.
    net_admin: bool,
    /// Why bpf(2) is closed to this thread as a whole, as it may be before Linux 5.19.
    closed: Option<Permission>,
    /// The commands of actions that a seccomp filter is proven to reject.
    filtered: Vec<Command>,
}

impl Capabilities {
    /// Reads the current state: `capget(2)`, files in /proc and /sys, and calls of bpf(2) that do nothing. Behind a
    /// seccomp filter, these include each action's command without arguments, which shows if the filter rejects it.
    pub fn of_this_thread() -> Self {
        const ALL: &[Capability] = &[
            Capability::Bpf,
            Capability::NetAdmin,
            Capability::Perfmon,
            Capability::SysAdmin,
        ];
        let has = |&each: &Capability| lacks(each) == Some(false);
        // EBADF and EBADFD are the kernel's own answers to this call, which does nothing.
        let closed = match sys::probe_bpf_allowed() {
            Errno::BADF | Errno::BADFD => None,
            Errno::PERM => {
                Some(diagnose::for_bpf().map_or(Permission::Unknown, Permission::Denied))
            }
            _ => Some(Permission::Unknown),
        };
        let mut this = Self {
            effective: ALL.iter().copied().filter(has).collect(),
            in_user_namespace: in_user_namespace(),
            unprivileged_bpf_disabled: unprivileged_bpf_disabled(),
            lockdown: lockdown(),
            memlock: getrlimit(Resource::Memlock).current,
            memlock_is_charged: None,
            net_admin: capabilities(None)
                .is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN)),
            closed,
            filtered: (Action::ALL.iter())
                .filter_map(|action| action.command())
                .filter(|&command| filter_errno(command).is_some())
                .collect(),
        };
        if !is_filtered() && this.may(Action::CreateMaps).is_granted_or_partly() {
            this.memlock_is_charged = this.memlock.and_then(diagnose::memlock_is_charged);
        }
        this
    }

    /// Predicts whether this thread is permitted an action.
    pub fn may(&self, action: Action) -> Permission {
        if let Some(command) = action.command().filter(|it| self.filtered.contains(it)) {
            return Permission::Denied(Cause::Filtered { command });
        }
        match (action, &self.closed) {
            (Action::Mount, _) => self.may_mount(),
            (_, Some(closed)) => closed.clone(),
            (Action::Pin | Action::Open, None) => Permission::Granted,
            (Action::OpenById, None) => {
                self.with(Capability::SysAdmin, "opening an object by its id")
            }
            (Action::CreateMaps, None) => self.may_create_maps(),
            (Action::LoadProgs, None) => self.may_load_progs(),
        }
    }

    fn may_mount(&self) -> Permission {
        match self.with(Capability::SysAdmin, "mounting a bpffs") {
            // The answer of a seccomp filter is known only after the call.
            Permission::Granted if is_filtered() => Permission::Unknown,
            // Mounting has its own rule for user namespaces.
            Permission::Denied(Cause::UserNamespace) => Permission::Denied(Cause::NeedsDelegation),
            permission => permission,
        }
    }

    fn may_create_maps(&self) -> Permission {
        let all = [Capability::Bpf, Capability::NetAdmin];
        let mut permission =
            self.by_types("creating a map", &all, UNPRIVILEGED_MAPS, MAPS_WITH_BPF);
        if permission == Permission::Granted && !self.net_admin {
            permission = permission.within(Limit::Types(MAPS_WITH_SYS_ADMIN));
        }
        self.charged(permission)
    }

    fn may_load_progs(&self) -> Permission {
        let all = [Capability::Bpf, Capability::NetAdmin, Capability::Perfmon];
        let permission = self.by_types(
            "loading a program",
            &all,
            UNPRIVILEGED_PROGS,
            PROGS_WITH_BPF,
        );
        self.charged(self.locked_down(permission))
    }

    /// Adds the limit of lockdown, which affects tracing programs only.
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

    /// Adds the limit of `RLIMIT_MEMLOCK`, if this kernel charges maps and programs to it.
    fn charged(&self, permission: Permission) -> Permission {
        /// The least that the kernel charges for a map or program: a page.
        const LEAST: u64 = 4096;

        let limit = match self.memlock {
            Some(limit) if self.memlock_is_charged == Some(true) => limit,
            _ => return permission,
        };
        if limit < LEAST && permission.is_granted_or_partly() {
            return Permission::Denied(Cause::Memlock { limit });
        }
        permission.within(Limit::Memlock { limit })
    }

    fn has(&self, capability: Capability) -> bool {
        self.effective.contains(&capability)
    }

    /// The permission for an action that requires one capability.
    fn with(&self, capability: Capability, needed_for: &'static str) -> Permission {
        if !self.has(capability) {
            return Permission::Denied(Cause::MissingCapability {
                capability,
                needed_for,
            });
        }
        match self.in_user_namespace {
            Some(true) => Permission::Denied(Cause::UserNamespace),
            Some(false) => Permission::Granted,
            None => Permission::Unknown,
        }
    }

    /// The permission for an action that requires `all` capabilities for all types, `CAP_BPF` for many, and
    /// none for a few.
    fn by_types(
        &self,
        needed_for: &'static str,
        all: &[Capability],
        unprivileged: &'static str,
        with_bpf: &'static str,
    ) -> Permission {
        match self.with(Capability::Bpf, needed_for) {
            Permission::Granted if all.iter().all(|&each| self.has(each)) => Permission::Granted,
            Permission::Granted => Permission::Granted.within(Limit::Types(with_bpf)),
            denied => match self.unprivileged_bpf_disabled {
                Some(0) => Permission::Granted.within(Limit::Types(unprivileged)),
                Some(_) => denied,
                None => Permission::Unknown,
            },
        }
    }

    /// Returns true if a seccomp filter may answer syscalls instead of the kernel, which makes predictions
    /// unsafe.
    pub fn is_filtered(&self) -> bool {
        is_filtered()
    }
}

const UNPRIVILEGED_MAPS: &str = "hashes, arrays and others that take no capability";
const MAPS_WITH_BPF: &str = "all but those for sockets and devices, which take CAP_NET_ADMIN";
const MAPS_WITH_SYS_ADMIN: &str =
    "all but, before Linux 6.9, those for sockets and devices, which take CAP_NET_ADMIN itself";
const UNPRIVILEGED_PROGS: &str = "socket filters and control groups' packet filters";
const PROGS_WITH_BPF: &str =
    "those for networking take CAP_NET_ADMIN and those for tracing CAP_PERFMON";

/// One line for each action.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, &action) in Action::ALL.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            match self.may(action) {
                Permission::Granted => write!(f, "may {action}")?,
                Permission::Partly { limits } => {
                    // A limit may have a comma in it.
                    let limits: Vec<_> = limits.iter().map(Limit::to_string).collect();
                    write!(f, "may {action}: {}", limits.join("; "))?;
                }
                Permission::Denied(cause) => write!(f, "may not {action}: {cause}")?,
                Permission::Unknown => write!(f, "may or may not {action}")?,
            }
        }
        Ok(())
    }
}
