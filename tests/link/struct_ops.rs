//! Maps of struct_ops: programs in the places of the kernel's functions, with a link and without.

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

/// A name of a congestion control of the test's own: the whole machine has them in one list.
fn own_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("bp{}_{number}", std::process::id())
}

/// Whether a socket may have the congestion control of that name.
fn is_there(name: &str) -> bool {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    match set_tcp_congestion(&socket, name) {
        Ok(()) => true,
        Err(Errno::NOENT) => false,
        Err(errno) => panic!("{name}: {}", io::Error::from(errno)),
    }
}

/// A map with all programs that it needs.
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
fn a_map_takes_the_places_itself() -> Outcome {
    let (ops, name) = (CongestionOps::new()?, own_name());
    let btf = btf_object();
    let map = ops.spec(&btf).name("congestion").create()?;
    let info = map.info()?;
    assert_eq!(info.map_type, MapType::STRUCT_OPS);
    assert_eq!(info.btf_vmlinux_value_type_id, ops.value_type);
    assert_eq!([info.btf_key_type_id, info.btf_value_type_id], [0, 0]);
    assert!(!is_there(&name));
    ops.fill(&map, &name, CongestionOps::REQUIRED)?;
    assert!(is_there(&name));
    let error = Link::of_struct_ops(&map).expect_err("a map that needs no link");
    assert_fails(&error, Operation::CreateLink, libc::EINVAL, None);
    map.elements::<[u8], [u8]>()?.delete(&[0; 4])?;
    assert!(!is_there(&name));

    // Without the BTF object it is descriptor 0 that would be taken for one.
    let bare = bpf_pin::MapSpec::new(MapType::STRUCT_OPS, 4, ops.value_size, 1)
        .btf_vmlinux_value_type_id(ops.value_type);
    let error = bare.create().expect_err("no BTF object");
    let is_btf = matches!(
        error.cause(),
        Some(Cause::InvalidArgument { what: "btf", .. })
    );
    assert!(is_btf, "{error}");
    Ok(())
}

#[common::test(ROOT)]
fn a_map_for_a_link_on_any_kernel() -> Outcome {
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

fn holds(link: &Link, map: &Map) -> Outcome<LinkInfo> {
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
fn a_link_and_its_updates() -> Outcome {
    let (ops, name) = (CongestionOps::new()?, own_name());
    let [first, second, third] = [(); 3].map(|()| for_link(&ops, &name).expect("a map"));
    assert!(!is_there(&name), "a map alone");
    let link = Link::of_struct_ops(&first)?;
    assert!(is_there(&name));
    let info = holds(&link, &first)?;
    assert_eq!(Link::from_id(info.id)?.info()?, info);

    link.update_map(&second)?;
    holds(&link, &second)?;
    assert!(is_there(&name));
    let error = link.update_map_from(&third, &first);
    let error = error.expect_err("the link holds another");
    let map_id = second.id()?;
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert_eq!(error.cause(), Some(&Cause::UnexpectedMap { map_id }));
    assert_eq!(error.operation(), Operation::UpdateLink);
    holds(&link, &second)?;
    link.update_map_from(&third, &second)?;
    holds(&link, &third)?;

    // The link keeps its map, and the map its programs.
    drop((first, second, third));
    assert!(is_there(&name));
    drop(link);
    wait_until("gone", || !is_there(&name));
    Ok(())
}

#[common::test(LINKS)]
fn detaching() -> Outcome {
    let (ops, name) = (CongestionOps::new()?, own_name());
    let (first, second) = (for_link(&ops, &name)?, for_link(&ops, &name)?);
    let link = Link::of_struct_ops(&first)?;
    let id = link.id()?;
    let detached = link.detach();
    if kernel(6, 11).unmet().is_some() {
        let error = detached.expect_err("a link that the kernel does not detach");
        assert!(matches!(error.cause(), Some(Cause::UnsupportedType { .. })));
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
        holds(&link, &first)?;
        return Ok(());
    }
    detached?;
    assert!(!is_there(&name));
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
    // Its place is free.
    let again = Link::of_struct_ops(&second)?;
    holds(&again, &second)?;
    Ok(())
}

#[common::test(LINKS)]
fn a_pinned_link() -> Outcome {
    let fs = TestFs::new();
    let (ops, name) = (CongestionOps::new()?, own_name());
    let (first, second) = (for_link(&ops, &name)?, for_link(&ops, &name)?);
    let link = Link::of_struct_ops(&first)?.pin(fs.at("link"))?;
    drop(link);
    let link = PinnedLink::open(fs.at("link"))?;
    holds(&link, &first)?;
    link.update_map_from(&second, &first)?;
    assert!(is_there(&name));
    drop(link.unpin()?);
    wait_until("gone", || !is_there(&name));
    Ok(())
}

#[common::test(LINKS)]
fn what_does_not_fit_is_refused() -> Outcome {
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
        let error = link.update_map(new).expect_err("no map for this link");
        assert_fails(&error, Operation::UpdateLink, libc::EINVAL, None);
    }
    // One that no program is in the place of: the link is one of maps.
    let error = link.update(&prog()).expect_err("a program");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    holds(&link, &map)?;
    // The name is taken.
    let error = Link::of_struct_ops(&for_link(&ops, &name)?).expect_err("a name twice");
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
    // Not all that the struct asks for.
    let half = ops.spec(&btf).flags(MapFlags::LINK).create()?;
    let is_filled = ops.fill(&half, &own_name(), &["ssthresh"]);
    assert!(is_filled.is_err() || Link::of_struct_ops(&half).is_err());
    // It has taken the places without a link.
    unlinked.elements::<[u8], [u8]>()?.delete(&[0; 4])?;
    Ok(())
}
