//! Running programs: on a given packet, on a socket's packets, on each CPU.

mod context;

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::PerCpu;
use bpf_pin::prog::{Insn, ProgFlags, TestRun, TestRunFlags};
use bpf_pin::types::ProgType;
use bpf_pin::{Map, MapSpec, MapType, Prog, ProgSpec, abi};
use common::*;
use rustix::thread::CapabilitySet;

const BPF: &[Need] = &[cap::BPF];
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, cap::PERFMON];
const SWITCH_USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
const STRUCT_OPS: &[Need] = &[
    cap::SYS_ADMIN,
    cap::PERFMON,
    Need::Feature(Feature::StructOps),
    kernel(5, 16),
];

fn counter(map_type: MapType) -> bpf_pin::Result<Map> {
    MapSpec::new(map_type, 4, 8, 1).name("counter").create()
}

/// Runs `prog` on a packet of zeroes and returns its result.
fn run(prog: &Prog, repeat: u32) -> bpf_pin::Result<u32> {
    let run = TestRun::new().data_in(&[0; 64]).repeat(repeat);
    Ok(prog.test_run(run)?.retval)
}

/// Each instruction works as named, on registers and on a map's value.
#[common::test(BPF)]
fn instruction_constructors_work_as_named() -> Outcome {
    let map = MapSpec::new(MapType::ARRAY, 4, 16, 1).create()?;
    let mut insns = vec![];
    insns.extend(Insn::ld_map_value(6, map.as_fd().as_raw_fd(), 8));
    insns.extend(Insn::ld_imm64(1, 0x1122_3344_8000_0001));
    insns.extend([
        Insn::stx_mem(abi::BPF_DW, 6, 1, 0),
        Insn::mov64_imm(2, 5),
        Insn::mov64_imm(3, 7),
        Insn::alu64_reg(abi::BPF_MUL, 2, 3),
        Insn::mov64_imm(0, 1),
        Insn::jmp_imm(abi::BPF_JEQ, 2, 0, 1),
        Insn::ja(1),
        Insn::mov64_imm(2, 0),
        Insn::jmp_reg(abi::BPF_JGT, 2, 3, 1),
        Insn::mov64_imm(0, 0),
        Insn::alu64_reg(abi::BPF_ADD, 0, 2),
        Insn::exit(),
    ]);
    let prog = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).load()?;
    assert_eq!(run(&prog, 1)?, 36);
    let values = map.elements::<u32, [u64; 2]>()?.lookup(&0)?;
    assert_eq!(values, Some([0, 0x1122_3344_8000_0001]));
    Ok(())
}

/// Loads from an unaligned address in a map's value, which is allowed by default.
#[common::test(BPF)]
fn flags_reach_the_verifier() -> Outcome {
    let map = counter(MapType::ARRAY)?;
    let mut insns = [key_0_insns(), lookup_insns(&map)].concat();
    insns.extend([
        Insn::jmp_imm(abi::BPF_JEQ, 0, 0, 1),
        Insn::ldx_mem(abi::BPF_W, 1, 0, 1),
        Insn::mov64_imm(0, 0),
        Insn::exit(),
    ]);
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &insns);
    let strict = spec.clone().flags(ProgFlags::STRICT_ALIGNMENT).load();
    let error = strict.expect_err("4 bytes at an odd place");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    assert!(
        error.log().is_some_and(|log| log.contains("misaligned")),
        "{error}"
    );
    spec.flags(ProgFlags::ANY_ALIGNMENT).load()?;
    Ok(())
}

#[common::test(BPF)]
fn a_program_counts_in_its_map() -> Outcome {
    let map = counter(MapType::ARRAY)?;
    let prog = counting_filter(&map, 7)?;
    assert_eq!(prog.info()?.nr_map_ids, 1);
    let count = map.elements::<u32, u64>()?;
    assert_eq!(count.lookup(&0)?, Some(0));
    assert_eq!(run(&prog, 3)?, 7);
    assert_eq!(count.lookup(&0)?, Some(3));
    run(&prog, 1)?;
    assert_eq!(count.lookup(&0)?, Some(4));
    Ok(())
}

