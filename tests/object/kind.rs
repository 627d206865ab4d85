//! A kind is proven before a typed value exists.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::thread;

use bpf_pin::error::{Cause, Failed, Operation};
use bpf_pin::object::{PinnedObject, TypedObject};
use bpf_pin::types::MapFlags;
use bpf_pin::{
    __proof, Access, Error, Kind, Link, Map, MapSpec, MapType, Object, PinnedLink, PinnedMap,
    PinnedProg, Prog, abi,
};
use common::*;
use rustix::fs::{Mode, OFlags};
use rustix::io::DupFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{CapabilitySet, UnshareFlags, unshare_unsafe};

/// Opens the pin at `path` as every type. All but those of `kind` must be rejected.
fn assert_opens_only_as(kind: Kind, path: &std::path::Path) -> Outcome {
    check_open(kind, Kind::Map, Map::open(path).map(drop))?;
    check_open(kind, Kind::Prog, Prog::open(path).map(drop))?;
    check_open(kind, Kind::Link, Link::open(path).map(drop))?;
    check_open(kind, Kind::Map, PinnedMap::open(path).map(drop))?;
    check_open(kind, Kind::Prog, PinnedProg::open(path).map(drop))?;
    check_open(kind, Kind::Link, PinnedLink::open(path).map(drop))?;
    assert_eq!(Object::open(path)?.kind(), kind);
    assert_eq!(PinnedObject::open(path)?.kind(), kind);
    Ok(())
}

fn check_open(kind: Kind, expected: Kind, opened: Result<(), Error>) -> Outcome {
    if kind == expected {
        return Ok(opened?);
    }
    let error = opened.expect_err("another kind");
    let cause = Cause::WrongKind {
        expected,
        found: kind,
    };
    assert_eq!(error.cause(), Some(&cause), "{error}");
    assert_eq!(error.raw_os_error(), None, "no syscall failed");
    Ok(())
}

#[common::test(&[cap::BPF, Need::Bpffs])]
fn maps_and_programs_open_only_as_their_kind() -> Outcome {
    let fs = TestFs::new();
    let (map, prog) = (fs.at("map"), fs.at("prog"));
    let pinned = (hash().pin(&map)?, common::prog().pin(&prog)?);
    assert_opens_only_as(Kind::Map, &map)?;
    assert_opens_only_as(Kind::Prog, &prog)?;
    assert_eq!(Map::open(&map)?.id()?, pinned.0.id()?);
    assert_eq!(Prog::open(&prog)?.id()?, pinned.1.id()?);
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN, cap::NET_ADMIN])]
fn links_open_only_as_links() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let path = fs.at("link");
        let made = NetnsLink::new();
        let id = made.link.id()?;
        made.link.pin(&path)?;
        assert_opens_only_as(Kind::Link, &path)?;
        assert_eq!(Link::open(&path)?.id()?, id);
        Ok(())
    })
}

/// Checks that all proofs agree, and that the two proofs without /proc succeed.
fn assert_proofs_agree(fd: impl AsFd, kind: Kind) {
    let fd = fd.as_fd();
    assert_eq!(__proof::by_info(fd), Some(kind), "by info");
    assert_eq!(__proof::by_command(fd), Some(kind), "by command");
    assert_eq!(__proof::by_proc(fd), Some(kind), "by /proc");
}

