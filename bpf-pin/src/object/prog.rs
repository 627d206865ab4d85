//! Owned descriptors of programs.

use std::time::Duration;

use super::pinned::PinnedProg;
use super::typed::*;
#[cfg(feature = "serde")]
use crate::types::serialize::{hex, nanoseconds};
use crate::types::{ObjName, ProgType};

typed_object! {
    /// An owned descriptor of a program.
    ///
    /// Dropping it closes the descriptor. The program is freed with its last descriptor unless it is pinned,
    /// attached or in a prog array.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::prog::Insn;
    /// use bpf_pin::types::ProgType;
    /// use bpf_pin::ProgSpec;
    ///
    /// // Accepts every packet.
    /// let insns = [Insn::mov64_imm(0, -1), Insn::exit()];
    /// let prog = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).license(c"GPL").load()?;
    /// let prog = prog.pin("/sys/fs/bpf/accept")?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    Prog, PinnedProg, "program", "filter", ProgInfo, bpf_prog_info;

    /// Linux 4.4. The proof is the content of `struct bpf_prog_info`.
    open;

    /// Linux 4.15. For a program, `access` only affects how the pin's mode is checked.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    open_with;

    /// `BPF_PROG_GET_FD_BY_ID`. Linux 4.13. The command has no open flags: only that of
    /// [maps](crate::Map::from_id_with) has them.
    from_id;

    /// `BPF_PROG_GET_NEXT_ID`. Linux 4.13.
    ids;

    /// Linux 4.13.
    info;

    /// Linux 4.4.
    pin;
}

/// `struct bpf_prog_info`: the kernel's description of a program. Linux 4.13. Fields that the kernel does not
/// have, or does not show to this thread, are 0.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::types::ProgType;
/// use bpf_pin::Prog;
///
/// let info = Prog::open("/sys/fs/bpf/filter")?.info()?;
/// assert_eq!(info.prog_type, ProgType::SOCKET_FILTER);
/// println!("{} has run {} times in {:?}", info.name, info.run_cnt, info.run_time);
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProgInfo {
    /// The type.
    #[cfg_attr(feature = "serde", serde(rename = "type"))]
    pub prog_type: ProgType,
    /// The id, unique among living programs.
    pub id: u32,
    /// A hash of its instructions.
    #[cfg_attr(feature = "serde", serde(serialize_with = "hex"))]
    pub tag: [u8; 8],
    /// The name that it was loaded with, or empty. Linux 4.15.
    pub name: ObjName,
    /// The size of its machine code, in bytes.
    pub jited_prog_len: u32,
    /// The size of its instructions after verification, in bytes.
    pub xlated_prog_len: u32,
    /// The time of loading, since boot. Linux 4.15.
    #[cfg_attr(feature = "serde", serde(serialize_with = "nanoseconds"))]
    pub load_time: Duration,
    /// The user that loaded it. Linux 4.15.
    pub created_by_uid: u32,
    /// The number of maps that it uses. Linux 4.15.
    pub nr_map_ids: u32,
    /// True if its licence is compatible with the GPL, so that it may call all helpers. Linux 4.18.
    pub gpl_compatible: bool,
    /// The network device that it was offloaded to, or 0. Linux 4.16.
    pub ifindex: u32,
    /// The BTF object that it was loaded with, or 0. Linux 5.0.
    pub btf_id: u32,
    /// The number of functions in the records that it was loaded with. Linux 5.0.
    pub nr_func_info: u32,
    /// The number of lines in the records that it was loaded with. Linux 5.0.
    pub nr_line_info: u32,
    /// The time that it has run, if `kernel.bpf_stats_enabled` is 1. Linux 5.1.
    #[cfg_attr(feature = "serde", serde(rename = "run_time_ns"))]
    #[cfg_attr(feature = "serde", serde(serialize_with = "nanoseconds"))]
    pub run_time: Duration,
    /// The number of runs, if `kernel.bpf_stats_enabled` is 1. Linux 5.1.
    pub run_cnt: u64,
    /// The number of runs that were skipped because it was already running. Linux 5.12.
    pub recursion_misses: u64,
    /// The number of instructions that the verifier processed. Linux 5.16.
    pub verified_insns: u32,
    /// The BTF object of the function or type that it was loaded for, or 0. Linux 6.0.
    pub attach_btf_obj_id: u32,
    /// The id of the function or type in that BTF object. Linux 6.0.
    pub attach_btf_id: u32,
}

impl ProgInfo {
    pub(crate) fn from_raw(raw: abi::bpf_prog_info) -> Self {
        Self {
            prog_type: ProgType(raw.r#type),
            id: raw.id,
            tag: raw.tag,
            name: ObjName::from_raw(raw.name),
            jited_prog_len: raw.jited_prog_len,
            xlated_prog_len: raw.xlated_prog_len,
            load_time: Duration::from_nanos(raw.load_time),
            created_by_uid: raw.created_by_uid,
            nr_map_ids: raw.nr_map_ids,
            gpl_compatible: raw.gpl_compatible(),
            ifindex: raw.ifindex,
            btf_id: raw.btf_id,
            nr_func_info: raw.nr_func_info,
            nr_line_info: raw.nr_line_info,
            run_time: Duration::from_nanos(raw.run_time_ns),
            run_cnt: raw.run_cnt,
            recursion_misses: raw.recursion_misses,
            verified_insns: raw.verified_insns,
            attach_btf_obj_id: raw.attach_btf_obj_id,
            attach_btf_id: raw.attach_btf_id,
        }
    }
}
