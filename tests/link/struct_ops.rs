//! Maps of struct_ops, which register programs as functions of the kernel, with a link and without.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::link::{LinkInfo, LinkTarget};
use bpf_pin::types::{LinkType, MapFlags};
use bpf_pin::{Link, Map, MapType, PinnedLink};
use common::*;
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_congestion;

const ROOT: &[Need] = &[
    cap::SYS_ADMIN,
    cap::NET_ADMIN,
    Need::Feature(Feature::StructOps),
];
const LINKS: &[Need] = &[
    cap::SYS_ADMIN,
    cap::NET_ADMIN,
    Need::Feature(Feature::StructOps),
    kernel(6, 4),
];

/// A unique name of a congestion control: the machine has one list of them.
fn own_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("bp{}_{number}", std::process::id())
}

/// True if a socket can use the congestion control of this name.
fn is_registered(name: &str) -> bool {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    match set_tcp_congestion(&socket, name) {
        Ok(()) => true,
        Err(Errno::NOENT) => false,
        Err(errno) => panic!("{name}: {}", io::Error::from(errno)),
    }
}

/// A map with all programs that the struct needs.
fn filled(ops: &CongestionOps, flags: MapFlags, name: &str) -> Outcome<Map> {
    let btf = btf_object();
    let map = ops.spec(&btf).flags(flags).create()?;
    ops.fill(&map, name, CongestionOps::REQUIRED)?;
    Ok(map)
}

fn for_link(ops: &CongestionOps, name: &str) -> Outcome<Map> {
    filled(ops, MapFlags::LINK, name)
}

#[common::test(ROOT)]
fn a_map_without_the_link_flag_registers_itself() -> Outcome {
    let (ops, name) = (CongestionOps::new()?, own_name());
    let btf = btf_object();
    let map = ops.spec(&btf).name("congestion").create()?;
    let info = map.info()?;
    assert_eq!(info.map_type, MapType::STRUCT_OPS);
    assert_eq!(info.btf_vmlinux_value_type_id, ops.value_type);
    assert_eq!([info.btf_key_type_id, info.btf_value_type_id], [0, 0]);
    assert!(!is_registered(&name));
    ops.fill(&map, &name, CongestionOps::REQUIRED)?;
    assert!(is_registered(&name));
    let error = Link::of_struct_ops(&map).expect_err("a map that needs no link");
    assert_fails(&error, Operation::CreateLink, libc::EINVAL, None);
    map.elements::<[u8], [u8]>()?.delete(&[0; 4])?;
    assert!(!is_registered(&name));

    // Without the BTF object the kernel would take descriptor 0 for it.
    let bare = bpf_pin::MapSpec::new(MapType::STRUCT_OPS, 4, ops.value_size, 1)
        .btf_vmlinux_value_type_id(ops.value_type);
    let error = bare.create().expect_err("no BTF object");
    assert_cause_matches!(error, Cause::InvalidArgument { what: "btf", .. });
    Ok(())
}

#[common::test(ROOT)]
fn a_map_for_a_link_needs_linux_6_4() -> Outcome {
    let ops = CongestionOps::new()?;
    let btf = btf_object();
    let made = ops.spec(&btf).flags(MapFlags::LINK).create();
    if kernel(6, 4).unmet().is_none() {
        assert!(made?.info()?.flags.contains(MapFlags::LINK));
        return Ok(());
    }
    let error = made.expect_err("a flag that the kernel does not know");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    Ok(())
}

fn assert_holds(link: &Link, map: &Map) -> Outcome<LinkInfo> {
    let info = link.info()?;
    assert_eq!((info.link_type, info.prog_id), (LinkType::STRUCT_OPS, 0));
    match info.target {
        LinkTarget::StructOps { map_id, .. } => assert_eq!(map_id, map.id()?),
        other => panic!("{other:?}"),
    }
    assert!(!info.target.is_gone());
    Ok(info)
}

