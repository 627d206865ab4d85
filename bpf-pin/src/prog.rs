//! Programs: what they are, how they are loaded.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use bitflags::bitflags;
use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::bpffs::Token;
use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Error, Reason, Result};
use crate::kind::Kind;
use crate::name::ObjName;
use crate::object::{Handle, ObjectKind, kinds};
use crate::sys::{self, NonZeroFd, sealed::Sealed};
use crate::types::{AttachType, Command, ProgType};

#[doc(no_inline)]
pub use bpf_pin_sys::bpf_insn as Insn;

/// An owned descriptor of a program.
///
/// As every [`Handle`] it has [`open`](Handle::open), [`open_with`](Handle::open_with),
/// [`from_id`](Handle::from_id), [`pin`](Handle::pin), [`try_clone`](Handle::try_clone),
/// [`id`](Handle::id) and [`info`](Handle::info); `TryFrom<OwnedFd>`, `AsFd` and `Into<OwnedFd>`.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{Insn, ProgSpec, ProgType};
///
/// // Lets every packet through.
/// let insns = [Insn::mov64_imm(0, -1), Insn::exit()];
/// let prog = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).license(c"GPL").load()?;
/// let prog = prog.pin("/sys/fs/bpf/accept")?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub type Prog = Handle<kinds::ProgKind>;

impl Sealed for kinds::ProgKind {}

impl ObjectKind for kinds::ProgKind {
    const KIND: Kind = Kind::Prog;
    type Info = ProgInfo;

    fn info(of: &Handle<Self>) -> Result<ProgInfo, Errno> {
        sys::info(of.as_fd()).map(ProgInfo::from_raw)
    }

    fn fd_by_id(id: u32) -> Result<OwnedFd, Errno> {
        sys::prog_fd_by_id(id)
    }
}

/// `struct bpf_prog_info`: what the kernel tells of a program. Linux 4.13; fields that the kernel
/// does not know, or does not tell this thread, are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgInfo {
    /// The type.
    pub prog_type: ProgType,
    /// Unique among living programs.
    pub id: u32,
    /// A hash of its instructions.
    pub tag: [u8; 8],
    /// Linux 4.15.
    pub name: ObjName,
    /// The bytes of its machine code.
    pub jited_prog_len: u32,
    /// The bytes of its instructions as the verifier left them.
    pub xlated_prog_len: u32,
    /// When it was loaded, since boot. Linux 4.15.
    pub load_time: Duration,
    /// Who loaded it. Linux 4.15.
    pub created_by_uid: u32,
    /// How many maps it uses. Linux 4.15.
    pub nr_map_ids: u32,
    /// Whether its licence lets it call all helpers. Linux 4.18.
    pub gpl_compatible: bool,
    /// The device that it was offloaded to, or 0. Linux 4.16.
    pub ifindex: u32,
    /// The BTF object that it was loaded with, or 0. Linux 5.0.
    pub btf_id: u32,
    /// The time it has run, where `kernel.bpf_stats_enabled` is 1. Linux 5.1.
    pub run_time: Duration,
    /// How often it has run, likewise. Linux 5.1.
    pub run_cnt: u64,
    /// How often it was not run because it ran already. Linux 5.12.
    pub recursion_misses: u64,
    /// How many instructions the verifier went through. Linux 5.16.
    pub verified_insns: u32,
    /// The BTF object of what it is attached to by loading, or 0. Linux 6.0.
    pub attach_btf_obj_id: u32,
    /// The type there. Linux 6.0.
    pub attach_btf_id: u32,
}

