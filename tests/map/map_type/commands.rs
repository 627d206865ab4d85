//! The commands of each map type: what the kernel supports, and what the library reports.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use bpf_pin::error::Cause;
use bpf_pin::map::{ElemFlags, Elements};
use bpf_pin::types::Command;
use bpf_pin::{Map, MapType, abi};
use common::*;

use super::{Row, rows, struct_ops};

/// The first kernel with the command, or never.
type Since = Option<(u32, u32)>;

/// The commands of a type beyond those of every type.
struct Supported {
    map_type: MapType,
    lookup_batch: Since,
    take_batch: Since,
    update_batch: Since,
    delete_batch: Since,
    take: Since,
}

/// For each type that a stock kernel creates without BTF.
fn supported(map_type: MapType) -> Supported {
    const NONE: Since = None;
    let row = |lookup_batch, take_batch, update_batch, delete_batch, take| Supported {
        map_type,
        lookup_batch,
        take_batch,
        update_batch,
        delete_batch,
        take,
    };
    let all = |since, take| row(since, since, since, since, take);
    match map_type {
        MapType::HASH | MapType::LRU_HASH | MapType::PERCPU_HASH | MapType::LRU_PERCPU_HASH => {
            all(Some((5, 6)), Some((5, 14)))
        }
        MapType::HASH_OF_MAPS => all(Some((5, 17)), NONE),
        MapType::RHASH => all(Some((7, 2)), Some((7, 2))),
        MapType::ARRAY => row(Some((5, 6)), NONE, Some((5, 6)), NONE, NONE),
        MapType::PERCPU_ARRAY => row(Some((5, 13)), NONE, Some((5, 13)), NONE, NONE),
        MapType::ARRAY_OF_MAPS => row(Some((5, 17)), NONE, Some((5, 17)), NONE, NONE),
        MapType::LPM_TRIE => row(Some((5, 17)), NONE, Some((5, 17)), Some((5, 17)), NONE),
        MapType::STACK_TRACE => row(NONE, NONE, NONE, NONE, Some((6, 18))),
        MapType::QUEUE | MapType::STACK => row(NONE, NONE, NONE, NONE, Some((4, 20))),
        _ => row(NONE, NONE, NONE, NONE, NONE),
    }
}

/// The commands that a type lacks: the library says so, and the kernel rejects them.
fn missing_commands(map_type: MapType) -> &'static [Command] {
    const LOOKUP: Command = Command::MAP_LOOKUP_ELEM;
    const NEXT: Command = Command::MAP_GET_NEXT_KEY;
    const DELETE: Command = Command::MAP_DELETE_ELEM;
    const TAKE: Command = Command::MAP_LOOKUP_AND_DELETE_ELEM;
    match map_type {
        MapType::HASH
        | MapType::LRU_HASH
        | MapType::PERCPU_HASH
        | MapType::LRU_PERCPU_HASH
        | MapType::RHASH
        | MapType::STACK_TRACE => &[],
        MapType::QUEUE | MapType::STACK => &[NEXT, DELETE],
        MapType::ARRAY
        | MapType::PERCPU_ARRAY
        | MapType::INSN_ARRAY
        | MapType::CGROUP_STORAGE
        | MapType::PERCPU_CGROUP_STORAGE => &[DELETE, TAKE],
        MapType::PERF_EVENT_ARRAY | MapType::CGROUP_ARRAY | MapType::XSKMAP => &[LOOKUP, TAKE],
        MapType::BLOOM_FILTER | MapType::ARENA => &[NEXT, DELETE, TAKE],
        MapType::RINGBUF | MapType::USER_RINGBUF => &[LOOKUP, NEXT, DELETE, TAKE],
        _ => &[TAKE],
    }
}

/// Checks that the cause names the command if and only if the type lacks it.
fn check_missing_cause<T>(result: &bpf_pin::Result<T>, command: Command, map_type: MapType) {
    let cause = match result {
        Ok(_) => None,
        Err(error) => error.cause(),
    };
    let expected = Cause::NoCommand { command, map_type };
    let is_missing = missing_commands(map_type).contains(&command);
    assert_eq!(
        cause == Some(&expected),
        is_missing,
        "{expected:?}: {cause:?}"
    );
}

fn is_known(since: Since) -> bool {
    since.is_some_and(|(major, minor)| kernel(major, minor).unmet().is_none())
}

/// The kernel's ENOTSUPP.
const ENOTSUPP: i32 = 524;

/// bpf(2) with a given attribute.
///
/// # Safety
///
/// Every address in `attr` is valid for what `cmd` does there.
unsafe fn raw<A>(cmd: u32, mut attr: A) -> Result<(), i32> {
    let size = size_of::<A>() as u32;
    // SAFETY: guaranteed by the caller.
    match unsafe { abi::bpf(cmd, (&raw mut attr).cast(), size) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error().raw_os_error().expect("an errno")),
    }
}

