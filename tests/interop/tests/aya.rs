//! aya: maps, programs and links cross by descriptor, by id and by pin, in both directions.

use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{Array, HashMap, Map as AyaMap, MapData, PerCpuArray, PerCpuValues};
use aya::programs::links::{FdLink, PinnedLink as AyaPinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{Program, ProgramError, SocketFilter, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use bpf_pin::error::Cause;
use bpf_pin::map::{ElemFlags, PerCpu};
use bpf_pin::object::TypedObject;
use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, LinkType, ProgType};
use bpf_pin::{
    Link, LinkSpec, Map, MapSpec, MapType, PinDir, PinnedLink, PinnedMap, PinnedProg, Prog,
    ProgSpec,
};
use common::*;
use peers::{Counter, Maps, count_of, counter, counting, send_packets, test_run};

fn main() -> std::process::ExitCode {
    const BPF: &[Need] = &[cap::BPF, Need::Bpffs];
    const NET: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
    Suite::new()
        .test("a_map_passes_to_aya_and_back", BPF, map_by_fd)
        .test("ayas_typed_maps_use_our_map", BPF, typed_maps)
        .test(
            "each_opens_the_others_map_by_id",
            &[cap::SYS_ADMIN],
            map_by_id,
        )
        .test(
            "each_opens_the_others_program_by_id",
            &[cap::SYS_ADMIN],
            prog_by_id,
        )
        .test("each_opens_the_others_pinned_map", BPF, map_pins)
        .test(
            "bpf_pin_rejects_a_program_that_aya_opens_as_a_map",
            BPF,
            no_map,
        )
        .test("a_program_that_aya_loads_is_pinned", BPF, loaded)
        .test("each_opens_the_others_pinned_program", BPF, prog_pins)
        .test("aya_shares_maps_pinned_by_name", BPF, pinned_by_name)
        .test("ayas_program_counts_in_our_map", BPF, map_pin_path)
        .test("ayas_link_pinned_by_aya", NET, || {
            in_network_namespace(link_of_aya)
        })
        .test("ayas_link_pinned_by_us", NET, || {
            in_network_namespace(link_by_id)
        })
        .test("aya_opens_our_link", NET, || {
            in_network_namespace(link_of_ours)
        })
        .run()
}

const SOCKET: Counter<'_> = Counter {
    section: "socket",
    prog: "count",
    map: "packets",
    maps: Maps::Btf,
    returns: 9,
};

const XDP_PASS: i32 = 2;

/// aya's descriptors are its own: a clone of one, proven.
fn ours<T>(theirs: impl AsFd) -> Result<T, bpf_pin::Error>
where
    T: TypedObject + TryFrom<OwnedFd, Error = bpf_pin::error::Failed<OwnedFd>>,
{
    let fd = theirs.as_fd().try_clone_to_owned().expect("a descriptor");
    Ok(T::try_from(fd)?)
}

/// The map of a loaded object.
fn map_of(ebpf: &Ebpf) -> Outcome<Map> {
    match ebpf.map("packets") {
        Some(AyaMap::Array(data)) => Ok(ours(data.fd())?),
        other => panic!("it is an array: {other:?}"),
    }
}

/// Its program.
fn prog_of<'a, P>(ebpf: &'a mut Ebpf) -> Outcome<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    Ok(ebpf.program_mut("count").ok_or("no program")?.try_into()?)
}

fn map_by_fd() -> Outcome {
    let map = hash();
    map.elements::<u32, u64>()?
        .update(&1_u32, &10_u64, ElemFlags::ANY)?;
    let info = map.info()?;

    let data = MapData::from_fd(map.into())?;
    assert_eq!(data.info()?.id(), info.id);
    let mut theirs = AyaMap::from_map_data(data)?;
    let mut typed: HashMap<_, u32, u64> = (&mut theirs).try_into()?;
    assert_eq!(typed.get(&1, 0)?, 10);
    typed.insert(2, 20, 0)?;

    let AyaMap::HashMap(data) = theirs else {
        panic!("it was a hash map");
    };
    let again: Map = ours(data.fd())?;
    drop(data);
    assert_eq!(again.info()?, info);
    assert_eq!(again.elements::<u32, u64>()?.lookup(&2)?, Some(20));
    Ok(())
}

