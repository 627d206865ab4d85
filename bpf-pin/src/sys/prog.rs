//! Programs.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::object::{info_into, type_and_id};
use super::{Result, address, address_mut, bpf, new_fd, raw};

/// An array of records of `rec_size` bytes each.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    rec_size: u32,
}

impl<'a> Records<'a> {
    /// `None` if the length is not a multiple of `rec_size`.
    pub(crate) fn new(bytes: &'a [u8], rec_size: u32) -> Option<Self> {
        let rest = bytes.len().checked_rem(rec_size as usize);
        (bytes.is_empty() || rest == Some(0)).then_some(Self { bytes, rec_size })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The address, the count and the size of the records; all zero if there are none.
    fn raw(&self) -> Result<(u64, u32, u32)> {
        if self.is_empty() {
            return Ok((0, 0, 0));
        }
        let count = self.bytes.len() / self.rec_size as usize;
        let count = u32::try_from(count).map_err(|_| Errno::TOOBIG)?;
        Ok((address(self.bytes), count, self.rec_size))
    }
}

/// The data that `BPF_PROG_LOAD` reads by address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProgData<'a> {
    pub(crate) insns: &'a [abi::bpf_insn],
    pub(crate) license: &'a CStr,
    pub(crate) func_info: Records<'a>,
    pub(crate) line_info: Records<'a>,
    pub(crate) core_relos: Records<'a>,
    pub(crate) fd_array: &'a [BorrowedFd<'a>],
    /// Passes `fd_array_cnt`, so that the program holds these objects.
    pub(crate) keeps_fd_array: bool,
    pub(crate) signature: &'a [u8],
}

// A borrowed descriptor has the layout of the int that the kernel reads.
const _: () = assert!(size_of::<BorrowedFd<'_>>() == size_of::<i32>());

impl<'a> ProgData<'a> {
    /// Instructions alone.
    pub(crate) fn new(insns: &'a [abi::bpf_insn]) -> Self {
        Self {
            insns,
            license: c"",
            func_info: Records::default(),
            line_info: Records::default(),
            core_relos: Records::default(),
            fd_array: &[],
            keeps_fd_array: false,
            signature: &[],
        }
    }
}

impl ProgData<'_> {
    /// The first instruction that refers to a descriptor beyond the end of `fd_array`, and its index there.
    /// The kernel does not know the array's length.
    pub(crate) fn beyond_array(&self) -> Option<(usize, usize)> {
        let len = self.fd_array.len();
        if len == 0 {
            return None;
        }
        let named = self.insns.iter().map(index_of).enumerate();
        named
            .filter_map(|(at, index)| Some((at, index?)))
            .find(|(_, index)| *index >= len)
    }
}

/// The index into `fd_array` that an instruction holds. A negative one becomes a large one.
fn index_of(insn: &abi::bpf_insn) -> Option<usize> {
    const LD_IMM64: u8 = abi::BPF_LD | abi::BPF_IMM | abi::BPF_DW;
    const CALL: u8 = abi::BPF_JMP | abi::BPF_CALL;
    match (insn.code, insn.src_reg()) {
        (LD_IMM64, abi::BPF_PSEUDO_MAP_IDX | abi::BPF_PSEUDO_MAP_IDX_VALUE) => {
            Some(insn.imm as u32 as usize)
        }
        // 0 means the kernel's own BTF.
        (CALL, abi::BPF_PSEUDO_KFUNC_CALL) if insn.off != 0 => Some(insn.off as u16 as usize),
        _ => None,
    }
}

/// `BPF_PROG_LOAD`. The addresses in `attr`, their lengths and counts are set from `data` and `log`. Returns
/// `log_true_size` as well.
pub(crate) fn prog_load(
    attr: abi::bpf_attr_prog_load,
    data: &ProgData<'_>,
    log: &mut [u8],
) -> (Result<OwnedFd>, u32) {
    let mut attr = match with_data(attr, data, log) {
        Ok(attr) => attr,
        Err(errno) => return (Err(errno), 0),
    };
    // SAFETY: with_data has set every address to a buffer of the given length that outlives the call; only
    // the log is written. No instruction refers beyond the end of fd_array, which is an array of
    // ints in memory. PROG_LOAD returns a descriptor.
    let result = unsafe { new_fd(bpf(abi::BPF_PROG_LOAD, &mut attr)) };
    (result, attr.log_true_size)
}

