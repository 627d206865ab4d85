use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

use bpf_pin::map::ElemFlags;
use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, Map, PinDir, PinnedLink, PinnedMap, PinnedProg, Prog, ProgSpec};
use common::*;
use libbpf_rs::{
    MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenMapMut, ProgramHandle, ProgramInput,
    ProgramMut, libbpf_sys,
};
use peers::{Counter, Maps, count_of, counter, counting, send_packets, test_run};

const SOCKET: Counter<'_> = Counter {
    section: "socket",
    prog: "count",
    map: "packets",
    maps: Maps::Btf,
    returns: 9,
};

const XDP_PASS: i32 = 2;

fn key(key: u32) -> [u8; 4] {
    key.to_ne_bytes()
}

fn value(value: u64) -> [u8; 8] {
    value.to_ne_bytes()
}

/// The map of a loaded object: its descriptor is libbpf's, so a clone of it, proven.
fn map_of(object: &Object) -> Outcome<Map> {
    let map = object.maps().find(|map| map.name() == "packets");
    let fd = map.ok_or("no map")?.as_fd().try_clone_to_owned()?;
    Ok(Map::try_from(fd)?)
}

fn prog_of(object: &Object) -> Outcome<ProgramMut<'_>> {
    Ok(object.progs_mut().next().ok_or("no program")?)
}

fn load(counter: Counter<'_>) -> Outcome<Object> {
    let object = ObjectBuilder::default().open_memory(&counter.elf())?;
    Ok(object.load()?)
}

/// It opens our objects by id. We use clones of its descriptors.
pub fn map_by_fd() -> Outcome {
    let theirs = MapHandle::create(
        libbpf_rs::MapType::Hash,
        Some("of_libbpf"),
        4,
        8,
        8,
        &libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as _,
            ..Default::default()
        },
    )?;
    theirs.update(&key(1), &value(10), MapFlags::ANY)?;
    let ours = Map::try_from(theirs.as_fd().try_clone_to_owned()?)?;
    assert_eq!(ours.info()?.name.to_string(), "of_libbpf");
    assert_eq!(ours.elements::<u32, u64>()?.lookup(&1)?, Some(10));
    ours.elements::<u32, u64>()?
        .update(&2_u32, &20_u64, ElemFlags::ANY)?;
    assert_eq!(
        theirs.lookup(&key(2), MapFlags::ANY)?.ok_or("none")?,
        value(20)
    );
    Ok(())
}

pub fn map_by_id() -> Outcome {
    let ours = hash();
    ours.elements::<u32, u64>()?
        .update(&3_u32, &30_u64, ElemFlags::ANY)?;
    let theirs = MapHandle::from_map_id(ours.id()?)?;
    assert_eq!(
        theirs.lookup(&key(3), MapFlags::ANY)?.ok_or("none")?,
        value(30)
    );
    theirs.delete(&key(3))?;
    assert_eq!(ours.elements::<u32, u64>()?.lookup(&3)?, None);

    // libbpf's, of a map that libbpf has made.
    let object = load(SOCKET)?;
    let mut maps = object.maps();
    let theirs = maps.next().ok_or("no map")?;
    theirs.update(&key(0), &value(33), MapFlags::ANY)?;
    let ours = Map::from_id(theirs.info()?.info.id)?;
    assert_eq!(count_of(&ours)?, 33);
    ours.elements::<u32, u64>()?
        .update(&0_u32, &34_u64, ElemFlags::ANY)?;
    let seen = theirs.lookup(&key(0), MapFlags::ANY)?;
    assert_eq!(seen.ok_or("none")?, value(34));
    Ok(())
}

