//! Sentences of whole errors: the operation, its object, and the cause or the errno.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;

use bpf_pin::bpffs::{Bpffs, FileSystem, MountOptions};
use bpf_pin::inventory::Inventory;
use bpf_pin::link::{Link, LinkSpec, Position, Uprobes, XdpFlags};
use bpf_pin::map::ElemFlags;
use bpf_pin::prog::{Btf, TestRun};
use bpf_pin::reuse::{Migrate, Reuse};
use bpf_pin::token::Token;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Error, Map, MapSpec, MapType, Object, PinDir, PinnedMap, Prog, ProgSpec, abi};
use common::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::CapabilitySet;

/// A bpffs with a map, a program, a link and a directory with a pin in it.
struct Scene {
    fs: TestFs,
    dir: PinDir,
    map: Map,
    prog: Prog,
    link: Link,
}

impl Scene {
    fn new() -> Outcome<Self> {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (map, prog, link) = (hash(), prog(), detached_link());
        dir.pin(&map, "map")?;
        dir.pin(&prog, "prog")?;
        dir.pin(&link, "link")?;
        dir.create_dir("dir", 0o700)?.pin(&map, "map")?;
        Ok(Self {
            fs,
            dir,
            map,
            prog,
            link,
        })
    }

    /// The text with this scene's path and ids.
    fn fill(&self, text: &str) -> Outcome<String> {
        let text = text.replace("{fs}", &self.fs.root().display().to_string());
        let text = text.replace("{map}", &self.map.id()?.to_string());
        let text = text.replace("{prog}", &self.prog.id()?.to_string());
        Ok(text.replace("{link}", &self.link.id()?.to_string()))
    }
}

#[track_caller]
fn error<T>(result: Result<T, impl Into<Error>>) -> Error {
    match result {
        Ok(_) => panic!("it did not fail"),
        Err(error) => error.into(),
    }
}

/// The situation, what is called, and what the error says.
type Row = (&'static str, fn(&Scene) -> Error, &'static str);

#[rustfmt::skip]
const PINS: &[Row] = &[
    ("a program is pinned there", |s| error(Map::open(s.fs.at("prog"))),
        "open {fs}/prog: it is a program, not a map"),
    ("nothing is pinned there", |s| error(Object::open(s.fs.at("none"))),
        "open {fs}/none: {fs}/none does not exist"),
    ("the path is empty", |_| error(Map::open("")),
        "open: the path is empty"),
    ("the path has a NUL", |_| error(Map::open("a\0b")),
        "open a\\0b: the path contains a NUL byte at offset 1"),
    ("an object is pinned there", |s| error(hash().pin(s.fs.at("map"))),
        "pin {fs}/map: map {map} is pinned there already"),
    ("the path ends in a slash", |s| error(hash().pin(s.fs.at("new/"))),
        "pin {fs}/new/: the path ends in '/', which leaves no name for the pin"),
    ("the pin is gone", |s| {
        let pinned = PinnedMap::open(s.fs.at("map")).unwrap();
        fs::remove_file(s.fs.at("map")).unwrap();
        error(pinned.unpin())
    }, "unpin {fs}/map: {fs}/map does not exist"),
    ("a descriptor of a program", |s| error(Map::try_from(OwnedFd::from(s.prog.try_clone().unwrap()))),
        "use a descriptor as a map: it is a program, not a map"),
    ("a descriptor of a device", |_| error(Object::try_from(OwnedFd::from(File::open("/dev/null").unwrap()))),
        "use a descriptor as an object: it is /dev/null, not a map, program or link"),
    ("ids without the capability", |_| as_user(CapabilitySet::BPF, || error(Map::ids().next().unwrap())),
        "find the next map: this thread lacks CAP_SYS_ADMIN, needed for finding objects by their ids"),
    ("no such id", |_| error(Prog::from_id(u32::MAX)),
        "open program 4294967295: no program has this id"),
    ("no such BTF", |_| error(Btf::from_id(u32::MAX)),
        "open BTF 4294967295: no BTF object has this id"),
    ("a file as a token", |_| error(Token::try_from(OwnedFd::from(hash()))),
        "use a descriptor as a token: it is anon_inode:bpf-map, not a token"),
];

