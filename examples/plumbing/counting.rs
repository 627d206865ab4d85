//! A program that counts packets.

use std::os::fd::{AsFd, AsRawFd};

use bpf_pin::abi::{BPF_ADD, BPF_FUNC_map_lookup_elem, BPF_JEQ, BPF_W};
use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Map, Prog, ProgSpec};

/// Loads a program that adds 1 to the first field of the value of key 0 for each packet, and passes it on.
pub fn counting(map: &Map) -> bpf_pin::Result<Prog> {
    const XDP_PASS: i32 = 2;
    let mut insns = vec![
        // value = bpf_map_lookup_elem(map, &0); if (!value) goto out;
        Insn::st_mem(BPF_W, 10, -4, 0),
        Insn::mov64_reg(2, 10),
        Insn::alu64_imm(BPF_ADD, 2, -4),
    ];
    insns.extend(Insn::ld_map_fd(1, map.as_fd().as_raw_fd()));
    insns.extend([
        Insn::call(BPF_FUNC_map_lookup_elem),
        Insn::jmp_imm(BPF_JEQ, 0, 0, 2),
        // __sync_fetch_and_add(value, 1);
        Insn::mov64_imm(1, 1),
        Insn::atomic_add64(0, 1, 0),
        // out: return XDP_PASS;
        Insn::mov64_imm(0, XDP_PASS),
        Insn::exit(),
    ]);
    ProgSpec::new(ProgType::XDP, &insns)
        .expected_attach_type(AttachType::XDP)
        .name("counting")
        .load()
}
