//! The sentence of every cause, with a situation in which it occurs.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bpf_pin::abi::Version;
use bpf_pin::bpffs::FileSystem;
use bpf_pin::error::{Cause, ObjectType};
use bpf_pin::map::Mismatch;
use bpf_pin::probe::Capability;
use bpf_pin::reuse::LinkMismatch;
use bpf_pin::types::{AttachType, Command, LinkType, MapType, ProgType};
use bpf_pin::{Access, Identity, Kind};
use common::*;

fn path(path: &str) -> PathBuf {
    path.into()
}

fn object(kind: Kind, id: u32) -> Identity {
    Identity { kind, id }
}

fn invalid(what: &'static str, problem: &'static str) -> Cause {
    let problem = problem.into();
    Cause::InvalidArgument { what, problem }
}

fn invalid_path(problem: &'static str) -> Cause {
    let problem = problem.into();
    Cause::InvalidPath { problem }
}

fn handshake(problem: &'static str) -> Cause {
    let problem = problem.into();
    Cause::Handshake { problem }
}

fn unsupported(object_type: ObjectType, problem: &'static str) -> Cause {
    Cause::UnsupportedType {
        object_type,
        problem,
    }
}

/// The situation, the cause, and its sentence.
type Row = (&'static str, Cause, &'static str);

#[rustfmt::skip]
fn paths_and_names(proc: FileSystem) -> Vec<Row> {
    vec![
        ("nothing has the name", Cause::Missing { path: path("/sys/fs/bpf/flows") },
            "/sys/fs/bpf/flows does not exist"),
        ("a name that would move the cursor", Cause::Missing { path: path("/sys/fs/bpf/a\u{1b}[2J") },
            "/sys/fs/bpf/a\\u{1b}[2J does not exist"),
        ("an object has the name", Cause::Exists { holder: Some(object(Kind::Map, 7)) },
            "map 7 is pinned there already"),
        ("something else has the name", Cause::Exists { holder: None },
            "the name is taken already"),
        ("another file system", Cause::NotBpffs { path: path("/proc/self"), found: proc, missing: None, hidden: None },
            "/proc/self is on proc, not on a bpffs"),
        ("a directory is missing on another file system",
            Cause::NotBpffs { path: path("/proc"), found: proc, missing: Some(path("/proc/app")), hidden: None },
            "/proc/app does not exist, and /proc is on proc, not on a bpffs"),
        ("nothing is mounted where a bpffs usually is",
            Cause::NotBpffs { path: path("/sys/fs/bpf"), found: proc, missing: None, hidden: None },
            "/sys/fs/bpf is on proc, not on a bpffs; to mount one: mount -t bpf bpf /sys/fs/bpf"),
        ("a name alone, in the working directory",
            Cause::NotBpffs { path: path("."), found: proc, missing: None, hidden: None },
            "the working directory, where the path begins, is on proc, not on a bpffs"),
        ("a relative path", Cause::NotBpffs { path: path("app"), found: proc, missing: None, hidden: None },
            "app is on proc, not on a bpffs; the path is relative to the working directory"),
        ("a file of another file system",
            Cause::NotAnObject { path: path("/proc/version"), what: "file", found: proc },
            "/proc/version is a file on proc, not a BPF object"),
        ("a path that continues below a pin", Cause::NotADirectory { path: path("/sys/fs/bpf/flows") },
            "/sys/fs/bpf/flows is not a directory"),
        ("a symbolic link", Cause::SymbolicLink { path: path("/sys/fs/bpf/link") },
            "/sys/fs/bpf/link is a symbolic link, which is not followed"),
        ("a name with a dot", Cause::Dot { component: "a.b".into() },
            "\"a.b\" contains '.', which bpffs does not allow in names"),
        ("the parent directory", Cause::Dot { component: "..".into() },
            "\"..\" is not a name in a directory"),
        ("no path", invalid_path("the path is empty"),
            "the path is empty"),
        ("a long name", Cause::TooLong { what: "name", length: 256, limit: 255 },
            "the name has 256 bytes, and the limit is 255"),
    ]
}

