//! Instructions.

mod func;
mod opcode;

pub use func::*;
pub use opcode::*;

abi_struct! {
    /// `struct bpf_insn`: one instruction.
    pub struct bpf_insn[8, 4] {
        /// Class in the low 3 bits. The other bits are size and mode, or operation and source.
        code: u8 @ 0 since (3, 18),
        /// C's bit-fields `dst_reg` and `src_reg`, 4 bits each. See [`dst_reg`](Self::dst_reg) and
        /// [`src_reg`](Self::src_reg).
        regs: u8 @ 1,
        /// Distance of a jump in instructions, or offset of an access in bytes.
        off: i16 @ 2 since (3, 18),
        /// The immediate value.
        imm: i32 @ 4 since (3, 18),
    }
}

abi_struct! {
    /// `struct bpf_insn_array_value`: the value of a `BPF_MAP_TYPE_INSN_ARRAY` map.
    pub struct bpf_insn_array_value[16, 4] {
        /// Index of the instruction as loaded. User space writes it.
        orig_off: u32 @ 0 since (6, 19),
        /// Index of the instruction after the verifier's rewrites.
        xlated_off: u32 @ 4 since (6, 19),
        /// Offset in the machine code, in bytes.
        jitted_off: u32 @ 8 since (6, 19),
        #[doc(hidden)]
        __pad12: u32 @ 12,
    }
}

impl bpf_insn {
    /// Returns an instruction with these parts. Registers are modulo 16.
    #[must_use]
    pub const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Self {
        // C allocates bit-fields from the low bits on little-endian targets, and from the high bits on others.
        let regs = if cfg!(target_endian = "big") {
            dst << 4 | src & 0xf
        } else {
            src << 4 | dst & 0xf
        };
        Self {
            code,
            regs,
            off,
            imm,
        }
    }

    /// Returns the destination register, or the base register of an address.
    #[must_use]
    pub const fn dst_reg(&self) -> u8 {
        if cfg!(target_endian = "big") {
            self.regs >> 4
        } else {
            self.regs & 0xf
        }
    }

    /// Returns the source register, or a `BPF_PSEUDO_*` that says how to read `imm`.
    #[must_use]
    pub const fn src_reg(&self) -> u8 {
        if cfg!(target_endian = "big") {
            self.regs & 0xf
        } else {
            self.regs >> 4
        }
    }

    /// `dst = imm`, sign-extended.
    #[must_use]
    pub const fn mov64_imm(dst: u8, imm: i32) -> Self {
        Self::alu64_imm(BPF_MOV, dst, imm)
    }

