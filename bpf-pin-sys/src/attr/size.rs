//! The number of bytes of `union bpf_attr` that each command reads, by release.

use super::*;
use crate::abi::unraw;
use crate::{
    BPF_BTF_GET_FD_BY_ID, BPF_BTF_GET_NEXT_ID, BPF_BTF_LOAD, BPF_COMMON_ATTRS, BPF_ENABLE_STATS,
    BPF_ITER_CREATE, BPF_LINK_CREATE, BPF_LINK_DETACH, BPF_LINK_GET_FD_BY_ID, BPF_LINK_GET_NEXT_ID,
    BPF_LINK_UPDATE, BPF_MAP_CREATE, BPF_MAP_DELETE_BATCH, BPF_MAP_DELETE_ELEM, BPF_MAP_FREEZE,
    BPF_MAP_GET_FD_BY_ID, BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_NEXT_KEY,
    BPF_MAP_LOOKUP_AND_DELETE_BATCH, BPF_MAP_LOOKUP_AND_DELETE_ELEM, BPF_MAP_LOOKUP_BATCH,
    BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_BATCH, BPF_MAP_UPDATE_ELEM, BPF_OBJ_GET,
    BPF_OBJ_GET_INFO_BY_FD, BPF_OBJ_PIN, BPF_PROG_ASSOC_STRUCT_OPS, BPF_PROG_ATTACH,
    BPF_PROG_BIND_MAP, BPF_PROG_DETACH, BPF_PROG_GET_FD_BY_ID, BPF_PROG_GET_NEXT_ID, BPF_PROG_LOAD,
    BPF_PROG_QUERY, BPF_PROG_STREAM_READ_BY_FD, BPF_PROG_TEST_RUN, BPF_RAW_TRACEPOINT_OPEN,
    BPF_TASK_FD_QUERY, BPF_TOKEN_CREATE, Field, Version, bpf_cmd,
};

/// `sizeof(union bpf_attr)` in bytes, with the release that introduced the size.
///
/// A kernel rejects non-zero bytes beyond its own size with `E2BIG`.
pub const BPF_ATTR_SIZES: &[(Version, usize)] = &[
    (Version::new(4, 4), 48),
    (Version::new(4, 15), 72),
    (Version::new(5, 0), 112),
    (Version::new(5, 5), 120),
    (Version::new(5, 14), 128),
    (Version::new(5, 17), 144),
    (Version::new(6, 9), 152),
    (Version::new(6, 18), 168),
];

/// The last field that a command reads since a release: the kernel's `BPF_*_LAST_FIELD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastField {
    /// The first release in which it was the last.
    pub since: Version,
    /// The field, as the kernel spells it.
    pub name: &'static str,
    /// Bytes from the beginning of the union to the end of the field.
    pub end: u32,
}

/// A command and its last fields, by release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastFields {
    /// The command.
    pub cmd: bpf_cmd,
    /// Its last fields, the oldest first.
    pub fields: &'static [LastField],
}

/// Returns the end of the field `name`. An unknown name does not compile.
const fn end(base: usize, fields: &[Field], name: &str) -> u32 {
    let mut i = 0;
    while i < fields.len() {
        if same(fields[i].name.as_bytes(), name.as_bytes()) {
            return (base + fields[i].offset + fields[i].size) as u32;
        }
        i += 1;
    }
    panic!("no such field");
}

/// Returns `a == b`, for constants.
const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// Makes the table from rows `COMMAND(arm): field since (major, minor), …`. A field of an arm within `link_create` is
/// written `field of arm since …`.
macro_rules! last_fields {
    (@end $arm:ident $field:ident) => { end(0, $arm::FIELDS, unraw(stringify!($field))) };
    (@end $arm:ident $field:ident $opt:ident) => {
        end(OPTS, $opt::FIELDS, unraw(stringify!($field)))
    };
    ($($cmd:ident($arm:ident): $(
        $field:ident $(of $opt:ident)? since ($major:literal, $minor:literal)
    ),+;)*) => {
        &[$(LastFields {
            cmd: $cmd,
            fields: &[$(LastField {
                since: Version::new($major, $minor),
                name: unraw(stringify!($field)),
                end: last_fields!(@end $arm $field $($opt)?),
            },)+],
        },)*]
    };
}

