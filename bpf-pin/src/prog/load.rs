//! `BPF_PROG_LOAD`: loads a program.

use std::os::fd::OwnedFd;

use bpf_pin_sys::{self as abi, Version};
use rustix::io::Errno;

use super::log::{Logged, with_log};
use crate::diagnose;
use crate::error::{Cause, Error, Operation, Reason, Result, Subject};
use crate::process::is_filtered;
use crate::prog::{Insn, Prog, ProgSpec};
use crate::sys::{self, NonZeroFd, ProgData, ProgField, Records};
use crate::token::Token;
use crate::types::{Command, LogLevel, ObjName};

impl ProgSpec<'_> {
    /// `BPF_PROG_LOAD`: loads the program. Linux 3.18.
    ///
    /// Loading a valid program takes one syscall. If the verifier rejects the program, it is loaded again to
    /// get the log, with larger buffers until the whole log fits. Where the kernel reports the size of the
    /// log (`log_true_size`, Linux 6.4), the second buffer fits.
    ///
    /// # Errors
    ///
    /// [`Operation::LoadProg`](crate::error::Operation::LoadProg), with the verifier's log if it began to
    /// verify:
    /// - EINVAL or EACCES if the verifier rejects the program; EINVAL for a type that the kernel does not
    ///   know
    /// - E2BIG if the program is too long or too complex
    /// - [`MissingCapability`](Cause::MissingCapability), [`UserNamespace`](Cause::UserNamespace) or
    ///   [`Memlock`](Cause::Memlock) (EPERM); with a [`token`](Self::token)
    ///   [`NotDelegated`](Cause::NotDelegated), or the capability, which it takes in the token's user namespace
    /// - [`Filtered`](Cause::Filtered) if a seccomp filter rejects the command
    /// - [`Lockdown`](Cause::Lockdown)
    /// - [`Unsupported`](Cause::Unsupported) (EINVAL, E2BIG) for a field that the kernel is too old for
    /// - ENOKEY, EKEYREJECTED, EBADMSG and similar for a [`signature`](Self::signature); EINVAL if the
    ///   keyring does not exist
    ///
    /// [`InvalidArgument`](Cause::InvalidArgument), without a syscall, for:
    /// - an invalid name
    /// - an empty program
    /// - bytes that are not a whole number of records
    /// - an instruction with an index beyond the end of [`fd_array`](Self::fd_array)
    /// - records without [`btf`](Self::btf), and `BPF_F_TOKEN_FD` without a token
    ///
    /// # References
    ///
    /// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), kernel/bpf/syscall.c: `bpf_prog_load`
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::prog::Insn;
    /// use bpf_pin::types::ProgType;
    /// use bpf_pin::{Error, ProgSpec};
    ///
    /// let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
    /// let pass = ProgSpec::new(ProgType::XDP, &insns).name("pass").load()?;
    ///
    /// // R5 was never set. The error holds the whole log of the verifier.
    /// let insns = [Insn::mov64_reg(0, 5), Insn::exit()];
    /// if let Err(error) = ProgSpec::new(ProgType::XDP, &insns).load() {
    ///     println!("{error}\n{}", error.log().unwrap_or_default());
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn load(&self) -> Result<Prog> {
        let args = self.validate()?;
        let loaded = self.load_raw(&args, LogLevel::empty(), &mut []).0;
        loaded
            .map(Prog::from_proven_fd)
            .or_else(|errno| self.load_again(&args, errno))
    }

    /// Loads the program and returns the verifier's log too.
    ///
    /// One syscall and one allocation if the log is shorter than 64 KiB.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and EINVAL for a level that the kernel does not know.
    pub fn load_with_log(&self, level: LogLevel) -> Result<(Prog, String)> {
        if level.is_empty() {
            return Ok((self.load()?, String::new()));
        }
        let args = self.validate()?;
        let Logged { result, log } = with_log(|log| self.load_raw(&args, level, log));
        match result {
            Ok(fd) => Ok((Prog::from_proven_fd(fd), log)),
            Err(errno) => Err(self.explain(errno, log)),
        }
    }

    /// Builds the arguments. Rejects those that the kernel would misread.
    fn validate(&self) -> Result<(abi::bpf_attr_prog_load, ProgData<'_>)> {
        self.arguments()
            .map_err(|cause| self.error(String::new(), cause.into()))
    }

    fn arguments(&self) -> Result<(abi::bpf_attr_prog_load, ProgData<'_>), Cause> {
        let name = ObjName::new(self.name).map_err(|invalid| Cause::invalid_name(&invalid.name))?;
        let data = ProgData {
            insns: self.insns,
            license: &self.license,
            func_info: records("func_info", self.func_info)?,
            line_info: records("line_info", self.line_info)?,
            core_relos: records("core_relos", self.core_relos)?,
            fd_array: self.fd_array,
            keeps_fd_array: self.keeps_fd_array,
            signature: self.signature,
        };
        if self.insns.is_empty() {
            return Err(Cause::invalid("insns", "is empty"));
        }
        if self.flags.bits() & abi::BPF_F_TOKEN_FD != 0 && self.token.is_none() {
            let what = "BPF_F_TOKEN_FD";
            return Err(Cause::no_descriptor(what));
        }
        let all = [data.func_info, data.line_info, data.core_relos];
        if self.btf.is_none() && all.iter().any(|records| !records.is_empty()) {
            let what = "prog_btf_fd";
            return Err(Cause::no_descriptor(what));
        }
        if let Some((insn, index)) = data.beyond_array() {
            let length = self.fd_array.len();
            let problem =
                format!("has {length} descriptors, and instruction {insn} uses index {index}");
            return Err(Cause::invalid("fd_array", problem));
        }
        let (token_fd, token_flag) = Token::argument(self.token);
        let attr = abi::bpf_attr_prog_load {
            prog_type: self.prog_type.0,
            prog_flags: self.flags.bits() | token_flag,
            prog_name: name.into_raw(),
            kern_version: self.kern_version,
            prog_ifindex: self.ifindex,
            expected_attach_type: self.attach_type().0,
            attach_btf_id: self.attach_btf_id,
            keyring_id: self.keyring_id,
            prog_token_fd: token_fd,
            ..abi::bpf_attr_prog_load::zeroed()
        };
        Ok((attr, data))
    }

    /// Returns the descriptor, and the size of the log if the kernel reports it.
    fn load_raw(
        &self,
        (attr, data): &(abi::bpf_attr_prog_load, ProgData<'_>),
        level: LogLevel,
        log: &mut [u8],
    ) -> (Result<OwnedFd, Errno>, u32) {
        /// The verifier stops with EAGAIN when a signal is pending.
        const TRIES: usize = 5;

        let descriptors = NonZeroFd::new(self.btf)
            .and_then(|btf| NonZeroFd::new(self.attach_to).map(|attach_to| (btf, attach_to)));
        let (btf, attach_to) = match descriptors {
            Ok(descriptors) => descriptors,
            Err(errno) => return (Err(errno), 0),
        };
        let attr = abi::bpf_attr_prog_load {
            prog_btf_fd: btf.number(),
            attach_prog_fd: attach_to.number(),
            log_level: level.bits(),
            ..*attr
        };
        let mut tries = 1;
        loop {
            let result = sys::prog_load(attr, data, log);
            if !matches!(result.0, Err(Errno::AGAIN)) || tries == TRIES {
                return result;
            }
            tries += 1;
        }
    }

    /// Loads the program again, with a buffer for the verifier's log.
    #[cold]
    fn load_again(
        &self,
        args: &(abi::bpf_attr_prog_load, ProgData<'_>),
        first: Errno,
    ) -> Result<Prog> {
        if self.log_level.is_empty() {
            return Err(self.explain(first, String::new()));
        }
        let Logged { result, log } = with_log(|log| self.load_raw(args, self.log_level, log));
        // The second call succeeds if the first failure was temporary.
        result.map(Prog::from_proven_fd).map_err(|errno| {
            let is_log_too_long = errno == Errno::NOSPC;
            self.explain(if is_log_too_long { first } else { errno }, log)
        })
    }

    #[cold]
    fn explain(&self, errno: Errno, log: String) -> Error {
        let cause = match errno {
            Errno::PERM => self.memlock().or_else(|| self.unprivileged()),
            Errno::INVAL | Errno::TOOBIG if log.is_empty() => self.unknown_field(),
            Errno::INVAL => diagnose::for_helper(self.prog_type, &log),
            _ => None,
        };
        self.error(log, Reason::new(errno, cause))
    }

    /// The newest requested field that this kernel does not know.
    fn unknown_field(&self) -> Option<Cause> {
        use ProgField::{CoreRelos, FdArray, FdArrayCnt, Signature};
        let has_array = !self.fd_array.is_empty();
        let is_signed = !self.signature.is_empty() || self.keyring_id != 0;
        let has_relos = !self.core_relos.0.is_empty();
        let requested = [
            (is_signed, Signature, "signature", (6, 18)),
            (
                has_array && self.keeps_fd_array,
                FdArrayCnt,
                "fd_array_cnt",
                (6, 14),
            ),
            (has_relos, CoreRelos, "core_relos", (5, 17)),
            (has_array, FdArray, "fd_array", (5, 14)),
        ];
        let (_, _, what, (major, minor)) =
            requested.into_iter().find(|&(is_requested, field, ..)| {
                is_requested && sys::probe_prog_field(field) == Some(false)
            })?;
        let since = Version::new(major, minor);
        (!is_filtered()).then_some(Cause::Unsupported { what, since })
    }

    #[cold]
    fn unprivileged(&self) -> Option<Cause> {
        let forbidden = self.token.and_then(|token| {
            token.forbids(Command::PROG_LOAD, |allowed| {
                let attach_type = self.attach_type();
                if !allowed.progs.contains(self.prog_type) {
                    return Some(format!("programs of type {}", self.prog_type));
                }
                (!allowed.attachs.contains(attach_type))
                    .then(|| format!("programs for {attach_type}"))
            })
        });
        forbidden.or_else(|| diagnose::for_prog(self.prog_type, self.token.is_some()))
    }

    /// `RLIMIT_MEMLOCK` is the cause if a short program without effect loads, and one as long as this does
    /// not.
    fn memlock(&self) -> Option<Cause> {
        let cause = diagnose::memlock()?;
        let load_nops = |length: usize| {
            let mut insns = vec![Insn::mov64_imm(0, 0); length.saturating_sub(1)];
            insns.push(Insn::exit());
            let spec = ProgSpec {
                insns: &insns,
                func_info: (&[], 0),
                line_info: (&[], 0),
                core_relos: (&[], 0),
                ..self.clone()
            };
            let args = spec.arguments().map_err(|_| Errno::INVAL)?;
            spec.load_raw(&args, LogLevel::empty(), &mut []).0.map(drop)
        };
        let is_limited = load_nops(2).is_ok() && load_nops(self.insns.len()) == Err(Errno::PERM);
        is_limited.then_some(cause)
    }

    #[cold]
    pub(super) fn error(&self, log: String, reason: Reason) -> Error {
        // An invalid name is part of the cause instead.
        let name = ObjName::new(self.name).unwrap_or_default().to_string();
        let prog_type = self.prog_type;
        Error::new(Operation::LoadProg, reason)
            .of(Subject::Prog { prog_type, name })
            .with_log(log)
    }
}

fn records<'a>(
    what: &'static str,
    (bytes, rec_size): (&'a [u8], u32),
) -> Result<Records<'a>, Cause> {
    let length = bytes.len();
    Records::new(bytes, rec_size).ok_or_else(|| {
        let problem = format!("has {length} bytes, not a multiple of the record size {rec_size}");
        Cause::invalid(what, problem)
    })
}
