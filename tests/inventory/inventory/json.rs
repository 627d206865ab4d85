//! The feature `serde` writes fields and values with the names of the kernel.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;

use bpf_pin::abi::{self, Field};
use bpf_pin::bpffs::FileSystem;
use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, MapFlags, MapType, ProgType};
use bpf_pin::{Bpffs, Identity, Kind, Link, LinkSpec, MapSpec, Object, ProgSpec};
use common::*;
use serde_json::{Map, Value, json, to_value};

use super::listing::{list_below, with_private_tmpfs};
use super::{ROOT, mount_bpffs};

const NET: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const ITER: &[Need] = &[
    cap::SYS_ADMIN,
    cap::PERFMON,
    Need::Feature(Feature::Btf),
    kernel(5, 10),
];

type Fields = Map<String, Value>;

fn fields(value: &Value) -> &Fields {
    value.as_object().expect("an object")
}

#[track_caller]
fn assert_named(found: &Fields, known: &[Field]) {
    for key in found.keys() {
        let is_known = known.iter().any(|field| field.name == key);
        assert!(is_known, "{key}: {found:?}");
    }
}

#[common::test(ROOT)]
fn the_info_of_a_map_has_the_names_of_the_kernel() -> Outcome {
    let spec = MapSpec::new(MapType::HASH, 4, 8, 16);
    let map = spec.name("flows").flags(MapFlags::NO_PREALLOC).create()?;
    let info = map.info()?;
    let found = to_value(&info)?;
    assert_named(fields(&found), abi::bpf_map_info::FIELDS);
    let expected = json!({
        "type": "hash",
        "id": info.id,
        "key_size": 4,
        "value_size": 8,
        "max_entries": 16,
        "map_flags": 1,
        "name": "flows",
        "ifindex": 0,
        "netns_dev": 0,
        "netns_ino": 0,
        "btf_id": 0,
        "btf_key_type_id": 0,
        "btf_value_type_id": 0,
        "btf_vmlinux_value_type_id": 0,
        "map_extra": 0,
    });
    assert_eq!(found, expected);
    Ok(())
}

#[common::test(ROOT)]
fn the_info_of_a_program_has_the_names_of_the_kernel() -> Outcome {
    let info = prog().info()?;
    let found = to_value(&info)?;
    let mut named = fields(&found).clone();
    // A bit-field, which has no offset.
    assert_eq!(named.remove("gpl_compatible"), Some(Value::Bool(false)));
    assert_named(&named, abi::bpf_prog_info::FIELDS);
    assert_eq!(named.len(), 19);
    assert_eq!(found["type"], "socket_filter");
    assert_eq!(found["name"], "test_filter");
    let hex: String = info.tag.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found["tag"], hex);
    assert_eq!(found["load_time"], info.load_time.as_nanos() as u64);
    assert_eq!(found["run_time_ns"], info.run_time.as_nanos() as u64);
    Ok(())
}

/// The target of a link, as the arm of the kernel's union.
fn arm(link: &Link, name: &str, known: &[Field]) -> Outcome<Value> {
    let mut found = fields(&to_value(link.info()?)?).clone();
    let arm = found.remove(name).ok_or(format!("no {name}: {found:?}"))?;
    assert_named(&found, abi::bpf_link_info::FIELDS);
    assert_eq!(found.len(), 3, "{found:?}");
    assert_named(fields(&arm), known);
    Ok(arm)
}

#[common::test(NET)]
fn the_target_of_a_link_is_the_arm_of_its_type() -> Outcome {
    in_network_namespace(|| {
        let link = LinkSpec::xdp(LOOPBACK).create(&xdp_prog())?;
        let xdp = arm(&link, "xdp", abi::bpf_link_info_xdp::FIELDS)?;
        assert_eq!(xdp, json!({ "ifindex": LOOPBACK }));

        let netns = File::open("/proc/thread-self/ns/net")?;
        let link = LinkSpec::netns(&netns, AttachType::SK_LOOKUP).create(&sk_lookup_prog())?;
        let netns = arm(&link, "netns", abi::bpf_link_info_netns::FIELDS)?;
        assert_eq!(netns["attach_type"], "sk_lookup");
        assert!(netns["netns_ino"].as_u64() > Some(0), "{netns:?}");

        let raw = prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0);
        let link = LinkSpec::raw_tracepoint(c"sched_process_fork").create(&raw)?;
        let known = abi::bpf_link_info_raw_tracepoint::FIELDS;
        assert_eq!(arm(&link, "raw_tracepoint", known)?["cookie"], 0);
        Ok(())
    })
}