impl ProgInfo {
    fn from_raw(raw: abi::bpf_prog_info) -> Self {
        Self {
            prog_type: ProgType(raw.r#type),
            id: raw.id,
            tag: raw.tag,
            name: ObjName::from_raw(raw.name),
            jited_prog_len: raw.jited_prog_len,
            xlated_prog_len: raw.xlated_prog_len,
            load_time: Duration::from_nanos(raw.load_time),
            created_by_uid: raw.created_by_uid,
            nr_map_ids: raw.nr_map_ids,
            gpl_compatible: raw.gpl_compatible(),
            ifindex: raw.ifindex,
            btf_id: raw.btf_id,
            run_time: Duration::from_nanos(raw.run_time_ns),
            run_cnt: raw.run_cnt,
            recursion_misses: raw.recursion_misses,
            verified_insns: raw.verified_insns,
            attach_btf_obj_id: raw.attach_btf_obj_id,
            attach_btf_id: raw.attach_btf_id,
        }
    }
}

bitflags! {
    /// `BPF_F_*` of `BPF_PROG_LOAD`. Bits that a newer kernel knows are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct ProgFlags: u32 {
        /// `BPF_F_STRICT_ALIGNMENT`: unaligned access is refused. Linux 4.12.
        const STRICT_ALIGNMENT = abi::BPF_F_STRICT_ALIGNMENT;
        /// `BPF_F_ANY_ALIGNMENT`: unaligned access is let pass. Linux 5.0.
        const ANY_ALIGNMENT = abi::BPF_F_ANY_ALIGNMENT;
        /// `BPF_F_SLEEPABLE`: the program may sleep. Linux 5.10.
        const SLEEPABLE = abi::BPF_F_SLEEPABLE;
        /// `BPF_F_XDP_HAS_FRAGS`: an XDP program that knows packets in parts. Linux 5.18.
        const XDP_HAS_FRAGS = abi::BPF_F_XDP_HAS_FRAGS;
        /// `BPF_F_XDP_DEV_BOUND_ONLY`: an XDP program for one device. Linux 6.3.
        const XDP_DEV_BOUND_ONLY = abi::BPF_F_XDP_DEV_BOUND_ONLY;
        const _ = !0;
    }
}

/// The arguments of `BPF_PROG_LOAD`: what a program is to be.
#[derive(Debug, Clone)]
pub struct ProgSpec<'a> {
    prog_type: ProgType,
    insns: &'a [Insn],
    license: CString,
    name: ObjName,
    flags: ProgFlags,
    expected_attach_type: AttachType,
    attach_btf_id: u32,
    attach_prog: Option<BorrowedFd<'a>>,
    token: Option<&'a Token>,
}

impl<'a> ProgSpec<'a> {
    /// A program of these instructions, without a licence that opens the GPL's helpers.
    ///
    /// Maps are named in the instructions by descriptor, see [`Insn::ld_map_fd`].
    pub fn new(prog_type: ProgType, insns: &'a [Insn]) -> Self {
        Self {
            prog_type,
            insns,
            license: CString::default(),
            name: ObjName::default(),
            flags: ProgFlags::empty(),
            expected_attach_type: AttachType(0),
            attach_btf_id: 0,
            attach_prog: None,
            token: None,
        }
    }

    /// `license`, such as "GPL" or "Dual MIT/GPL".
    pub fn license(mut self, license: &CStr) -> Self {
        self.license = license.to_owned();
        self
    }

    /// `prog_name`: up to 15 letters, digits, '_' and '.'. Linux 4.15.
    ///
    /// # Errors
    ///
    /// [`Error::LoadProg`] with [`InvalidName`](Cause::InvalidName) for any other name.
    pub fn name(mut self, name: &str) -> Result<Self> {
        match ObjName::new(name) {
            Ok(name) => self.name = name,
            Err(cause) => return Err(self.error(String::new(), cause.into())),
        }
        Ok(self)
    }

    /// `prog_flags`. Linux 4.12.
    pub fn flags(mut self, flags: ProgFlags) -> Self {
        self.flags |= flags;
        self
    }

    /// `expected_attach_type`, for the types of program that ask for it. Linux 4.17.
    pub fn expected_attach_type(mut self, attach_type: AttachType) -> Self {
        self.expected_attach_type = attach_type;
        self
    }

    /// `attach_btf_id`: the kernel's function, or the like, by its id in the kernel's BTF. Linux 5.5.
    pub fn attach_btf_id(mut self, id: u32) -> Self {
        self.attach_btf_id = id;
        self
    }

    /// `attach_prog_fd`: the program that `attach_btf_id` is in. Linux 5.5.
    pub fn attach_prog(mut self, prog: &'a Prog) -> Self {
        self.attach_prog = Some(prog.as_fd());
        self
    }

    /// `prog_token_fd` and `BPF_F_TOKEN_FD`: the right to load it. Linux 6.9.
    pub fn token(mut self, token: &'a Token) -> Self {
        self.token = Some(token);
        self
    }