#[common::test(&[cap::SYS_ADMIN, cap::NET_ADMIN])]
fn all_proofs_agree_on_every_map_type() -> Outcome {
    let spec = MapSpec::new;
    let mut seen = 0;
    for spec in [
        spec(MapType::HASH, 4, 8, 4),
        spec(MapType::ARRAY, 4, 8, 4),
        spec(MapType::PROG_ARRAY, 4, 4, 4),
        spec(MapType::PERF_EVENT_ARRAY, 4, 4, 4),
        spec(MapType::PERCPU_HASH, 4, 8, 4),
        spec(MapType::PERCPU_ARRAY, 4, 8, 4),
        spec(MapType::STACK_TRACE, 4, 8, 4),
        spec(MapType::CGROUP_ARRAY, 4, 4, 4),
        spec(MapType::LRU_HASH, 4, 8, 4),
        spec(MapType::LRU_PERCPU_HASH, 4, 8, 4),
        spec(MapType::LPM_TRIE, 8, 8, 4).flags(MapFlags::NO_PREALLOC),
        spec(MapType::DEVMAP, 4, 4, 4),
        spec(MapType::SOCKMAP, 4, 4, 4),
        spec(MapType::CPUMAP, 4, 4, 1),
        spec(MapType::SOCKHASH, 4, 4, 4),
        spec(MapType::QUEUE, 0, 8, 4),
        spec(MapType::STACK, 0, 8, 4),
        spec(MapType::DEVMAP_HASH, 4, 4, 4),
        spec(MapType::ARENA, 0, 0, 4).flags(MapFlags::MMAPABLE),
        spec(MapType::BLOOM_FILTER, 0, 8, 4),
        spec(MapType::RHASH, 4, 8, 4).flags(MapFlags::NO_PREALLOC),
    ] {
        // A type that this kernel does not support is EINVAL; the table of types has its own test.
        match spec.create() {
            Ok(map) => assert_proofs_agree(&map, Kind::Map),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
                continue;
            }
        }
        seen += 1;
    }
    assert!(seen >= 18, "only {seen} types of map");
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN, cap::NET_ADMIN])]
fn all_proofs_agree_on_programs_and_links() -> Outcome {
    let fs = TestFs::new();
    assert_proofs_agree(prog(), Kind::Prog);
    assert_proofs_agree(sk_lookup_prog(), Kind::Prog);
    in_network_namespace(|| {
        let made = NetnsLink::new();
        // In /proc a created link has another name than an opened one.
        assert_proofs_agree(&made.link, Kind::Link);
        made.link.pin(fs.at("link"))?;
        assert_proofs_agree(&Link::open(fs.at("link"))?, Kind::Link);
        Ok(())
    })
}

#[common::test(&[cap::SYS_ADMIN, cap::NET_ADMIN])]
fn proofs_work_with_every_access() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("pin");
    let map = hash().pin(&path)?;
    for access in [Access::ReadWrite, Access::ReadOnly, Access::WriteOnly] {
        let opened = Map::open_with(&path, access)?;
        assert_eq!(opened.id()?, map.id()?);
        assert_eq!(Object::open_with(&path, access)?.kind(), Kind::Map);
        let error = Prog::open_with(&path, access).unwrap_err();
        assert_cause_matches!(error, Cause::WrongKind { .. });
        let error = PinnedProg::open_with(&path, access).unwrap_err();
        assert_cause_matches!(error, Cause::WrongKind { .. });
    }
    map.unpin()?;
    prog().pin(&path)?.into_inner();
    for access in [Access::ReadWrite, Access::ReadOnly, Access::WriteOnly] {
        Prog::open_with(&path, access)?;
        assert_eq!(Object::open_with(&path, access)?.kind(), Kind::Prog);
        let error = Map::open_with(&path, access).unwrap_err();
        assert_cause_matches!(error, Cause::WrongKind { .. });
    }
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN, cap::NET_ADMIN])]
fn proofs_work_without_proc() -> Outcome {
    with_mounted_bpffs(|root| {
        let at = |name| root.join(name);
        hash().pin(at("map"))?;
        prog().pin(at("prog"))?;
        detached_link().pin(at("link"))?;
        unmount("/proc", UnmountFlags::DETACH)?;
        while std::fs::exists("/proc/self")? {
            unmount("/proc", UnmountFlags::DETACH)?;
        }
        assert_opens_only_as(Kind::Map, &at("map"))?;
        assert_opens_only_as(Kind::Prog, &at("prog"))?;
        assert_opens_only_as(Kind::Link, &at("link"))?;
        let fd = OwnedFd::from(File::open("/dev/null")?);
        let (_, error) = Map::try_from(fd).unwrap_err().into_parts();
        assert_cause_matches!(error, Cause::WrongDescriptor { found: None, .. });
        assert_eq!(error.operation(), Operation::FromFd);
        PinnedMap::open(at("map"))?.unpin()?;
        Ok(())
    })
}