#[rustfmt::skip]
const DIRECTORIES: &[Row] = &[
    ("no such directory", |s| error(PinDir::open(s.fs.at("none"))),
        "open directory {fs}/none: {fs}/none does not exist"),
    ("a descriptor of a pin", |s| error(PinDir::from_fd(OwnedFd::from(s.map.try_clone().unwrap()))),
        "open directory from /proc/self/fd/…"),
    ("a pin has the name", |s| error(s.dir.create_dir("map", 0o700)),
        "create directory {fs}/map: {fs}/map is not a directory"),
    ("a mode out of range", |s| error(s.dir.create_dir("new", 0o177777)),
        "create directory {fs}/new: mode is 0o177777, and the limit is 0o7777"),
    ("a name with a slash", |s| error(s.dir.metadata("a/b")),
        "stat {fs}/a/b: \"a/b\" contains '/', and a name in a directory is one component"),
    ("pins in the directory", |s| error(s.dir.remove_dir("dir")),
        "remove {fs}/dir: {fs}/dir is not empty"),
    ("no pin", |s| error(s.dir.unlink("none")),
        "unpin {fs}/none: {fs}/none does not exist"),
    ("the new name is taken", |s| error(s.dir.link("map", "prog")),
        "link {fs}/map as {fs}/prog: program {prog} is pinned there already"),
    ("the other name is taken", |s| error(s.dir.rename("map", "prog")),
        "rename {fs}/map to {fs}/prog: program {prog} is pinned there already"),
    ("nothing to exchange with", |s| error(s.dir.exchange("map", "none")),
        "exchange {fs}/map and {fs}/none: {fs}/none does not exist"),
    ("a directory in its place", |s| error(s.dir.replace(&s.map, "dir")),
        "replace {fs}/dir: {fs}/dir is a directory on bpffs, not a BPF object"),
    ("another object is pinned there", |s| error(s.dir.unpin(&s.prog, "map")),
        "unpin {fs}/map: the pin holds map {map}, expected program {prog}; nothing was changed"),
    ("a pin where a set is to be", |s| error(s.dir.stage("map").and_then(|stage| Ok(stage.publish()?))),
        "publish {fs}/map: {fs}/map is not a directory"),
    ("the mode of nothing", |s| error(s.dir.set_mode("none", 0o600)),
        "change the mode of {fs}/none: {fs}/none does not exist"),
    ("an owner that is none", |s| error(s.dir.set_owner("map", Some(u32::MAX), None)),
        "change the owner of {fs}/map: the user or group id is 4294967295, which means \"no change\""),
];