#[rustfmt::skip]
fn permissions() -> Vec<Row> {
    let blocked = |read_only_would_do| Cause::Blocked {
        path: path("/sys/fs/bpf/flows"),
        mode: 0o640,
        uid: 0,
        wanted: "read and write",
        read_only_would_do,
    };
    vec![
        ("the mode denies it", blocked(false),
            "/sys/fs/bpf/flows (mode 0640, owner 0) denies this user read and write access"),
        ("the mode allows reading", blocked(true),
            "/sys/fs/bpf/flows (mode 0640, owner 0) denies this user read and write access; open it with Access::ReadOnly"),
        ("a sticky directory", Cause::Sticky { directory: path("/sys/fs/bpf"), uid: 1000 },
            "/sys/fs/bpf is a sticky directory, and the pin belongs to user 1000"),
        ("another user's file", Cause::NotOwner { path: path("/sys/fs/bpf/flows"), uid: 1000 },
            "/sys/fs/bpf/flows belongs to user 1000"),
        ("an owner from outside the user namespace", Cause::UnmappedOwner { what: "group", id: 65534 },
            "its group has no mapping in this user namespace (it shows as 65534), so it cannot be kept"),
        ("a read-only mount", Cause::ReadOnlyFileSystem { path: path("/sys/fs/bpf") },
            "/sys/fs/bpf is on a read-only file system"),
        ("no capability", Cause::MissingCapability { capability: Capability::Bpf, needed_for: "loading BTF" },
            "this thread lacks CAP_BPF, needed for loading BTF"),
        ("capabilities in a user namespace", Cause::UserNamespace,
            "this thread has its capabilities in a user namespace, where bpf(2) ignores them"),
        ("a seccomp filter", Cause::Filtered { command: bpf_pin::types::Command::MAP_CREATE },
            "a seccomp filter of this thread rejects the command map_create of bpf(2)"),
        ("a freeze without a writable descriptor and without CAP_BPF", Cause::FreezeDenied,
            "freezing requires a writable descriptor or CAP_BPF, depending on the kernel, and both are missing"),
    ]
}

#[rustfmt::skip]
fn kinds() -> Vec<Row> {
    let not_bpf = |found| Cause::WrongDescriptor { expected: "a map, program or link", found };
    vec![
        ("a program where a map was asked for", Cause::WrongKind { expected: Kind::Map, found: Kind::Prog },
            "it is a program, not a map"),
        ("a descriptor of another sort", not_bpf(Some("anon_inode:[eventfd]".into())),
            "it is anon_inode:[eventfd], not a map, program or link"),
        ("the same without /proc", not_bpf(None),
            "it is not a map, program or link"),
        ("no proof of the kind", Cause::Unproven { info_errno: None },
            "its kind could not be proven"),
        ("no info of the object", Cause::Unproven { info_errno: Some(libc::EPERM) },
            "it could not be identified: BPF_OBJ_GET_INFO_BY_FD failed with EPERM"),
        ("an id that no object has", Cause::NoSuchId { what: "map" },
            "no map has this id"),
        ("an update of a link that has none", unsupported(ObjectType::Link(LinkType::ITER), "cannot be updated"),
            "links of type iter cannot be updated"),
        ("a detach of a link that has none", unsupported(ObjectType::Link(LinkType::RAW_TRACEPOINT), "are detached only with their last descriptor and pin"),
            "links of type raw_tracepoint are detached only with their last descriptor and pin"),
        ("programs in a hash", unsupported(ObjectType::Map(MapType::HASH), "do not hold programs"),
            "maps of type hash do not hold programs"),
        ("a test run of another type", unsupported(ObjectType::Prog(ProgType::KPROBE), "cannot be test-run on this kernel"),
            "programs of type kprobe cannot be test-run on this kernel"),
    ]
}