/// `fd` is rejected as a `T` and comes back open.
fn assert_rejected<T>(fd: OwnedFd) -> (OwnedFd, Error)
where
    T: TypedObject + TryFrom<OwnedFd, Error = Failed<OwnedFd>> + std::fmt::Debug,
{
    let failed = T::try_from(fd).expect_err("not of that kind");
    let (fd, error) = failed.into_parts();
    rustix::io::fcntl_getfd(&fd).expect("still open");
    (fd, error)
}

#[common::test]
fn other_descriptors_are_rejected_and_returned() -> Outcome {
    let (read, write) = rustix::pipe::pipe()?;
    let (one, other) = std::os::unix::net::UnixStream::pair()?;
    for fd in [
        File::open("/dev/null")?.into(),
        File::open("/")?.into(),
        File::open("/proc/self/status")?.into(),
        // For most calls of the kernel this is not a valid descriptor.
        rustix::fs::open("/dev/null", OFlags::PATH, Mode::empty())?,
        read,
        write,
        one.into(),
        other.into(),
    ] {
        let (fd, _) = assert_rejected::<Map>(fd);
        let (fd, _) = assert_rejected::<Prog>(fd);
        let (_, error) = assert_rejected::<Link>(fd);
        assert_cause_matches!(error, Cause::WrongDescriptor { found: Some(_), .. });
    }
    let (_, error) = assert_rejected::<Map>(File::open("/dev/null")?.into());
    assert_eq!(error.operation(), Operation::FromFd);
    let failed = Object::try_from(OwnedFd::from(File::open("/dev/null")?)).unwrap_err();
    let cause = Cause::WrongDescriptor {
        expected: "a map, program or link",
        found: Some("/dev/null".to_owned()),
    };
    assert_fails(failed.error(), Operation::FromFd, None, cause);
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN])]
fn btf_is_rejected() -> Outcome {
    let fd = common::btf_fd();
    for way in [__proof::by_info, __proof::by_command, __proof::by_proc] {
        assert_eq!(way(fd.as_fd()), None);
    }
    let (_, error) = assert_rejected::<Link>(fd);
    let found = Some("anon_inode:btf".to_owned());
    assert_eq!(
        error.cause(),
        Some(&Cause::WrongDescriptor {
            expected: "a map, program or link",
            found
        })
    );
    Ok(())
}

#[common::test(&[cap::BPF])]
fn a_descriptor_of_another_kind_is_returned() -> Outcome {
    let (fd, error) = assert_rejected::<Prog>(hash().into());
    let (expected, found) = (Kind::Prog, Kind::Map);
    assert_eq!(error.cause(), Some(&Cause::WrongKind { expected, found }));
    let (fd, _) = assert_rejected::<Link>(fd);
    let map = Map::try_from(fd).map_err(|_| "it is a map")?;
    assert_eq!(map.info()?.map_type, MapType::HASH);
    let object = Object::try_from(OwnedFd::from(map))?;
    assert_eq!(object.kind(), Kind::Map);
    let (fd, _) = assert_rejected::<Map>(prog().into());
    let prog = Prog::try_from(fd).map_err(|_| "it is a program")?;
    assert_eq!(prog.info()?.name, "test_filter");
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN])]
fn a_fake_proc_is_ignored() -> Outcome {
    in_mount_namespace(|| {
        mount("tmpfs", "/proc", "tmpfs", MountFlags::empty(), None)?;
        for dir in ["/proc/self/fd", "/proc/thread-self/fd"] {
            std::fs::create_dir_all(dir)?;
            for number in 0..1000 {
                symlink("anon_inode:bpf-map", format!("{dir}/{number}"))?;
            }
        }
        let (_, error) = assert_rejected::<Map>(File::open("/dev/null")?.into());
        assert_cause_matches!(error, Cause::WrongDescriptor { found: None, .. });
        Ok(())
    })
}