#[rustfmt::skip]
const MAPS: &[Row] = &[
    ("a size that the type refuses", |_| error(MapSpec::new(MapType::HASH, 0, 8, 8).create()),
        "create hash map: key_size must be more than 0"),
    ("more entries than there may be", |_| error(MapSpec::new(MapType::HASH, 4, 8, u32::MAX).create()),
        "create hash map: max_entries is 4294967295, more than this kernel allows for this hash map"),
    ("a value that is too large", |_| error(MapSpec::new(MapType::ARRAY, 4, u32::MAX, 1).name("invalid").create()),
        "create array map \"invalid\": E2BIG"),
    ("a ring buffer of another size", |_| error(MapSpec::new(MapType::RINGBUF, 0, 0, 3).create()),
        "create ringbuf map: max_entries must be a power of two and at least the page size"),
    ("a name that is none", |_| error(MapSpec::new(MapType::ARRAY, 4, 8, 1).name("a-b").create()),
        "create array map: the name \"a-b\" is not valid: it may have up to 15 letters, digits, '_' and '.'"),
    ("no template of a map of maps", |_| error(MapSpec::new(MapType::ARRAY_OF_MAPS, 4, 4, 1).name("outer").create()),
        "create array_of_maps map \"outer\": inner_map requires a descriptor, and none was given"),
    ("a frozen map", |s| { s.map.freeze().unwrap(); error(s.map.freeze()) },
        "freeze map {map} \"test_hash\": the map is frozen already"),
    ("a hash", |s| error(s.map.mmap::<AtomicU64>()),
        "mmap map {map} \"test_hash\": only an array created with BPF_F_MMAPABLE can be mapped, and this hash map is not one"),
    ("keys of another size", |s| error(s.map.elements::<u64, u64>()),
        "view the elements of map {map} \"test_hash\": the key has 8 bytes, but the map's keys have 4"),
    ("a descriptor for writing", |s| error(write_only(s).elements::<u32, u64>().unwrap().lookup(&0)),
        "look up in map {map} \"test_hash\": the map was opened for writing only"),
    ("a key that is there", |s| {
        let elements = s.map.elements::<u32, u64>().unwrap();
        elements.update(&1, &1, ElemFlags::ANY).unwrap();
        error(elements.update(&1, &2, ElemFlags::NOEXIST))
    }, "update map {map} \"test_hash\": the key exists already"),
    ("two flags that exclude each other", |s| error(s.map.elements::<u32, u64>().unwrap().update(&1, &1, ElemFlags::NOEXIST | ElemFlags::EXIST)),
        "update map {map} \"test_hash\": flags cannot contain both BPF_NOEXIST and BPF_EXIST"),
    ("a flag for values with a lock", |s| error(s.map.elements::<u32, u64>().unwrap().update(&1, &1, ElemFlags::LOCK)),
        "update map {map} \"test_hash\": flags contain BPF_F_LOCK, but no BTF describes a bpf_spin_lock in the map's values"),
    ("a descriptor for reading", |s| error(read_only(s).elements::<u32, u64>().unwrap().delete(&0)),
        "delete from map {map} \"test_hash\": the map was opened for reading only"),
    ("taking by a descriptor for reading", |s| error(read_only(s).elements::<u32, u64>().unwrap().take(&0)),
        "take from map {map} \"test_hash\": the map was opened for reading only"),
    ("keys by a descriptor for writing", |s| error(write_only(s).elements::<u32, u64>().unwrap().next_key(None, &mut 0)),
        "find the next key in map {map} \"test_hash\": the map was opened for writing only"),
    ("more keys than values", |s| error(s.map.elements::<u32, u64>().unwrap().update_batch(&[1, 2, 3], &[1, 2], ElemFlags::ANY)),
        "update a batch in map {map} \"test_hash\": 3 keys but 2 values"),
    ("the second key is there", |s| {
        let elements = s.map.elements::<u32, u64>().unwrap();
        elements.update(&2, &2, ElemFlags::ANY).unwrap();
        error(elements.update_batch(&[1, 2], &[1, 2], ElemFlags::NOEXIST))
    }, "update a batch in map {map} \"test_hash\" after 1 element: the key exists already"),
    ("a pinned map of other sizes",
        |s| error(s.dir.open_or_create("map", &MapSpec::new(MapType::HASH, 4, 16, 8), Reuse::Exact)),
        "open or create {fs}/map: map {map} does not match: value_size is 8, not 16"),
    ("a migration to a stack", |s| {
        let to = MapSpec::new(MapType::STACK, 0, 8, 8);
        let keeps = |_: &[u8], _: &[u8], _: &mut [u8], _: &mut [u8]| true;
        error(s.dir.open_or_create("map", &to, Reuse::Migrate(&mut Migrate::bytes(keeps))))
    }, "migrate {fs}/map: view the elements of a map: maps of type stack cannot be copied"),
    ("a migration to a full map", |s| {
        s.map.elements::<u32, u64>().unwrap().update_batch(&[1, 2], &[1, 2], ElemFlags::ANY).unwrap();
        let to = MapSpec::new(MapType::HASH, 4, 16, 1);
        let widen = |key: &u32, value: &u64| Some((*key, [*value; 2]));
        error(s.dir.open_or_create("map", &to, Reuse::Migrate(&mut Migrate::new(widen))))
    }, "migrate {fs}/map: update a batch in map …"),
];