fn with_data(
    attr: abi::bpf_attr_prog_load,
    data: &ProgData<'_>,
    log: &mut [u8],
) -> Result<abi::bpf_attr_prog_load> {
    assert_eq!(data.beyond_array(), None, "an index beyond fd_array");
    let length = |length: usize| u32::try_from(length).map_err(|_| Errno::TOOBIG);
    let (func_info, func_info_cnt, func_info_rec_size) = data.func_info.raw()?;
    let (line_info, line_info_cnt, line_info_rec_size) = data.line_info.raw()?;
    let (core_relos, core_relo_cnt, core_relo_rec_size) = data.core_relos.raw()?;
    Ok(abi::bpf_attr_prog_load {
        insns: address(data.insns),
        insn_cnt: length(data.insns.len())?,
        license: data.license.as_ptr() as u64,
        func_info,
        func_info_cnt,
        func_info_rec_size,
        line_info,
        line_info_cnt,
        line_info_rec_size,
        core_relos,
        core_relo_cnt,
        core_relo_rec_size,
        fd_array: address(data.fd_array),
        fd_array_cnt: if data.keeps_fd_array {
            length(data.fd_array.len())?
        } else {
            0
        },
        signature: address(data.signature),
        signature_size: length(data.signature.len())?,
        log_level: if log.is_empty() { 0 } else { attr.log_level },
        log_size: length(log.len())?,
        log_buf: address_mut(log),
        ..attr
    })
}

/// A field of `BPF_PROG_LOAD` that older kernels lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgField {
    FdArray,
    CoreRelos,
    FdArrayCnt,
    Signature,
}

/// True if the kernel has the field; `None` if that could not be determined. Loads no program.
pub(crate) fn probe_prog_field(field: ProgField) -> Option<bool> {
    const INVALID_FLAG: u32 = 1 << 31;
    let load_invalid = |prog_flags: u32| {
        let descriptors = [-1i32];
        let mut attr = abi::bpf_attr_prog_load {
            prog_type: abi::BPF_PROG_TYPE_SOCKET_FILTER,
            license: c"".as_ptr() as u64,
            prog_flags,
            ..abi::bpf_attr_prog_load::zeroed()
        };
        match field {
            ProgField::FdArray => attr.fd_array = address(&descriptors),
            ProgField::CoreRelos => attr.core_relo_cnt = 1,
            ProgField::FdArrayCnt => attr.fd_array_cnt = 1,
            ProgField::Signature => attr.signature_size = 1,
        }
        // SAFETY: the licence is a string and the array an int, which outlive the call; all other addresses
        // are zero. PROG_LOAD returns a descriptor.
        let result = unsafe { new_fd(bpf(abi::BPF_PROG_LOAD, &mut attr)) };
        result.map_or_else(|errno| errno, |_| Errno::IO)
    };
    // The kernel first rejects a field that it does not have: EINVAL inside its union, E2BIG beyond it. Then
    // it checks the flags (EINVAL), and then the number of instructions (E2BIG).
    match (load_invalid(INVALID_FLAG), load_invalid(0)) {
        (Errno::INVAL, Errno::TOOBIG) => Some(true),
        (Errno::INVAL, Errno::INVAL) | (Errno::TOOBIG, Errno::TOOBIG) => Some(false),
        _ => None,
    }
}

/// `BPF_PROG_BIND_MAP`.
pub(crate) fn prog_bind_map(prog: BorrowedFd<'_>, map: BorrowedFd<'_>) -> Result<()> {
    let mut attr = abi::bpf_attr_prog_bind_map {
        prog_fd: raw(prog),
        map_fd: raw(map),
        flags: 0,
    };
    // SAFETY: the arm holds no address.
    unsafe { bpf(abi::BPF_PROG_BIND_MAP, &mut attr) }.map(drop)
}

/// Writes the ids of the maps that a program holds to `ids`, as many as fit, and returns how many it holds.
pub(crate) fn prog_map_ids(prog: BorrowedFd<'_>, ids: &mut [u32]) -> Result<usize> {
    let mut info = abi::bpf_prog_info {
        nr_map_ids: u32::try_from(ids.len()).map_err(|_| Errno::TOOBIG)?,
        map_ids: address_mut(ids),
        ..abi::bpf_prog_info::zeroed()
    };
    // SAFETY: map_ids is the address of nr_map_ids writable words, every other address is zero. Another kind
    // would interpret the struct as its own, but the callers have a program.
    unsafe { info_into(raw(prog), &mut info) }?;
    Ok(info.nr_map_ids as usize)
}