pub fn prog_by_id() -> Outcome {
    let map = counter()?;
    let prog = counting(&map, ProgType::SOCKET_FILTER, 9)?;
    let theirs = ProgramHandle::from_prog_id(prog.id()?)?;
    // libbpf's descriptor alone holds it.
    drop(prog);
    assert_eq!(test_run(&theirs, 2)?, 9);
    assert_eq!(count_of(&map)?, 2);

    let object = load(SOCKET)?;
    let map = map_of(&object)?;
    let theirs = ProgramHandle::try_from(&prog_of(&object)?)?;
    let prog = Prog::from_id(theirs.id())?;
    drop((theirs, object));
    assert_eq!(test_run(&prog, 3)?, 9);
    assert_eq!(count_of(&map)?, 3);
    Ok(())
}

pub fn map_pins() -> Outcome {
    let fs = TestFs::new();
    let ours = hash().pin(fs.at("ours"))?;
    ours.elements::<u32, u64>()?
        .update(&4_u32, &40_u64, ElemFlags::ANY)?;
    let mut theirs = MapHandle::from_pinned_path(ours.path())?;
    assert_eq!(
        theirs.lookup(&key(4), MapFlags::ANY)?.ok_or("none")?,
        value(40)
    );
    theirs.pin(fs.at("theirs"))?;
    theirs.update(&key(5), &value(50), MapFlags::ANY)?;
    let again = PinnedMap::open(fs.at("theirs"))?;
    assert_eq!(again.id()?, ours.id()?);
    assert_eq!(again.elements::<u32, u64>()?.lookup(&5)?, Some(50));
    again.unpin()?;
    theirs.unpin(fs.at("ours"))?;
    assert_eq!(fs.names(), [""; 0]);
    // By path alone, so it would have taken anybody's; ours looks.
    let failed = ours.unpin().expect_err("it is gone");
    assert_eq!(
        failed.error().raw_os_error(),
        Some(libc::ENOENT),
        "{failed}"
    );
    Ok(())
}

pub fn loaded() -> Outcome {
    let fs = TestFs::new();
    let object = load(SOCKET)?;
    let prog = Prog::try_from(prog_of(&object)?.as_fd().try_clone_to_owned()?)?;
    let map = map_of(&object)?;
    let dir = PinDir::create(fs.at("app"), 0o700)?;
    let set = dir.stage("current")?;
    set.pin(&prog, "count")?;
    set.pin(&map, "packets")?;
    set.publish().map_err(bpf_pin::Error::from)?;
    drop((object, prog, map));

    let prog = PinnedProg::open(fs.at("app/current/count"))?;
    let map = PinnedMap::open(fs.at("app/current/packets"))?;
    assert_eq!(test_run(&prog, 3)?, 9);
    assert_eq!(count_of(&map)?, 3);
    Ok(())
}

pub fn prog_pins() -> Outcome {
    let fs = TestFs::new();
    let object = load(SOCKET)?;
    prog_of(&object)?.pin(fs.at("theirs"))?;
    let packet = [0; 64];
    let output = prog_of(&object)?.test_run(ProgramInput {
        data_in: Some(&packet),
        ..Default::default()
    })?;
    assert_eq!(output.return_value, 9);
    let map = map_of(&object)?;
    drop(object);
    let prog = PinnedProg::open(fs.at("theirs"))?;
    assert_eq!(test_run(&prog, 1)?, 9);
    assert_eq!(count_of(&map)?, 2);

    let info = prog.info()?;
    let prog = prog.unpin()?.pin(fs.at("ours"))?;
    let theirs = ProgramHandle::from_pinned_path(prog.path())?;
    assert_eq!((theirs.id(), theirs.tag()), (info.id, info.tag));
    assert_eq!(theirs.name(), "count");
    assert_eq!(test_run(&theirs, 1)?, 9);
    assert_eq!(count_of(&map)?, 3);
    // A second pin of it, by libbpf.
    theirs.pin(fs.at("again"))?;
    let again = PinnedProg::open(fs.at("again"))?;
    assert_eq!(again.id()?, info.id);
    assert_eq!(test_run(&again, 1)?, 9);
    assert_eq!(count_of(&map)?, 4);
    Ok(())
}

