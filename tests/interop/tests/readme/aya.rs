//! The code for aya of the guide's page about other loaders.

use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::{Array, MapData};
use aya::programs::links::FdLink;
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use bpf_pin::map::ElemFlags;
use bpf_pin::prog::Insn;
use bpf_pin::reuse::Reuse;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, Map, MapSpec, MapType, PinDir, PinnedLink, Prog, ProgSpec};
use common::{LOOPBACK, Outcome};
use peers::{count_of, send_packets, story};

pub fn lines(root: &Path) -> Outcome {
    let directory = root.join("app");
    let directory = directory.as_path();
    let object = &story::object();
    let ifindex = LOOPBACK;

    let app = PinDir::create(directory, 0o700)?;
    let spec = MapSpec::new(MapType::ARRAY, 4, 8, 1).name("packets");
    let packets = app.open_or_create("packets", &spec, Reuse::Exact)?.map;
    let path = directory.join("packets");
    let mut ebpf = EbpfLoader::new()
        .map_pin_path("packets", &path)
        .load(object)?;
    let xdp: &mut Xdp = ebpf.program_mut("count").ok_or("no program")?.try_into()?;
    xdp.load()?;
    let prog = Prog::try_from(xdp.fd()?.as_fd().try_clone_to_owned()?)?;

    by_aya(directory, xdp)?;

    let link = app.open_or_attach("link", &LinkSpec::xdp(ifindex), &prog)?;
    send_packets(2)?;
    assert_eq!(count_of(&packets)?, 2);

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
    assert_eq!(count_of(&packets)?, 2);

    let path = directory.join("link");
    let theirs = aya::programs::links::PinnedLink::from_pin(&path)?;
    assert_eq!(FdLink::from(theirs).info()?.id(), link.link.id()?);

    assert_eq!(count_of(&of_aya(&ebpf)?)?, 2);
    to_aya(packets.try_clone()?)?;
    assert_eq!(count_of(&packets)?, 7);
    replaced(app, packets, prog)?;
    Ok(())
}

/// Links that aya makes.
fn by_aya(directory: &Path, xdp: &mut Xdp) -> Outcome {
    let id = xdp.attach("lo", XdpMode::Skb)?;
    let fd_link: FdLink = xdp.take_link(id)?.try_into()?;
    let link = Link::from_id(fd_link.info()?.id())?;

    let path = directory.join("of_aya");
    fd_link.pin(&path)?;
    let pinned = PinnedLink::open(&path)?;
    assert_eq!(pinned.id()?, link.id()?);
    pinned.unpin()?.detach()?;
    Ok(())
}

fn of_aya(ebpf: &Ebpf) -> Outcome<Map> {
    let Some(aya::maps::Map::Array(data)) = ebpf.map("packets") else {
        return Err("no array".into());
    };
    Ok(Map::try_from(data.fd().as_fd().try_clone_to_owned()?)?)
}

fn to_aya(map: Map) -> Outcome {
    map.elements::<u32, u64>()?
        .update(&0_u32, &6_u64, ElemFlags::ANY)?;
    let map = aya::maps::Map::from_map_data(MapData::from_fd(map.into())?)?;
    let mut array: Array<MapData, u64> = map.try_into()?;
    array.set(0, array.get(&0, 0)? + 1, 0)?;
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