/// The buffers of `BPF_PROG_QUERY`: each as long as that for the programs' ids, or empty if it is not asked for.
#[derive(Debug)]
pub(crate) struct QueryBuffers<'a> {
    pub(crate) prog_ids: &'a mut [u32],
    /// EINVAL on kernels without it.
    pub(crate) link_ids: &'a mut [u32],
    /// EINVAL on kernels without it.
    pub(crate) prog_flags: &'a mut [u32],
}

/// The result of `BPF_PROG_QUERY` without the ids. Also set after ENOSPC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queried {
    /// The number of programs, also if the buffers hold fewer.
    pub(crate) count: usize,
    pub(crate) flags: u32,
    /// 0 if the kernel does not report it.
    pub(crate) revision: u64,
}

/// `BPF_PROG_QUERY`. ENOSPC if the buffers are too small; they hold the first ids then.
pub(crate) fn prog_query(
    target: u32,
    attach_type: u32,
    query_flags: u32,
    buffers: QueryBuffers<'_>,
) -> (Result<()>, Queried) {
    let QueryBuffers {
        prog_ids,
        link_ids,
        prog_flags,
    } = buffers;
    let count = prog_ids.len();
    assert!([0, count].contains(&link_ids.len()) && [0, count].contains(&prog_flags.len()));
    let mut attr = abi::bpf_attr_query {
        target_fd: target,
        attach_type,
        query_flags,
        prog_ids: address_mut(prog_ids),
        prog_cnt: u32::try_from(count).unwrap_or(u32::MAX),
        prog_attach_flags: address_mut(prog_flags),
        link_ids: address_mut(link_ids),
        ..abi::bpf_attr_query::zeroed()
    };
    // SAFETY: each address is 0 or that of at least prog_cnt writable words, and the kernel writes at most
    // that many.
    let result = unsafe { bpf(abi::BPF_PROG_QUERY, &mut attr) };
    let queried = Queried {
        count: attr.prog_cnt as usize,
        flags: attr.attach_flags,
        revision: attr.revision,
    };
    (result.map(drop), queried)
}

/// The arguments of `BPF_PROG_TEST_RUN`.
#[derive(Debug, Default)]
pub(crate) struct RunArgs<'a> {
    pub(crate) data_in: &'a [u8],
    pub(crate) data_out: &'a mut [u8],
    /// The kernel writes the context of a program of type syscall back to it.
    pub(crate) ctx_in: &'a mut [u8],
    pub(crate) ctx_out: &'a mut [u8],
    pub(crate) repeat: u32,
    pub(crate) flags: u32,
    pub(crate) cpu: u32,
    pub(crate) batch_size: u32,
}

/// The results of a run. Also set if the output did not fit into the buffers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunOut {
    pub(crate) retval: u32,
    /// In nanoseconds.
    pub(crate) duration: u32,
    pub(crate) data_size: u32,
    pub(crate) ctx_size: u32,
}

/// Why a test run failed.
#[derive(Debug)]
pub(crate) enum RunError {
    Failed(Errno, RunOut),
    /// Its type could not be read.
    Info(Errno),
    /// The kernel may interpret the context of a program of this type as an address.
    Context(u32),
}

/// The last type for which it is known what a context is: Linux 7.3.
const LAST_PROG_TYPE: u32 = abi::BPF_PROG_TYPE_NETFILTER;

/// Checks that the kernel copies the context of this program and follows no address in it.
///
/// The context of struct_ops holds the arguments of a call. The first one is the address of a state, to which
/// the kernel writes back. No program has type 0: that is a forged answer.
fn check_context(prog: BorrowedFd<'_>) -> std::result::Result<(), RunError> {
    let [prog_type, _] = type_and_id(prog).map_err(RunError::Info)?;
    match prog_type {
        abi::BPF_PROG_TYPE_UNSPEC | abi::BPF_PROG_TYPE_STRUCT_OPS => {
            Err(RunError::Context(prog_type))
        }
        ..=LAST_PROG_TYPE => Ok(()),
        newer => Err(RunError::Context(newer)),
    }
}

