//! The bytes of C's bit-fields and of instructions.

use bpf_pin_sys::*;

/// The eight bytes of an instruction.
fn bytes(insn: bpf_insn) -> [u8; 8] {
    // SAFETY: the same size, without padding: 1, 1, 2 and 4 bytes.
    unsafe { core::mem::transmute(insn) }
}

/// The output of an assembler for this target, with `off` and `imm` in its byte order.
fn expected(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> [u8; 8] {
    let regs = if cfg!(target_endian = "big") {
        dst * 16 + src
    } else {
        src * 16 + dst
    };
    let [o0, o1] = off.to_ne_bytes();
    let [i0, i1, i2, i3] = imm.to_ne_bytes();
    [code, regs, o0, o1, i0, i1, i2, i3]
}

#[test]
fn registers_survive_the_round_trip() {
    for dst in BPF_REG_0..=BPF_REG_10 {
        for src in BPF_REG_0..=BPF_REG_10 {
            let insn = bpf_insn::new(BPF_LDX, dst, src, 0, 0);
            assert_eq!((insn.dst_reg(), insn.src_reg()), (dst, src));
        }
    }
}

#[test]
fn instructions_are_encoded_as_the_kernel_decodes_them() {
    let [low, high] = bpf_insn::ld_map_fd(BPF_REG_1, 7);
    let cases = [
        (
            bpf_insn::mov64_imm(BPF_REG_0, -1),
            expected(0xb7, 0, 0, 0, -1),
        ),
        (
            bpf_insn::mov64_reg(BPF_REG_2, BPF_REG_10),
            expected(0xbf, 2, 10, 0, 0),
        ),
        (
            bpf_insn::alu64_imm(BPF_ADD, BPF_REG_2, -4),
            expected(0x07, 2, 0, 0, -4),
        ),
        (low, expected(0x18, 1, 1, 0, 7)),
        (high, expected(0x00, 0, 0, 0, 0)),
        (
            bpf_insn::ldx_mem(BPF_DW, BPF_REG_3, BPF_REG_0, 8),
            expected(0x79, 3, 0, 8, 0),
        ),
        (
            bpf_insn::ldx_mem(BPF_B, BPF_REG_3, BPF_REG_0, 8),
            expected(0x71, 3, 0, 8, 0),
        ),
        (
            bpf_insn::stx_mem(BPF_W, BPF_REG_10, BPF_REG_1, -4),
            expected(0x63, 10, 1, -4, 0),
        ),
        (
            bpf_insn::st_mem(BPF_W, BPF_REG_10, -4, 5),
            expected(0x62, 10, 0, -4, 5),
        ),
        (
            bpf_insn::jmp_imm(BPF_JEQ, BPF_REG_0, 0, 2),
            expected(0x15, 0, 0, 2, 0),
        ),
        (
            bpf_insn::call(BPF_FUNC_map_lookup_elem),
            expected(0x85, 0, 0, 0, 1),
        ),
        (bpf_insn::exit(), expected(0x95, 0, 0, 0, 0)),
        (
            bpf_insn::atomic_add64(BPF_REG_0, BPF_REG_1, 16),
            expected(0xdb, 0, 1, 16, 0),
        ),
    ];
    for (insn, expected) in cases {
        assert_eq!(bytes(insn), expected, "{insn:?}");
    }
}

#[test]
fn a_code_has_a_class_a_size_and_a_mode() {
    let code = bpf_insn::ldx_mem(BPF_H, BPF_REG_0, BPF_REG_1, 0).code;
    assert_eq!(
        (BPF_CLASS(code), BPF_SIZE(code), BPF_MODE(code)),
        (BPF_LDX, BPF_H, BPF_MEM)
    );
    let code = bpf_insn::mov64_reg(BPF_REG_0, BPF_REG_1).code;
    assert_eq!(
        (BPF_CLASS(code), BPF_OP(code), BPF_SRC(code)),
        (BPF_ALU64, BPF_MOV, BPF_X)
    );
}

#[test]
fn gpl_compatible_is_the_first_bit_of_the_first_byte() {
    let first = if cfg!(target_endian = "big") {
        0x80
    } else {
        0x01
    };
    let mut info = bpf_prog_info::zeroed();
    assert!(!info.gpl_compatible());
    info.gpl_compatible_bits = u32::from_ne_bytes([first, 0, 0, 0]);
    assert!(info.gpl_compatible());
    // The padding is ignored.
    info.gpl_compatible_bits = !u32::from_ne_bytes([first, 0, 0, 0]);
    assert!(!info.gpl_compatible());
}

#[test]
fn a_line_info_has_a_line_and_a_column() {
    let info = bpf_line_info {
        line_col: 1234 << 10 | 56,
        ..bpf_line_info::zeroed()
    };
    assert_eq!((info.line_num(), info.col_num()), (1234, 56));
}

#[test]
fn zeroed_is_zero_throughout() {
    let attr = bpf_attr::zeroed();
    // SAFETY: all bytes of the union are initialised, and bytes have no invalid values.
    let bytes: [u8; size_of::<bpf_attr>()] = unsafe { core::mem::transmute(attr) };
    assert_eq!(bytes, [0; size_of::<bpf_attr>()]);
}
