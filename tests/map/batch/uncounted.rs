//! Batches that fail before the kernel reads the count, for example because of a seccomp filter or an LSM: the
//! count stays as it was passed, and no element was read.

use std::collections::BTreeMap;

use bpf_pin::error::Cause;
use bpf_pin::map::{ElemFlags, Elements};
use bpf_pin::types::{Command, MapFlags};
use bpf_pin::{Map, MapSpec, MapType, abi};
use common::*;

use super::{all, keys_and_values};

const COUNT: u32 = 20;

const ERRNOS: [i32; 6] = [
    libc::ENOMEM,
    libc::EINTR,
    libc::EAGAIN,
    libc::EBUSY,
    libc::ENOSPC,
    libc::ENOENT,
];

const BPF: &[Need] = &[cap::BPF];

fn filled_map(map_type: MapType) -> bpf_pin::Result<Elements<u32, u64, Map>> {
    let flags = match map_type {
        MapType::RHASH => MapFlags::NO_PREALLOC,
        _ => MapFlags::empty(),
    };
    let map = MapSpec::new(map_type, 4, 8, COUNT).flags(flags).create()?;
    let elems = Elements::new(map)?;
    let (keys, values) = keys_and_values(COUNT);
    elems.update_batch(&keys, &values, ElemFlags::ANY)?;
    Ok(elems)
}

fn types() -> Vec<MapType> {
    let mut types = vec![MapType::HASH, MapType::ARRAY];
    if kernel(7, 2).unmet().is_none() {
        types.push(MapType::RHASH);
    }
    types
}

/// Returns all elements or the error, and never elements that were not inserted.
#[common::test(BPF)]
fn an_uncounted_read_returns_no_elements() -> Outcome {
    for map_type in types() {
        let elems = filled_map(map_type)?;
        for errno in ERRNOS {
            with_bpf_errno(Some(abi::BPF_MAP_LOOKUP_BATCH), errno as u32, || {
                let at_once = elems.to_vecs();
                let at_once = at_once.map(|(keys, values)| keys.into_iter().zip(values).collect());
                let one_by_one: bpf_pin::Result<BTreeMap<_, _>> = elems.iter().collect();
                for read in [at_once, one_by_one] {
                    match read {
                        Ok(found) => assert_eq!(found, all(COUNT), "{map_type}, {errno}"),
                        Err(error) => {
                            assert_eq!(error.raw_os_error(), Some(errno), "{map_type}: {error}");
                            let command = Command::MAP_LOOKUP_BATCH;
                            let cause = Some(&Cause::Filtered { command });
                            assert_eq!(error.cause(), cause, "{map_type}: {error}");
                        }
                    }
                }
            });
        }
        assert_eq!(elems.iter().collect::<Result<Vec<_>, _>>()?.len(), 20);
    }
    Ok(())
}

#[common::test(BPF)]
fn an_uncounted_take_returns_no_elements() -> Outcome {
    let elems = filled_map(MapType::HASH)?;
    for errno in ERRNOS {
        with_bpf_errno(
            Some(abi::BPF_MAP_LOOKUP_AND_DELETE_BATCH),
            errno as u32,
            || {
                let first = elems.drain().next().expect("the error");
                let error = first.expect_err("no element");
                assert_eq!(error.raw_os_error(), Some(errno), "{error}");
            },
        );
    }
    assert_eq!(elems.drain().count(), COUNT as usize);
    Ok(())
}

/// No key is skipped as missing.
#[common::test(BPF)]
fn an_uncounted_change_skips_no_keys() -> Outcome {
    let elems = filled_map(MapType::HASH)?;
    let (keys, values) = keys_and_values(COUNT);
    for errno in ERRNOS {
        with_bpf_errno(Some(abi::BPF_MAP_DELETE_BATCH), errno as u32, || {
            let error = elems.delete_batch(&keys).expect_err("no element removed");
            assert_eq!(error.raw_os_error(), Some(errno), "{error}");
            let error = elems.clear().expect_err("no element removed");
            assert_eq!(error.raw_os_error(), Some(errno), "{error}");
        });
        with_bpf_errno(Some(abi::BPF_MAP_UPDATE_BATCH), errno as u32, || {
            let error = elems.update_batch(&keys, &values, ElemFlags::ANY);
            let error = error.expect_err("none was put in");
            assert_eq!(error.raw_os_error(), Some(errno), "{error}");
        });
    }
    assert_eq!(elems.keys().count(), COUNT as usize);
    Ok(())
}