/// An empty batch: the kernel reports a missing command first.
fn empty_batch(map: &Map, cmd: u32) -> Result<(), i32> {
    let attr = abi::bpf_attr_batch {
        map_fd: map.as_fd().as_raw_fd() as u32,
        ..abi::bpf_attr_batch::zeroed()
    };
    // SAFETY: the kernel follows no address if the count is zero.
    unsafe { raw(cmd, attr) }
}

/// A command on the element under a key of zeroes.
fn elem(map: &Map, elems: &Elements<[u8], [u8], &Map>, cmd: u32) -> Result<(), i32> {
    let mut key = vec![0u8; elems.key_len()];
    // Large enough for any next key.
    let mut value = vec![0u8; elems.value_len().max(elems.key_len())];
    let attr = abi::bpf_attr_map_elem {
        map_fd: map.as_fd().as_raw_fd() as u32,
        key: if key.is_empty() {
            0
        } else {
            key.as_mut_ptr() as u64
        },
        // A delete has no value.
        value: match cmd {
            abi::BPF_MAP_DELETE_ELEM => 0,
            _ => value.as_mut_ptr() as u64,
        },
        ..abi::bpf_attr_map_elem::zeroed()
    };
    // SAFETY: both have the sizes of the map.
    unsafe { raw(cmd, attr) }
}

/// The result of the library for the same.
fn errno_of<T>(result: &bpf_pin::Result<T>) -> Result<(), i32> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => Err(error.raw_os_error().expect("an errno")),
    }
}

/// ENOENT is a valid answer.
fn missing_is_ok(result: Result<(), i32>) -> Result<(), i32> {
    match result {
        Err(libc::ENOENT) => Ok(()),
        other => other,
    }
}

#[common::test(super::KERNELS_BTF)]
fn the_kernel_supports_the_commands_of_each_type() -> Outcome {
    let mut seen = BTreeSet::new();
    let with_struct_ops = rows().into_iter().chain([struct_ops()?]);
    for row in with_struct_ops.filter(Row::is_known) {
        let row = &row;
        seen.insert(row.map_type.0);
        batches(row)?;
        elements(row)?;
        read_whole_map(row)?;
        freeze(row)?;
    }
    assert!(seen.len() >= 20, "{seen:?}");
    Ok(())
}

fn batches(row: &Row) -> Outcome {
    let (map, supported) = (row.create()?, supported(row.map_type));
    for (cmd, since) in [
        (abi::BPF_MAP_LOOKUP_BATCH, supported.lookup_batch),
        (abi::BPF_MAP_LOOKUP_AND_DELETE_BATCH, supported.take_batch),
        (abi::BPF_MAP_UPDATE_BATCH, supported.update_batch),
        (abi::BPF_MAP_DELETE_BATCH, supported.delete_batch),
    ] {
        let expected = match is_known(since) {
            true => Ok(()),
            false => Err(ENOTSUPP),
        };
        let name = abi::BPF_CMDS
            .iter()
            .find(|known| known.value == u64::from(cmd));
        let name = name.expect("a command").name;
        assert_eq!(
            empty_batch(&map, cmd),
            expected,
            "{name} of {}",
            supported.map_type
        );
    }
    Ok(())
}

