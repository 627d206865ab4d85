//! Probes how much of its argument each command reads.

use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use bpf_pin_sys::*;
use common::{Outcome, hash};

use crate::abi::kernel::release;
use crate::abi::mirror::NEWEST;

/// Neither a valid descriptor nor a valid id.
const NONE: u32 = u32::MAX;

/// An address without memory.
const NOWHERE: u32 = 1;

/// Some words of an argument, by their offsets. The others are zero.
type Words = Vec<(usize, u32)>;

/// From the offset of 8 bytes to that of their lower word.
const LOW: usize = if cfg!(target_endian = "big") { 4 } else { 0 };

/// Offsets of fields of an arm, each with a word for it.
macro_rules! words {
    ($arm:ident: $($field:ident = $word:expr),* $(,)?) => {
        vec![$((offset_of!($arm, $field), $word)),*]
    };
}

/// Words with which the command accepts its argument. Usually it then fails because a descriptor is invalid
/// or an address is NULL.
fn harmless(release: Version, cmd: bpf_cmd, map: u32) -> Words {
    match cmd {
        BPF_MAP_CREATE => words!(
            bpf_attr_map_create: map_type = BPF_MAP_TYPE_ARRAY,
            key_size = 4,
            value_size = 4,
            max_entries = 1,
        ),
        BPF_PROG_LOAD => words!(
            bpf_attr_prog_load: prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
            insn_cnt = 1,
        ),
        BPF_OBJ_PIN => words!(bpf_attr_obj: bpf_fd = map),
        BPF_OBJ_GET | BPF_ENABLE_STATS => vec![],
        BPF_PROG_ATTACH | BPF_PROG_DETACH => words!(
            bpf_attr_prog_attach: target_fd = NONE,
            attach_bpf_fd = NONE,
            // A type that does not check fields that it does not use.
            attach_type = if release.at_least(Version::new(6, 6)) {
                BPF_TCX_INGRESS
            } else {
                BPF_CGROUP_INET_INGRESS
            },
        ),
        BPF_PROG_GET_NEXT_ID | BPF_MAP_GET_NEXT_ID | BPF_BTF_GET_NEXT_ID | BPF_LINK_GET_NEXT_ID => {
            words!(bpf_attr_get_id: start_id = i32::MAX as u32 - 1)
        }
        BPF_RAW_TRACEPOINT_OPEN => words!(bpf_attr_raw_tracepoint: prog_fd = NONE),
        BPF_BTF_LOAD => words!(bpf_attr_btf_load: btf_size = 64),
        BPF_MAP_LOOKUP_BATCH
        | BPF_MAP_LOOKUP_AND_DELETE_BATCH
        | BPF_MAP_UPDATE_BATCH
        | BPF_MAP_DELETE_BATCH => words!(bpf_attr_batch: map_fd = NONE),
        BPF_TOKEN_CREATE => words!(bpf_attr_token_create: bpffs_fd = NONE),
        BPF_PROG_STREAM_READ_BY_FD => words!(bpf_attr_prog_stream_read: prog_fd = NONE),
        BPF_PROG_ASSOC_STRUCT_OPS => words!(
            bpf_attr_prog_assoc_struct_ops: map_fd = NONE,
            prog_fd = NONE,
        ),
        // The others begin with a descriptor, an id or a process.
        _ => vec![(0, NONE)],
    }
}

/// Words that set the last field to a value that the command accepts. `None` if only zero is accepted: then no
/// call shows whether the field is read.
fn last(cmd: bpf_cmd, field: &LastField) -> Option<Words> {
    Some(match (cmd, field.name) {
        (BPF_ENABLE_STATS | BPF_ITER_CREATE | BPF_PROG_BIND_MAP, _)
        | (BPF_PROG_ASSOC_STRUCT_OPS, "flags")
        | (BPF_OBJ_PIN, "file_flags")
        | (BPF_MAP_CREATE, "btf_vmlinux_value_type_id") => return None,
        (BPF_MAP_CREATE, "map_extra") => vec![
            (
                offset_of!(bpf_attr_map_create, map_type),
                BPF_MAP_TYPE_BLOOM_FILTER,
            ),
            (offset_of!(bpf_attr_map_create, key_size), 0),
            (offset_of!(bpf_attr_map_create, map_extra) + LOW, 1),
        ],
        (BPF_MAP_CREATE, "excl_prog_hash_size") => words!(
            bpf_attr_map_create: excl_prog_hash = NOWHERE,
            excl_prog_hash_size = 32,
        ),
        (BPF_MAP_LOOKUP_ELEM | BPF_MAP_LOOKUP_AND_DELETE_ELEM, "flags") => {
            vec![(
                offset_of!(bpf_attr_map_elem, flags) + LOW,
                BPF_F_LOCK as u32,
            )]
        }
        (BPF_OBJ_GET, "file_flags") => words!(bpf_attr_obj: file_flags = BPF_F_RDONLY),
        (BPF_OBJ_PIN | BPF_OBJ_GET, "path_fd") => {
            words!(bpf_attr_obj: file_flags = BPF_F_PATH_FD, path_fd = NONE)
        }
        (BPF_PROG_DETACH, "attach_type") => {
            words!(bpf_attr_prog_attach: attach_type = BPF_CGROUP_INET_EGRESS)
        }
        (BPF_MAP_GET_FD_BY_ID, "open_flags") => {
            words!(bpf_attr_get_id: open_flags = BPF_F_RDONLY)
        }
        (BPF_BTF_LOAD, "btf_log_level") => words!(
            bpf_attr_btf_load: btf_log_buf = NOWHERE,
            btf_log_size = 128,
            btf_log_level = 1,
        ),
        _ => vec![(field.end as usize - 4, 1 << 24)],
    })
}