fn typed_maps() -> Outcome {
    let map = MapSpec::new(MapType::ARRAY, 4, 8, 3).create()?;
    let data = MapData::from_fd(map.try_clone()?.into())?;
    let mut theirs: Array<_, u64> = AyaMap::from_map_data(data)?.try_into()?;
    theirs.set(2, 5, 0)?;
    let entries: Result<Vec<_>, _> = map.elements::<u32, u64>()?.iter().collect();
    assert_eq!(entries?, [(0, 0), (1, 0), (2, 5)]);

    let map = MapSpec::new(MapType::PERCPU_ARRAY, 4, 8, 1).create()?;
    let data = MapData::from_fd(map.try_clone()?.into())?;
    let mut theirs: PerCpuArray<_, u64> = AyaMap::from_map_data(data)?.try_into()?;
    let values = map.elements::<u32, PerCpu<u64>>()?;
    let one_each: Vec<u64> = (0..values.cpus() as u64).map(|cpu| cpu * 7 + 1).collect();
    theirs.set(0, PerCpuValues::try_from(one_each.clone())?, 0)?;
    assert_eq!(values.lookup(&0)?, Some(one_each.clone()));
    let doubled: Vec<u64> = one_each.iter().map(|value| value * 2).collect();
    values.update(&0, &doubled, ElemFlags::ANY)?;
    assert_eq!(theirs.get(&0, 0)?[..], doubled);
    Ok(())
}

fn map_by_id() -> Outcome {
    let map = hash();
    let data = MapData::from_id(map.id()?)?;
    let mut theirs: HashMap<_, u32, u64> = AyaMap::from_map_data(data)?.try_into()?;
    theirs.insert(3, 30, 0)?;
    assert_eq!(map.elements::<u32, u64>()?.lookup(&3)?, Some(30));

    // aya's, of a map that aya has made.
    let elf = SOCKET.elf();
    let mut ebpf = Ebpf::load(&elf)?;
    let id = match ebpf.map("packets") {
        Some(AyaMap::Array(data)) => data.info()?.id(),
        other => panic!("it is an array: {other:?}"),
    };
    let ours = Map::from_id(id)?;
    ours.elements::<u32, u64>()?
        .update(&0_u32, &33_u64, ElemFlags::ANY)?;
    let mut theirs: Array<_, u64> = ebpf.map_mut("packets").ok_or("no map")?.try_into()?;
    assert_eq!(theirs.get(&0, 0)?, 33);
    theirs.set(0, 34, 0)?;
    assert_eq!(count_of(&ours)?, 34);
    Ok(())
}

fn prog_by_id() -> Outcome {
    let map = counter()?;
    let prog = counting(&map, ProgType::SOCKET_FILTER, 9)?;
    let id = prog.id()?;
    // aya iterates over all objects of the system, and some disappear in the meantime.
    let info = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == id)
        .ok_or("not among them")?;
    let theirs = SocketFilter::from_program_info(info, "count".into())?;
    // aya's descriptor alone holds it.
    drop(prog);
    assert_eq!(test_run(theirs.fd()?, 2)?, 9);
    assert_eq!(count_of(&map)?, 2);

    let elf = SOCKET.elf();
    let mut ebpf = Ebpf::load(&elf)?;
    let map = map_of(&ebpf)?;
    let filter: &mut SocketFilter = prog_of(&mut ebpf)?;
    filter.load()?;
    let prog = Prog::from_id(filter.info()?.id())?;
    drop(ebpf);
    assert_eq!(test_run(&prog, 3)?, 9);
    assert_eq!(count_of(&map)?, 3);
    Ok(())
}

fn map_pins() -> Outcome {
    let fs = TestFs::new();
    let flows = hash().pin(fs.at("ours"))?;
    let data = MapData::from_pin(flows.path())?;
    let mut theirs: HashMap<_, u32, u64> = AyaMap::from_map_data(data)?.try_into()?;
    theirs.insert(4, 40, 0)?;
    assert_eq!(flows.elements::<u32, u64>()?.lookup(&4)?, Some(40));

    // aya's, of a map that aya has made.
    let elf = SOCKET.elf();
    let mut ebpf = Ebpf::load(&elf)?;
    let mut theirs: Array<_, u64> = ebpf.map_mut("packets").ok_or("no map")?.try_into()?;
    theirs.set(0, 77, 0)?;
    ebpf.map("packets").ok_or("no map")?.pin(fs.at("theirs"))?;
    drop(ebpf);
    let map = PinnedMap::open(fs.at("theirs"))?;
    assert_eq!(map.info()?.name.to_string(), "packets");
    assert_eq!(count_of(&map)?, 77);
    map.unpin()?;
    flows.unpin()?;
    assert_eq!(fs.names(), [""; 0]);
    Ok(())
}