#[rustfmt::skip]
fn directories() -> Vec<Row> {
    vec![
        ("the pin was replaced", Cause::Replaced { expected: object(Kind::Map, 7), found: object(Kind::Map, 9) },
            "the pin holds map 9, expected map 7; nothing was changed"),
        ("a race with another process for the name",
            Cause::Displaced { path: path("/sys/fs/bpf/a"), now_at: path("/sys/fs/bpf/b") },
            "another process changed /sys/fs/bpf/a during the call; what it put there is now at /sys/fs/bpf/b"),
        ("the directory is gone", Cause::Removed { path: path("/sys/fs/bpf/app") },
            "the directory /sys/fs/bpf/app was removed"),
        ("the directory has another path", Cause::Moved { path: path("/sys/fs/bpf/app") },
            "/sys/fs/bpf/app now leads to another directory, or to none"),
        ("a mount point", Cause::MountPoint { path: path("/sys/fs/bpf") },
            "/sys/fs/bpf is a mount point"),
        ("a directory with pins", Cause::NotEmpty { path: path("/sys/fs/bpf/app") },
            "/sys/fs/bpf/app is not empty"),
        ("another process has the lock", Cause::Locked,
            "the directory is locked by another process or thread"),
    ]
}

#[rustfmt::skip]
fn maps() -> Vec<Row> {
    let size = |what, expected, found| Cause::Size { what, expected, found };
    let mismatches = vec![
        Mismatch::KeySize { expected: 8, found: 4 },
        Mismatch::MapType { expected: MapType::HASH, found: MapType::ARRAY },
    ];
    let of_inner = vec![
        Mismatch::InnerValueSize { expected: 16, found: 8 },
        Mismatch::InnerMapType { expected: MapType::HASH, found: MapType::ARRAY },
    ];
    let of_element = vec![Mismatch::ValueSize { expected: 8, found: 16 }];
    vec![
        ("a map of maps for other maps", Cause::Mismatch { id: 7, mismatches: of_inner },
            "map 7 does not match: the inner map's value_size is 8, not 16; the inner map's map_type is array, not hash"),
        ("an element of a map of maps for others", Cause::OtherInnerMap { mismatches: of_element },
            "the map differs from the inner map that the map of maps was created with: value_size is 16, not 8"),
        ("a pinned map is another one than asked for", Cause::Mismatch { id: 7, mismatches },
            "map 7 does not match: key_size is 4, not 8; map_type is array, not hash"),
        ("another process migrates it", Cause::Migrating,
            "the map of this name is being migrated by another process or thread"),
        ("a new key that exists", Cause::KeyExists,
            "the key exists already"),
        ("an old key that does not", Cause::KeyMissing,
            "the key does not exist"),
        ("a full hash", Cause::MaxEntries { max_entries: 1024 },
            "the map is full: max_entries is 1024"),
        ("an index beyond the end", Cause::IndexOutOfRange { index: 4, max_entries: 4 },
            "index 4 is out of range: max_entries is 4"),
        ("a key of another size", size("key", 4, 8),
            "the key has 8 bytes, but the map's keys have 4"),
        ("too few values for the CPUs", size("number of values", 4, 1),
            "the number of values is 1, expected 4"),
        ("more keys than values", Cause::LengthMismatch { keys: 3, values: 2 },
            "3 keys but 2 values"),
        ("a small batch", Cause::BufferTooSmall { what: "batch", room: 2, needed: None },
            "the batch has room for 2 elements, and a bucket of the hash has more"),
        ("a small buffer for a packet", Cause::BufferTooSmall { what: "data_out", room: 1, needed: Some(64) },
            "data_out has room for 1 bytes, and 64 are needed"),
        ("one value of a per-CPU map", Cause::PerCpu { is_per_cpu: true },
            "the map has a value for each CPU: use PerCpu"),
        ("values for each CPU of another map", Cause::PerCpu { is_per_cpu: false },
            "the map has one value for all CPUs: do not use PerCpu"),
        ("no /sys", Cause::PossibleCpus { problem: "no such file".into() },
            "the number of possible CPUs is unknown: no such file"),
        ("deleting from an array",
            Cause::NoCommand { command: Command::MAP_DELETE_ELEM, map_type: MapType::ARRAY },
            "maps of type array do not support map_delete_elem"),
        ("writing by a descriptor for reading", Cause::MapAccess { opened: Access::ReadOnly },
            "the map was opened for reading only"),
        ("writing to a frozen map", Cause::Frozen,
            "the map is frozen"),
        ("freezing a map that is mapped", Cause::BeingWritten,
            "the map is mapped into memory for writing, or is being written"),
        ("mapping a map of constants for writing", Cause::ReadOnlyForProgs,
            "the map was created with BPF_F_RDONLY_PROG, so it can be mapped for reading only"),
        ("mapping a hash", Cause::NotMmapable { map_type: MapType::HASH },
            "only an array created with BPF_F_MMAPABLE can be mapped, and this hash map is not one"),
        ("a map that never settles", Cause::IterationAborted,
            "the map changed too often during the iteration, so it was given up"),
        ("an XDP program in an array of others",
            Cause::OtherProgType { owner: ProgType::SOCKET_FILTER, found: ProgType::XDP },
            "the program is of type xdp, and the array is for programs of type socket_filter"),
        ("a program for packets in fragments in an array of others", Cause::IncompatibleProg { prog_id: 7 },
            "the program cannot be in one array with program 7: they differ in expected_attach_type, BPF_F_XDP_HAS_FRAGS, or how they are executed"),
        ("values that contain addresses", Cause::Uptr { problem: None },
            "the map's BTF has the tag \"uptr\": a value may contain an address at which programs write to this process's memory"),
        ("values whose BTF cannot be read", Cause::Uptr { problem: Some("EPERM".into()) },
            "the map's BTF cannot be read (EPERM), so a value may contain an address at which programs write to this process's memory"),
    ]
}