/// The errno of a command with these words in its argument, or 0 if it succeeds.
fn errno(cmd: bpf_cmd, words: &[(usize, u32)]) -> i32 {
    // Longer than the union of any kernel known, and zero there.
    let mut attr = [0_u64; 64];
    let all: &mut [u32] = bytemuck::cast_slice_mut(&mut attr);
    for (offset, word) in words {
        all[offset / 4] = *word;
    }
    // SAFETY: the argument has that many bytes, and none of its addresses can be accessed.
    let done = unsafe { bpf(cmd, attr.as_mut_ptr().cast(), size_of_val(&attr) as u32) };
    if done < 0 {
        let error = std::io::Error::last_os_error();
        return error.raw_os_error().expect("an errno");
    }
    if matches!(cmd, BPF_MAP_CREATE | BPF_ENABLE_STATS) {
        // SAFETY: the kernel has just made it.
        drop(unsafe { OwnedFd::from_raw_fd(done as i32) });
    }
    0
}

/// How a command differs from reading `field` as the last one.
fn difference(release: Version, cmd: bpf_cmd, field: &LastField) -> Option<String> {
    let map = hash();
    let base = harmless(release, cmd, map.as_fd().as_raw_fd() as u32);
    let with = |more: &[(usize, u32)]| errno(cmd, &[&base, more].concat());
    if with(&[]) == libc::EINVAL {
        return Some("is not known".to_owned());
    }
    let last = last(cmd, field).map(|words| with(&words));
    if last == Some(libc::EINVAL) {
        return Some(format!("does not read {}", field.name));
    }
    let mut sizes = BPF_ATTR_SIZES.iter();
    let (_, size) = sizes.rfind(|(since, _)| release.at_least(*since))?;
    let expected = if (field.end as usize) < *size {
        libc::EINVAL
    } else {
        libc::E2BIG
    };
    let beyond = with(&[(field.end as usize, NONE)]);
    (beyond != expected && NEWEST.at_least(release)).then(|| {
        format!(
            "errno {beyond}, not {expected}, for what is beyond {}",
            field.name
        )
    })
}

fn name(cmd: bpf_cmd) -> &'static str {
    let found = BPF_CMDS.iter().find(|found| found.value == cmd.into());
    found.map_or("?", |found| found.name)
}

#[common::test(super::ROOT)]
fn every_command_reads_up_to_its_last_field() -> Outcome {
    let release = release();
    let mut wrong = vec![];
    for LastFields { cmd, fields } in LAST_FIELDS {
        let known = fields.iter().rfind(|field| release.at_least(field.since));
        let what = match known {
            Some(field) => {
                assert_eq!(bpf_attr_size(*cmd, release), Some(field.end));
                difference(release, *cmd, field)
            }
            // A command that no known kernel has.
            None if errno(*cmd, &harmless(release, *cmd, NONE)) == libc::EINVAL => None,
            None => Some("is known".to_owned()),
        };
        wrong.extend(what.map(|what| format!("{}: {what}", name(*cmd))));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(wrong.join("\n").into())
}

/// Another last field, or another release, is a difference.
#[common::test(super::ROOT)]
fn a_wrong_last_field_is_reported() -> Outcome {
    let release = release();
    let field = |name, end| LastField {
        since: Version::new(4, 4),
        name,
        end,
    };
    let difference_at = |cmd, name, end| difference(release, cmd, &field(name, end));
    assert_eq!(difference_at(BPF_MAP_GET_NEXT_ID, "next_id", 8), None);
    let what = difference_at(BPF_MAP_GET_NEXT_ID, "open_flags", 12);
    assert_eq!(what.as_deref(), Some("does not read open_flags"));
    let what = difference_at(BPF_MAP_GET_NEXT_ID, "start_id", 4).expect("next_id is read");
    assert!(what.ends_with("for what is beyond start_id"), "{what}");
    let what = difference_at(99, "next_id", 8);
    assert_eq!(what.as_deref(), Some("is not known"));
    Ok(())
}
