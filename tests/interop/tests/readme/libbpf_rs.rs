//! The code for libbpf-rs of the guide's page about other loaders.

use std::os::fd::AsFd;
use std::path::Path;

use bpf_pin::prog::Insn;
use bpf_pin::reuse::Reuse;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, Map, MapSpec, MapType, PinDir, Prog, ProgSpec};
use common::{LOOPBACK, Outcome};
use libbpf_rs::{MapCore, MapFlags, MapHandle, ObjectBuilder, ProgramHandle};
use peers::{count_of, send_packets, story, test_run};

pub fn lines(root: &Path) -> Outcome {
    let directory = root.join("app");
    let directory = directory.as_path();
    let object = &story::object();
    let ifindex = LOOPBACK;

    let app = PinDir::create(directory, 0o700)?;
    let spec = MapSpec::new(MapType::ARRAY, 4, 8, 1).name("packets");
    let packets = app.open_or_create("packets", &spec, Reuse::Exact)?.map;
    let mut builder = ObjectBuilder::default();
    let mut open = builder.open_memory(object)?;
    let mut open_map = open.maps_mut().next().ok_or("no map")?;
    open_map.reuse_fd(packets.as_fd())?;
    let object = open.load()?;
    let theirs = object.progs_mut().next().ok_or("no program")?;
    let prog = Prog::try_from(theirs.as_fd().try_clone_to_owned()?)?;

    let their_link = theirs.attach_xdp(LOOPBACK as i32)?;
    let link = Link::try_from(their_link.as_fd().try_clone_to_owned()?)?;
    drop(their_link);
    send_packets(2)?;
    assert_eq!(count_of(&packets)?, 2);
    link.detach()?;

    let link = app.open_or_attach("link", &LinkSpec::xdp(ifindex), &prog)?;
    send_packets(2)?;
    assert_eq!(count_of(&packets)?, 4);

    // Our own program replaces it, and passes every packet without counting.
    let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
    let untyped = ProgSpec::new(ProgType::XDP, &insns)
        .expected_attach_type(AttachType(0))
        .load()?;
    let refused = app.open_or_attach("link", &LinkSpec::xdp(ifindex), &untyped);
    let refused = refused.expect_err("loaded without the attach type XDP");
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL), "{refused}");
    let own = ProgSpec::new(ProgType::XDP, &insns).load()?;
    app.open_or_attach("link", &LinkSpec::xdp(ifindex), &own)?;
    send_packets(2)?;
    assert_eq!(count_of(&packets)?, 4);

    let path = directory.join("link");
    let theirs = libbpf_rs::Link::open(&path)?;
    assert_eq!(theirs.info()?.id, link.link.id()?);

    let their_map = object.maps().next().ok_or("no map")?;
    let map = Map::try_from(their_map.as_fd().try_clone_to_owned()?)?;
    assert_eq!(count_of(&map)?, 4);
    to_libbpf(&directory.join("packets"), &map, &prog)?;
    let mut builder = ObjectBuilder::default();
    builder.pin_root_path(directory)?;
    replaced(app, map, prog)?;
    Ok(())
}

fn to_libbpf(path: &Path, map: &Map, prog: &Prog) -> Outcome {
    let by_id = MapHandle::from_map_id(map.id()?)?;
    let by_pin = MapHandle::from_pinned_path(path)?;
    by_id.update(&0_u32.to_ne_bytes(), &8_u64.to_ne_bytes(), MapFlags::ANY)?;
    let seen = by_pin.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)?;
    assert_eq!(seen.ok_or("none")?, 8_u64.to_ne_bytes());
    let theirs = ProgramHandle::from_prog_id(prog.id()?)?;
    test_run(&theirs, 1)?;
    assert_eq!(count_of(map)?, 9);
    Ok(())
}

fn replaced(app: PinDir, map: Map, prog: Prog) -> bpf_pin::Result<()> {
    app.replace(&map, "packets")?;
    let set = app.stage("current")?;
    set.pin(&map, "packets")?;
    set.pin(&prog, "count")?;
    set.publish()?;
    Ok(())
}
