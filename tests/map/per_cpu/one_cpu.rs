//! The value of one CPU, on kernels with the flag for it.

use bpf_pin::error::Cause;
use bpf_pin::map::PerCpu;
use bpf_pin::types::MapFlags;
use bpf_pin::{Access, Error, MapSpec, MapType};
use common::*;

type Value = [u32; 3];

fn is_known() -> bool {
    kernel(7, 0).unmet().is_none()
}

fn assert_unsupported(error: &Error, expected: &str) {
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    let Some(Cause::Unsupported { what, since }) = error.cause() else {
        panic!("{error}");
    };
    assert_eq!((*what, since.to_string().as_str()), (expected, "7.0"));
}

#[common::test(super::BPF)]
fn one_cpu_is_read_and_updated() -> Outcome {
    // An LRU list evicts elements long before it is full.
    for (map_type, entries) in [
        (MapType::PERCPU_ARRAY, 4),
        (MapType::PERCPU_HASH, 4),
        (MapType::LRU_PERCPU_HASH, 4096),
    ] {
        let map = MapSpec::new(map_type, 4, 12, entries).create()?;
        let view = map.elements::<u32, PerCpu<Value>>()?;
        let cpus = view.cpus() as u32;
        if !is_known() {
            assert_unsupported(&view.lookup_on(0, &1).unwrap_err(), "BPF_F_CPU");
            let update = view.update_on(0, &1, &[1; 3]);
            assert_unsupported(&update.unwrap_err(), "BPF_F_CPU");
            let update = view.update_all(&1, &[1; 3]);
            assert_unsupported(&update.unwrap_err(), "BPF_F_ALL_CPUS");
            continue;
        }
        view.update_all(&1, &[7, 8, 9])?;
        assert_eq!(view.lookup(&1)?, Some(vec![[7, 8, 9]; cpus as usize]));
        for cpu in 0..cpus {
            view.update_on(cpu, &1, &[cpu; 3])?;
            assert_eq!(view.lookup_on(cpu, &1)?, Some([cpu; 3]), "{map_type}");
        }
        let each: Vec<Value> = (0..cpus).map(|cpu| [cpu; 3]).collect();
        assert_eq!(view.lookup(&1)?, Some(each), "{map_type}");
        let beyond = view.lookup_on(cpus, &1).unwrap_err();
        assert_eq!(beyond.raw_os_error(), Some(libc::ERANGE), "{beyond}");
        let beyond = view.update_on(u32::MAX, &1, &[0; 3]).unwrap_err();
        assert_eq!(beyond.raw_os_error(), Some(libc::ERANGE), "{beyond}");
        if map_type != MapType::PERCPU_ARRAY {
            assert_eq!(view.lookup_on(0, &2)?, None, "{map_type}");
            // The value of this CPU is set, and the others may differ.
            view.update_on(cpus - 1, &2, &[5; 3])?;
            assert_eq!(view.lookup_on(cpus - 1, &2)?, Some([5; 3]), "{map_type}");
            // One CPU too many.
            if map_type == MapType::PERCPU_HASH {
                let full = (3..=5).map(|key| view.update_all(&key, &[0; 3]));
                let full = full.last().expect("the last").unwrap_err();
                let max_entries = 4;
                assert_eq!(full.cause(), Some(&Cause::MaxEntries { max_entries }));
            }
        }
    }
    Ok(())
}

#[common::test(super::BPF)]
fn a_read_only_map_rejects_updates_of_one_cpu() -> Outcome {
    let spec = MapSpec::new(MapType::PERCPU_ARRAY, 4, 12, 4);
    for (flags, opened) in [
        (MapFlags::RDONLY, Access::ReadOnly),
        (MapFlags::WRONLY, Access::WriteOnly),
    ] {
        let map = spec.clone().flags(flags).create()?;
        let view = map.elements::<u32, PerCpu<Value>>()?;
        let refused = match opened {
            Access::WriteOnly => view.lookup_on(0, &0).map(drop),
            _ => view.update_all(&0, &[0; 3]),
        };
        let error = refused.expect_err("missing access");
        // An older kernel checks the flags first.
        if opened == Access::WriteOnly && !is_known() {
            assert_unsupported(&error, "BPF_F_CPU");
            continue;
        }
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }));
    }
    Ok(())
}
