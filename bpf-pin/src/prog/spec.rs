//! The description of a program to load.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use bitflags::bitflags;
use bpf_pin_sys as abi;

use crate::prog::{Insn, Prog};
use crate::token::Token;
use crate::types::{AttachType, LogLevel, ProgType};

bitflags! {
    /// `BPF_F_*` of `BPF_PROG_LOAD`. Unknown bits are kept.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::prog::{Insn, ProgFlags};
    /// use bpf_pin::types::ProgType;
    /// use bpf_pin::ProgSpec;
    ///
    /// let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
    /// let prog = ProgSpec::new(ProgType::XDP, &insns).flags(ProgFlags::XDP_HAS_FRAGS).load()?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct ProgFlags: u32 {
        /// `BPF_F_STRICT_ALIGNMENT`: rejects unaligned access. Linux 4.12.
        const STRICT_ALIGNMENT = abi::BPF_F_STRICT_ALIGNMENT;
        /// `BPF_F_ANY_ALIGNMENT`: allows unaligned access. Linux 5.0.
        const ANY_ALIGNMENT = abi::BPF_F_ANY_ALIGNMENT;
        /// `BPF_F_TEST_RND_HI32`: randomizes upper halves of registers that are considered unused. Linux 5.3.
        const TEST_RND_HI32 = abi::BPF_F_TEST_RND_HI32;
        /// `BPF_F_TEST_STATE_FREQ`: the verifier saves its state often. Linux 5.4.
        const TEST_STATE_FREQ = abi::BPF_F_TEST_STATE_FREQ;
        /// `BPF_F_SLEEPABLE`: the program may sleep. Linux 5.10.
        const SLEEPABLE = abi::BPF_F_SLEEPABLE;
        /// `BPF_F_XDP_HAS_FRAGS`: an XDP program that supports packets in several fragments. Linux 5.18.
        const XDP_HAS_FRAGS = abi::BPF_F_XDP_HAS_FRAGS;
        /// `BPF_F_XDP_DEV_BOUND_ONLY`: an XDP program for one device. Linux 6.3.
        const XDP_DEV_BOUND_ONLY = abi::BPF_F_XDP_DEV_BOUND_ONLY;
        /// `BPF_F_TEST_REG_INVARIANTS`: contradictory register bounds are an error. Linux 6.8.
        const TEST_REG_INVARIANTS = abi::BPF_F_TEST_REG_INVARIANTS;
        const _ = !0;
    }
}