#[common::test(TCX)]
fn the_target_of_a_tcx_link_is_its_arm() -> Outcome {
    in_network_namespace(|| {
        let link = LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS).create(&tcx_prog())?;
        let tcx = arm(&link, "tcx", abi::bpf_link_info_tcx::FIELDS)?;
        let expected = json!({ "ifindex": LOOPBACK, "attach_type": "tcx_ingress" });
        assert_eq!(tcx, expected);
        Ok(())
    })
}

#[common::test(ITER)]
fn the_target_of_an_iterator_is_its_arm() -> Outcome {
    let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    let prog = ProgSpec::new(ProgType::TRACING, &insns)
        .license(c"GPL")
        .expected_attach_type(AttachType::TRACE_ITER)
        .attach_btf_id(function_btf_id("bpf_iter_bpf_map_elem")?)
        .load()?;
    let map = hash();
    let link = LinkSpec::iter_map(&map).create(&prog)?;
    let arms = [
        abi::bpf_link_info_iter_map::FIELDS,
        abi::bpf_link_info_iter_cgroup::FIELDS,
        abi::bpf_link_info_iter_task::FIELDS,
    ];
    let iter = arm(&link, "iter", &arms.concat())?;
    assert_eq!(iter["map_id"], map.id()?);
    assert_eq!(fields(&iter).len(), 5);
    Ok(())
}

#[common::test(ROOT)]
fn a_pin_has_its_path_its_inode_and_the_info() -> Outcome {
    with_private_tmpfs(|dir| {
        let at = dir.join("at");
        mount_bpffs(&at)?;
        let map = hash();
        let info = to_value(Object::from(map.try_clone()?).info()?)?;
        assert_eq!(info["kind"], "map");
        map.try_clone()?.pin(at.join("flows"))?;
        map.pin(at.join(OsStr::from_bytes(b"odd\xff")))?;
        let pins = list_below(dir)?.pins;
        assert_eq!(pins.len(), 2);
        for pin in pins {
            let mut expected = info.clone();
            expected["path"] = match pin.path.to_str() {
                Some(path) => path.into(),
                None => pin.path.as_os_str().as_bytes().into(),
            };
            expected["dev"] = pin.dev.into();
            expected["inode"] = pin.inode.into();
            assert_eq!(to_value(&pin)?, expected);
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_mount_has_the_names_of_mountinfo() -> Outcome {
    with_private_tmpfs(|dir| {
        let dir = &dir.join("at");
        mount_bpffs(dir)?;
        let inspected = Bpffs::inspect(dir)?;
        let mount = inspected.mount.as_ref().ok_or("no mount")?;
        let expected = json!({
            "mount_id": mount.mount_id,
            "parent_id": mount.parent_id,
            "dev": mount.dev,
            "root": "/",
            "mount_point": dir,
            "options": mount.options.to_str(),
            "propagation": {
                "shared": null,
                "master": null,
                "propagate_from": null,
                "unbindable": false,
            },
            "fs_type": "bpf",
            "source": mount.source.to_str(),
            "super_options": mount.super_options.to_str(),
        });
        assert_eq!(to_value(mount)?, expected);
        let rest = json!({
            "mount": expected,
            "path": dir,
            "verdict": "mounted",
            "dev": mount.dev,
            "read_only": null,
            "covers": [],
            "hidden": [],
            "of_process_1": null,
        });
        assert_eq!(to_value(&inspected)?, rest);
        let missing = dir.join("missing");
        let verdict = to_value(Bpffs::inspect(&missing)?.verdict)?;
        assert_eq!(verdict, json!({ "missing": { "missing": missing } }));
        Ok(())
    })
}

#[common::test]
fn an_unknown_number_stays_a_number() -> Outcome {
    assert_eq!(to_value(MapType::LRU_HASH)?, "lru_hash");
    assert_eq!(to_value(MapType(4711))?, 4711);
    assert_eq!(to_value(ProgType(4711))?, 4711);
    assert_eq!(to_value(AttachType::TCX_EGRESS)?, "tcx_egress");
    assert_eq!(to_value(FileSystem::BPF)?, "bpf");
    let flows = Identity {
        kind: Kind::Map,
        id: 17,
    };
    assert_eq!(to_value(flows)?, json!({ "kind": "map", "id": 17 }));
    assert_eq!(to_value(Kind::Prog)?, "prog");
    Ok(())
}