#[rustfmt::skip]
const PROGRAMS_AND_LINKS: &[Row] = &[
    ("no instructions", |_| error(ProgSpec::new(ProgType::XDP, &[]).load()),
        "load xdp program: insns is empty"),
    ("a name of a program that is none", |_| error(ProgSpec::new(ProgType::XDP, &[bpf_pin::prog::Insn::exit()]).name("a-b").load()),
        "load xdp program: the name \"a-b\" is not valid: it may have up to 15 letters, digits, '_' and '.'"),
    ("an incomplete record", |_| {
        let insns = [bpf_pin::prog::Insn::exit()];
        error(ProgSpec::new(ProgType::SOCKET_FILTER, &insns).func_info(&[0; 15], 8).load())
    }, "load socket_filter program: func_info has 15 bytes, not a multiple of the record size 8"),
    ("a program that is refused", |_| {
        let insns = [bpf_pin::prog::Insn::mov64_reg(0, 2), bpf_pin::prog::Insn::exit()];
        error(ProgSpec::new(ProgType::SOCKET_FILTER, &insns).name("bad").load_with_log(bpf_pin::types::LogLevel::LEVEL1))
    }, "load socket_filter program \"bad\": EACCES; the verifier's log ends:…"),
    ("a short packet", |s| error(s.prog.test_run(TestRun::new().data_in(&[0; 4]))),
        "run a program: data_size_in must be 14 or more"),
    ("no BTF", |_| error(Btf::load(b"none")),
        "load BTF: EINVAL…"),
    ("no such device", |_| error(LinkSpec::xdp(4711).create(&xdp_prog())),
        "attach a program to xdp of device 4711: there is no network device 4711 in this thread's network namespace"),
    ("an attach type of another target", |s| error(LinkSpec::tcx(1, AttachType::XDP).create(&s.prog)),
        "attach a program to xdp of device 1: attach_type xdp cannot be used with a tcx device"),
    ("an option of another target", |s| error(LinkSpec::raw_tracepoint(c"sched_switch").xdp_flags(XdpFlags::SKB_MODE).create(&s.prog)),
        "attach a program to trace_raw_tp: xdp_flags cannot be set for a raw tracepoint"),
    ("no device to query", |_| error(LinkSpec::xdp(4711).query()),
        "query the programs of xdp of device 4711: there is no network device 4711 in this thread's network namespace"),
    ("a query of a tracepoint", |_| error(LinkSpec::raw_tracepoint(c"sched_switch").query()),
        "query the programs of trace_raw_tp: the target of a raw tracepoint cannot be queried"),
    ("a program of another type", |s| error(s.link.update(&s.prog)),
        "update link {link}: program {prog} is of type socket_filter, and sk_lookup takes sk_lookup"),
    ("flags that the kernel refuses", |_| error(LinkSpec::xdp(LOOPBACK).flags(1 << 31).create(&xdp_prog())),
        "attach a program to xdp of device 1: xdp_flags 0x80000000 of a link to a network device are not accepted: a link takes one mode"),
    ("a file that is not a cgroup", |_| {
        let file = File::open("/proc/self/status").unwrap();
        error(LinkSpec::cgroup(&file, AttachType::CGROUP_INET_EGRESS).create(&cgroup_prog()))
    }, "attach a program to cgroup_inet_egress: it is a file on proc, not a cgroup2 directory"),
    ("an extension with a cookie", |s| error(LinkSpec::freplace(&s.prog, 4).cookie(1).create(&s.prog)),
        "replace function 4 of program {prog}: cookie cannot be set for a program's function"),
    ("no such link", |_| error(Link::from_id(u32::MAX)),
        "open link 4294967295: no link has this id"),
    ("a detached link", |s| {
        let _ = s.link.detach();
        error(s.link.update(&sk_lookup_prog()))
    }, "update link {link}: the link is detached"),
    ("a link that cannot be detached", |_| {
        let prog = prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0);
        let link = LinkSpec::raw_tracepoint(c"sched_process_exec").create(&prog).unwrap();
        error(link.detach())
    }, "detach link …"),
    ("a program of another type under a pin", |s| error(s.dir.open_or_attach("new", &LinkSpec::xdp(LOOPBACK), &s.prog)),
        "open or attach {fs}/new: attach a program to xdp of device 1: program {prog} is of type socket_filter, and xdp takes xdp"),
    ("no iterator", |s| error(s.link.iter()),
        "create an iterator: links of type netns are not iterators"),
    ("a pinned link of another target", |s| error(s.dir.open_or_attach("link", &LinkSpec::xdp(1), &s.prog)),
        "open or attach {fs}/link: update link {link}: it is attached to sk_lookup of network namespace …"),
];

