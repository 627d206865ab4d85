//! The parts of an instruction's code.

/// `BPF_CLASS`: returns the class of a code.
#[allow(non_snake_case)]
#[must_use]
pub const fn BPF_CLASS(code: u8) -> u8 {
    code & 0x07
}

/// `BPF_SIZE`: returns the width of a load's or store's code.
#[allow(non_snake_case)]
#[must_use]
pub const fn BPF_SIZE(code: u8) -> u8 {
    code & 0x18
}

/// `BPF_MODE`: returns the mode of a load's or store's code.
#[allow(non_snake_case)]
#[must_use]
pub const fn BPF_MODE(code: u8) -> u8 {
    code & 0xe0
}

/// `BPF_OP`: returns the operation of an arithmetic or jump code.
#[allow(non_snake_case)]
#[must_use]
pub const fn BPF_OP(code: u8) -> u8 {
    code & 0xf0
}

/// `BPF_SRC`: returns the source of an arithmetic or jump code.
#[allow(non_snake_case)]
#[must_use]
pub const fn BPF_SRC(code: u8) -> u8 {
    code & 0x08
}

abi_consts! {
    /// The classes, [`BPF_CLASS`].
    pub BPF_CLASSES: u8, header {
        /// Load an immediate, or load from a packet as in classic BPF.
        BPF_LD = 0x00, since (3, 18);
        /// Load from memory into a register.
        BPF_LDX = 0x01, since (3, 18);
        /// Store an immediate.
        BPF_ST = 0x02, since (3, 18);
        /// Store a register.
        BPF_STX = 0x03, since (3, 18);
        /// Compute with 32 bits.
        BPF_ALU = 0x04, since (3, 18);
        /// Jump on 64 bits, call, return.
        BPF_JMP = 0x05, since (3, 18);
        /// Return, in classic BPF.
        BPF_RET = 0x06, since (3, 18);
        /// Jump on 32 bits.
        BPF_JMP32 = 0x06, since (5, 1);
        /// Miscellaneous, in classic BPF.
        BPF_MISC = 0x07, since (3, 18);
        /// Compute with 64 bits.
        BPF_ALU64 = 0x07, since (3, 18);
    }
}

abi_consts! {
    /// The widths of a load or store, [`BPF_SIZE`].
    pub BPF_SIZES: u8, header {
        /// 4 bytes.
        BPF_W = 0x00, since (3, 18);
        /// 2 bytes.
        BPF_H = 0x08, since (3, 18);
        /// 1 byte.
        BPF_B = 0x10, since (3, 18);
        /// 8 bytes.
        BPF_DW = 0x18, since (3, 18);
    }
}

abi_consts! {
    /// The modes of a load or store, [`BPF_MODE`].
    pub BPF_MODES: u8, header {
        /// An immediate.
        BPF_IMM = 0x00, since (3, 18);
        /// Packet data at a fixed offset.
        BPF_ABS = 0x20, since (3, 18);
        /// Packet data at an offset in a register.
        BPF_IND = 0x40, since (3, 18);
        /// Memory.
        BPF_MEM = 0x60, since (3, 18);
        /// A packet's length, in classic BPF.
        BPF_LEN = 0x80, since (3, 18);
        /// Memory, sign-extended.
        BPF_MEMSX = 0x80, since (6, 6);
        /// An IP header's length, in classic BPF.
        BPF_MSH = 0xa0, since (3, 18);
        /// Memory, atomically. `imm` is the operation.
        BPF_ATOMIC = 0xc0, since (5, 12);
        /// The older name of `BPF_ATOMIC`, when addition was the only operation.
        BPF_XADD = 0xc0, since (3, 18);
    }
}

abi_consts! {
    /// The sources of an arithmetic or jump instruction, [`BPF_SRC`].
    pub BPF_SRCS: u8, header {
        /// `imm`.
        BPF_K = 0x00, since (3, 18);
        /// The source register.
        BPF_X = 0x08, since (3, 18);
    }
}

