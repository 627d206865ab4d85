//! Adds to the counters of a map while programs count in it.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use bpf_pin_sys as abi;
use bytemuck::{Pod, bytes_of, cast_slice, pod_collect_to_vec, pod_read_unaligned};
use rustix::io::Errno;
use rustix::thread::{MembarrierCommand, membarrier};

use crate::error::{Cause, ObjectType, Result};
use crate::map::{ElemFlags, Elements, Map, MapSpec};
use crate::prog::{Insn, Prog, ProgSpec, TestRun};
use crate::types::{MapType, ProgType};

use super::retry::{Attempt, retry};

/// A value that consists of counters of one width: `u32`, `u64`, or an array of one of them.
///
/// Implement it for a struct of counters:
///
/// ```
/// use bpf_pin::reuse::Counters;
/// use bytemuck::{Pod, Zeroable};
///
/// #[derive(Clone, Copy, Pod, Zeroable)]
/// #[repr(C)]
/// struct Traffic {
///     packets: u64,
///     bytes: u64,
/// }
///
/// impl Counters for Traffic {
///     type Counter = u64;
/// }
/// ```
pub trait Counters: Pod {
    /// The type of each counter.
    type Counter: Counter;
}

/// The type of a counter: `u32` or `u64`.
pub trait Counter: Pod + private::Counter {}

mod private {
    use bpf_pin_sys as abi;
    use bytemuck::Pod;

    pub trait Counter: Pod + Default + PartialEq {
        /// The size of the access that adds to it.
        const SIZE: u8;
        /// The growth since `before`, modulo its width.
        fn since(self, before: Self) -> Self;
    }

    impl Counter for u32 {
        const SIZE: u8 = abi::BPF_W;
        fn since(self, before: Self) -> Self {
            self.wrapping_sub(before)
        }
    }

    impl Counter for u64 {
        const SIZE: u8 = abi::BPF_DW;
        fn since(self, before: Self) -> Self {
            self.wrapping_sub(before)
        }
    }
}

impl Counter for u32 {}
impl Counter for u64 {}

impl Counters for u32 {
    type Counter = Self;
}
impl Counters for u64 {
    type Counter = Self;
}
impl<C: Counter, const N: usize> Counters for [C; N]
where
    Self: Pod,
{
    type Counter = C;
}

fn counters_of<V: Counters>(value: &[u8]) -> Vec<V::Counter> {
    const {
        assert!(
            size_of::<V>() % size_of::<V::Counter>() == 0,
            "the size of the value is not a multiple of the size of its counters"
        );
    }
    pod_collect_to_vec(value)
}

/// The growth of each counter.
pub(super) fn growth<V: Counters>(before: Option<&[u8]>, now: &[u8]) -> V {
    use private::Counter as _;

    let mut grown = counters_of::<V>(now);
    if let Some(before) = before {
        for (now, before) in grown.iter_mut().zip(counters_of::<V>(before)) {
            *now = now.since(before);
        }
    }
    pod_read_unaligned(cast_slice(&grown))
}

/// Adds to counters of a map, each with one atomic instruction.
///
/// The kernel has no command for that, so a program adds: a socket filter, which `BPF_PROG_TEST_RUN` runs for
/// each entry.
pub(super) struct Adder<'m> {
    elements: Elements<[u8], [u8], &'m Map>,
    /// Loaded for the first entry.
    program: Option<Program>,
}

struct Program {
    prog: Prog,
    /// An array with one element: the key, the amounts, and a byte that the program sets when it has added.
    input: Elements<[u8], [u8], Map>,
}

impl<'m> Adder<'m> {
    pub(super) fn new(map: &'m Map) -> Result<Self> {
        let elements = map.elements()?;
        let program = None;
        Ok(Self { elements, program })
    }

    /// Adds each amount to its counter. A missing entry is created with the amounts.
    pub(super) fn add<V: Counters>(&mut self, key: &[u8], amounts: &V) -> Result<()> {
        let none = V::Counter::default();
        if counters_of::<V>(bytes_of(amounts))
            .iter()
            .all(|it| *it == none)
        {
            return Ok(());
        }
        let Program { prog, input } = match &self.program {
            Some(program) => program,
            None => self.program.insert(Program::load::<V>(&self.elements)?),
        };
        let mut bytes = key.to_vec();
        bytes.resize(amounts_offset(&self.elements), 0);
        bytes.extend_from_slice(bytes_of(amounts));
        bytes.push(0);
        let at = 0_u32.to_ne_bytes();
        input.update(&at, &bytes, ElemFlags::ANY)?;
        retry(|| {
            // The program ignores the packet.
            let run = TestRun::new().data_in(&[0; 64]);
            let has_added = match prog.test_run(run) {
                Ok(ran) => ran.retval == ADDED,
                // Before Linux 5.12 a signal during the run hides its result.
                Err(error) if error.is(Errno::INTR) => {
                    let after = input.lookup(&at)?;
                    after.is_some_and(|bytes| bytes.last() == Some(&1))
                }
                Err(error) => return Err(error),
            };
            if has_added {
                return Ok(Attempt::Done(()));
            }
            let amounts = bytes_of(amounts);
            match self.elements.update(key, amounts, ElemFlags::NOEXIST) {
                Err(error) if matches!(error.cause(), Some(Cause::KeyExists)) => {
                    Ok(Attempt::Retry(error))
                }
                created => created.map(Attempt::Done),
            }
        })
    }
}

