//! Test runs with a context.

use std::hint::black_box;
use std::ptr;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::prog::{Insn, ProgFlags, TestRun};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{ProgSpec, abi};
use common::*;

/// The offset of `mark` in `struct __sk_buff`.
const MARK: usize = 8;

#[common::test(super::ROOT)]
fn a_program_changes_its_context() -> Outcome {
    // Returns the mark and increments it.
    let insns = [
        Insn::ldx_mem(abi::BPF_W, 0, 1, MARK as i16),
        Insn::mov64_reg(2, 0),
        Insn::alu64_imm(abi::BPF_ADD, 2, 1),
        Insn::stx_mem(abi::BPF_W, 1, 2, MARK as i16),
        Insn::exit(),
    ];
    let prog = ProgSpec::new(ProgType::SCHED_CLS, &insns).load()?;
    let packet = [0; 64];
    let mut context = [0; 16];
    context[MARK..][..4].copy_from_slice(&41u32.to_ne_bytes());

    let mut room = [0u8; 512];
    let run = TestRun::new().data_in(&packet).ctx_in(&mut context);
    let ran = prog.test_run(run.ctx_out(&mut room))?;
    assert_eq!(ran.retval, 41);
    assert_eq!(room[MARK..][..4], 42u32.to_ne_bytes());
    let size = ran.ctx_size_out;
    assert!((180..=512).contains(&size), "{size}");
    // The input was only read.
    assert_eq!(context[MARK..][..4], 41u32.to_ne_bytes());

    // Without a buffer the size is not reported.
    let run = TestRun::new().data_in(&packet).ctx_in(&mut context);
    assert_eq!(prog.test_run(run)?.ctx_size_out, 0);
    let mut short = [0u8; 20];
    let run = TestRun::new().data_in(&packet).ctx_out(&mut short);
    let error = prog.test_run(run).expect_err("a short buffer");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    let (what, room, needed) = ("ctx_out", 20, size);
    assert_eq!(
        error.cause(),
        Some(&Cause::BufferTooSmall {
            what,
            room,
            needed: Some(needed)
        })
    );
    assert_eq!(short[MARK..][..4], 1u32.to_ne_bytes());

    // If both buffers are short, the error reports the packet.
    let (mut data, mut short) = ([0; 10], [0; 20]);
    let run = TestRun::new().data_in(&packet).data_out(&mut data);
    let error = prog.test_run(run.ctx_out(&mut short)).unwrap_err();
    let (what, room, needed) = ("data_out", 10, 64);
    assert_eq!(
        error.cause(),
        Some(&Cause::BufferTooSmall {
            what,
            room,
            needed: Some(needed)
        })
    );
    Ok(())
}

#[common::test(super::ROOT)]
fn a_syscall_program_writes_its_context_back() -> Outcome {
    let insns = [
        Insn::ldx_mem(abi::BPF_W, 2, 1, 0),
        Insn::alu64_imm(abi::BPF_ADD, 2, 1),
        Insn::stx_mem(abi::BPF_W, 1, 2, 0),
        Insn::mov64_imm(0, 7),
        Insn::exit(),
    ];
    let spec = ProgSpec::new(ProgType::SYSCALL, &insns).flags(ProgFlags::SLEEPABLE);
    let loaded = spec.load();
    if kernel(5, 14).unmet().is_some() {
        let error = loaded.expect_err("an unknown type");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        return Ok(());
    }
    let prog = loaded?;
    let mut context = 41u32.to_ne_bytes();
    let ran = prog.test_run(TestRun::new().ctx_in(&mut context))?;
    assert_eq!((ran.retval, u32::from_ne_bytes(context)), (7, 42));
    let error = prog.test_run(TestRun::new().ctx_in(&mut context).data_in(&[0; 64]));
    let error = error.expect_err("a type without packets");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    assert_eq!(u32::from_ne_bytes(context), 42);
    Ok(())
}

/// The kernel would write the final state of the program to an address in the context.
#[common::test(super::STRUCT_OPS)]
fn a_context_for_struct_ops_is_rejected() -> Outcome {
    let insns = [
        Insn::ldx_mem(abi::BPF_DW, 1, 1, 0),
        Insn::jmp_imm(abi::BPF_JEQ, 1, 0, 1),
        Insn::st_mem(abi::BPF_W, 1, 0, 0x4141_4141),
        Insn::mov64_imm(0, 5),
        Insn::exit(),
    ];
    // The index of `test_1`.
    let member = AttachType(0);
    let prog = ProgSpec::new(ProgType::STRUCT_OPS, &insns)
        .license(c"GPL")
        .attach_btf_id(struct_btf_id("bpf_dummy_ops")?)
        .expected_attach_type(member)
        .load()?;
    let theirs: Box<u32> = Box::new(7);
    let mut context = (ptr::from_ref(&*theirs).addr() as u64).to_ne_bytes();
    let error = prog.test_run(TestRun::new().ctx_in(&mut context));
    let error = error.expect_err("an address in a context");
    assert_cause_matches!(error, Cause::UnsupportedType { .. });
    assert_eq!(error.raw_os_error(), None, "it was not tried");
    assert_eq!(error.operation(), Operation::RunProg);
    assert_eq!(**black_box(&theirs), 7);
    // The kernel accepts a context here.
    let error = prog.test_run(TestRun::new()).expect_err("no argument");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    Ok(())
}

/// A seccomp filter that answers instead of the kernel leaves zeroes, and no program has type 0.
#[common::test(super::ROOT)]
fn a_context_for_a_forged_type_is_rejected() -> Outcome {
    let prog = ProgSpec::new(ProgType::XDP, &[Insn::mov64_imm(0, 2), Insn::exit()]).load()?;
    let mut context = [0u8; 8];
    with_bpf_errno(Some(abi::BPF_OBJ_GET_INFO_BY_FD), 0, || {
        let error = prog.test_run(TestRun::new().data_in(&[0; 64]).ctx_in(&mut context));
        let error = error.expect_err("a context of no type");
        assert_cause_matches!(error, Cause::UnsupportedType { .. });
        assert_eq!(error.raw_os_error(), None, "it was not tried");
    });
    Ok(())
}