#[common::test(BPF)]
fn a_program_filters_a_socket() -> Outcome {
    let map = counter(MapType::ARRAY)?;
    let prog = counting_filter(&map, 2)?;
    let (sender, receiver) = UnixDatagram::pair()?;
    let fd = prog.as_fd().as_raw_fd();
    // SAFETY: the option's value is an int, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            receiver.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            ptr::from_ref(&fd).cast(),
            size_of_val(&fd) as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    // The socket keeps the program alive.
    drop(prog);
    for _ in 0..5 {
        sender.send(b"packet")?;
    }
    let mut buffer = [0; 16];
    for _ in 0..5 {
        assert_eq!(receiver.recv(&mut buffer)?, 2);
    }
    assert_eq!(map.elements::<u32, u64>()?.lookup(&0)?, Some(5));
    Ok(())
}

#[common::test(BPF)]
fn each_cpu_counts_in_its_own_value() -> Outcome {
    let map = counter(MapType::PERCPU_ARRAY)?;
    let prog = counting_filter(&map, 0)?;
    let view = map.elements::<u32, PerCpu<u64>>()?;
    let mut expected = vec![0; view.cpus()];
    // In its own thread, because the affinity belongs to the thread.
    thread::scope(|scope| {
        let runs = scope.spawn(|| -> Outcome {
            let allowed = rustix::thread::sched_getaffinity(None)?;
            for cpu in (0..expected.len()).filter(|cpu| allowed.is_set(*cpu)) {
                let mut only = rustix::thread::CpuSet::new();
                only.set(cpu);
                rustix::thread::sched_setaffinity(None, &only)?;
                for _ in 0..=cpu {
                    run(&prog, 1)?;
                }
                expected[cpu] = cpu as u64 + 1;
            }
            Ok(())
        });
        runs.join().expect("no panic")
    })?;
    assert!(expected.iter().sum::<u64>() > 0);
    assert_eq!(view.lookup(&0)?, Some(expected));
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN])]
fn a_program_keeps_its_maps_alive() -> Outcome {
    let map = counter(MapType::ARRAY)?;
    let id = map.id()?;
    let prog = counting_filter(&map, 0)?;
    drop(map);
    run(&prog, 2)?;
    let map = Map::from_id(id)?;
    assert_eq!(map.info()?.name, "counter");
    assert_eq!(map.elements::<u32, u64>()?.lookup(&0)?, Some(2));
    drop((map, prog));
    wait_until_gone(id);
    Ok(())
}

fn wait_until_gone(id: u32) {
    let patience = Instant::now() + Duration::from_secs(20);
    while Map::from_id(id).is_ok() {
        assert!(Instant::now() < patience, "a map that does not die");
        thread::sleep(Duration::from_millis(10));
    }
}

#[common::test(&[cap::SYS_ADMIN])]
fn a_program_keeps_bound_maps_alive() -> Outcome {
    let (used, other) = (counter(MapType::ARRAY)?, counter(MapType::HASH)?);
    let (used_id, other_id) = (used.id()?, other.id()?);
    let prog = counting_filter(&used, 0)?;
    assert_eq!(prog.map_ids()?, [used_id]);
    // Binding twice has no effect, nor does binding a map that it uses anyway.
    for _ in 0..2 {
        prog.bind_map(&other)?;
        prog.bind_map(&used)?;
        let mut ids = prog.map_ids()?;
        ids.sort_unstable();
        assert_eq!(ids, [used_id, other_id]);
    }
    assert_eq!(prog.info()?.nr_map_ids, 2);
    drop((used, other));
    thread::sleep(Duration::from_millis(50));
    assert_eq!(Map::from_id(other_id)?.info()?.map_type, MapType::HASH);
    drop(prog);
    wait_until_gone(other_id);

    // Many maps, and one more during each read.
    let prog = common::prog();
    assert_eq!(prog.map_ids()?, []);
    let mut expected = vec![];
    for _ in 0..40 {
        let map = counter(MapType::ARRAY)?;
        prog.bind_map(&&map)?;
        expected.push(map.id()?);
        let mut ids = prog.map_ids()?;
        ids.sort_unstable();
        assert_eq!(ids, expected);
    }
    Ok(())
}

