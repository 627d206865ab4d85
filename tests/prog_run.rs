//! Programs that run: on a packet of the test's own, on a socket's, on each CPU.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::{Error, Insn, Map, MapSpec, MapType, Prog, ProgFlags, ProgSpec, ProgType, abi};
use common::*;

fn main() -> std::process::ExitCode {
    const BPF: &[Need] = &[cap::BPF];
    Suite::new()
        .test("flags_reach_the_verifier", BPF, flags)
        .test("a_program_counts_in_its_map", BPF, counts)
        .test("a_program_filters_a_socket", BPF, filters)
        .test("each_cpu_counts_for_itself", BPF, counts_per_cpu)
        .test("a_program_keeps_its_maps", &[cap::SYS_ADMIN], keeps_maps)
        .run()
}

fn counter(map_type: MapType) -> bpf_pin::Result<Map> {
    MapSpec::new(map_type, 4, 8, 1).name("counter")?.create()
}

/// `r0 = bpf_map_lookup_elem(map, &0)`
fn look_up(map: &Map) -> Vec<Insn> {
    let mut insns = vec![
        Insn::st_mem(abi::BPF_W, 10, -4, 0),
        Insn::mov64_reg(2, 10),
        Insn::alu64_imm(abi::BPF_ADD, 2, -4),
    ];
    insns.extend(Insn::ld_map_fd(1, map.as_fd().as_raw_fd()));
    insns.push(Insn::call(abi::BPF_FUNC_map_lookup_elem));
    insns
}

/// A filter that counts packets in `map` and keeps `keep` bytes of each.
fn counting(map: &Map, keep: i32) -> bpf_pin::Result<Prog> {
    let mut insns = look_up(map);
    insns.extend([
        Insn::jmp_imm(abi::BPF_JEQ, 0, 0, 2),
        Insn::mov64_imm(1, 1),
        Insn::atomic_add64(0, 1, 0),
        Insn::mov64_imm(0, keep),
        Insn::exit(),
    ]);
    ProgSpec::new(ProgType::SOCKET_FILTER, &insns)
        .name("counting")?
        .load()
}

/// Loads from an odd place of a map's value, which is let pass unless asked otherwise.
fn flags() -> Outcome {
    let map = counter(MapType::ARRAY)?;
    let mut insns = look_up(&map);
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
        matches!(&error, Error::LoadProg { log, .. } if log.contains("misaligned")),
        "{error}"
    );
    spec.flags(ProgFlags::ANY_ALIGNMENT).load()?;
    Ok(())
}

fn counts() -> Outcome {
    let map = counter(MapType::ARRAY)?;
    let prog = counting(&map, 7)?;
    assert_eq!(prog.info()?.nr_map_ids, 1);
    let count = map.typed::<u32, u64>()?;
    assert_eq!(count.lookup(&0)?, Some(0));
    assert_eq!(test_run(&prog, 3)?, 7);
    assert_eq!(count.lookup(&0)?, Some(3));
    test_run(&prog, 1)?;
    assert_eq!(count.lookup(&0)?, Some(4));
    Ok(())
}

fn filters() -> Outcome {
    let map = counter(MapType::ARRAY)?;
    let prog = counting(&map, 2)?;
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
    // The socket keeps it.
    drop(prog);
    for _ in 0..5 {
        sender.send(b"packet")?;
    }
    let mut buffer = [0; 16];
    for _ in 0..5 {
        assert_eq!(receiver.recv(&mut buffer)?, 2);
    }
    assert_eq!(map.typed::<u32, u64>()?.lookup(&0)?, Some(5));
    Ok(())
}

fn counts_per_cpu() -> Outcome {
    let map = counter(MapType::PERCPU_ARRAY)?;
    let prog = counting(&map, 0)?;
    let view = map.per_cpu::<u32, u64>()?;
    let mut expected = vec![0; view.cpus()];
    // A thread of its own: where it may run is the thread's, not the process's.
    thread::scope(|scope| {
        let runs = scope.spawn(|| -> Outcome {
            let allowed = rustix::thread::sched_getaffinity(None)?;
            for cpu in (0..expected.len()).filter(|cpu| allowed.is_set(*cpu)) {
                let mut only = rustix::thread::CpuSet::new();
                only.set(cpu);
                rustix::thread::sched_setaffinity(None, &only)?;
                for _ in 0..=cpu {
                    test_run(&prog, 1)?;
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

fn keeps_maps() -> Outcome {
    let map = counter(MapType::ARRAY)?;
    let id = map.id()?;
    let prog = counting(&map, 0)?;
    drop(map);
    test_run(&prog, 2)?;
    let map = Map::from_id(id)?;
    assert_eq!(map.info()?.name, "counter");
    assert_eq!(map.typed::<u32, u64>()?.lookup(&0)?, Some(2));
    drop((map, prog));
    let patience = Instant::now() + Duration::from_secs(20);
    while Map::from_id(id).is_ok() {
        assert!(Instant::now() < patience, "a map that does not die");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