pub fn pinned_by_name() -> Outcome {
    let fs = TestFs::new();
    let load = || -> Outcome {
        let elf = Counter {
            maps: Maps::BtfPinned,
            ..SOCKET
        }
        .elf();
        let mut builder = ObjectBuilder::default();
        let object = builder
            .pin_root_path(fs.root())?
            .open_memory(&elf)?
            .load()?;
        test_run(prog_of(&object)?.as_fd(), 1)?;
        Ok(())
    };
    load()?;
    load()?;
    let theirs = PinnedMap::open(fs.at("packets"))?;
    assert_eq!(count_of(&theirs)?, 2);
    let map = counter()?;
    map.elements::<u32, u64>()?
        .update(&0_u32, &60_u64, ElemFlags::ANY)?;
    PinDir::open(fs.root())?.replace(&map, "packets")?;
    load()?;
    assert_eq!(count_of(&map)?, 61);
    assert_eq!(fs.names(), ["packets"]);
    Ok(())
}

/// The ways in which an object that is not loaded yet uses an existing map.
type Reuse<'a> = &'a dyn Fn(&mut OpenMapMut<'_>) -> libbpf_rs::Result<()>;

pub fn reuse_pinned() -> Outcome {
    let fs = TestFs::new();
    let map = counter()?.pin(fs.at("flows"))?;
    let elf = SOCKET.elf();
    let load = |reuse: Reuse<'_>| -> Outcome<Object> {
        let mut object = ObjectBuilder::default().open_memory(&elf)?;
        reuse(&mut object.maps_mut().next().ok_or("no map")?)?;
        Ok(object.load()?)
    };
    // By its path, by a path that libbpf looks at as it loads, and by a descriptor that was proven to
    // be a map.
    let ways: [Reuse<'_>; 3] = [
        &|theirs| theirs.reuse_pinned_map(map.path()),
        &|theirs| theirs.set_pin_path(map.path()),
        &|theirs| theirs.reuse_fd(map.as_fd()),
    ];
    for (reuse, count) in ways.into_iter().zip([2, 4, 6]) {
        test_run(prog_of(&load(reuse)?)?.as_fd(), 2)?;
        assert_eq!(count_of(&map)?, count);
    }

    // A map that does not fit is rejected where libbpf compares it, and stays pinned.
    let other = hash().pin(fs.at("other"))?;
    let refused = load(&|theirs| theirs.set_pin_path(other.path()));
    let refused = refused.err().ok_or("it does not fit")?.to_string();
    assert!(refused.contains("Invalid argument"), "{refused}");
    assert_eq!(PinnedMap::open(fs.at("other"))?.id()?, other.id()?);
    Ok(())
}

/// bpf_obj_pin_opts and bpf_obj_get_opts with a PinDir's descriptor.
pub fn path_fd() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let map = hash();
    map.elements::<u32, u64>()?
        .update(&6_u32, &36_u64, ElemFlags::ANY)?;
    let name = CString::new("flows")?;
    let pin = libbpf_sys::bpf_obj_pin_opts {
        sz: size_of::<libbpf_sys::bpf_obj_pin_opts>() as _,
        file_flags: libbpf_sys::BPF_F_PATH_FD,
        path_fd: dir.as_fd().as_raw_fd(),
    };
    // SAFETY: a name that ends with NUL, and descriptors that are open.
    let pinned =
        unsafe { libbpf_sys::bpf_obj_pin_opts(map.as_fd().as_raw_fd(), name.as_ptr(), &pin) };
    assert_eq!(pinned, 0);
    let opened: Map = dir.get("flows")?;
    assert_eq!(opened.elements::<u32, u64>()?.lookup(&6)?, Some(36));
    let get = libbpf_sys::bpf_obj_get_opts {
        sz: size_of::<libbpf_sys::bpf_obj_get_opts>() as _,
        file_flags: libbpf_sys::BPF_F_PATH_FD | libbpf_sys::BPF_F_RDONLY,
        path_fd: dir.as_fd().as_raw_fd(),
    };
    dir.rename("flows", "routes")?;
    let name = CString::new(b"routes".as_slice())?;
    // SAFETY: as above.
    let fd = unsafe { libbpf_sys::bpf_obj_get_opts(name.as_ptr(), &get) };
    assert!(fd >= 0, "errno {}", -fd);
    // SAFETY: it is a new descriptor that only we own.
    let fd = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    let theirs = Map::try_from(fd)?;
    assert_eq!(theirs.id()?, map.id()?);
    map.elements::<u32, u64>()?
        .update(&7_u32, &49_u64, ElemFlags::ANY)?;
    assert_eq!(theirs.elements::<u32, u64>()?.lookup(&7)?, Some(49));
    // It was asked for reading.
    let refused = theirs
        .elements::<u32, u64>()?
        .update(&7_u32, &0_u64, ElemFlags::ANY);
    let refused = refused.expect_err("a read-only descriptor");
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "{refused}");
    Ok(())
}