/// An XDP program that writes 0xab to the first byte of a packet and passes it.
fn marking_program() -> bpf_pin::Result<Prog> {
    const JGT_X: u8 = abi::BPF_JMP | abi::BPF_JGT | abi::BPF_X;
    let insns = [
        Insn::ldx_mem(abi::BPF_W, 2, 1, 0),
        Insn::ldx_mem(abi::BPF_W, 3, 1, 4),
        Insn::mov64_reg(4, 2),
        Insn::alu64_imm(abi::BPF_ADD, 4, 1),
        Insn::new(JGT_X, 4, 3, 1, 0),
        Insn::st_mem(abi::BPF_B, 2, 0, 0xab),
        Insn::mov64_imm(0, 2),
        Insn::exit(),
    ];
    ProgSpec::new(ProgType::XDP, &insns).load()
}

#[common::test(ROOT)]
fn a_program_changes_its_packet() -> Outcome {
    let prog = marking_program()?;
    let packet: Vec<u8> = (0..64).collect();
    let mut expected = packet.clone();
    expected[0] = 0xab;

    let mut room = [0; 100];
    let run = TestRun::new().data_in(&packet).data_out(&mut room);
    let ran = prog.test_run(run)?;
    assert_eq!((ran.retval, ran.data_size_out), (2, 64));
    assert!(ran.duration < Duration::from_secs(1));
    assert_eq!(room[..64], expected);
    assert_eq!(room[64..], [0; 36]);

    // A buffer that is just large enough, none, and one that is too small.
    let mut room = [0; 64];
    prog.test_run(TestRun::new().data_in(&packet).data_out(&mut room))?;
    assert_eq!(room[..], expected);
    let ran = prog.test_run(TestRun::new().data_in(&packet).data_out(&mut []))?;
    assert_eq!((ran.retval, ran.data_size_out), (2, 64));
    for room in [1, 14, 63] {
        let mut bytes = [0xff; 64];
        let run = TestRun::new().data_in(&packet).data_out(&mut bytes[..room]);
        let error = prog.test_run(run).expect_err("a short buffer");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
        let (what, needed) = ("data_out", 64);
        assert_eq!(
            error.cause(),
            Some(&Cause::BufferTooSmall {
                what,
                room,
                needed: Some(needed)
            })
        );
        assert_eq!(error.operation(), Operation::RunProg);
        assert_eq!(bytes[..room], expected[..room]);
        assert_eq!(bytes[room..], vec![0xff; 64 - room]);
    }
    Ok(())
}

#[common::test(ROOT)]
fn a_raw_tracepoint_runs_on_a_given_cpu() -> Outcome {
    // Returns the CPU and the argument.
    let insns = [
        Insn::ldx_mem(abi::BPF_DW, 6, 1, 0),
        Insn::call(abi::BPF_FUNC_get_smp_processor_id),
        Insn::new(abi::BPF_ALU64 | abi::BPF_ADD | abi::BPF_X, 0, 6, 0, 0),
        Insn::exit(),
    ];
    let prog = ProgSpec::new(ProgType::RAW_TRACEPOINT, &insns).load()?;
    let mut args = 1000u64.to_ne_bytes();
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    let last: u32 = online.trim().rsplit([',', '-']).next().unwrap().parse()?;
    for cpu in [0, last] {
        let ran = prog.test_run(TestRun::new().ctx_in(&mut args).cpu(cpu))?;
        assert_eq!(ran.retval, 1000 + cpu);
        assert_eq!((ran.data_size_out, ran.duration), (0, Duration::ZERO));
    }
    let error = prog.test_run(TestRun::new().ctx_in(&mut args).cpu(100_000));
    let error = error.expect_err("a missing CPU");
    assert_eq!(error.raw_os_error(), Some(libc::ENXIO), "{error}");
    assert_fails(&error, Operation::RunProg, libc::ENXIO, None);
    // Less than the program reads.
    let error = prog.test_run(TestRun::new().ctx_in(&mut args[..4]));
    let error = error.expect_err("a short context");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    Ok(())
}