abi_consts! {
    /// The arithmetic operations, [`BPF_OP`].
    pub BPF_ALU_OPS: u8, header {
        /// Add.
        BPF_ADD = 0x00, since (3, 18);
        /// Subtract.
        BPF_SUB = 0x10, since (3, 18);
        /// Multiply.
        BPF_MUL = 0x20, since (3, 18);
        /// Divide. Division by zero gives zero.
        BPF_DIV = 0x30, since (3, 18);
        /// Bitwise or.
        BPF_OR = 0x40, since (3, 18);
        /// Bitwise and.
        BPF_AND = 0x50, since (3, 18);
        /// Shift left.
        BPF_LSH = 0x60, since (3, 18);
        /// Shift right, filling with zeros.
        BPF_RSH = 0x70, since (3, 18);
        /// Negate.
        BPF_NEG = 0x80, since (3, 18);
        /// Remainder. Division by zero leaves the value.
        BPF_MOD = 0x90, since (3, 18);
        /// Bitwise exclusive or.
        BPF_XOR = 0xa0, since (3, 18);
        /// Copy.
        BPF_MOV = 0xb0, since (3, 18);
        /// Shift right, filling with the sign bit.
        BPF_ARSH = 0xc0, since (3, 18);
        /// Change the byte order.
        BPF_END = 0xd0, since (3, 18);
    }
}

abi_consts! {
    /// The byte orders of [`BPF_END`], in the bit of the source.
    pub BPF_END_ORDERS: u8, header {
        /// To little-endian.
        BPF_TO_LE = 0x00, since (3, 18);
        /// From little-endian: the same.
        BPF_FROM_LE = BPF_TO_LE, since (3, 18);
        /// To big-endian.
        BPF_TO_BE = 0x08, since (3, 18);
        /// From big-endian: the same.
        BPF_FROM_BE = BPF_TO_BE, since (3, 18);
    }
}

abi_consts! {
    /// The jumps, [`BPF_OP`].
    pub BPF_JMP_OPS: u8, header {
        /// Always.
        BPF_JA = 0x00, since (3, 18);
        /// If equal.
        BPF_JEQ = 0x10, since (3, 18);
        /// If greater, unsigned.
        BPF_JGT = 0x20, since (3, 18);
        /// If greater or equal, unsigned.
        BPF_JGE = 0x30, since (3, 18);
        /// If both operands have a bit set in common.
        BPF_JSET = 0x40, since (3, 18);
        /// If not equal.
        BPF_JNE = 0x50, since (3, 18);
        /// If greater, signed.
        BPF_JSGT = 0x60, since (3, 18);
        /// If greater or equal, signed.
        BPF_JSGE = 0x70, since (3, 18);
        /// Call a helper, a function of the program, or a function of the kernel.
        BPF_CALL = 0x80, since (3, 18);
        /// Return.
        BPF_EXIT = 0x90, since (3, 18);
        /// If less, unsigned.
        BPF_JLT = 0xa0, since (4, 14);
        /// If less or equal, unsigned.
        BPF_JLE = 0xb0, since (4, 14);
        /// If less, signed.
        BPF_JSLT = 0xc0, since (4, 14);
        /// If less or equal, signed.
        BPF_JSLE = 0xd0, since (4, 14);
        /// On a condition that the kernel evaluates. The source register selects it.
        BPF_JCOND = 0xe0, since (6, 9);
    }
}

/// `enum bpf_cond_pseudo_jmp`: the source register of [`BPF_JCOND`].
#[allow(non_camel_case_types)]
pub type bpf_cond_pseudo_jmp = u8;

abi_consts! {
    /// The conditions of [`BPF_JCOND`].
    pub BPF_COND_PSEUDO_JMPS: bpf_cond_pseudo_jmp, btf {
        /// Jump if the program has exceeded its limit of iterations.
        BPF_MAY_GOTO = 0, since (6, 9);
    }
}

