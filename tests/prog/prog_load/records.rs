//! BTF records of a program: functions, lines and relocations.

use bpf_pin::ProgSpec;
use bpf_pin::error::Cause;
use bpf_pin::prog::{Btf, Insn};
use bpf_pin::types::{LogLevel, ProgType};
use common::*;

use crate::prog_load::{BPF, assert_since, log_of, run};

const NAMES: &str = "\0int\0main\0main.c\0return 1 + 1;\0exit;\0\x30\0";

fn name(text: &str) -> u32 {
    let at = NAMES.find(&format!("\0{text}\0")).expect("a name");
    at as u32 + 1
}

pub fn blob() -> Vec<u8> {
    blob_of(NAMES)
}

/// BTF of an int (1), of a function without arguments that returns one (2), and of such a function "main"
/// (3); with these names.
fn blob_of(names: &str) -> Vec<u8> {
    const INT: u32 = 1 << 24;
    const FUNC: u32 = 12 << 24;
    const FUNC_PROTO: u32 = 13 << 24;
    let types = [name("int"), INT, 4, 32]
        .into_iter()
        .chain([0, FUNC_PROTO, 1])
        .chain([name("main"), FUNC, 2])
        .collect::<Vec<_>>();
    btf_blob(&types, names.as_bytes())
}

fn records(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn line(insn: u32, text: &str, number: u32) -> [u32; 4] {
    [insn, name("main.c"), name(text), number << 10 | 1]
}

#[common::test(BPF)]
fn functions_and_lines_reach_the_kernel() -> Outcome {
    let btf = Btf::load(&blob())?;
    let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
    let functions = records(&[0, 3]);
    let lines = [line(0, "return 1 + 1;", 4), line(1, "exit;", 5)].concat();
    let lines = records(&lines);
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).btf(&btf);
    let bare = spec.load()?.info()?;
    assert_eq!((bare.nr_func_info, bare.nr_line_info), (0, 0));
    let with = spec.func_info(&functions, 8).line_info(&lines, 16);
    let prog = with.load()?;
    let info = prog.info()?;
    assert_eq!((info.nr_func_info, info.nr_line_info), (1, 2));
    assert_eq!(info.btf_id, btf.id()?);
    assert_eq!(run(&prog)?, 2);
    Ok(())
}

#[common::test(BPF)]
fn the_log_quotes_the_source() -> Outcome {
    let btf = Btf::load(&blob())?;
    let (functions, lines) = (records(&[0, 3]), records(&line(0, "return 1 + 1;", 4)));
    let insns = [Insn::mov64_reg(0, 5), Insn::exit()];
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &insns)
        .btf(&btf)
        .func_info(&functions, 8)
        .line_info(&lines, 16);
    let error = spec.load().expect_err("an unset register");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    assert!(log_of(&error).contains("; return 1 + 1;"), "{error}");
    assert!(log_of(&error).contains("R5 !read_ok"), "{error}");

    // The kernel checks the records.
    let wrong = records(&[0, 1]);
    let error = spec.func_info(&wrong, 8).load();
    let error = error.expect_err("a wrong type");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    assert!(log_of(&error).contains("func info"), "{error}");
    Ok(())
}

/// Each instruction comes from a line of a thousand letters, which the verifier quotes.
#[common::test(BPF)]
fn a_log_of_more_than_16_mib_is_complete() -> Outcome {
    const COUNT: u32 = 18_000;
    let text = "x".repeat(1000);
    let btf = Btf::load(&blob_of(&format!("{NAMES}{text}\0")))?;
    let mut insns = vec![Insn::mov64_imm(1, 0); COUNT as usize];
    insns.push(Insn::exit());
    let quote = |insn| [insn, name("main.c"), NAMES.len() as u32, insn << 10];
    let lines: Vec<u32> = (0..COUNT).flat_map(quote).collect();
    let (functions, lines) = (records(&[0, 3]), records(&lines));
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &insns)
        .btf(&btf)
        .func_info(&functions, 8)
        .line_info(&lines, 16);
    let error = spec.load().expect_err("no return value");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    let log = log_of(&error);
    assert!(log.len() > 16 << 20, "{} bytes", log.len());
    // Complete, from the first instruction to the verdict.
    assert_eq!(log.matches(&text).count(), COUNT as usize);
    assert!(log.contains("\n0: (b7) ") || log.starts_with("0: (b7) "));
    assert!(log.contains("R0 !read_ok"));
    Ok(())
}

#[common::test(BPF)]
fn longer_records_are_accepted_if_the_rest_is_zero() -> Outcome {
    let btf = Btf::load(&blob())?;
    let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).btf(&btf);
    let zero = records(&[0, 3, 0]);
    assert_eq!(
        spec.clone()
            .func_info(&zero, 12)
            .load()?
            .info()?
            .nr_func_info,
        1
    );
    // Bytes unknown to the kernel must be zero.
    let more = records(&[0, 3, 1]);
    let error = spec.func_info(&more, 12).load();
    let error = error.expect_err("what no kernel knows");
    assert_eq!(error.raw_os_error(), Some(libc::E2BIG), "{error}");
    assert!(error.cause().is_none(), "{error}");
    Ok(())
}

/// The kernel writes the id of the program's own type into the instruction.
#[common::test(BPF)]
fn the_kernel_applies_relocations() -> Outcome {
    const TYPE_ID_LOCAL: u32 = 6;
    let btf = Btf::load(&blob())?;
    let insns = [Insn::mov64_imm(0, 77), Insn::exit()];
    let functions = records(&[0, 3]);
    // The instruction, the type, the access string "0" for the whole type, and the kind.
    let relocations = records(&[0, 1, name("0"), TYPE_ID_LOCAL]);
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &insns)
        .btf(&btf)
        .func_info(&functions, 8);
    assert_eq!(run(&spec.load()?)?, 77);
    let loaded = spec.core_relos(&relocations, 16).load();
    if let Some(prog) = assert_since(loaded, "core_relos", (5, 17)) {
        assert_eq!(run(&prog)?, 1);
    }
    Ok(())
}

#[common::test]
fn incomplete_records_are_rejected_without_a_syscall() -> Outcome {
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &crate::prog_load::ZERO);
    for (length, rec_size) in [(15, 8), (16, 0), (8, 12)] {
        let bytes = vec![0; length];
        for (what, refused) in [
            ("func_info", spec.clone().func_info(&bytes, rec_size)),
            ("line_info", spec.clone().line_info(&bytes, rec_size)),
            ("core_relos", spec.clone().core_relos(&bytes, rec_size)),
        ] {
            let error = refused.load().expect_err("records that are not whole");
            assert_cause_matches!(error, Cause::InvalidArgument { what: found, .. } if *found == what);
            assert_eq!(error.raw_os_error(), None);
        }
    }
    Ok(())
}

/// The kernel would use descriptor 0.
#[common::test]
fn records_require_btf() -> Outcome {
    let bytes = records(&[0; 4]);
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &crate::prog_load::ZERO);
    for spec in [
        spec.clone().func_info(&bytes, 8),
        spec.clone().line_info(&bytes, 16),
        spec.core_relos(&bytes, 16),
    ] {
        for error in [
            spec.load().expect_err("no BTF"),
            spec.load_with_log(LogLevel::STATS).expect_err("no BTF"),
        ] {
            let what = "prog_btf_fd";
            assert_cause_matches!(error, Cause::InvalidArgument { what: found, .. } if *found == what);
            assert_eq!(error.raw_os_error(), None);
        }
    }
    Ok(())
}