fn elements(row: &Row) -> Outcome {
    let map_type = row.map_type;
    let supported = supported(map_type);
    let (map, elems_of) = (row.create()?, row.create()?);
    let (raw_elems, elems) = (
        map.elements::<[u8], [u8]>()?,
        elems_of.elements::<[u8], [u8]>()?,
    );
    let (key, mut value) = (vec![0; elems.key_len()], vec![0; elems.value_len()]);
    let kernel_result = |cmd| missing_is_ok(elem(&map, &raw_elems, cmd));

    let taken = elems.take_into(&key, &mut value, ElemFlags::ANY);
    let taken_by_kernel = kernel_result(abi::BPF_MAP_LOOKUP_AND_DELETE_ELEM);
    assert_eq!(errno_of(&taken), taken_by_kernel, "take of {map_type}");
    assert_eq!(
        taken_by_kernel.is_ok(),
        is_known(supported.take),
        "take of {map_type}"
    );
    if !is_known(supported.take) {
        assert_eq!(taken_by_kernel, Err(ENOTSUPP), "take of {map_type}");
    }
    let found = elems.lookup_into(&key, &mut value, ElemFlags::ANY);
    assert_eq!(
        errno_of(&found),
        kernel_result(abi::BPF_MAP_LOOKUP_ELEM),
        "look-up of {map_type}"
    );
    check_missing_cause(&taken, Command::MAP_LOOKUP_AND_DELETE_ELEM, map_type);
    check_missing_cause(&found, Command::MAP_LOOKUP_ELEM, map_type);
    let mut next = vec![0; elems.key_len()];
    let next = elems.next_key(Some(&key), &mut next);
    assert_eq!(
        errno_of(&next),
        kernel_result(abi::BPF_MAP_GET_NEXT_KEY),
        "next key of {map_type}"
    );
    check_missing_cause(&next, Command::MAP_GET_NEXT_KEY, map_type);
    let deleted = elems.delete(&key);
    assert_eq!(
        errno_of(&deleted),
        kernel_result(abi::BPF_MAP_DELETE_ELEM),
        "delete of {map_type}"
    );
    check_missing_cause(&deleted, Command::MAP_DELETE_ELEM, map_type);
    let put = elems.update(&key, &value, ElemFlags::ANY);
    let kernel_put = elem(&map, &raw_elems, abi::BPF_MAP_UPDATE_ELEM);
    assert_eq!(errno_of(&put), kernel_put, "update of {map_type}");

    // With batches and without, the result is the same.
    let again = elems.update_batch(&key, &value, ElemFlags::ANY);
    let count = key.len().max(value.len());
    if count > 0 {
        assert_eq!(
            errno_of(&again),
            kernel_put,
            "batch of updates of {map_type}"
        );
        if let Err(error) = again {
            assert_eq!(error.elements_done(), 0, "{error:?}");
        }
    }
    if !key.is_empty() {
        let gone = elems.delete_batch(&key);
        let kernel_gone = kernel_result(abi::BPF_MAP_DELETE_ELEM);
        assert_eq!(
            errno_of(&gone),
            kernel_gone,
            "batch of deletes of {map_type}"
        );
    }
    Ok(())
}

/// Reads the whole map in each way, with the same result.
fn read_whole_map(row: &Row) -> Outcome {
    let map_type = row.map_type;
    let map = row.create()?;
    let elems = map.elements::<[u8], [u8]>()?;
    let (key, value) = (vec![0; elems.key_len()], vec![7; elems.value_len()]);
    // A trie's shortest prefix, a hash's key, an array's first index, a queue's next value.
    let is_put = elems.update(&key, &value, ElemFlags::ANY).is_ok();
    // Some kernels preserve the padding between the values of two CPUs, others do not.
    let size = row.value_size as usize;
    let without_padding = |values: &[u8]| -> Vec<u8> {
        if value.len() == size {
            return values.to_vec();
        }
        let each = values.chunks(size.next_multiple_of(8));
        each.flat_map(|value| &value[..size]).copied().collect()
    };
    let mut by_iter = Ok(vec![]);
    let mut iter = elems.iter();
    while let Some(entry) = iter.next_ref() {
        match (entry, &mut by_iter) {
            (Ok((key, value)), Ok(all)) => all.push((key.to_vec(), without_padding(value))),
            (Ok(_), Err(errno)) => panic!("{map_type}: an entry after {errno:?}"),
            (Err(error), _) => by_iter = Err(error.raw_os_error()),
        }
    }
    let at_once = elems.to_vecs().map_err(|error| error.raw_os_error());
    match (&by_iter, &at_once) {
        (Ok(all), Ok((keys, values))) => {
            let (iter_keys, iter_values): (Vec<_>, Vec<_>) = all.iter().cloned().unzip();
            assert_eq!(
                (&iter_keys.concat(), iter_values.concat()),
                (keys, without_padding(values)),
                "{map_type}"
            );
            let found = all
                .iter()
                .any(|(k, v)| *k == key && *v == without_padding(&value));
            assert_eq!(found, is_put && !key.is_empty(), "{map_type}");
        }
        (Err(one), Err(other)) => assert_eq!(one, other, "{map_type}"),
        _ => panic!("{map_type}: {by_iter:?} and {at_once:?}"),
    }
    // Types with a delete are empty then.
    match elems.clear() {
        Ok(count) => {
            let mut left = elems.to_vecs().map_or(0, |(keys, _)| keys.len());
            if map_type == MapType::STRUCT_OPS {
                // Its only element always exists.
                left -= elems.key_len();
            }
            assert_eq!(left, 0, "{map_type}: {count} removed");
        }
        Err(error) => assert!(error.raw_os_error().is_some(), "{map_type}: {error}"),
    }
    Ok(())
}

fn freeze(row: &Row) -> Outcome {
    let (map, elems_of) = (row.create()?, row.create()?);
    let attr = abi::bpf_attr_map_elem {
        map_fd: elems_of.as_fd().as_raw_fd() as u32,
        ..abi::bpf_attr_map_elem::zeroed()
    };
    // SAFETY: the command uses only the descriptor.
    let kernel_result = unsafe { raw(abi::BPF_MAP_FREEZE, attr) };
    assert_eq!(
        errno_of(&map.freeze()),
        kernel_result,
        "freezing {}",
        row.map_type
    );
    Ok(())
}