/// `enum bpf_addr_space_cast`: the `off` of a move between address spaces.
#[allow(non_camel_case_types)]
pub type bpf_addr_space_cast = i16;

abi_consts! {
    /// The values of `off` in a 64-bit [`BPF_MOV`].
    pub BPF_ADDR_SPACE_CASTS: bpf_addr_space_cast, btf {
        /// Convert a pointer into an arena between the two address spaces in `imm`.
        BPF_ADDR_SPACE_CAST = 1, since (6, 9);
    }
}

abi_consts! {
    /// The atomic operations besides [`BPF_ADD`], [`BPF_OR`], [`BPF_AND`] and [`BPF_XOR`]: the
    /// `imm` of [`BPF_ATOMIC`].
    pub BPF_ATOMIC_OPS: i32, header {
        /// Store the old value in the source register. Combined with an operation.
        BPF_FETCH = 0x01, since (5, 12);
        /// Exchange.
        BPF_XCHG = 0xe0 | BPF_FETCH, since (5, 12);
        /// Exchange if the memory holds `r0`. The old value is stored in `r0`.
        BPF_CMPXCHG = 0xf0 | BPF_FETCH, since (5, 12);
        /// Load, before all later accesses (acquire).
        BPF_LOAD_ACQ = 0x100, since (6, 15);
        /// Store, after all earlier accesses (release).
        BPF_STORE_REL = 0x110, since (6, 15);
    }
}

abi_consts! {
    /// The registers.
    pub BPF_REGS: u8, btf {
        /// The return value of a call and of the program.
        BPF_REG_0 = 0, since (3, 18);
        /// First argument of a call. At the start, the program's context.
        BPF_REG_1 = 1, since (3, 18);
        /// Second argument of a call.
        BPF_REG_2 = 2, since (3, 18);
        /// Third argument of a call.
        BPF_REG_3 = 3, since (3, 18);
        /// Fourth argument of a call.
        BPF_REG_4 = 4, since (3, 18);
        /// Fifth argument of a call.
        BPF_REG_5 = 5, since (3, 18);
        /// Preserved by calls.
        BPF_REG_6 = 6, since (3, 18);
        /// Preserved by calls.
        BPF_REG_7 = 7, since (3, 18);
        /// Preserved by calls.
        BPF_REG_8 = 8, since (3, 18);
        /// Preserved by calls.
        BPF_REG_9 = 9, since (3, 18);
        /// The end of the stack frame, read-only.
        BPF_REG_10 = 10, since (3, 18);
    }
}

abi_consts! {
    /// The meaning of a 64-bit immediate, in place of the source register.
    pub BPF_PSEUDO_LDS: u8, header {
        /// A map's descriptor. Loads the map.
        BPF_PSEUDO_MAP_FD = 1, since (3, 18);
        /// A map's descriptor, with an offset in the second slot. Loads an address in the map's value.
        BPF_PSEUDO_MAP_VALUE = 2, since (5, 2);
        /// The BTF id of a kernel variable. Loads its address.
        BPF_PSEUDO_BTF_ID = 3, since (5, 10);
        /// A distance in instructions. Loads the address of a function of the program.
        BPF_PSEUDO_FUNC = 4, since (5, 13);
        /// An index into `fd_array`. Loads the map.
        BPF_PSEUDO_MAP_IDX = 5, since (5, 14);
        /// An index into `fd_array`, with an offset. Loads an address in the map's value.
        BPF_PSEUDO_MAP_IDX_VALUE = 6, since (5, 14);
    }
}

abi_consts! {
    /// The kind of callee of a call, in place of the source register. Zero for a helper.
    pub BPF_PSEUDO_CALLS: u8, header {
        /// A function of the program, by its distance in instructions.
        BPF_PSEUDO_CALL = 1, since (4, 16);
        /// A function of the kernel, by its BTF id.
        BPF_PSEUDO_KFUNC_CALL = 2, since (5, 13);
    }
}