    /// `dst = src`.
    #[must_use]
    pub const fn mov64_reg(dst: u8, src: u8) -> Self {
        Self::new(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
    }

    /// `dst = dst op imm`, 64 bits wide: `op` is [`BPF_ADD`], [`BPF_AND`] and so on.
    #[must_use]
    pub const fn alu64_imm(op: u8, dst: u8, imm: i32) -> Self {
        Self::new(BPF_ALU64 | BPF_OP(op) | BPF_K, dst, 0, 0, imm)
    }

    /// `dst = dst op src`, 64 bits wide: `op` is [`BPF_ADD`], [`BPF_AND`] and so on.
    #[must_use]
    pub const fn alu64_reg(op: u8, dst: u8, src: u8) -> Self {
        Self::new(BPF_ALU64 | BPF_OP(op) | BPF_X, dst, src, 0, 0)
    }

    /// `dst = imm`, 64 bits wide: one instruction in two slots.
    #[must_use]
    pub const fn ld_imm64(dst: u8, imm: u64) -> [Self; 2] {
        [
            Self::new(BPF_LD | BPF_DW | BPF_IMM, dst, 0, 0, imm as i32),
            Self::new(0, 0, 0, 0, (imm >> 32) as i32),
        ]
    }

    /// `dst =` the address at offset `off` in the value of an array with one element: one instruction in two
    /// slots. Linux 5.2. The number `fd` is as in [`ld_map_fd`](Self::ld_map_fd).
    #[must_use]
    pub const fn ld_map_value(dst: u8, fd: i32, off: i32) -> [Self; 2] {
        [
            Self::new(BPF_LD | BPF_DW | BPF_IMM, dst, BPF_PSEUDO_MAP_VALUE, 0, fd),
            Self::new(0, 0, 0, 0, off),
        ]
    }

    /// `dst =` the map: one instruction in two slots.
    ///
    /// `fd` is the number of a descriptor and borrows none: an instruction is plain data, which outlives any
    /// borrow. The kernel looks the number up when the program is loaded, so the map must be open until then.
    /// A number that was closed and reused gives the program another map, and one that is not a map's fails
    /// to load. No memory of this process is read or written through it.
    #[must_use]
    pub const fn ld_map_fd(dst: u8, fd: i32) -> [Self; 2] {
        [
            Self::new(BPF_LD | BPF_DW | BPF_IMM, dst, BPF_PSEUDO_MAP_FD, 0, fd),
            Self::new(0, 0, 0, 0, 0),
        ]
    }

    /// `dst = *(size *)(src + off)`: `size` is [`BPF_B`], [`BPF_H`], [`BPF_W`] or [`BPF_DW`], of 1, 2, 4
    /// or 8 bytes.
    #[must_use]
    pub const fn ldx_mem(size: u8, dst: u8, src: u8, off: i16) -> Self {
        Self::new(BPF_LDX | BPF_SIZE(size) | BPF_MEM, dst, src, off, 0)
    }

    /// `*(size *)(dst + off) = src`: `size` as for [`ldx_mem`](Self::ldx_mem).
    #[must_use]
    pub const fn stx_mem(size: u8, dst: u8, src: u8, off: i16) -> Self {
        Self::new(BPF_STX | BPF_SIZE(size) | BPF_MEM, dst, src, off, 0)
    }

    /// `*(size *)(dst + off) = imm`: `size` as for [`ldx_mem`](Self::ldx_mem).
    #[must_use]
    pub const fn st_mem(size: u8, dst: u8, off: i16, imm: i32) -> Self {
        Self::new(BPF_ST | BPF_SIZE(size) | BPF_MEM, dst, 0, off, imm)
    }

    /// Jump to the instruction at distance `off` from the next one.
    #[must_use]
    pub const fn ja(off: i16) -> Self {
        Self::new(BPF_JMP | BPF_JA, 0, 0, off, 0)
    }

    /// If `dst op src`, jump to the instruction at distance `off` from the next one: `op` is [`BPF_JEQ`], [`BPF_JGT`]
    /// and so on.
    #[must_use]
    pub const fn jmp_reg(op: u8, dst: u8, src: u8, off: i16) -> Self {
        Self::new(BPF_JMP | BPF_OP(op) | BPF_X, dst, src, off, 0)
    }

    /// If `dst op imm`, jump to the instruction at distance `off` from the next one: `op` is [`BPF_JEQ`], [`BPF_JGT`]
    /// and so on.
    #[must_use]
    pub const fn jmp_imm(op: u8, dst: u8, imm: i32, off: i16) -> Self {
        Self::new(BPF_JMP | BPF_OP(op) | BPF_K, dst, 0, off, imm)
    }

    /// Call the helper with arguments `r1` to `r5` and the result in `r0`.
    #[must_use]
    pub const fn call(helper: i32) -> Self {
        Self::new(BPF_JMP | BPF_CALL, 0, 0, 0, helper)
    }

    /// Return `r0`.
    #[must_use]
    pub const fn exit() -> Self {
        Self::new(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
    }

    /// `*(u64 *)(dst + off) += src`, atomically.
    #[must_use]
    pub const fn atomic_add64(dst: u8, src: u8, off: i16) -> Self {
        Self::new(BPF_STX | BPF_DW | BPF_ATOMIC, dst, src, off, BPF_ADD as i32)
    }
}