#[common::test(ROOT)]
fn live_frames_are_sent() -> Outcome {
    let map = counter(MapType::ARRAY)?;
    let mut insns = [key_0_insns(), lookup_insns(&map)].concat();
    insns.extend([
        Insn::jmp_imm(abi::BPF_JEQ, 0, 0, 2),
        Insn::mov64_imm(1, 1),
        Insn::atomic_add64(0, 1, 0),
        // XDP_DROP
        Insn::mov64_imm(0, 1),
        Insn::exit(),
    ]);
    let prog = ProgSpec::new(ProgType::XDP, &insns).load()?;
    let ran = prog.test_run(
        TestRun::new()
            .data_in(&[0; 64])
            .flags(TestRunFlags::XDP_LIVE_FRAMES)
            .batch_size(16)
            .repeat(100),
    );
    let count = map.elements::<u32, u64>()?;
    if kernel(5, 18).unmet().is_some() {
        let error = ran.expect_err("an unknown flag");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert_eq!(count.lookup(&0)?, Some(0));
        return Ok(());
    }
    ran?;
    assert_eq!(count.lookup(&0)?, Some(100));
    Ok(())
}

#[common::test(BPF)]
fn unsupported_fields_are_rejected() -> Outcome {
    let prog = counting_filter(&counter(MapType::ARRAY)?, 0)?;
    let packet = [0; 64];
    let mut context = [0; 4096];
    let run = || TestRun::new().data_in(&packet);
    let assert_unsupported = |run: TestRun<'_>| {
        let error = prog.test_run(run).expect_err("an unsupported field");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert!(error.cause().is_none(), "{error}");
        assert_eq!(error.operation(), Operation::RunProg);
    };
    for length in [0, 13] {
        let error = prog.test_run(TestRun::new().data_in(&packet[..length]));
        let error = error.expect_err("a short packet");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert_eq!(error.operation(), Operation::RunProg);
    }
    assert_unsupported(run().cpu(0));
    assert_unsupported(run().flags(TestRunFlags::from_bits_retain(1 << 30)));
    assert_unsupported(run().batch_size(1));
    // A flag that does not exist.
    context[..4].fill(1);
    assert_unsupported(run().ctx_in(&mut context[..192]));
    prog.test_run(run())?;
    Ok(())
}

#[common::test(ROOT)]
fn a_packet_shorter_than_14_bytes_is_rejected() -> Outcome {
    for prog_type in [
        ProgType::SOCKET_FILTER,
        ProgType::SCHED_CLS,
        ProgType::SCHED_ACT,
        ProgType::XDP,
        ProgType::CGROUP_SKB,
        ProgType::LWT_IN,
        ProgType::LWT_OUT,
        ProgType::LWT_XMIT,
        ProgType::FLOW_DISSECTOR,
    ] {
        let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
        let prog = ProgSpec::new(prog_type, &insns).load()?;
        let packet = [0; 64];
        let Err(error) = prog.test_run(TestRun::new().data_in(&packet[..13])) else {
            // Older kernels have no minimum for XDP.
            let is_old = prog_type == ProgType::XDP && kernel(5, 16).unmet().is_some();
            assert!(is_old, "{prog_type}: less than an Ethernet header");
            continue;
        };
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        let cause = Cause::InvalidArgument {
            what: "data_size_in",
            problem: "must be 14 or more".into(),
        };
        assert_eq!(error.cause(), Some(&cause), "{prog_type}");
        prog.test_run(TestRun::new().data_in(&packet))?;
    }
    Ok(())
}

#[common::test(ROOT)]
fn types_without_test_runs_are_rejected() -> Outcome {
    for prog_type in [ProgType::KPROBE, ProgType::CGROUP_DEVICE, ProgType::SK_MSG] {
        let insns = [Insn::mov64_imm(0, 1), Insn::exit()];
        let prog = ProgSpec::new(prog_type, &insns).load()?;
        let error = prog.test_run(TestRun::new().data_in(&[0; 64]));
        let error = error.expect_err("no test run");
        assert_eq!(error.raw_os_error(), Some(524), "{error}");
        assert_cause_matches!(error, Cause::UnsupportedType { .. });
        assert_eq!(error.operation(), Operation::RunProg);
    }
    Ok(())
}

/// Running a program requires only its descriptor.
#[common::test(SWITCH_USER)]
fn a_program_runs_without_privileges() -> Outcome {
    let prog = counting_filter(&counter(MapType::ARRAY)?, 3)?;
    as_user(CapabilitySet::empty(), || match run(&prog, 1) {
        Ok(value) => assert_eq!(value, 3),
        // On older kernels the sysctl closes all of bpf(2).
        Err(error) => {
            assert!(kernel(5, 19).unmet().is_some(), "{error}");
            assert_cause_matches!(error, Cause::MissingCapability { .. });
        }
    });
    Ok(())
}