#[rustfmt::skip]
fn programs_and_links() -> Vec<Row> {
    const TAKES: &[ProgType] = &[ProgType::SCHED_CLS, ProgType::SCHED_ACT, ProgType::XDP];
    let wrong_type = Cause::WrongProgType {
        prog_id: 7,
        found: ProgType::KPROBE,
        attach_type: AttachType::TCX_INGRESS,
        takes: TAKES,
    };
    let elsewhere = Cause::AttachedElsewhere { expected: "xdp of device 1".into(), found: "xdp of device 2".into() };
    let link_mismatch = |found, place| {
        let (driver, first) = ("driver", "first".to_owned());
        let mode = LinkMismatch::XdpMode { expected: driver, found };
        let position = LinkMismatch::Position { expected: first, found: place };
        Cause::LinkMismatch { mismatches: vec![mode, position] }
    };
    vec![
        ("a program for another attach type", Cause::NotLoadedFor { attach_type: AttachType::SK_LOOKUP },
            "the program was not loaded for sk_lookup"),
        ("an XDP program for another attach type",
            Cause::ExpectedAttachType { expected: Some(AttachType::XDP), found: Some(AttachType(0)) },
            "the program was loaded without expected_attach_type, and the link's program with expected_attach_type xdp"),
        ("the same where the kernel does not show it", Cause::ExpectedAttachType { expected: None, found: None },
            "the program was likely loaded with another expected_attach_type than the link's program"),
        ("a program of another type", wrong_type,
            "program 7 is of type kprobe, and tcx_ingress takes sched_cls, sched_act or xdp"),
        ("a helper under lockdown", Cause::Lockdown { level: "integrity".into() },
            "the kernel is locked down (integrity) and withholds a helper that the program calls"),
        ("no such device", Cause::NoTarget { what: "network device 7 in this thread's network namespace".into() },
            "there is no network device 7 in this thread's network namespace"),
        ("a device with an XDP program", Cause::XdpAttached { ifindex: 1, prog_id: 7 },
            "device 1 has XDP program 7 already"),
        ("a link of another device", elsewhere,
            "it is attached to xdp of device 2, not to xdp of device 1; nothing was changed"),
        ("a link of another network namespace", Cause::OtherNetns { target: "tcx_ingress of device 50".into() },
            "it is attached to tcx_ingress of device 50 in another network namespace; nothing was changed: use one pin for each network namespace"),
        ("a link that lives without its pin", Cause::AlreadyAttached { prog_id: 7, link_id: Some(9) },
            "program 7 is already attached there by link 9"),
        ("the same of which less is known", Cause::AlreadyAttached { prog_id: 7, link_id: None },
            "program 7 is already attached there"),
        ("a control group with 64 programs", Cause::TargetFull { count: 64 },
            "the target has 64 programs, and takes no more"),
        ("a network namespace with a flow dissector", Cause::TargetFull { count: 1 },
            "the target has 1 program, and takes no more"),
        ("a program that excludes others", Cause::AttachedExclusively { cgroup_id: 690, prog_id: 7 },
            "program 7 is attached to control group 690 without BPF_F_ALLOW_MULTI, and excludes this one"),
        ("options that a pinned link lacks", link_mismatch(Some("generic"), Some((2, 3))),
            "the link does not match: the XDP mode is generic, not driver; the position is 2 of 3, not first"),
        ("options that cannot be read", link_mismatch(None, None),
            "the link does not match: the XDP mode could not be read, expected driver; the position could not be read, expected first"),
        ("a defunct link", Cause::Detached,
            "the link is detached"),
        ("another program was attached meanwhile", Cause::UnexpectedProgram { prog_id: 9 },
            "the link holds program 9, not the one to be replaced"),
        ("another map was registered meanwhile", Cause::UnexpectedMap { map_id: 9 },
            "the link holds map 9, not the one to be replaced"),
        ("a netfilter link that could not come back", Cause::RestoreFailed { prog_id: 7 },
            "the pinned link was detached, and its program 7 could not be attached again"),
    ]
}