/// Every command's last fields, by number.
pub const LAST_FIELDS: &[LastFields] = last_fields! {
    BPF_MAP_CREATE(bpf_attr_map_create):
        max_entries since (3, 18), map_flags since (4, 6), inner_map_fd since (4, 12),
        numa_node since (4, 14), map_name since (4, 15), map_ifindex since (4, 16),
        btf_value_type_id since (4, 18), btf_vmlinux_value_type_id since (5, 6),
        map_extra since (5, 16), map_token_fd since (6, 9), excl_prog_hash_size since (6, 18);
    BPF_MAP_LOOKUP_ELEM(bpf_attr_map_elem): value since (3, 18), flags since (5, 1);
    BPF_MAP_UPDATE_ELEM(bpf_attr_map_elem): value since (3, 18), flags since (3, 19);
    BPF_MAP_DELETE_ELEM(bpf_attr_map_elem): key since (3, 18);
    BPF_MAP_GET_NEXT_KEY(bpf_attr_map_elem): next_key since (3, 18);
    BPF_PROG_LOAD(bpf_attr_prog_load):
        log_buf since (3, 18), kern_version since (4, 1), prog_flags since (4, 12),
        prog_ifindex since (4, 15), expected_attach_type since (4, 17), line_info_cnt since (5, 0),
        attach_prog_fd since (5, 5), fd_array since (5, 14), core_relo_rec_size since (5, 17),
        log_true_size since (6, 4), prog_token_fd since (6, 9), fd_array_cnt since (6, 14),
        keyring_id since (6, 18);
    BPF_OBJ_PIN(bpf_attr_obj):
        bpf_fd since (4, 4), file_flags since (4, 15), path_fd since (6, 5);
    BPF_OBJ_GET(bpf_attr_obj):
        bpf_fd since (4, 4), file_flags since (4, 15), path_fd since (6, 5);
    BPF_PROG_ATTACH(bpf_attr_prog_attach):
        attach_flags since (4, 10), replace_bpf_fd since (5, 6), expected_revision since (6, 6);
    BPF_PROG_DETACH(bpf_attr_prog_attach):
        attach_type since (4, 10), expected_revision since (6, 6);
    BPF_PROG_TEST_RUN(bpf_attr_test):
        duration since (4, 12), ctx_out since (5, 2), cpu since (5, 10), batch_size since (5, 18);
    BPF_PROG_GET_NEXT_ID(bpf_attr_get_id): next_id since (4, 13);
    BPF_MAP_GET_NEXT_ID(bpf_attr_get_id): next_id since (4, 13);
    BPF_PROG_GET_FD_BY_ID(bpf_attr_get_id): prog_id since (4, 13);
    BPF_MAP_GET_FD_BY_ID(bpf_attr_get_id): map_id since (4, 13), open_flags since (4, 15);
    BPF_OBJ_GET_INFO_BY_FD(bpf_attr_info): info since (4, 13);
    BPF_PROG_QUERY(bpf_attr_query):
        prog_cnt since (4, 15), prog_attach_flags since (6, 0), revision since (6, 6);
    BPF_RAW_TRACEPOINT_OPEN(bpf_attr_raw_tracepoint): prog_fd since (4, 17), cookie since (6, 10);
    BPF_BTF_LOAD(bpf_attr_btf_load):
        btf_log_level since (4, 18), btf_log_true_size since (6, 4), btf_token_fd since (6, 9);
    BPF_BTF_GET_FD_BY_ID(bpf_attr_get_id): btf_id since (4, 18), fd_by_id_token_fd since (6, 15);
    BPF_TASK_FD_QUERY(bpf_attr_task_fd_query): probe_addr since (4, 18);
    BPF_MAP_LOOKUP_AND_DELETE_ELEM(bpf_attr_map_elem): value since (4, 20), flags since (5, 14);
    BPF_MAP_FREEZE(bpf_attr_map_elem): map_fd since (5, 2);
    BPF_BTF_GET_NEXT_ID(bpf_attr_get_id): next_id since (5, 4);
    BPF_MAP_LOOKUP_BATCH(bpf_attr_batch): flags since (5, 6);
    BPF_MAP_LOOKUP_AND_DELETE_BATCH(bpf_attr_batch): flags since (5, 6);
    BPF_MAP_UPDATE_BATCH(bpf_attr_batch): flags since (5, 6);
    BPF_MAP_DELETE_BATCH(bpf_attr_batch): flags since (5, 6);
    BPF_LINK_CREATE(bpf_attr_link_create):
        flags since (5, 7),
        iter_info_len of bpf_attr_link_create_iter since (5, 9),
        cookies of bpf_attr_link_create_kprobe_multi since (5, 18),
        pid of bpf_attr_link_create_uprobe_multi since (6, 6),
        path_fd of bpf_attr_link_create_uprobe_multi since (7, 2);
    BPF_LINK_UPDATE(bpf_attr_link_update): old_prog_fd since (5, 7);
    BPF_LINK_GET_FD_BY_ID(bpf_attr_get_id): link_id since (5, 8);
    BPF_LINK_GET_NEXT_ID(bpf_attr_get_id): next_id since (5, 8);
    BPF_ENABLE_STATS(bpf_attr_enable_stats): r#type since (5, 8);
    BPF_ITER_CREATE(bpf_attr_iter_create): flags since (5, 8);
    BPF_LINK_DETACH(bpf_attr_link_detach): link_fd since (5, 9);
    BPF_PROG_BIND_MAP(bpf_attr_prog_bind_map): flags since (5, 10);
    BPF_TOKEN_CREATE(bpf_attr_token_create): bpffs_fd since (6, 9);
    BPF_PROG_STREAM_READ_BY_FD(bpf_attr_prog_stream_read): prog_fd since (6, 17);
    BPF_PROG_ASSOC_STRUCT_OPS(bpf_attr_prog_assoc_struct_ops):
        prog_fd since (7, 0), flags since (7, 2);
};

/// Returns how many bytes of `union bpf_attr` a command reads on a kernel.
///
/// They end with the last field in the kernel's `CHECK_ATTR` for the command. A non-zero byte after them is `EINVAL`.
/// `BPF_OBJ_GET` reads 12 bytes on 4.4, 16 on 4.15 and 20 since 6.5. The size passed to [`bpf`](crate::bpf) may be
/// larger if the remaining bytes are zero.
///
/// `None`: the kernel does not know the command, or `cmd` is not a command.
/// [`BPF_COMMON_ATTRS`](crate::BPF_COMMON_ATTRS) may be set if the kernel knows it.
#[must_use]
pub const fn bpf_attr_size(cmd: bpf_cmd, kernel: Version) -> Option<u32> {
    let cmd = if kernel.at_least(Version::new(7, 2)) {
        cmd & !BPF_COMMON_ATTRS
    } else {
        cmd
    };
    let mut i = 0;
    while i < LAST_FIELDS.len() {
        if LAST_FIELDS[i].cmd == cmd {
            let fields = LAST_FIELDS[i].fields;
            let mut newest = fields.len();
            while newest > 0 {
                newest -= 1;
                if kernel.at_least(fields[newest].since) {
                    return Some(fields[newest].end);
                }
            }
            return None;
        }
        i += 1;
    }
    None
}