#[common::test(LINKS)]
fn a_link_is_updated_with_another_map() -> Outcome {
    let (ops, name) = (CongestionOps::new()?, own_name());
    let [first, second, third] = [(); 3].map(|()| for_link(&ops, &name).expect("a map"));
    assert!(!is_registered(&name), "a map without a link");
    let link = Link::of_struct_ops(&first)?;
    assert!(is_registered(&name));
    let info = assert_holds(&link, &first)?;
    assert_eq!(Link::from_id(info.id)?.info()?, info);

    link.update_map(&second)?;
    assert_holds(&link, &second)?;
    assert!(is_registered(&name));
    let error = link.update_map_from(&third, &first);
    let error = error.expect_err("the link holds another");
    let map_id = second.id()?;
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert_eq!(error.cause(), Some(&Cause::UnexpectedMap { map_id }));
    assert_eq!(error.operation(), Operation::UpdateLink);
    assert_holds(&link, &second)?;
    link.update_map_from(&third, &second)?;
    assert_holds(&link, &third)?;

    // The link keeps its map, and the map keeps its programs.
    drop((first, second, third));
    assert!(is_registered(&name));
    drop(link);
    wait_until("gone", || !is_registered(&name));
    Ok(())
}

#[common::test(LINKS)]
fn a_link_is_detached_since_linux_6_11() -> Outcome {
    let (ops, name) = (CongestionOps::new()?, own_name());
    let (first, second) = (for_link(&ops, &name)?, for_link(&ops, &name)?);
    let link = Link::of_struct_ops(&first)?;
    let id = link.id()?;
    let detached = link.detach();
    if kernel(6, 11).unmet().is_some() {
        let error = detached.expect_err("a link that the kernel does not detach");
        assert_cause_matches!(error, Cause::UnsupportedType { .. });
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
        assert_holds(&link, &first)?;
        return Ok(());
    }
    detached?;
    assert!(!is_registered(&name));
    let info = link.info()?;
    assert_eq!((info.id, info.link_type), (id, LinkType::STRUCT_OPS));
    assert!(info.target.is_gone(), "{info:?}");
    for update in [
        link.update_map(&second),
        link.update_map_from(&second, &first),
    ] {
        let error = update.expect_err("a link that is detached");
        assert_eq!(error.cause(), Some(&Cause::Detached), "{error}");
        assert_eq!(error.raw_os_error(), Some(libc::ENOLINK));
    }
    link.detach()?;
    // The name is free again.
    let again = Link::of_struct_ops(&second)?;
    assert_holds(&again, &second)?;
    Ok(())
}

#[common::test(LINKS)]
fn a_pinned_link_keeps_its_map_registered() -> Outcome {
    let fs = TestFs::new();
    let (ops, name) = (CongestionOps::new()?, own_name());
    let (first, second) = (for_link(&ops, &name)?, for_link(&ops, &name)?);
    let link = Link::of_struct_ops(&first)?.pin(fs.at("link"))?;
    drop(link);
    let link = PinnedLink::open(fs.at("link"))?;
    assert_holds(&link, &first)?;
    link.update_map_from(&second, &first)?;
    assert!(is_registered(&name));
    drop(link.unpin()?);
    wait_until("gone", || !is_registered(&name));
    Ok(())
}

#[common::test(LINKS)]
fn wrong_maps_and_names_are_rejected() -> Outcome {
    let (ops, name) = (CongestionOps::new()?, own_name());
    let btf = btf_object();
    let empty = ops.spec(&btf).flags(MapFlags::LINK).create()?;
    let error = Link::of_struct_ops(&empty).expect_err("a map without programs");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    let map = for_link(&ops, &name)?;
    let link = Link::of_struct_ops(&map)?;
    let other = for_link(&ops, &own_name())?;
    let unlinked = filled(&ops, MapFlags::empty(), &own_name())?;
    for new in [&empty, &other, &unlinked, &hash()] {
        let error = link.update_map(new).expect_err("a map for another link");
        assert_fails(&error, Operation::UpdateLink, libc::EINVAL, None);
    }
    // The link takes maps, not programs.
    let error = link.update(&prog()).expect_err("a program");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    assert_holds(&link, &map)?;
    // The name is taken.
    let error = Link::of_struct_ops(&for_link(&ops, &name)?).expect_err("a name twice");
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
    // Some programs that the struct needs are missing.
    let half = ops.spec(&btf).flags(MapFlags::LINK).create()?;
    let is_filled = ops.fill(&half, &own_name(), &["ssthresh"]);
    assert!(is_filled.is_err() || Link::of_struct_ops(&half).is_err());
    // It is registered without a link.
    unlinked.elements::<[u8], [u8]>()?.delete(&[0; 4])?;
    Ok(())
}