#[rustfmt::skip]
fn mounts(proc: FileSystem) -> Vec<Row> {
    let dev = |minor| libc::makedev(0, minor);
    let not_the_root = |path: Option<&str>, root: Option<&str>| {
        Cause::NotTheRoot { path: path.map(PathBuf::from), mount_point: root.map(PathBuf::from) }
    };
    vec![
        ("a directory in a bpffs", not_the_root(Some("/sys/fs/bpf/app"), Some("/sys/fs/bpf")),
            "/sys/fs/bpf/app is a directory within a bpffs, not its root: pass /sys/fs/bpf"),
        ("the same of which less is known", not_the_root(None, None),
            "it is a directory within a bpffs, not its root"),
        ("a detached mount", Cause::NotListed { mount_id: 31 },
            "mount 31 is not in this thread's mountinfo"),
        ("another bpffs at the path", Cause::AnotherInstance { expected: dev(31), found: dev(32) },
            "another bpffs is there (device 0:32, expected 0:31)"),
        ("another mount at the path", Cause::AnotherMount { expected: 31, found: 32 },
            "another mount of the bpffs is there (mount 32, expected 31)"),
        ("another file system at the path", Cause::Occupied { found: proc, mount_id: 31 },
            "proc is mounted there already (mount 31)"),
        ("a mount over a bpffs", Cause::Covered { mount_id: 31, found: proc, by: 32 },
            "mount 31 is covered by proc (mount 32)"),
        ("two processes mount at once", Cause::LostRace,
            "something else was mounted there at the same moment"),
        ("a path with ..", Cause::PathBypassesMount,
            "the path would bypass a mount there: pass one without \"..\" and links"),
        ("something is mounted within", Cause::InUse { mounted: Some(path("/sys/fs/bpf/app")) },
            "it is in use: something is mounted at /sys/fs/bpf/app"),
        ("an open directory", Cause::InUse { mounted: None },
            "it is in use: a file or directory in it is open, or a process has its working directory there"),
        ("a mount namespace of another user namespace", Cause::ForeignUserNamespace { what: "mount namespace" },
            "the mount namespace belongs to another user namespace than this thread's"),
        ("as many mounts as there may be", Cause::MountTableFull { most: 100_000 },
            "the mount namespace, or one that shares its mounts, is full: fs.mount-max is 100000"),
    ]
}

