//! A seccomp filter answers a command with success, and the kernel writes nothing.
#![forbid(unsafe_code)]

use bpf_pin::abi;
use bpf_pin::error::Cause;
use bpf_pin::map::{Cursor, ElemFlags, PerCpu};
use bpf_pin::prog::TestRun;
use bpf_pin::{Map, MapSpec, MapType, Prog};
use common::*;

use super::protected::protected;

const BPF: &[Need] = &[cap::BPF];

/// Commands that fill buffers and return no descriptor.
const COMMANDS: [u32; 12] = [
    abi::BPF_MAP_LOOKUP_ELEM,
    abi::BPF_MAP_UPDATE_ELEM,
    abi::BPF_MAP_DELETE_ELEM,
    abi::BPF_MAP_GET_NEXT_KEY,
    abi::BPF_MAP_LOOKUP_AND_DELETE_ELEM,
    abi::BPF_MAP_LOOKUP_BATCH,
    abi::BPF_MAP_LOOKUP_AND_DELETE_BATCH,
    abi::BPF_MAP_UPDATE_BATCH,
    abi::BPF_MAP_DELETE_BATCH,
    abi::BPF_PROG_TEST_RUN,
    abi::BPF_OBJ_GET_INFO_BY_FD,
    abi::BPF_LINK_UPDATE,
];

/// Calls that a user can make on a map. Some would repeat a forged answer forever, so they end early.
fn use_map(map: &Map) -> bpf_pin::Result<()> {
    let any = ElemFlags::ANY;
    let elements = map.elements::<[u8], [u8]>()?;
    let (key, mut value) = (vec![1; elements.key_len()], vec![1; elements.value_len()]);
    let mut next = vec![0; elements.key_len()];
    elements.update(&key, &value, any)?;
    elements.next_key(None, &mut next)?;
    elements.next_key(Some(&key), &mut next)?;
    elements.lookup_into(&key, &mut value, any)?;
    elements.lookup(&key)?;
    elements
        .iter()
        .take(9)
        .try_for_each(|entry| entry.map(drop))?;
    elements.keys().take(9).try_for_each(|key| key.map(drop))?;
    let (mut keys, mut values) = (key.repeat(3), value.repeat(3));
    elements.lookup_batch(&mut Cursor::new(), &mut keys, &mut values, any)?;
    elements.update_batch(&key.repeat(3), &value.repeat(3), any)?;
    elements.take_batch(&mut Cursor::new(), &mut keys, &mut values, any)?;
    elements.take(&key)?;
    elements
        .drain()
        .take(9)
        .try_for_each(|entry| entry.map(drop))?;
    elements.delete_batch(&key)?;
    elements.delete(&key)?;
    Ok(())
}

fn use_prog(prog: &Prog) -> bpf_pin::Result<()> {
    let mut data = vec![0; 33];
    prog.test_run(TestRun::new().data_in(&[0; 64]).data_out(&mut data))?;
    let mut context = vec![0; 9];
    prog.test_run(TestRun::new().data_in(&[0; 64]).ctx_in(&mut context))?;
    prog.map_ids()?;
    prog.info()?;
    Ok(())
}

#[common::test(BPF)]
fn forged_success_writes_to_no_other_memory() -> Outcome {
    let map = |map_type| MapSpec::new(map_type, 5, 13, 8).create();
    let maps = [map(MapType::HASH)?, map(MapType::PERCPU_HASH)?];
    let prog = prog();
    // The number of CPUs is read once in a process.
    maps[1].elements::<[u8], [u8]>()?;
    for command in COMMANDS {
        with_bpf_errno(Some(command), 0, || {
            protected(|| {
                // Whatever they return.
                maps.iter().for_each(|map| drop(use_map(map)));
                drop(use_prog(&prog));
            });
        });
    }
    Ok(())
}

/// Without a type and sizes there is no view of the elements, and no test run with a context.
#[common::test(BPF)]
fn forged_info_has_no_type_and_no_sizes() -> Outcome {
    let maps = [
        MapSpec::new(MapType::HASH, 64, 8, 8).create()?,
        MapSpec::new(MapType::PERCPU_ARRAY, 4, 8, 8).create()?,
        MapSpec::new(MapType::QUEUE, 0, 64, 8).create()?,
    ];
    let prog = prog();
    with_bpf_errno(Some(abi::BPF_OBJ_GET_INFO_BY_FD), 0, || {
        for map in &maps {
            let assert_rejected = |error: bpf_pin::Error| {
                let is_it = matches!(error.cause(), Some(Cause::UnsupportedType { .. }));
                assert!(is_it, "{error}: {:?}", error.cause());
            };
            assert_rejected(map.elements::<[u8], [u8]>().map(drop).unwrap_err());
            assert_rejected(map.elements::<u32, u64>().map(drop).unwrap_err());
            assert_rejected(map.elements::<u32, PerCpu<u64>>().map(drop).unwrap_err());
        }
        let mut context = vec![0; 192];
        let run = TestRun::new().data_in(&[0; 64]).ctx_in(&mut context);
        prog.test_run(run)
            .expect_err("a context of an unknown type");
    });
    Ok(())
}
