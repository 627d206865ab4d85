//! What a program is to be.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use bitflags::bitflags;
use bpf_pin_sys as abi;

use crate::prog::{Insn, Prog};
use crate::token::Token;
use crate::types::{AttachType, LogLevel, ProgType};

bitflags! {
    /// `BPF_F_*` of `BPF_PROG_LOAD`. Bits that a newer kernel knows are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct ProgFlags: u32 {
        /// `BPF_F_STRICT_ALIGNMENT`: unaligned access is refused. Linux 4.12.
        const STRICT_ALIGNMENT = abi::BPF_F_STRICT_ALIGNMENT;
        /// `BPF_F_ANY_ALIGNMENT`: unaligned access is let pass. Linux 5.0.
        const ANY_ALIGNMENT = abi::BPF_F_ANY_ALIGNMENT;
        /// `BPF_F_TEST_RND_HI32`: noise in upper halves that are taken for unused. Linux 5.3.
        const TEST_RND_HI32 = abi::BPF_F_TEST_RND_HI32;
        /// `BPF_F_TEST_STATE_FREQ`: the verifier saves its state often. Linux 5.4.
        const TEST_STATE_FREQ = abi::BPF_F_TEST_STATE_FREQ;
        /// `BPF_F_SLEEPABLE`: the program may sleep. Linux 5.10.
        const SLEEPABLE = abi::BPF_F_SLEEPABLE;
        /// `BPF_F_XDP_HAS_FRAGS`: an XDP program that knows packets in parts. Linux 5.18.
        const XDP_HAS_FRAGS = abi::BPF_F_XDP_HAS_FRAGS;
        /// `BPF_F_XDP_DEV_BOUND_ONLY`: an XDP program for one device. Linux 6.3.
        const XDP_DEV_BOUND_ONLY = abi::BPF_F_XDP_DEV_BOUND_ONLY;
        /// `BPF_F_TEST_REG_INVARIANTS`: a register that contradicts itself is an error. Linux 6.8.
        const TEST_REG_INVARIANTS = abi::BPF_F_TEST_REG_INVARIANTS;
        const _ = !0;
    }
}

