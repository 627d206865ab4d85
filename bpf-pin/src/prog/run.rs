//! `BPF_PROG_TEST_RUN`: runs a program on given input.

use std::os::fd::AsFd;
use std::time::Duration;

use bitflags::bitflags;
use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, ObjectType, Operation, Reason, Result};
use crate::prog::Prog;
use crate::sys::{self, RunArgs, RunError, RunOut};
use crate::types::ProgType;

bitflags! {
    /// `BPF_F_TEST_*`: the flags of `BPF_PROG_TEST_RUN`. Unknown bits are kept.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::prog::{TestRun, TestRunFlags};
    /// use bpf_pin::Prog;
    ///
    /// let prog = Prog::open("/sys/fs/bpf/filter")?;
    /// let packet = [0; 64];
    /// let run = TestRun::new().data_in(&packet).flags(TestRunFlags::SKB_CHECKSUM_COMPLETE);
    /// println!("{}", prog.test_run(run)?.retval);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct TestRunFlags: u32 {
        /// `BPF_F_TEST_RUN_ON_CPU`: runs on the CPU of [`TestRun::cpu`], which sets this flag. Linux 5.10.
        const RUN_ON_CPU = abi::BPF_F_TEST_RUN_ON_CPU;
        /// `BPF_F_TEST_XDP_LIVE_FRAMES`: creates packets and sends them where the program directs them. Linux
        /// 5.18.
        const XDP_LIVE_FRAMES = abi::BPF_F_TEST_XDP_LIVE_FRAMES;
        /// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE`: gives the packet a checksum, and fails with EBADMSG if the
        /// program breaks it. Linux 6.11.
        const SKB_CHECKSUM_COMPLETE = abi::BPF_F_TEST_SKB_CHECKSUM_COMPLETE;
        const _ = !0;
    }
}

/// The input of a program for [`Prog::test_run`], and buffers for its output.
///
/// Each program type accepts some of the fields and fails with EINVAL for the others:
/// - types for packets need a packet of at least 14 bytes
/// - raw tracepoints accept only a context and a CPU
/// - the syscall type accepts only a context
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::prog::TestRun;
/// use bpf_pin::Prog;
///
/// let prog = Prog::open("/sys/fs/bpf/filter")?;
/// let (packet, mut room) = ([0; 64], [0; 256]);
/// let ran = prog.test_run(TestRun::new().data_in(&packet).data_out(&mut room).repeat(1000))?;
/// println!("{} in {:?} each: {:?}", ran.retval, ran.duration, &room[..ran.data_size_out]);
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct TestRun<'a> {
    args: RunArgs<'a>,
    flags: TestRunFlags,
    cpu: Option<u32>,
}

impl<'a> TestRun<'a> {
    /// A single run without input.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `data_in`: the packet. Linux 4.12.
    pub fn data_in(mut self, data: &'a [u8]) -> Self {
        self.args.data_in = data;
        self
    }

    /// Sets `data_out`: a buffer for the packet after the run. If it is empty, the packet is not copied.
    /// Linux 4.12.
    pub fn data_out(mut self, room: &'a mut [u8]) -> Self {
        self.args.data_out = room;
        self
    }

    /// Sets `ctx_in`: the context, a struct of the program's type such as `struct __sk_buff`. Linux 5.2.
    ///
    /// A program of the syscall type writes its context back to this buffer. A context for struct_ops is
    /// rejected, because the kernel would use its first word as an address to read from and write to.
    pub fn ctx_in(mut self, context: &'a mut [u8]) -> Self {
        self.args.ctx_in = context;
        self
    }

    /// Sets `ctx_out`: a buffer for the context after the run. If it is empty, the context is not copied.
    /// Linux 5.2.
    pub fn ctx_out(mut self, room: &'a mut [u8]) -> Self {
        self.args.ctx_out = room;
        self
    }

    /// Sets `repeat`: the number of runs, if more than one. Linux 4.12.
    pub fn repeat(mut self, times: u32) -> Self {
        self.args.repeat = times;
        self
    }

    /// Sets `flags`. Linux 5.10.
    pub fn flags(mut self, flags: TestRunFlags) -> Self {
        self.flags = flags;
        self
    }

    /// Sets `cpu` and `BPF_F_TEST_RUN_ON_CPU`: the CPU for a raw tracepoint program. Linux 5.10.
    pub fn cpu(mut self, cpu: u32) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// Sets `batch_size`: the number of packets per batch, up to 256, with
    /// [`XDP_LIVE_FRAMES`](TestRunFlags::XDP_LIVE_FRAMES). Linux 5.18.
    pub fn batch_size(mut self, packets: u32) -> Self {
        self.args.batch_size = packets;
        self
    }
}

/// The result of [`Prog::test_run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TestRunResult {
    /// The return value of the last run.
    pub retval: u32,
    /// The mean duration of a run, in whole nanoseconds. 0 for types that are not timed.
    pub duration: Duration,
    /// The size of the packet after the run, which is at the start of [`data_out`](TestRun::data_out) if that
    /// is not empty. 0 for types without packets.
    pub data_size_out: usize,
    /// The size of the context after the run, which is at the start of [`ctx_out`](TestRun::ctx_out) if that
    /// is not empty.
    pub ctx_size_out: usize,
}