    /// `BPF_PROG_LOAD`. Linux 3.18.
    ///
    /// The verifier is asked for its log only after it has refused the program, so a program that
    /// loads is loaded by one syscall.
    ///
    /// # Errors
    ///
    /// [`Error::LoadProg`], with the verifier's log where it got that far: EINVAL or EACCES where it
    /// refused the program, or EINVAL where the kernel does not know the type; E2BIG where the
    /// program is empty, too long or too complex;
    /// [`MissingCapability`](Cause::MissingCapability), [`UserNamespace`](Cause::UserNamespace) or
    /// [`Memlock`](Cause::Memlock) (EPERM); with a [`token`](Self::token) instead
    /// [`NotDelegated`](Cause::NotDelegated); [`Lockdown`](Cause::Lockdown).
    ///
    /// # References
    ///
    /// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), kernel/bpf/syscall.c: `bpf_prog_load`
    pub fn load(&self) -> Result<Prog> {
        if self.flags.bits() & abi::BPF_F_TOKEN_FD != 0 && self.token.is_none() {
            let what = "BPF_F_TOKEN_FD";
            return Err(self.error(String::new(), Cause::NoDescriptor { what }.into()));
        }
        match self.load_raw(None) {
            Ok(prog) => Ok(prog),
            Err(errno) => self.load_again(errno),
        }
    }

    fn load_raw(&self, mut log: Option<&mut [u8]>) -> Result<Prog, Errno> {
        /// The verifier gives way to signals that are pending.
        const TRIES: usize = 5;

        let attach_prog = NonZeroFd::new(self.attach_prog)?;
        let (token_fd, token_flag) = Token::argument(self.token);
        let attr = abi::bpf_attr_prog_load {
            prog_type: self.prog_type.0,
            prog_flags: self.flags.bits() | token_flag,
            prog_name: self.name.into_raw(),
            expected_attach_type: self.expected_attach_type.0,
            attach_btf_id: self.attach_btf_id,
            attach_prog_fd: attach_prog.number(),
            prog_token_fd: token_fd,
            ..abi::bpf_attr_prog_load::zeroed()
        };
        let mut result = Err(Errno::AGAIN);
        for _ in 0..TRIES {
            result = sys::prog_load(attr, self.insns, &self.license, log.as_deref_mut());
            if !matches!(result, Err(Errno::AGAIN)) {
                break;
            }
        }
        result.map(Prog::from_proven_fd)
    }

    /// The same with room for the verifier's log, doubled until it is enough.
    #[cold]
    fn load_again(&self, first: Errno) -> Result<Prog> {
        const FIRST_ROOM: usize = 64 << 10;
        /// `UINT_MAX >> 8`: more is EINVAL before Linux 5.2.
        const MOST_ROOM: usize = (1 << 24) - 1;

        let mut room = FIRST_ROOM;
        let (errno, log) = loop {
            let mut log = vec![0; room];
            match self.load_raw(Some(&mut log)) {
                // What stood in the way has passed.
                Ok(prog) => return Ok(prog),
                Err(Errno::NOSPC) if room < MOST_ROOM => room = (room * 2).min(MOST_ROOM),
                Err(Errno::NOSPC) => break (first, log),
                Err(errno) => break (errno, log),
            }
        };
        let end = log.iter().position(|&byte| byte == 0);
        let log = String::from_utf8_lossy(&log[..end.unwrap_or(log.len())]).into_owned();
        let cause = match errno {
            Errno::PERM => self.memlock().or_else(|| self.unprivileged()),
            Errno::INVAL => diagnose::for_helper(self.prog_type, &log),
            _ => None,
        };
        Err(self.error(log, Reason::new(errno, cause)))
    }

    #[cold]
    fn unprivileged(&self) -> Option<Cause> {
        let Some(token) = self.token else {
            return diagnose::for_prog(self.prog_type);
        };
        token.forbids(Command::PROG_LOAD, |allowed| {
            let attach_type = self.expected_attach_type;
            match () {
                () if !allowed.progs.contains(self.prog_type) => {
                    Some(format!("programs of type {}", self.prog_type))
                }
                () if !allowed.attachs.contains(attach_type) => {
                    Some(format!("programs for {attach_type}"))
                }
                () => None,
            }
        })
    }

    /// If a program that does nothing loads when it is short and does not when it is as long as
    /// this one, then it was neither the privileges nor what this one does.
    fn memlock(&self) -> Option<Cause> {
        let cause = diagnose::memlock()?;
        let nothing = |length: usize| {
            let mut insns = vec![Insn::mov64_imm(0, 0); length.saturating_sub(1)];
            insns.push(Insn::exit());
            let spec = ProgSpec {
                insns: &insns,
                ..self.clone()
            };
            spec.load_raw(None).map(drop)
        };
        let over = nothing(2).is_ok() && nothing(self.insns.len()) == Err(Errno::PERM);
        over.then_some(cause)
    }

    #[cold]
    fn error(&self, log: String, reason: Reason) -> Error {
        Error::LoadProg {
            prog_type: self.prog_type,
            name: self.name.to_string(),
            log: log.into(),
            reason,
        }
    }
}