/// The arguments of `BPF_PROG_LOAD`. The setters check nothing; [`load`](Self::load) does.
///
/// # Examples
///
/// What the verifier says of a program that it accepts:
///
/// ```no_run
/// use bpf_pin::prog::Insn;
/// use bpf_pin::types::{AttachType, LogLevel, ProgType};
/// use bpf_pin::ProgSpec;
///
/// let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
/// let spec = ProgSpec::new(ProgType::XDP, &insns)
///     .expected_attach_type(AttachType::XDP)
///     .name("pass");
/// let (prog, log) = spec.load_with_log(LogLevel::STATS)?;
/// println!("{log}");
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ProgSpec<'a> {
    pub(super) prog_type: ProgType,
    pub(super) insns: &'a [Insn],
    pub(super) license: CString,
    pub(super) name: &'a str,
    pub(super) flags: ProgFlags,
    pub(super) kern_version: u32,
    pub(super) ifindex: u32,
    pub(super) expected_attach_type: AttachType,
    pub(super) btf: Option<BorrowedFd<'a>>,
    pub(super) func_info: (&'a [u8], u32),
    pub(super) line_info: (&'a [u8], u32),
    pub(super) core_relos: (&'a [u8], u32),
    pub(super) attach_btf_id: u32,
    /// The program, or the BTF object, that `attach_btf_id` is in.
    pub(super) attach_to: Option<BorrowedFd<'a>>,
    pub(super) fd_array: &'a [BorrowedFd<'a>],
    pub(super) keeps_fd_array: bool,
    pub(super) signature: &'a [u8],
    pub(super) keyring_id: i32,
    pub(super) log_level: LogLevel,
    pub(super) token: Option<&'a Token>,
}

impl<'a> ProgSpec<'a> {
    /// A program of these instructions, without a licence that opens the GPL's helpers.
    ///
    /// Instructions name maps by their place in [`fd_array`](Self::fd_array), or by descriptor number
    /// ([`Insn::ld_map_fd`]). A number is only that: instructions borrow no descriptor, and the kernel looks
    /// at it when the program is loaded. Keep the map open until then, or the program gets whatever map has
    /// the number. `fd_array` borrows its descriptors, so that this cannot happen.
    pub fn new(prog_type: ProgType, insns: &'a [Insn]) -> Self {
        Self {
            prog_type,
            insns,
            license: CString::default(),
            name: "",
            flags: ProgFlags::empty(),
            kern_version: 0,
            ifindex: 0,
            expected_attach_type: AttachType(0),
            btf: None,
            func_info: (&[], 0),
            line_info: (&[], 0),
            core_relos: (&[], 0),
            attach_btf_id: 0,
            attach_to: None,
            fd_array: &[],
            keeps_fd_array: false,
            signature: &[],
            keyring_id: 0,
            log_level: LogLevel::LEVEL1,
            token: None,
        }
    }

    /// `license`, such as "GPL" or "Dual MIT/GPL".
    pub fn license(mut self, license: &CStr) -> Self {
        self.license = license.to_owned();
        self
    }

    /// `prog_name`: up to 15 letters, digits, '_' and '.'. Linux 4.15.
    pub fn name(mut self, name: &'a str) -> Self {
        self.name = name;
        self
    }

    /// `prog_flags`. Linux 4.12.
    pub fn flags(mut self, flags: ProgFlags) -> Self {
        self.flags = flags;
        self
    }

    /// `kern_version`: the kernel that a kprobe program is for, as `LINUX_VERSION_CODE` has it;
    /// looked at before Linux 5.0. Linux 4.1.
    pub fn kern_version(mut self, version: u32) -> Self {
        self.kern_version = version;
        self
    }

    /// `prog_ifindex`: the device that it is offloaded or, with
    /// [`XDP_DEV_BOUND_ONLY`](ProgFlags::XDP_DEV_BOUND_ONLY), bound to. Linux 4.15.
    pub fn ifindex(mut self, ifindex: u32) -> Self {
        self.ifindex = ifindex;
        self
    }

    /// `expected_attach_type`, for the types of program that ask for it. Linux 4.17.
    ///
    /// XDP programs are loaded and attached without it, but [`Link::update`](crate::Link::update)
    /// compares it, and refuses with EINVAL what differs. aya and libbpf set [`AttachType::XDP`]: so
    /// should who wants his link updated by others, or theirs by him.
    pub fn expected_attach_type(mut self, attach_type: AttachType) -> Self {
        self.expected_attach_type = attach_type;
        self
    }

    /// `prog_btf_fd`: the program's own types, a [`Btf`](crate::prog::Btf) or one from elsewhere.
    /// Linux 5.0.
    pub fn btf(mut self, btf: &'a impl AsFd) -> Self {
        self.btf = Some(btf.as_fd());
        self
    }

    /// `func_info`: which function begins where, records of `rec_size` bytes in the order of their
    /// instructions, as `.BTF.ext` has them: [`bpf_func_info`](abi::bpf_func_info). They refer to the
    /// types of [`btf`](Self::btf). Linux 5.0.
    pub fn func_info(mut self, records: &'a [u8], rec_size: u32) -> Self {
        self.func_info = (records, rec_size);
        self
    }

    /// `line_info`: which line of the source an instruction is from, records of `rec_size` bytes
    /// likewise: [`bpf_line_info`](abi::bpf_line_info). Linux 5.0.
    pub fn line_info(mut self, records: &'a [u8], rec_size: u32) -> Self {
        self.line_info = (records, rec_size);
        self
    }

    /// `core_relos`: what the kernel is to put into instructions for its own types' layout, records
    /// of `rec_size` bytes likewise: `struct bpf_core_relo`, 16 bytes. Linux 5.17.
    pub fn core_relos(mut self, records: &'a [u8], rec_size: u32) -> Self {
        self.core_relos = (records, rec_size);
        self
    }

    /// `attach_btf_id`: the kernel's function, or the like, by its id in the kernel's BTF; or in
    /// that of [`attach_prog`](Self::attach_prog) or [`attach_btf_obj`](Self::attach_btf_obj).
    /// Linux 5.5.
    pub fn attach_btf_id(mut self, id: u32) -> Self {
        self.attach_btf_id = id;
        self
    }

    /// `attach_prog_fd`: the program that `attach_btf_id` is in. It shares a field with
    /// [`attach_btf_obj`](Self::attach_btf_obj): the last one counts. Linux 5.5.
    pub fn attach_prog(mut self, prog: &'a Prog) -> Self {
        self.attach_to = Some(prog.as_fd());
        self
    }

    /// `attach_btf_obj_fd`: the BTF object, the kernel's or a module's, that `attach_btf_id` is in.
    /// Linux 5.11.
    pub fn attach_btf_obj(mut self, btf: &'a impl AsFd) -> Self {
        self.attach_to = Some(btf.as_fd());
        self
    }

    /// `fd_array`: descriptors of maps and of modules' BTF that instructions name by their place in
    /// it, with `BPF_PSEUDO_MAP_IDX`, `BPF_PSEUDO_MAP_IDX_VALUE` and `BPF_PSEUDO_KFUNC_CALL`.
    /// Linux 5.14.
    pub fn fd_array(mut self, descriptors: &'a [BorrowedFd<'a>]) -> Self {
        self.fd_array = descriptors;
        self
    }

    /// `fd_array_cnt`: the program holds every map of the array, whether an instruction names it or
    /// not. Linux 6.14.
    pub fn keep_fd_array(mut self) -> Self {
        self.keeps_fd_array = true;
        self
    }

    /// `signature` and `keyring_id`: a PKCS#7 signature over the instructions, and the keyring with
    /// the keys: a key's serial number, or 0 for the kernel's own keys. Linux 6.18.
    pub fn signature(mut self, signature: &'a [u8], keyring_id: i32) -> Self {
        (self.signature, self.keyring_id) = (signature, keyring_id);
        self
    }

    /// `log_level`: what the verifier is to say of a program that it refuses, instead of
    /// [`LEVEL1`](LogLevel::LEVEL1). None where it is empty, and then a refusal is one syscall.
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = level;
        self
    }

    /// `prog_token_fd` and `BPF_F_TOKEN_FD`: the right to load it. Linux 6.9.
    pub fn token(mut self, token: &'a Token) -> Self {
        self.token = Some(token);
        self
    }
}