impl Prog {
    /// `BPF_PROG_TEST_RUN`: runs the program on given input. Linux 4.12.
    ///
    /// One syscall. With a [context](TestRun::ctx_in) a second one comes first, for the program's type.
    ///
    /// # Errors
    ///
    /// [`Operation::RunProg`](crate::error::Operation::RunProg):
    /// - [`UnsupportedType`](Cause::UnsupportedType) for a context of struct_ops, or of a type newer than
    ///   this library
    /// - [`InvalidArgument`](Cause::InvalidArgument) (EINVAL) for a packet shorter than 14 bytes
    /// - EINVAL for a field that the type does not accept, or that it requires and does not get
    /// - [`UnsupportedType`](Cause::UnsupportedType) (ENOTSUPP) for a type that cannot be run this way
    /// - [`BufferTooSmall`](Cause::BufferTooSmall) (ENOSPC), with the size needed; the program has run and
    ///   the buffer is filled
    /// - ENXIO for a CPU that is offline
    /// - EINTR if a signal arrives between two runs, or before Linux 5.12 during any; some of the runs are done,
    ///   and maybe all
    /// - EPERM as [`info`](Prog::info)
    ///
    /// # References
    ///
    /// [The kernel's documentation](https://docs.kernel.org/bpf/bpf_prog_run.html), net/bpf/test_run.c
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::prog::{Insn, TestRun};
    /// use bpf_pin::types::ProgType;
    /// use bpf_pin::ProgSpec;
    ///
    /// let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
    /// let pass = ProgSpec::new(ProgType::XDP, &insns).load()?;
    /// let ran = pass.test_run(TestRun::new().data_in(&[0; 64]))?;
    /// assert_eq!(ran.retval, 2);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn test_run(&self, mut run: TestRun<'_>) -> Result<TestRunResult> {
        if let Some(cpu) = run.cpu {
            run.flags |= TestRunFlags::RUN_ON_CPU;
            run.args.cpu = cpu;
        }
        run.args.flags = run.flags.bits();
        let reason = match sys::prog_test_run(self.as_fd(), &mut run.args) {
            Ok(out) => {
                return Ok(TestRunResult {
                    retval: out.retval,
                    duration: Duration::from_nanos(out.duration.into()),
                    data_size_out: out.data_size as usize,
                    ctx_size_out: out.ctx_size as usize,
                });
            }
            Err(RunError::Context(number)) => {
                let prog_type = ProgType(number);
                let problem = "cannot be given a context: the kernel may follow addresses in it";
                Cause::unsupported(ObjectType::Prog(prog_type), problem).into()
            }
            Err(RunError::Info(errno)) => {
                let cause = (errno == Errno::PERM).then(diagnose::for_bpf).flatten();
                Reason::new(errno, cause)
            }
            Err(RunError::Failed(errno, out)) => {
                Reason::new(errno, self.run_cause(errno, &run.args, out))
            }
        };
        Err(Error::new(Operation::RunProg, reason))
    }

    #[cold]
    fn run_cause(&self, errno: Errno, args: &RunArgs<'_>, out: RunOut) -> Option<Cause> {
        match errno {
            Errno::NOSPC => no_room(args, out),
            sys::ENOTSUPP => {
                let prog_type = self.info().ok()?.prog_type;
                let problem = "cannot be test-run on this kernel";
                Some(Cause::unsupported(ObjectType::Prog(prog_type), problem))
            }
            Errno::PERM => diagnose::for_bpf(),
            Errno::INVAL if args.data_in.len() < ETH_HLEN => self.too_short(),
            _ => None,
        }
    }

    #[cold]
    fn too_short(&self) -> Option<Cause> {
        let is_for_packets = matches!(
            self.info().ok()?.prog_type,
            ProgType::SOCKET_FILTER
                | ProgType::SCHED_CLS
                | ProgType::SCHED_ACT
                | ProgType::XDP
                | ProgType::CGROUP_SKB
                | ProgType::LWT_IN
                | ProgType::LWT_OUT
                | ProgType::LWT_XMIT
                | ProgType::FLOW_DISSECTOR
        );
        is_for_packets.then(|| Cause::invalid("data_size_in", "must be 14 or more"))
    }
}

/// The size of an Ethernet header, which the kernel removes before it runs a program for packets.
const ETH_HLEN: usize = 14;

/// The buffer that was too short. The kernel reports the size that it needs.
#[cold]
fn no_room(args: &RunArgs<'_>, out: RunOut) -> Option<Cause> {
    let all = [
        ("data_out", args.data_out.len(), out.data_size),
        ("ctx_out", args.ctx_out.len(), out.ctx_size),
    ];
    let short = |&(_, room, size): &(&str, usize, u32)| room > 0 && size as usize > room;
    let (what, room, needed) = all.into_iter().find(short)?;
    Some(Cause::BufferTooSmall {
        what,
        room,
        needed: Some(needed as usize),
    })
}