/// The description of a program: the arguments of `BPF_PROG_LOAD`.
///
/// [`new`](Self::new) sets what every program has, the setters add the rest, and [`load`](Self::load) loads
/// the program. The setters check nothing.
///
/// # Examples
///
/// Loads a program and prints the verifier's log:
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
    pub(super) expected_attach_type: Option<AttachType>,
    pub(super) btf: Option<BorrowedFd<'a>>,
    pub(super) func_info: (&'a [u8], u32),
    pub(super) line_info: (&'a [u8], u32),
    pub(super) core_relos: (&'a [u8], u32),
    pub(super) attach_btf_id: u32,
    /// The program or BTF object that `attach_btf_id` refers to.
    pub(super) attach_to: Option<BorrowedFd<'a>>,
    pub(super) fd_array: &'a [BorrowedFd<'a>],
    pub(super) keeps_fd_array: bool,
    pub(super) signature: &'a [u8],
    pub(super) keyring_id: i32,
    pub(super) log_level: LogLevel,
    pub(super) token: Option<&'a Token>,
}

impl<'a> ProgSpec<'a> {
    /// Describes a program of these instructions. Its license is empty, so it cannot use GPL-only helpers.
    ///
    /// # Maps
    ///
    /// An instruction refers to a map by its index in [`fd_array`](Self::fd_array), or by a descriptor number
    /// ([`Insn::ld_map_fd`]). A number borrows no descriptor, and the kernel resolves it only when it loads
    /// the program. Keep the map open until then: otherwise the program gets whatever map has the number.
    /// `fd_array` borrows its descriptors and avoids this.
    pub fn new(prog_type: ProgType, insns: &'a [Insn]) -> Self {
        Self {
            prog_type,
            insns,
            license: CString::default(),
            name: "",
            flags: ProgFlags::empty(),
            kern_version: 0,
            ifindex: 0,
            expected_attach_type: None,
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

    /// Sets `license`, such as "GPL" or "Dual MIT/GPL".
    pub fn license(mut self, license: &CStr) -> Self {
        self.license = license.to_owned();
        self
    }

    /// Sets `prog_name`: up to 15 letters, digits, '_' and '.'. Linux 4.15.
    pub fn name(mut self, name: &'a str) -> Self {
        self.name = name;
        self
    }

    /// Sets `prog_flags`. Linux 4.12.
    pub fn flags(mut self, flags: ProgFlags) -> Self {
        self.flags = flags;
        self
    }

    /// Sets `kern_version`: the kernel that a kprobe program is written for, as `LINUX_VERSION_CODE`; used
    /// only before Linux 5.0. Linux 4.1.
    pub fn kern_version(mut self, version: u32) -> Self {
        self.kern_version = version;
        self
    }

    /// Sets `prog_ifindex`: the device to offload the program to or, with
    /// [`XDP_DEV_BOUND_ONLY`](ProgFlags::XDP_DEV_BOUND_ONLY), to bind it to. Linux 4.15.
    pub fn ifindex(mut self, ifindex: u32) -> Self {
        self.ifindex = ifindex;
        self
    }

    /// Sets `expected_attach_type`, for program types that need it. Linux 4.17.
    ///
    /// The default is 0, and [`AttachType::XDP`] for XDP programs, as aya and libbpf set it. The kernel also
    /// attaches XDP programs with 0, but then [`Link::update`](crate::Link::update) with one that has
    /// [`AttachType::XDP`] fails with EINVAL, and the reverse. Set `AttachType(0)` to update the link of a
    /// program that was loaded so, or before Linux 4.17, which rejects others.
    pub fn expected_attach_type(mut self, attach_type: AttachType) -> Self {
        self.expected_attach_type = Some(attach_type);
        self
    }

    /// The one that is set, or the default of the type.
    pub(super) fn attach_type(&self) -> AttachType {
        match (self.expected_attach_type, self.prog_type) {
            (Some(attach_type), _) => attach_type,
            (None, ProgType::XDP) => AttachType::XDP,
            (None, _) => AttachType(0),
        }
    }

    /// Sets `prog_btf_fd`: the program's own types, a [`Btf`](crate::prog::Btf) or another descriptor. Linux
    /// 5.0.
    pub fn btf(mut self, btf: &'a impl AsFd) -> Self {
        self.btf = Some(btf.as_fd());
        self
    }

    /// Sets `func_info`: where each function begins. Linux 5.0.
    ///
    /// Records of `rec_size` bytes in the order of their instructions, as `.BTF.ext` has them:
    /// [`bpf_func_info`](abi::bpf_func_info). They refer to the types of [`btf`](Self::btf).
    pub fn func_info(mut self, records: &'a [u8], rec_size: u32) -> Self {
        self.func_info = (records, rec_size);
        self
    }

    /// Sets `line_info`: the source line of each instruction. Linux 5.0.
    ///
    /// Records of `rec_size` bytes as for [`func_info`](Self::func_info):
    /// [`bpf_line_info`](abi::bpf_line_info).
    pub fn line_info(mut self, records: &'a [u8], rec_size: u32) -> Self {
        self.line_info = (records, rec_size);
        self
    }

    /// Sets `core_relos`: what the kernel adapts in instructions to the layout of its own types. Linux 5.17.
    ///
    /// Records of `rec_size` bytes as for [`func_info`](Self::func_info): `struct bpf_core_relo`, 16 bytes.
    pub fn core_relos(mut self, records: &'a [u8], rec_size: u32) -> Self {
        self.core_relos = (records, rec_size);
        self
    }

    /// Sets `attach_btf_id`: the kernel function or other target, by its BTF id. Linux 5.5.
    ///
    /// The id is in the kernel's BTF, or in that of [`attach_prog`](Self::attach_prog) or
    /// [`attach_btf_obj`](Self::attach_btf_obj). This library does not parse BTF. The crate `btf-rs` finds the id
    /// of a function by its name: `Btf::from_file("/sys/kernel/btf/vmlinux")?.resolve_ids_by_name("vfs_read")?`.
    pub fn attach_btf_id(mut self, id: u32) -> Self {
        self.attach_btf_id = id;
        self
    }

    /// Sets `attach_prog_fd`: the program that `attach_btf_id` refers to. Linux 5.5.
    ///
    /// Replaces [`attach_btf_obj`](Self::attach_btf_obj), which is in the same field.
    pub fn attach_prog(mut self, prog: &'a Prog) -> Self {
        self.attach_to = Some(prog.as_fd());
        self
    }

    /// Sets `attach_btf_obj_fd`: the BTF object, of the kernel or a module, that `attach_btf_id` refers to.
    /// Linux 5.11.
    ///
    /// Replaces [`attach_prog`](Self::attach_prog), which is in the same field.
    pub fn attach_btf_obj(mut self, btf: &'a impl AsFd) -> Self {
        self.attach_to = Some(btf.as_fd());
        self
    }

    /// Sets `fd_array`: descriptors of maps and of modules' BTF. Linux 5.14.
    ///
    /// Instructions refer to them by index, with `BPF_PSEUDO_MAP_IDX`, `BPF_PSEUDO_MAP_IDX_VALUE` and
    /// `BPF_PSEUDO_KFUNC_CALL`.
    pub fn fd_array(mut self, descriptors: &'a [BorrowedFd<'a>]) -> Self {
        self.fd_array = descriptors;
        self
    }

    /// Sets `fd_array_cnt`: the program keeps every map of the array alive, also those that no instruction
    /// refers to. Linux 6.14.
    pub fn keep_fd_array(mut self) -> Self {
        self.keeps_fd_array = true;
        self
    }

    /// Sets `signature` and `keyring_id`: a PKCS#7 signature of the instructions, and the keyring with the
    /// keys. Linux 6.18.
    ///
    /// `keyring_id` is a key's serial number, or 0 for the kernel's own keys.
    pub fn signature(mut self, signature: &'a [u8], keyring_id: i32) -> Self {
        (self.signature, self.keyring_id) = (signature, keyring_id);
        self
    }

    /// Sets the `log_level` for the log of a rejected program, instead of [`LEVEL1`](LogLevel::LEVEL1). If it
    /// is empty there is no log, and a rejected program takes one syscall.
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = level;
        self
    }

    /// Sets `prog_token_fd` and `BPF_F_TOKEN_FD`: the token that allows loading the program. Linux 6.9.
    pub fn token(mut self, token: &'a Token) -> Self {
        self.token = Some(token);
        self
    }
}