/// aya 0.14 asks nothing of a pin: so it is opened here, and aya gets the descriptor.
fn no_map() -> Outcome {
    let fs = TestFs::new();
    prog().pin(fs.at("flows"))?;
    let open = |at| -> Outcome<MapData> { Ok(MapData::from_fd(Map::open(at)?.into())?) };
    let error = open(fs.at("flows")).expect_err("a program's pin");
    let error: &bpf_pin::Error = error.downcast_ref().ok_or("not from aya")?;
    assert!(
        matches!(error.cause(), Some(Cause::WrongKind { .. })),
        "{error}"
    );
    let map = hash().pin(fs.at("map"))?;
    let data = open(fs.at("map"))?;
    let mut theirs: HashMap<_, u32, u64> = AyaMap::from_map_data(data)?.try_into()?;
    theirs.insert(5, 50, 0)?;
    assert_eq!(map.elements::<u32, u64>()?.lookup(&5)?, Some(50));
    Ok(())
}

fn loaded() -> Outcome {
    let fs = TestFs::new();
    let elf = SOCKET.elf();
    let mut ebpf = Ebpf::load(&elf)?;
    let filter: &mut SocketFilter = prog_of(&mut ebpf)?;
    filter.load()?;
    let prog: Prog = ours(filter.fd()?)?;
    let map = map_of(&ebpf)?;
    // Both or neither.
    let dir = PinDir::create(fs.at("app"), 0o700)?;
    let set = dir.stage("current")?;
    set.pin(&prog, "count")?;
    set.pin(&map, "packets")?;
    set.publish().map_err(bpf_pin::Error::from)?;
    // The loader has exited, and its objects of aya are closed.
    drop((ebpf, prog, map));

    let prog = PinnedProg::open(fs.at("app/current/count"))?;
    let map = PinnedMap::open(fs.at("app/current/packets"))?;
    assert_eq!(prog.info()?.name.to_string(), "count");
    assert_eq!(test_run(&prog, 3)?, 9);
    assert_eq!(count_of(&map)?, 3);
    Ok(())
}

fn prog_pins() -> Outcome {
    let fs = TestFs::new();
    let elf = SOCKET.elf();
    let mut ebpf = Ebpf::load(&elf)?;
    let filter: &mut SocketFilter = prog_of(&mut ebpf)?;
    filter.load()?;
    let id = filter.info()?.id();
    filter.pin(fs.at("theirs"))?;
    let map = map_of(&ebpf)?;
    drop(ebpf);
    let prog = PinnedProg::open(fs.at("theirs"))?;
    assert_eq!(prog.id()?, id);
    assert_eq!(test_run(&prog, 1)?, 9);
    assert_eq!(count_of(&map)?, 1);

    // And back: what we have pinned runs where aya attaches it.
    let path = fs.at("ours");
    let prog = prog.unpin()?.pin(&path)?;
    let theirs = SocketFilter::from_pin(&path)?;
    assert_eq!(theirs.info()?.id(), prog.id()?);
    let (here, there) = std::os::unix::net::UnixDatagram::pair()?;
    theirs.attach(&there)?;
    here.send(b"counted")?;
    let mut received = [0; 8];
    assert_eq!(there.recv(&mut received)?, 7);
    assert_eq!(count_of(&map)?, 2);
    Ok(())
}

fn pinned_by_name() -> Outcome {
    let fs = TestFs::new();
    let elf = Counter {
        maps: Maps::BtfPinned,
        ..SOCKET
    }
    .elf();
    let load = || -> Outcome {
        let mut ebpf = EbpfLoader::new()
            .default_map_pin_directory(fs.root())
            .load(&elf)?;
        let filter: &mut SocketFilter = prog_of(&mut ebpf)?;
        filter.load()?;
        test_run(filter.fd()?, 1)?;
        Ok(())
    };
    load()?;
    load()?;
    let theirs = PinnedMap::open(fs.at("packets"))?;
    assert_eq!(count_of(&theirs)?, 2);
    // aya opens the replacement, too.
    let dir = PinDir::open(fs.root())?;
    let map = counter()?;
    map.elements::<u32, u64>()?
        .update(&0_u32, &50_u64, ElemFlags::ANY)?;
    dir.replace(&map, "packets")?;
    load()?;
    assert_eq!(count_of(&map)?, 51);
    assert_eq!(count_of(&theirs)?, 2);
    assert_eq!(fs.names(), ["packets"]);
    Ok(())
}

