//! The verifier's log: its content, its length and its cost.

use std::process::ExitCode;

use bpf_pin::error::Operation;
use bpf_pin::prog::Insn;
use bpf_pin::types::{LogLevel, ProgType};
use bpf_pin::{Prog, ProgSpec, abi};
use common::*;

use crate::prog_load::{BPF, CHILD, ZERO, log_of};

#[common::test(&[cap::SYS_ADMIN])]
fn a_load_makes_its_documented_syscalls() -> Outcome {
    run_in_own_process(CHILD, "syscalls")
}

fn filter(insns: &[Insn]) -> ProgSpec<'_> {
    ProgSpec::new(ProgType::SOCKET_FILTER, insns)
}

/// Each instruction is a line of at least 40 letters.
fn store_insns(count: usize) -> Vec<Insn> {
    vec![Insn::st_mem(abi::BPF_DW, 10, -8, 1_234_567_890); count]
}

/// A valid program.
fn valid_program(count: usize) -> Vec<Insn> {
    let mut insns = store_insns(count);
    insns.extend(ZERO);
    insns
}

/// An invalid program: it returns an unset register.
fn invalid_program(count: usize) -> Vec<Insn> {
    let mut insns = store_insns(count);
    insns.push(Insn::exit());
    insns
}

#[common::test(BPF)]
fn load_with_log_returns_the_log_of_a_valid_program() -> Outcome {
    for (level, expected) in [
        (LogLevel::LEVEL1, "processed 2 insns"),
        (LogLevel::LEVEL2, "0: (b7) r0 = 0"),
        (LogLevel::STATS, "stack depth"),
        (LogLevel::LEVEL2 | LogLevel::STATS, "processed 2 insns"),
    ] {
        let spec = filter(&ZERO).name("said");
        let (prog, log) = spec.load_with_log(level)?;
        assert_eq!(prog.info()?.name, "said");
        assert!(log.contains(expected), "{level:?}: {log}");
        assert!(!log.contains('\0'));
    }
    let (prog, log) = filter(&ZERO).load_with_log(LogLevel::empty())?;
    assert_eq!(prog.info()?.prog_type, ProgType::SOCKET_FILTER);
    assert_eq!(log, "");
    // The error of an invalid program is the same as without.
    let error = filter(&[Insn::exit()]).load_with_log(LogLevel::LEVEL1);
    let error = error.expect_err("no return value");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    assert!(log_of(&error).contains("R0 !read_ok"), "{error}");
    Ok(())
}

#[common::test(BPF)]
fn a_long_log_of_a_valid_program_is_complete() -> Outcome {
    let insns = valid_program(3000);
    let (prog, log) = filter(&insns).load_with_log(LogLevel::LEVEL2)?;
    assert_eq!(prog.info()?.prog_type, ProgType::SOCKET_FILTER);
    assert!(log.len() > 64 << 10, "{} bytes", log.len());
    for number in [0, 1, 1500, 2999] {
        assert!(log.contains(&format!("\n{number}: (7a) ")), "{number}");
    }
    assert!(log.contains("\n3001: (95) exit\n"));
    assert!(log.contains("processed 3002 insns"));
    Ok(())
}

#[common::test(BPF)]
fn log_levels_determine_the_log() -> Outcome {
    let insns = [
        Insn::mov64_imm(1, 0),
        Insn::jmp_imm(abi::BPF_JEQ, 1, 0, 0),
        Insn::exit(),
    ];
    let log_of_level = |level| {
        let error = filter(&insns).log_level(level).load();
        let error = error.expect_err("no return value");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
        log_of(&error).to_owned()
    };
    let (short, long) = (
        log_of_level(LogLevel::LEVEL1),
        log_of_level(LogLevel::LEVEL2),
    );
    assert!(short.contains("R0 !read_ok"), "{short}");
    assert!(long.len() > short.len(), "{long}");
    let stats = log_of_level(LogLevel::STATS);
    assert!(stats.contains("stack depth"), "{stats}");
    assert!(!stats.contains("0: (b7)"), "{stats}");
    Ok(())
}

#[common::test(BPF)]
fn an_empty_level_gives_no_log() -> Outcome {
    let error = filter(&[Insn::exit()]).log_level(LogLevel::empty()).load();
    let error = error.expect_err("no return value");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    assert_eq!(log_of(&error), "");
    assert_fails(&error, Operation::LoadProg, libc::EACCES, None);
    Ok(())
}

#[common::test(BPF)]
fn an_unknown_level_is_rejected() -> Outcome {
    let level = LogLevel::from_bits_retain(1 << 20);
    let error = filter(&ZERO).load_with_log(level).expect_err("no level");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    assert!(error.cause().is_none(), "{error}");
    // No log is requested for a valid program.
    filter(&ZERO).log_level(level).load()?;
    Ok(())
}

type Load = fn(&ProgSpec<'_>) -> bool;

/// Runs in a child with one thread: each load, and the number of its system calls.
pub fn syscalls() -> ExitCode {
    let loads: Load = |spec| spec.load().is_ok();
    let with_log: Load = |spec| spec.load_with_log(LogLevel::LEVEL2).is_ok();
    // Where the kernel does not report the size, the buffer grows by a factor of 4.
    let reports_size = kernel(6, 4).unmet().is_none();
    let tries = |without| if reports_size { 2 } else { without };
    let silent = LogLevel::empty();
    let (short, long) = (valid_program(0), valid_program(1200));
    let (refused, refused_long, refused_longer) = (
        invalid_program(0),
        invalid_program(3000),
        invalid_program(10_000),
    );
    for (name, spec, load, is_good, expected) in [
        ("a load", filter(&short), loads, true, 1),
        ("a long load", filter(&long), loads, true, 1),
        ("a log", filter(&short), with_log, true, 1),
        ("a long log", filter(&long), with_log, true, tries(2)),
        ("a refusal", filter(&refused), loads, false, 2),
        ("a long one", filter(&refused_long), loads, false, 3),
        (
            "a longer one",
            filter(&refused_longer),
            loads,
            false,
            1 + tries(3),
        ),
        (
            "a silent one",
            filter(&refused).log_level(silent),
            loads,
            false,
            1,
        ),
    ] {
        let run = |()| u8::from(load(&spec) != is_good);
        let mut tracee = Tracee::fork(|| (), run).expect("a traced child");
        let mut seen = Vec::new();
        while let Some(stop) = tracee.next().expect("a stop") {
            // Calls for memory belong to the allocator, and the close to the caller.
            if stop.is_entry() && stop.nr == libc::SYS_bpf {
                seen.push(stop.name());
            }
        }
        assert_eq!(tracee.finish().expect("an end"), 0, "{name}");
        assert_eq!(seen, vec!["PROG_LOAD"; expected], "{name}");
    }
    // A successful load is this call only.
    let run = |spec: ProgSpec<'_>| {
        std::mem::forget::<Prog>(spec.load().expect("a program"));
        0
    };
    let mut tracee = Tracee::fork(|| filter(&ZERO), run).expect("a traced child");
    let mut seen = Vec::new();
    while let Some(stop) = tracee.next().expect("a stop") {
        if stop.is_entry() {
            seen.push(stop.name());
        }
    }
    assert_eq!(tracee.finish().expect("an end"), 0);
    assert_eq!(seen, ["PROG_LOAD"]);
    ExitCode::SUCCESS
}