/// A number can be another descriptor in a thread than in its process.
#[common::test(&[cap::BPF])]
fn proofs_use_the_descriptors_of_the_thread() -> Outcome {
    let map = hash();
    let number = map.as_fd().as_raw_fd();
    let error = thread::scope(|scope| {
        let other = scope.spawn(|| {
            // SAFETY: from here on this thread has its own descriptor table.
            unsafe { unshare_unsafe(UnshareFlags::FILES) }.expect("its own descriptors");
            // SAFETY: the number is this table's copy; the map's owner has another table.
            let copy = unsafe { OwnedFd::from_raw_fd(number) };
            rustix::io::dup3(
                File::open("/dev/null").unwrap(),
                &mut ManuallyDrop::new(copy),
                DupFlags::CLOEXEC,
            )
            .unwrap();
            // SAFETY: it was just opened in this table.
            let null = unsafe { OwnedFd::from_raw_fd(number) };
            assert_rejected::<Map>(null).1
        });
        other.join().unwrap()
    });
    let found = Some("/dev/null".to_owned());
    assert_eq!(
        error.cause(),
        Some(&Cause::WrongDescriptor {
            expected: "a map, program or link",
            found
        })
    );
    assert_eq!(map.info()?.map_type, MapType::HASH);
    Ok(())
}

/// Commands of two kinds fail with EBADF for an O_PATH descriptor. One of them alone proves nothing.
#[common::test(&[cap::BPF])]
fn a_denied_command_proves_nothing() -> Outcome {
    for cmd in [abi::BPF_PROG_BIND_MAP, abi::BPF_LINK_UPDATE] {
        for errno in [libc::EPERM, libc::EINVAL, libc::ENOSYS, libc::EBADF] {
            with_bpf_errno(Some(cmd), errno as u32, || -> Outcome {
                let path_only = || rustix::fs::open("/dev/null", OFlags::PATH, Mode::empty());
                assert_rejected::<Map>(path_only()?);
                assert_rejected::<Prog>(path_only()?);
                assert_rejected::<Link>(path_only()?);
                assert_eq!(__proof::by_command(path_only()?.as_fd()), None);
                Ok(())
            })?;
        }
    }
    Ok(())
}

#[common::test(&[cap::BPF])]
fn a_denied_proof_is_replaced_by_another() -> Outcome {
    let (map, prog) = (hash(), prog());
    for cmd in [abi::BPF_MAP_LOOKUP_BATCH, abi::BPF_OBJ_GET_INFO_BY_FD] {
        with_bpf_errno(Some(cmd), libc::EPERM as u32, || -> Outcome {
            let (map, prog) = (map.try_clone()?, prog.try_clone()?);
            Map::try_from(OwnedFd::from(map))?;
            Prog::try_from(OwnedFd::from(prog))?;
            Ok(())
        })?;
    }
    // If all commands are denied, the name in /proc is the proof.
    with_bpf_errno(None, libc::EPERM as u32, || -> Outcome {
        let (map, prog) = (map.try_clone()?, prog.try_clone()?);
        let (prog, _) = assert_rejected::<Map>(prog.into());
        Prog::try_from(prog)?;
        let map = Map::try_from(OwnedFd::from(map))?;
        assert_eq!(
            map.info().expect_err("all is denied").raw_os_error(),
            Some(libc::EPERM)
        );
        Ok(())
    })
}