fn map_pin_path() -> Outcome {
    let fs = TestFs::new();
    let elf = SOCKET.elf();
    let map = counter()?.pin(fs.at("flows"))?;
    let mut ebpf = EbpfLoader::new()
        .map_pin_path("packets", map.path())
        .load(&elf)?;
    let filter: &mut SocketFilter = prog_of(&mut ebpf)?;
    filter.load()?;
    assert_eq!(test_run(filter.fd()?, 4)?, 9);
    assert_eq!(count_of(&map)?, 4);
    Ok(())
}

/// aya's program, loaded and attached to this network's loopback device, and its map.
fn attached(ebpf: &mut Ebpf) -> Outcome<(FdLink, Map)> {
    let map = map_of(ebpf)?;
    let xdp: &mut Xdp = prog_of(ebpf)?;
    xdp.load()?;
    let id = xdp.attach("lo", XdpMode::Skb)?;
    let link = xdp.take_link(id)?;
    Ok((link.try_into()?, map))
}

fn xdp_elf() -> Vec<u8> {
    let xdp = Counter {
        section: "xdp",
        returns: XDP_PASS,
        ..SOCKET
    };
    xdp.elf()
}

fn link_of_aya() -> Outcome {
    let fs = TestFs::new();
    let elf = xdp_elf();
    let mut ebpf = Ebpf::load(&elf)?;
    let (link, map) = attached(&mut ebpf)?;
    drop(link.pin(fs.at("theirs"))?);
    drop(ebpf);
    // Nothing but the pin holds it in place.
    send_packets(3)?;
    assert_eq!(count_of(&map)?, 3);
    let link = PinnedLink::open(fs.at("theirs"))?;
    assert_eq!(link.info()?.link_type, LinkType::XDP);
    let link = link.unpin()?;
    send_packets(3)?;
    assert_eq!(count_of(&map)?, 6);
    link.detach()?;
    send_packets(3)?;
    assert_eq!(count_of(&map)?, 6);
    assert_eq!(fs.names(), [""; 0]);
    Ok(())
}

/// aya gives no descriptor of a link, but its id.
fn link_by_id() -> Outcome {
    let fs = TestFs::new();
    let elf = xdp_elf();
    let mut ebpf = Ebpf::load(&elf)?;
    let (theirs, map) = attached(&mut ebpf)?;
    let id = theirs.info()?.id();
    let link = Link::from_id(id)?.pin(fs.at("link"))?;
    drop((theirs, ebpf, link));
    send_packets(2)?;
    assert_eq!(count_of(&map)?, 2);
    let theirs = AyaPinnedLink::from_pin(fs.at("link"))?;
    let last = theirs.unpin()?;
    assert_eq!(last.info()?.id(), id);
    drop(last);
    wait_until("detached", || Link::from_id(id).is_err());
    send_packets(2)?;
    assert_eq!(count_of(&map)?, 2);
    Ok(())
}

fn link_of_ours() -> Outcome {
    let fs = TestFs::new();
    // A program of ours that drops all, under a link of ours. That it says what it is for is not
    // needed to attach it; but a link takes a new program only where it says the same, and aya's does.
    let insns = [Insn::mov64_imm(0, 1), Insn::exit()];
    let prog = ProgSpec::new(ProgType::XDP, &insns)
        .expected_attach_type(AttachType::XDP)
        .load()?;
    let link = LinkSpec::xdp(LOOPBACK).create(&prog)?.pin(fs.at("link"))?;
    let info = link.info()?;
    drop(link);

    // aya puts its own in place, without a moment in between.
    let elf = xdp_elf();
    let mut ebpf = Ebpf::load(&elf)?;
    let map = map_of(&ebpf)?;
    let xdp: &mut Xdp = prog_of(&mut ebpf)?;
    xdp.load()?;
    let theirs: FdLink = AyaPinnedLink::from_pin(fs.at("link"))?.into();
    assert_eq!(theirs.info()?.id(), info.id);
    xdp.attach_to_link(XdpLink::try_from(theirs)?)?;
    let prog_id = xdp.info()?.id();
    drop(ebpf);

    let link = PinnedLink::open(fs.at("link"))?;
    assert_eq!((link.id()?, link.info()?.prog_id), (info.id, prog_id));
    send_packets(4)?;
    assert_eq!(count_of(&map)?, 4);
    // And we put back ours.
    link.update(&prog)?;
    assert_eq!(link.info()?.prog_id, prog.id()?);
    link.unpin()?;
    Ok(())
}
