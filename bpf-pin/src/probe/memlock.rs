//! Whether the smallest map and program are within `RLIMIT_MEMLOCK`, found by calling.

use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::diagnose::{create_misnamed, fails_for_limit};
use crate::sys::{self, ProgData, Records};
use bpf_pin_sys::bpf_insn as Insn;

/// What fits into the rest of the limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Charge {
    pub(super) has_room_for_maps: bool,
    pub(super) has_room_for_progs: bool,
}

impl Charge {
    /// For a thread that may create some maps and load some programs, on a kernel that charges them.
    pub(super) fn now() -> Self {
        Self {
            has_room_for_maps: fails_for_limit(create_least) != Some(true),
            has_room_for_progs: fails_for_limit(load_least) != Some(true),
        }
    }
}

fn create_least(flags: u32) -> Errno {
    create_misnamed(abi::bpf_attr_map_create {
        map_type: abi::BPF_MAP_TYPE_ARRAY,
        value_size: 8,
        max_entries: 1,
        map_flags: flags,
        ..abi::bpf_attr_map_create::zeroed()
    })
}

/// The verifier rejects a program that returns nothing.
fn load_least(prog_flags: u32) -> Errno {
    let attr = abi::bpf_attr_prog_load {
        prog_type: abi::BPF_PROG_TYPE_SOCKET_FILTER,
        prog_flags,
        ..abi::bpf_attr_prog_load::zeroed()
    };
    let data = ProgData {
        insns: &[Insn::exit()],
        license: c"",
        func_info: Records::default(),
        line_info: Records::default(),
        core_relos: Records::default(),
        fd_array: &[],
        keeps_fd_array: false,
        signature: &[],
    };
    let (loaded, _) = sys::prog_load(attr, &data, &mut []);
    loaded.err().unwrap_or(Errno::IO)
}
