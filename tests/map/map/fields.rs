//! Fields of `BPF_MAP_CREATE` that a map does not report.

use bpf_pin::error::Cause;
use bpf_pin::types::MapFlags;
use bpf_pin::{MapSpec, MapType, abi};
use btf_rs::{Btf, Type};
use common::*;

/// A map that only one program may use.
#[common::test(super::BPF)]
fn a_map_can_be_exclusive_to_a_program() -> Outcome {
    let spec = || MapSpec::new(MapType::ARRAY, 4, 8, 1);
    let hash = [7; 33];
    for len in [1, 31, 33] {
        let error = spec().excl_prog_hash(&hash[..len]).create();
        let error = error.expect_err("no SHA-256");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    }
    let created = spec().excl_prog_hash(&hash[..32]).create();
    if kernel(6, 18).unmet().is_some() {
        let error = created.expect_err("an unknown field");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        return Ok(());
    }
    // The map does not report it, so a spec for any program fits.
    let created = created?;
    assert_eq!(spec().compare(&created)?, []);
    assert_eq!(spec().excl_prog_hash(&hash).compare(&created)?, []);
    // An empty hash is no restriction.
    spec().excl_prog_hash(&[]).create()?;
    Ok(())
}

/// BTF of a module, where the kernel looks up the type for struct_ops.
#[common::test(super::STRUCT_OPS)]
fn value_type_btf_must_be_of_a_module() -> Outcome {
    let kernel = Btf::from_file(BTF)?;
    let name = "bpf_struct_ops_tcp_congestion_ops";
    let size_of = |id: &u32| match kernel.resolve_type_by_id(*id) {
        Ok(Type::Struct(found)) => Some((*id, found.size() as u32)),
        _ => None,
    };
    let ids = kernel.resolve_ids_by_name(name)?;
    let (id, size) = ids.iter().find_map(size_of).ok_or(name)?;
    let btf = btf_object();
    let spec = MapSpec::new(MapType::STRUCT_OPS, 4, size, 1)
        .btf_vmlinux_value_type_id(id)
        .btf(&btf, 0, 0);
    let map = spec.create()?;
    assert_eq!(map.info()?.btf_vmlinux_value_type_id, id);
    assert_eq!(spec.compare(&map)?, []);
    // The BTF is not of a module; an older kernel does not know the field.
    let error = spec.clone().value_type_btf(&btf).create();
    let error = error.expect_err("no module's BTF");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    // The flag belongs to the call, not to the map.
    let flag = MapFlags::from_bits_retain(abi::BPF_F_VTYPE_BTF_OBJ_FD);
    assert_eq!(spec.clone().flags(flag).compare(&map)?, []);
    let error = spec.flags(flag).create().expect_err("no descriptor");
    let what = "BPF_F_VTYPE_BTF_OBJ_FD";
    assert_cause_matches!(error, Cause::InvalidArgument { what: found, .. } if *found == what);
    assert_eq!(error.raw_os_error(), None);
    Ok(())
}