impl Program {
    fn load<V: Counters>(elements: &Elements<[u8], [u8], &Map>) -> Result<Self> {
        use private::Counter as _;

        let (amounts, mark) = (amounts_offset(elements), mark_offset(elements));
        let input = MapSpec::new(MapType::ARRAY, 4, mark as u32 + 1, 1).create()?;
        // r6 = the input, which begins with the key; r0 = bpf_map_lookup_elem(map, r6);
        let mut insns = Vec::from(Insn::ld_map_value(6, input.as_fd().as_raw_fd(), 0));
        insns.extend(Insn::ld_map_fd(1, elements.map().as_fd().as_raw_fd()));
        insns.extend([
            Insn::mov64_reg(2, 6),
            Insn::call(abi::BPF_FUNC_map_lookup_elem),
            // if (!r0) return 0;
            Insn::jmp_imm(abi::BPF_JNE, 0, 0, 1),
            Insn::exit(),
        ]);
        let size = V::Counter::SIZE;
        for offset in (0..size_of::<V>()).step_by(size_of::<V::Counter>()) {
            insns.extend([
                // r1 = *(r6 + amounts + offset); atomically: *(r0 + offset) += r1;
                Insn::mov64_reg(2, 6),
                Insn::alu64_imm(abi::BPF_ADD, 2, (amounts + offset) as i32),
                Insn::ldx_mem(size, 1, 2, 0),
                Insn::mov64_reg(2, 0),
                Insn::alu64_imm(abi::BPF_ADD, 2, offset as i32),
                atomic_add(size, 2, 1),
            ]);
        }
        insns.extend([
            // *(u8 *)(r6 + mark) = 1; return ADDED;
            Insn::alu64_imm(abi::BPF_ADD, 6, mark as i32),
            Insn::st_mem(abi::BPF_B, 6, 0, 1),
            Insn::mov64_imm(0, ADDED as i32),
            Insn::exit(),
        ]);
        let prog = ProgSpec::new(ProgType::SOCKET_FILTER, &insns)
            .name("bpf_pin_add")
            .load()?;
        let input = Elements::new(input)?;
        Ok(Self { prog, input })
    }
}

/// The return value of the program if it found the entry.
const ADDED: u32 = 1;

/// Where the amounts begin in the input.
fn amounts_offset(elements: &Elements<[u8], [u8], &Map>) -> usize {
    elements.key_len().next_multiple_of(8)
}

/// The last byte of the input.
fn mark_offset(elements: &Elements<[u8], [u8], &Map>) -> usize {
    amounts_offset(elements) + elements.value_len()
}

/// `*(size *)dst += src`, atomically.
fn atomic_add(size: u8, dst: u8, src: u8) -> Insn {
    let code = abi::BPF_STX | size | abi::BPF_ATOMIC;
    Insn::new(code, dst, src, 0, abi::BPF_ADD.into())
}

/// Fails for a map of a type that no program can add to in this way.
pub(super) fn check_type(map_type: MapType) -> Result<(), Cause> {
    Err(match map_type {
        MapType::HASH | MapType::LRU_HASH | MapType::ARRAY | MapType::RHASH => return Ok(()),
        MapType::PERCPU_HASH | MapType::LRU_PERCPU_HASH | MapType::PERCPU_ARRAY => {
            Cause::PerCpu { is_per_cpu: true }
        }
        _ => Cause::unsupported(
            ObjectType::Map(map_type),
            "have no counters that can be added to",
        ),
    })
}

/// Waits until no CPU runs a program that was replaced before this call: for an RCU grace period.
pub(super) fn wait_for_programs() -> Result<()> {
    if membarrier(MembarrierCommand::Global).is_ok() {
        return Ok(());
    }
    // A kernel with nohz_full CPUs refuses that. An update of a map of maps waits as well.
    let inner = MapSpec::new(MapType::ARRAY, 4, 4, 1).create()?;
    let outer = MapSpec::new(MapType::ARRAY_OF_MAPS, 4, 4, 1)
        .inner_map(&inner)
        .create()?;
    outer
        .elements::<u32, Map>()?
        .update(&0, &inner, ElemFlags::ANY)
}