#[rustfmt::skip]
const LINK_ARGUMENTS: &[Row] = &[
    ("a network namespace and an unknown attach type", |_| with_file(|file| error(LinkSpec::netns(file, AttachType(4711)).create(&prog()))),
        "attach a program to type 4711: attach_type type 4711 cannot be used with a network namespace"),
    ("a cgroup and an attach type of TCX", |_| with_file(|file| error(LinkSpec::cgroup(file, AttachType::TCX_EGRESS).create(&prog()))),
        "attach a program to tcx_egress: attach_type tcx_egress cannot be used with a cgroup"),
    ("TCX and an attach type of cgroups", |s| error(LinkSpec::tcx(LOOPBACK, AttachType::CGROUP_INET_EGRESS).create(&s.prog)),
        "attach a program to cgroup_inet_egress of device 1: attach_type cgroup_inet_egress cannot be used with a tcx device"),
    ("netkit and an attach type of TCX", |s| error(LinkSpec::netkit(LOOPBACK, AttachType::TCX_EGRESS).create(&s.prog)),
        "attach a program to tcx_egress of device 1: attach_type tcx_egress cannot be used with a netkit device"),
    ("a sockmap and an attach type of XDP", |s| error(LinkSpec::sockmap(&s.map, AttachType::XDP).create(&s.prog)),
        "attach a program to xdp: attach_type xdp cannot be used with a sockmap"),
    ("a function and an attach type of XDP", |s| error(LinkSpec::tracing(AttachType::XDP).create(&s.prog)),
        "attach a program to xdp: attach_type xdp cannot be used with a function"),
    ("XDP and a position", |s| error(LinkSpec::xdp(LOOPBACK).position(Position::First).create(&s.prog)),
        "attach a program to xdp of device 1: position cannot be set for a network device"),
    ("XDP and a revision", |s| error(LinkSpec::xdp(LOOPBACK).expected_revision(1).create(&s.prog)),
        "attach a program to xdp of device 1: expected_revision cannot be set for a network device"),
    ("a network namespace and a position", |_| with_file(|file| error(LinkSpec::netns(file, AttachType::SK_LOOKUP).position(Position::Last).create(&prog()))),
        "attach a program to sk_lookup: position cannot be set for a network namespace"),
    ("a network namespace and a cookie", |_| with_file(|file| error(LinkSpec::netns(file, AttachType::SK_LOOKUP).cookie(1).create(&prog()))),
        "attach a program to sk_lookup: cookie cannot be set for a network namespace"),
    ("TCX and a flag without its link", |s| error(LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS).flags(abi::BPF_F_LINK | abi::BPF_F_BEFORE).create(&s.prog)),
        "attach a program to tcx_ingress of device 1: BPF_F_LINK requires a descriptor, and none was given"),
    ("TCX and a flag without its program", |s| error(LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS).flags(abi::BPF_F_REPLACE).create(&s.prog)),
        "attach a program to tcx_ingress of device 1: BPF_F_REPLACE requires a descriptor, and none was given"),
    ("TCX and a flag of positions", |s| error(LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS).flags(abi::BPF_F_ID).create(&s.prog)),
        "attach a program to tcx_ingress of device 1: flags contain BPF_F_ID, which is set by a position"),
    ("TCX and flags of XDP", |s| error(LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS).xdp_flags(XdpFlags::HW_MODE).create(&s.prog)),
        "attach a program to tcx_ingress of device 1: xdp_flags cannot be set for a tcx device"),
    ("a function and flags", |s| error(LinkSpec::tracing(AttachType::TRACE_FENTRY).flags(1).create(&s.prog)),
        "attach a program to trace_fentry: flags cannot be set for a function"),
    ("a function and cookies", |s| error(LinkSpec::tracing(AttachType::TRACE_FENTRY).cookies(&[1]).create(&s.prog)),
        "attach a program to trace_fentry: cookies cannot be set for a function"),
    ("uprobes and one cookie", |s| error(uprobes(&[]).cookie(1).create(&s.prog)),
        "attach a program to trace_uprobe_multi: cookie cannot be set for a set of uprobes"),
    ("fewer cookies than uprobes", |s| error(uprobes(&[]).cookies(&[1]).create(&s.prog)),
        "attach a program to trace_uprobe_multi: cookies has 1 elements, expected 2 or none"),
    ("more counters than uprobes", |s| error(uprobes(&[1, 2, 3]).create(&s.prog)),
        "attach a program to trace_uprobe_multi: ref_ctr_offsets has 3 elements, expected 2 or none"),
    ("uprobes and a flag without its descriptor", |s| error(uprobes(&[]).flags(abi::BPF_F_UPROBE_MULTI_PATH_FD).create(&s.prog)),
        "attach a program to trace_uprobe_multi: BPF_F_UPROBE_MULTI_PATH_FD requires a descriptor, and none was given"),
    ("more cookies than kprobes", |s| error(LinkSpec::kprobe_multi(&[c"do_exit"]).cookies(&[1, 2]).create(&s.prog)),
        "attach a program to trace_kprobe_multi: cookies has 2 elements, expected 1 or none"),
    ("an iterator and a session", |s| error(LinkSpec::iter().session().create(&s.prog)),
        "attach a program to trace_iter: session cannot be set for a iterator"),
];

