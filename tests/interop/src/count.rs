//! The counter of most tests: an array of one u64, and a program that adds to it.

use std::os::fd::{AsFd, AsRawFd};

use bpf_pin::prog::{Insn, TestRun};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Map, MapSpec, MapType, Prog, ProgSpec, Result, abi};
use common::Outcome;

/// The map that a [`Counter`](crate::Counter) defines.
pub fn counter() -> Result<Map> {
    MapSpec::new(MapType::ARRAY, 4, 8, 1)
        .name("packets")
        .create()
}

/// The count.
pub fn count_of(map: &Map) -> Result<u64> {
    let count = map.elements::<u32, u64>()?.lookup(&0)?;
    Ok(count.expect("an array has each of its elements"))
}

/// The program that a [`Counter`](crate::Counter) has, on this map.
pub fn counting(map: &Map, prog_type: ProgType, returns: i32) -> Result<Prog> {
    let (mut insns, at) = look_up_and_add(returns);
    insns[at..at + 2].copy_from_slice(&Insn::ld_map_fd(1, map.as_fd().as_raw_fd()));
    let spec = ProgSpec::new(prog_type, &insns).name("counting");
    match prog_type {
        // As other loaders set it: an XDP link accepts only programs with the same type.
        ProgType::XDP => spec.expected_attach_type(AttachType::XDP).load(),
        _ => spec.load(),
    }
}

/// Runs a program on a packet of zeroes and returns its result.
pub fn test_run(prog: impl AsFd, repeat: u32) -> Outcome<u32> {
    let prog = Prog::try_from(prog.as_fd().try_clone_to_owned()?)?;
    let run = TestRun::new().data_in(&[0; 64]).repeat(repeat);
    Ok(prog.test_run(run)?.retval)
}

/// `u64 *n = bpf_map_lookup_elem(&map, &0); if (n) __sync_fetch_and_add(n, 1);`, and the index of
/// the instruction that loads the map's address.
pub(crate) fn look_up_and_add(returns: i32) -> (Vec<Insn>, usize) {
    // lddw takes two slots.
    let [first, second] = Insn::ld_map_fd(1, 0);
    let unrelocated = Insn::new(first.code, 1, 0, 0, 0);
    let insns = vec![
        Insn::st_mem(abi::BPF_W, 10, -4, 0),
        Insn::mov64_reg(2, 10),
        Insn::alu64_imm(abi::BPF_ADD, 2, -4),
        unrelocated,
        second,
        Insn::call(abi::BPF_FUNC_map_lookup_elem),
        Insn::jmp_imm(abi::BPF_JEQ, 0, 0, 2),
        Insn::mov64_imm(1, 1),
        Insn::atomic_add64(0, 1, 0),
        Insn::mov64_imm(0, returns),
        Insn::exit(),
    ];
    (insns, 3)
}