/// As documented for [`Map::open`]: a filter forges the answer that identifies a map.
#[common::test(&[cap::BPF, Need::Bpffs])]
fn a_seccomp_filter_can_forge_a_proof() -> Outcome {
    let fs = TestFs::new();
    let prog = prog();
    let prog_id = prog.id()?;
    prog.pin(fs.at("prog"))?;
    for errno in [0, 524] {
        with_bpf_errno(Some(abi::BPF_MAP_LOOKUP_BATCH), errno, || {
            let forged = Map::open(fs.at("prog")).expect("a map, as it seems");
            assert_eq!(forged.id().unwrap(), prog_id);
            let error = forged.freeze().expect_err("a program");
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
            // This proof takes more than one call.
            let object = Object::open(fs.at("prog")).expect("a program");
            assert_eq!(object.kind(), Kind::Prog);
        });
    }
    Ok(())
}

/// A seccomp filter answers `BPF_OBJ_GET_INFO_BY_FD` with success, and the kernel writes nothing.
#[common::test(&[cap::BPF, Need::Bpffs])]
fn a_forged_answer_of_zeroes_proves_nothing() -> Outcome {
    let fs = TestFs::new();
    let (map, other, prog) = (hash(), hash(), prog());
    let pinned = map.try_clone()?.pin(fs.at("map"))?;
    prog.try_clone()?.pin(fs.at("prog"))?;
    with_bpf_errno(Some(abi::BPF_OBJ_GET_INFO_BY_FD), 0, || -> Outcome {
        for (fd, kind) in [(map.as_fd(), Kind::Map), (prog.as_fd(), Kind::Prog)] {
            assert_eq!(__proof::by_info(fd), None);
            assert_eq!(__proof::by_command(fd), None);
            assert_eq!(__proof::by_proc(fd), Some(kind));
        }
        // A descriptor of another file is rejected as well.
        for way in [__proof::by_info, __proof::by_command, __proof::by_proc] {
            assert_eq!(way(File::open("/dev/null")?.as_fd()), None);
        }
        assert_eq!(Object::open(fs.at("prog"))?.kind(), Kind::Prog);
        Link::open(fs.at("map")).expect_err("a map");
        Prog::open(fs.at("map")).expect_err("a map");
        // Two objects without an id are not the same object.
        map.is_same_object(&other).expect_err("no id");
        map.is_same_object(&map).expect_err("no id");
        let failed = pinned.unpin().expect_err("the pin could not be identified");
        let unproven = Cause::Unproven { info_errno: None };
        assert_eq!(failed.cause(), Some(&unproven), "{failed}");
        Ok(())
    })?;
    assert_eq!(Map::open(fs.at("map"))?.id()?, map.id()?);
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN, Need::Bpffs])]
fn a_failing_info_call_is_reported_with_its_errno() -> Outcome {
    let fs = TestFs::new();
    let pinned = hash().pin(fs.at("map"))?;
    let errno = libc::ENOMEM;
    with_bpf_errno(
        Some(abi::BPF_OBJ_GET_INFO_BY_FD),
        errno as u32,
        || -> Outcome {
            let failed = pinned.unpin().expect_err("the pin could not be identified");
            let info_errno = Some(errno);
            assert_eq!(failed.cause(), Some(&Cause::Unproven { info_errno }));
            assert_eq!(failed.error().raw_os_error(), Some(errno));
            Ok(())
        },
    )
}

#[common::test(&[cap::BPF, cap::SETUID])]
fn a_seccomp_filter_is_not_reported_as_a_missing_privilege() -> Outcome {
    let map = hash();
    as_user(CapabilitySet::empty(), || {
        with_bpf_errno(None, libc::EPERM as u32, || {
            for error in [
                map.info().expect_err("all is denied"),
                Map::open("/sys/fs/bpf/flows").expect_err("all is denied"),
            ] {
                assert_cause(&error, libc::EPERM, None);
                assert_eq!(error.cause(), None);
            }
        });
    });
    Ok(())
}
