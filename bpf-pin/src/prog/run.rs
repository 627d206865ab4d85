//! `BPF_PROG_TEST_RUN`.

use std::os::fd::AsFd;
use std::time::Duration;

use bitflags::bitflags;
use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Error, Operation, Reason, Result};
use crate::prog::Prog;
use crate::sys::{self, RunArgs, RunError, RunOut};
use crate::types::ProgType;

bitflags! {
    /// `BPF_F_TEST_*`, the flags of `BPF_PROG_TEST_RUN`. Bits that a newer kernel knows are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct TestRunFlags: u32 {
        /// `BPF_F_TEST_RUN_ON_CPU`: on the CPU of [`TestRun::cpu`], which sets it. Linux 5.10.
        const RUN_ON_CPU = abi::BPF_F_TEST_RUN_ON_CPU;
        /// `BPF_F_TEST_XDP_LIVE_FRAMES`: packets are made, and go where the program sends them.
        /// Linux 5.18.
        const XDP_LIVE_FRAMES = abi::BPF_F_TEST_XDP_LIVE_FRAMES;
        /// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE`: the packet has a checksum, which the program keeps
        /// right or else it is EBADMSG. Linux 6.11.
        const SKB_CHECKSUM_COMPLETE = abi::BPF_F_TEST_SKB_CHECKSUM_COMPLETE;
        const _ = !0;
    }
}

/// The arguments of `BPF_PROG_TEST_RUN`: what a program is run on, and room for what it leaves.
///
/// Each type of program takes some of them and answers EINVAL to the others: one for packets a
/// packet of 14 bytes at least; one for raw tracepoints only a context and a CPU; one of type
/// syscall only a context.
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
    /// Once, on nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// `data_in`: the packet. Linux 4.12.
    pub fn data_in(mut self, data: &'a [u8]) -> Self {
        self.args.data_in = data;
        self
    }

    /// `data_out`: room for the packet as the program leaves it; none if it is empty. Linux 4.12.
    pub fn data_out(mut self, room: &'a mut [u8]) -> Self {
        self.args.data_out = room;
        self
    }

    /// `ctx_in`: the context, a struct of the program's type such as `struct __sk_buff`. That of a
    /// program of type syscall is written back there. Linux 5.2.
    ///
    /// The context of struct_ops is refused: the kernel would take the first word for the address of
    /// what it reads and writes.
    pub fn ctx_in(mut self, context: &'a mut [u8]) -> Self {
        self.args.ctx_in = context;
        self
    }

    /// `ctx_out`: room for the context as the program leaves it; none if it is empty. Linux 5.2.
    pub fn ctx_out(mut self, room: &'a mut [u8]) -> Self {
        self.args.ctx_out = room;
        self
    }

    /// `repeat`: how often it is run, instead of once. Linux 4.12.
    pub fn repeat(mut self, times: u32) -> Self {
        self.args.repeat = times;
        self
    }

    /// `flags`. Linux 5.10.
    pub fn flags(mut self, flags: TestRunFlags) -> Self {
        self.flags = flags;
        self
    }

    /// `BPF_F_TEST_RUN_ON_CPU`: where it is run, of a program for raw tracepoints. Linux 5.10.
    pub fn cpu(mut self, cpu: u32) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// `batch_size`: how many packets at a time, up to 256, with
    /// [`XDP_LIVE_FRAMES`](TestRunFlags::XDP_LIVE_FRAMES). Linux 5.18.
    pub fn batch_size(mut self, packets: u32) -> Self {
        self.args.batch_size = packets;
        self
    }
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TestRunResult {
    /// What the program returned, the last time.
    pub retval: u32,
    /// The mean time of a run, in whole nanoseconds; 0 of the types that are not timed.
    pub duration: Duration,
    /// The bytes of the packet as the program left it: those at the beginning of
    /// [`data_out`](TestRun::data_out), where room was given. 0 of types without packets.
    pub data_size_out: usize,
    /// The bytes of the context, at the beginning of [`ctx_out`](TestRun::ctx_out), where room was
    /// given.
    pub ctx_size_out: usize,
}

impl Prog {
    /// `BPF_PROG_TEST_RUN`: runs the program on what the caller gives it. One syscall, and with a
    /// [context](TestRun::ctx_in) another one before, for the program's type. Linux 4.12.
    ///
    /// # Errors
    ///
    /// [`Operation::RunProg`](crate::error::Operation::RunProg): [`NoContext`](Cause::NoContext) for a context of struct_ops, or of a type
    /// newer than this library; [`InvalidField`](Cause::InvalidField) (EINVAL) for a packet of less than
    /// 14 bytes; EINVAL where the type does not take what was given, or is not given what it takes;
    /// [`NoTestRun`](Cause::NoTestRun) (ENOTSUPP) for a type that cannot be run so;
    /// [`NoRoom`](Cause::NoRoom) (ENOSPC), which tells how much it takes: the program has run, and
    /// as much as there is room for is there; ENXIO for a CPU that is not online; EINTR where a
    /// signal came between two runs, some of which are done; EPERM as [`info`](Prog::info).
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
        match sys::prog_test_run(self.as_fd(), &mut run.args) {
            Ok(out) => Ok(TestRunResult {
                retval: out.retval,
                duration: Duration::from_nanos(out.duration.into()),
                data_size_out: out.data_size as usize,
                ctx_size_out: out.ctx_size as usize,
            }),
            Err(RunError::Context(number)) => {
                let prog_type = ProgType(number);
                let reason = Cause::NoContext { prog_type };
                Err(Error::new(Operation::RunProg, reason))
            }
            Err(RunError::Info(errno)) => {
                let cause = (errno == Errno::PERM).then(diagnose::for_bpf).flatten();
                let reason = Reason::new(errno, cause);
                Err(Error::new(Operation::RunProg, reason))
            }
            Err(RunError::Failed(errno, out)) => {
                let cause = match errno {
                    Errno::NOSPC => no_room(&run.args, out),
                    sys::ENOTSUPP => self.info().ok().map(|info| Cause::NoTestRun {
                        prog_type: info.prog_type,
                    }),
                    Errno::PERM => diagnose::for_bpf(),
                    Errno::INVAL if run.args.data_in.len() < ETH_HLEN => self.too_short(),
                    _ => None,
                };
                let reason = Reason::new(errno, cause);
                Err(Error::new(Operation::RunProg, reason))
            }
        }
    }
}

/// The bytes of an Ethernet header, which the kernel takes off before it runs what is for packets.
const ETH_HLEN: usize = 14;

impl Prog {
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
        is_for_packets.then_some(Cause::InvalidField {
            field: "data_size_in",
            rule: "must be 14 or more",
        })
    }
}

/// The kernel tells how much it has.
#[cold]
fn no_room(args: &RunArgs<'_>, out: RunOut) -> Option<Cause> {
    let all = [
        ("data_out", args.data_out.len(), out.data_size),
        ("ctx_out", args.ctx_out.len(), out.ctx_size),
    ];
    let short = |&(_, room, size): &(&str, usize, u32)| room > 0 && size as usize > room;
    let (what, room, needed) = all.into_iter().find(short)?;
    Some(Cause::NoRoom {
        what,
        room,
        needed: needed as usize,
    })
}