#[rustfmt::skip]
fn tokens() -> Vec<Row> {
    vec![
        ("mounting in a user namespace", Cause::NeedsDelegation,
            "creating a bpffs requires CAP_SYS_ADMIN in the initial user namespace, and this thread is in another; from Linux 6.9 a process that has it can delegate one"),
        ("a token outside a user namespace", Cause::InitialUserNamespace,
            "this thread is in the initial user namespace, which has no tokens and needs none"),
        ("a bpffs without delegation", Cause::NothingDelegated,
            "the bpffs delegates nothing: mount it with delegation options"),
        ("more than was delegated", Cause::NotDelegated { what: "maps of type hash".into() },
            "the token does not allow maps of type hash"),
        ("the other process is gone", Cause::PeerClosed,
            "the other side closed the connection"),
        ("the other process refuses", Cause::PeerRefused { errno: libc::EPERM },
            "the other side refused: EPERM"),
        ("its errno has no name here", Cause::PeerRefused { errno: 4000 },
            "the other side refused: errno 4000"),
        ("no descriptor in a request", handshake("sent no descriptor"),
            "the other side sent no descriptor"),
    ]
}

#[rustfmt::skip]
fn kernels_and_arguments() -> Vec<Row> {
    let ignored = |since| Cause::OptionIgnored { option: "uid", since };
    vec![
        ("an old kernel", Cause::Unsupported { what: "BPF tokens", since: Version::new(6, 9) },
            "this kernel does not support BPF tokens (Linux 6.9)"),
        ("a feature that every supported kernel has", Cause::Unsupported { what: "openat2", since: Version::new(5, 6) },
            "this kernel does not support openat2 (Linux 5.6)"),
        ("an option of a newer kernel", ignored(Some(Version::new(6, 8))),
            "the kernel ignored the option uid (Linux 6.8)"),
        ("an option that every kernel has", ignored(None),
            "the kernel ignored the option uid"),
        ("no /proc", Cause::NoProc { needed_for: "the operation" },
            "the operation requires /proc, which is not mounted or not genuine"),
        ("a limit of locked memory", Cause::Memlock { limit: 65536 },
            "it exceeds RLIMIT_MEMLOCK (65536 bytes), which kernels before Linux 5.11 charge: raise the limit"),
        ("an argument out of range", invalid("mode", "is 0o177777, and the limit is 0o7777"),
            "mode is 0o177777, and the limit is 0o7777"),
    ]
}

fn all() -> Vec<Row> {
    let proc = FileSystem::at("/proc").expect("a /proc");
    [
        paths_and_names(proc),
        permissions(),
        kinds(),
        directories(),
        maps(),
        programs_and_links(),
        mounts(proc),
        tokens(),
        kernels_and_arguments(),
    ]
    .concat()
}

#[common::test]
fn each_cause_says_what_happened() -> Outcome {
    for (situation, cause, sentence) in all() {
        assert_eq!(cause.to_string(), sentence, "{situation}");
        // The sentence can be continued, so it has no period.
        assert!(!sentence.ends_with('.'), "{situation}: {sentence}");
    }
    Ok(())
}

/// Every variant that the library's source declares. `Shadowed` has its sentences in the rows of the mounts.
#[common::test]
fn each_cause_is_in_the_table() -> Outcome {
    // The sources are built in, because guests do not have them.
    let source = include_str!("../../bpf-pin/src/error/cause.rs");
    let (_, variants) = source.split_once("pub enum Cause {").ok_or("no causes")?;
    let (variants, _) = variants.split_once("\n}\n").ok_or("no end")?;
    let name = |line: &str| {
        let line = line.strip_prefix("    ")?;
        let end = line.find(|letter: char| !letter.is_ascii_alphanumeric())?;
        let is_variant = line.starts_with(|letter: char| letter.is_ascii_uppercase());
        is_variant.then(|| line[..end].to_owned())
    };
    let declared: BTreeSet<_> = variants.lines().filter_map(name).collect();
    let mut shown: BTreeSet<_> = all()
        .iter()
        .map(|(_, cause, _)| {
            let name = format!("{cause:?}");
            let end = name.find(|letter: char| !letter.is_ascii_alphanumeric());
            name[..end.unwrap_or(name.len())].to_owned()
        })
        .collect();
    shown.insert("Shadowed".to_owned());
    assert!(declared.len() > 60, "{declared:?}");
    assert_eq!(declared, shown);
    Ok(())
}