/// `BPF_PROG_TEST_RUN`.
pub(crate) fn prog_test_run(
    prog: BorrowedFd<'_>,
    args: &mut RunArgs<'_>,
) -> std::result::Result<RunOut, RunError> {
    if !args.ctx_in.is_empty() {
        check_context(prog)?;
    }
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut attr = abi::bpf_attr_test {
        prog_fd: raw(prog),
        data_size_in: size(args.data_in),
        data_size_out: size(args.data_out),
        data_in: address(args.data_in),
        data_out: address_mut(args.data_out),
        repeat: args.repeat,
        ctx_size_in: size(args.ctx_in),
        ctx_size_out: size(args.ctx_out),
        ctx_in: address_mut(args.ctx_in),
        ctx_out: address_mut(args.ctx_out),
        flags: args.flags,
        cpu: args.cpu,
        batch_size: args.batch_size,
        ..abi::bpf_attr_test::zeroed()
    };
    // SAFETY: each address is zero, or that of a buffer that outlives the call and has at least the size beside
    // it. Buffers that the command writes are writable. An empty buffer has no address: given an address and
    // no size, the kernel would write all its data there. The kernel follows no address in this type's
    // context.
    let result = unsafe { bpf(abi::BPF_PROG_TEST_RUN, &mut attr) };
    let out = RunOut {
        retval: attr.retval,
        duration: attr.duration,
        data_size: attr.data_size_out,
        ctx_size: attr.ctx_size_out,
    };
    match result {
        Ok(_) => Ok(out),
        Err(errno) => Err(RunError::Failed(errno, out)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, AsRawFd};

    fn load_index(src: u8, imm: i32) -> [abi::bpf_insn; 2] {
        let code = abi::BPF_LD | abi::BPF_IMM | abi::BPF_DW;
        [
            abi::bpf_insn::new(code, 1, src, 0, imm),
            abi::bpf_insn::new(0, 0, 0, 0, 0),
        ]
    }

    #[test]
    fn an_index_beyond_the_array_is_found() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let descriptors = [file.as_fd(); 3];
        let beyond = |insns: &[abi::bpf_insn], fd_array| {
            let data = ProgData {
                fd_array,
                keeps_fd_array: true,
                ..ProgData::new(insns)
            };
            data.beyond_array()
        };
        for src in [abi::BPF_PSEUDO_MAP_IDX, abi::BPF_PSEUDO_MAP_IDX_VALUE] {
            assert_eq!(beyond(&load_index(src, 2), &descriptors), None);
            assert_eq!(beyond(&load_index(src, 3), &descriptors), Some((0, 3)));
            let negative = beyond(&load_index(src, -1), &descriptors);
            assert_eq!(negative, Some((0, u32::MAX as usize)));
            // Without an array the kernel reads nothing.
            assert_eq!(beyond(&load_index(src, 3), &[]), None);
        }
        // A descriptor, not an index.
        let insns = load_index(abi::BPF_PSEUDO_MAP_FD, 100);
        assert_eq!(beyond(&insns, &descriptors), None);

        let call = |src, off| abi::bpf_insn::new(abi::BPF_JMP | abi::BPF_CALL, 0, src, off, 1);
        let kfunc = abi::BPF_PSEUDO_KFUNC_CALL;
        assert_eq!(beyond(&[call(kfunc, 0)], &descriptors[..0]), None);
        assert_eq!(beyond(&[call(kfunc, 2)], &descriptors), None);
        assert_eq!(beyond(&[call(kfunc, 3)], &descriptors), Some((0, 3)));
        let negative = beyond(&[call(0, 0), call(kfunc, -1)], &descriptors);
        assert_eq!(negative, Some((1, usize::from(u16::MAX))));
        assert_eq!(beyond(&[call(0, 9)], &descriptors), None, "a helper");
    }

    #[test]
    fn fd_array_has_the_layout_of_ints() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let descriptors = [file.as_fd(), file.as_fd()];
        // SAFETY: BorrowedFd is transparent over the int.
        let ints = unsafe { *std::ptr::from_ref(&descriptors).cast::<[i32; 2]>() };
        assert_eq!(ints, [file.as_raw_fd(); 2]);
    }

    #[test]
    fn only_whole_records_are_accepted() {
        assert!(Records::new(&[0; 16], 8).is_some());
        assert!(Records::new(&[0; 15], 8).is_none());
        assert!(Records::new(&[0; 16], 0).is_none());
        assert!(Records::new(&[], 0).unwrap().is_empty());
        assert_eq!(Records::new(&[], 8).unwrap().raw(), Ok((0, 0, 0)));
        let (_, count, size) = Records::new(&[0; 48], 16).unwrap().raw().unwrap();
        assert_eq!((count, size), (3, 16));
    }
}