fn xdp() -> Outcome<Object> {
    load(Counter {
        section: "xdp",
        returns: XDP_PASS,
        ..SOCKET
    })
}

pub fn link_of_libbpf() -> Outcome {
    let fs = TestFs::new();
    let object = xdp()?;
    let map = map_of(&object)?;
    let mut theirs = prog_of(&object)?.attach_xdp(LOOPBACK as i32)?;
    // A clone of its descriptor is a link of ours, and pinned as one.
    let link = Link::try_from(theirs.as_fd().try_clone_to_owned()?)?.pin(fs.at("ours"))?;
    let info = link.info()?;
    theirs.pin(fs.at("theirs"))?;
    drop((theirs, object, link));
    send_packets(3)?;
    assert_eq!(count_of(&map)?, 3);
    let link = PinnedLink::open(fs.at("theirs"))?;
    assert_eq!(link.info()?, info);
    let other = libbpf_rs::Link::open(fs.at("ours"))?;
    assert_eq!(other.info()?.id, info.id);
    link.unpin()?;
    send_packets(3)?;
    assert_eq!(count_of(&map)?, 6);
    other.detach()?;
    send_packets(3)?;
    assert_eq!(count_of(&map)?, 6);
    PinnedLink::open(fs.at("ours"))?.unpin()?;
    assert_eq!(fs.names(), [""; 0]);
    Ok(())
}

pub fn link_of_ours() -> Outcome {
    let fs = TestFs::new();
    let insns = [Insn::mov64_imm(0, XDP_PASS), Insn::exit()];
    // A link takes a new program only where it says the same, and libbpf's does.
    let spec = ProgSpec::new(ProgType::XDP, &insns).expected_attach_type(AttachType::XDP);
    let prog = spec.load()?;
    drop(LinkSpec::xdp(LOOPBACK).create(&prog)?.pin(fs.at("link"))?);

    let object = xdp()?;
    let map = map_of(&object)?;
    let program = object.progs().next().ok_or("no program")?;
    let mut theirs = libbpf_rs::Link::open(fs.at("link"))?;
    assert_eq!(
        theirs.pin_path().ok_or("no path")?.as_os_str().as_bytes(),
        fs.at("link").as_os_str().as_bytes()
    );
    theirs.update_prog(&program)?;
    send_packets(2)?;
    assert_eq!(count_of(&map)?, 2);
    let link = PinnedLink::open(fs.at("link"))?;
    link.update(&prog)?;
    send_packets(2)?;
    assert_eq!(count_of(&map)?, 2);
    // libbpf removes the name that it has opened.
    theirs.unpin()?;
    let failed = link.unpin().expect_err("it is gone");
    assert_eq!(failed.error().raw_os_error(), Some(libc::ENOENT));
    Ok(())
}