fn with_file(call: fn(&File) -> Error) -> Error {
    call(&File::open("/proc/self/status").expect("a file"))
}

fn uprobes(ref_ctr_offsets: &'static [u64]) -> LinkSpec<'static> {
    // SAFETY: no program is attached.
    let points = unsafe { Uprobes::new(c"/proc/self/exe", &[1, 2]) };
    // SAFETY: as above.
    LinkSpec::uprobe_multi(unsafe { points.ref_ctr_offsets(ref_ctr_offsets) })
}

#[rustfmt::skip]
const MOUNTS: &[Row] = &[
    ("no such path", |s| error(FileSystem::at(s.fs.at("none"))),
        "statfs {fs}/none: {fs}/none does not exist"),
    ("no bpffs", |_| error(Bpffs::at("/proc")),
        "find a bpffs at /proc: /proc is on proc, not on a bpffs"),
    ("no path to inspect", |_| error(Bpffs::inspect("")),
        "inspect: the path is empty"),
    ("a path to inspect with a NUL", |_| error(Bpffs::inspect("/proc\0")),
        "inspect /proc\\0: the path contains a NUL byte at offset 5"),
    ("an option out of range", |_| error(MountOptions::new().mode(0o10000).detached()),
        "create a bpffs: mode is 0o10000, and the limit is 0o7777"),
    ("no directory to mount on", |_| error(MountOptions::new().mount("/nowhere")),
        "mount a bpffs at /nowhere: /nowhere does not exist: create the directory first"),
    ("a bpffs that is covered", |_| in_mount_namespace(covered_bpffs),
        "list the bpffs mounted at …"),
    ("an option of the other side", |s| error(MountOptions::new().delegate_maps([MapType::HASH]).request_delegation(&s.map)),
        "request a delegated bpffs: delegate_maps can only be set by the other side"),
];

fn covered_bpffs() -> Error {
    let dir = tempfile::tempdir().expect("a directory");
    let bpffs = MountOptions::new().mount(dir.path()).expect("a bpffs");
    mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
    let found = Inventory::take().expect("an inventory").find_map(|pin| {
        let is_below = |error: &Error| error.path() == Some(dir.path());
        pin.err().filter(is_below)
    });
    for _ in 0..2 {
        unmount(dir.path(), UnmountFlags::DETACH).expect("two mounts");
    }
    drop(bpffs);
    found.expect("an error")
}

fn read_only(scene: &Scene) -> Map {
    Map::open_with(scene.fs.at("map"), bpf_pin::Access::ReadOnly).expect("a map to read")
}

fn write_only(scene: &Scene) -> Map {
    Map::open_with(scene.fs.at("map"), bpf_pin::Access::WriteOnly).expect("a map to write")
}

/// Each row gets a scene of its own. A text that ends with "…" is a prefix of the sentence.
fn check(table: &[Row]) -> Outcome {
    for (situation, call, text) in table {
        let scene = Scene::new()?;
        let text = scene.fill(text)?;
        let message = call(&scene).to_string();
        match text.strip_suffix('…') {
            Some(begin) => assert!(message.starts_with(begin), "{situation}: {message}"),
            None => assert_eq!(message, text, "{situation}"),
        }
    }
    Ok(())
}

const NEEDS: &[Need] = &[cap::SYS_ADMIN, cap::BPF, cap::NET_ADMIN, kernel(5, 15)];

#[common::test(NEEDS)]
fn pins_and_descriptors_say_what_failed() -> Outcome {
    check(PINS)
}

#[common::test(NEEDS)]
fn directories_say_what_failed() -> Outcome {
    check(DIRECTORIES)
}

#[common::test(NEEDS)]
fn maps_and_elements_say_what_failed() -> Outcome {
    check(MAPS)
}

#[common::test(NEEDS)]
fn programs_and_links_say_what_failed() -> Outcome {
    check(PROGRAMS_AND_LINKS)
}

#[common::test(NEEDS)]
fn arguments_of_links_are_named() -> Outcome {
    check(LINK_ARGUMENTS)
}

#[common::test(NEEDS)]
fn mounts_say_what_failed() -> Outcome {
    check(MOUNTS)
}
