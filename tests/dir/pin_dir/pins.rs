//! Pins in a directory: creating, opening, identifying and removing them.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use bpf_pin::bpffs::FileSystem;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Access, Identity, Kind, Link, Map, Object, PinDir, Prog};
use common::*;
use rustix::thread::CapabilitySet;

use crate::helpers::*;
use crate::pin_dir::{MOUNTS, PINS, USERS};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

#[common::test(ROOT)]
fn each_kind_is_pinned_and_opened_by_name() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let (map, prog, link) = (hash(), prog(), detached_link());
    dir.pin(&map, "map")?;
    // `pin` accepts every type that holds a descriptor of an object.
    dir.pin(&prog.as_fd(), "prog")?;
    dir.pin(&Object::from(link.try_clone()?), "link")?;
    assert_eq!(dir.get::<Map>("map")?.id()?, map.id()?);
    assert_eq!(dir.get::<Prog>("prog")?.id()?, prog.id()?);
    assert_eq!(dir.get::<Link>("link")?.id()?, link.id()?);
    let identities = [map.identity()?, prog.identity()?, link.identity()?];
    for (name, expected) in ["map", "prog", "link"].into_iter().zip(identities) {
        assert_eq!(dir.get::<bpf_pin::Object>(name)?.identity()?, expected);
        let (object, info) = dir.open_with_info(name)?;
        assert_eq!((object.identity()?, info.identity()), (expected, expected));
        assert_eq!(info, object.info()?);
        assert_eq!(dir.identity(name)?, expected);
        assert_eq!(dir.metadata(name)?.mode(), 0o600);
        // The same objects, opened by path.
        assert_eq!(Object::open(fs.at(name))?.identity()?, expected);
        for (other, kind) in [
            ("map", Kind::Map),
            ("prog", Kind::Prog),
            ("link", Kind::Link),
        ] {
            let opened = match kind {
                Kind::Map => dir.get::<Map>(name).map(drop),
                Kind::Prog => dir.get::<Prog>(name).map(drop),
                Kind::Link => dir.get::<Link>(name).map(drop),
            };
            if other == name {
                opened?;
                continue;
            }
            let found = expected.kind;
            let cause = Cause::WrongKind {
                expected: kind,
                found,
            };
            assert_fails(&unwrap_err(opened), Operation::Open, None, cause);
        }
    }
    for access in [Access::ReadOnly, Access::WriteOnly, Access::ReadWrite] {
        assert_eq!(dir.get_with::<Map>("map", access)?.id()?, map.id()?);
        assert_eq!(dir.get_with::<Prog>("prog", access)?.id()?, prog.id()?);
        if access == Access::ReadWrite {
            continue;
        }
        let error = unwrap_err(dir.get_with::<Link>("link", access));
        let cause = Cause::InvalidArgument {
            what: "access",
            problem: "must be ReadWrite for a link".into(),
        };
        assert_fails(&error, Operation::Open, libc::EINVAL, cause);
    }
    let read = dir.get_with::<Map>("map", Access::ReadOnly)?;
    let error = unwrap_err(read.elements::<u32, u64>()?.update(
        &1,
        &1,
        bpf_pin::map::ElemFlags::ANY,
    ));
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    dir.unpin(&map, "map")?;
    dir.unpin(&prog, "prog")?;
    dir.unpin(&link, "link")?;
    assert!(fs.names().is_empty());
    Ok(())
}

#[common::test(PINS)]
fn a_taken_name_is_reported_with_its_object() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let (first, second) = (hash(), hash());
    dir.pin(&first, "pin")?;
    drop(dir.create_dir("dir", 0o700)?);
    symlink("gone", fs.at("link"))?;
    let holder = Some(first.identity()?);
    for (name, holder) in [("pin", holder), ("dir", None), ("link", None)] {
        let error = unwrap_err(dir.pin(&second, name));
        assert_eq!(error.operation(), Operation::Pin, "{error:?}");
        assert_fails(
            &error,
            Operation::Pin,
            libc::EEXIST,
            Cause::Exists { holder },
        );
    }
    assert_eq!(fs.names(), ["dir", "link", "pin"]);
    assert_eq!(dir.identity("pin")?, first.identity()?);
    dir.pin(&second, "other")?;
    Ok(())
}

#[common::test(PINS)]
fn pin_rejects_descriptors_that_are_not_objects() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let file = fs::File::open("/proc/self/status")?;
    let (pipe, _writer) = rustix::pipe::pipe()?;
    let btf = btf_fd();
    for (fd, words) in [
        (file.as_fd(), None),
        (pipe.as_fd(), None),
        (btf.as_fd(), Some("anon_inode:btf")),
        (dir.as_fd(), None),
    ] {
        let error = unwrap_err(dir.pin(&fd, "pin"));
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        let Some(Cause::WrongDescriptor {
            found: Some(found), ..
        }) = error.cause()
        else {
            panic!("{error}");
        };
        assert!(words.is_none_or(|words| words == found), "{found}");
        assert_eq!(error.operation(), Operation::Pin);
        // `unpin` rejects the descriptor too, because it cannot belong to any pin.
        let error = unwrap_err(dir.unpin(&fd, "pin"));
        assert_cause_matches!(error, Cause::WrongDescriptor { .. });
    }
    assert!(fs.names().is_empty());
    Ok(())
}

/// Entries that are not pins, and the error that each operation reports for them.
#[common::test(PINS)]
fn an_entry_that_is_not_a_pin_is_rejected() -> Outcome {
    let fs = TestFs::new();
    let (dir, other) = (root_of(&fs), root_of(&fs));
    dir.pin(&any_map(), "pin")?;
    drop(dir.create_dir("dir", 0o700)?);
    let links = [
        ("to_pin", "pin"),
        ("to_dir", "dir"),
        ("dangling", "gone"),
        ("loop", "loop"),
        ("away", "/proc/self/status"),
    ];
    for (name, target) in links {
        symlink(target, fs.at(name))?;
    }
    let names = fs.names();
    type Call = fn(&PinDir, &PinDir, &str) -> bpf_pin::Result<()>;
    #[rustfmt::skip]
    let calls: &[(Operation, Call)] = &[
        (Operation::Open, |d, _, n| d.get::<Map>(n).map(drop)),
        (Operation::Open, |d, _, n| d.get_with::<Map>(n, Access::ReadOnly).map(drop)),
        (Operation::Open, |d, _, n| d.get::<Link>(n).map(drop)),
        (Operation::Open, |d, _, n| d.get::<bpf_pin::Object>(n).map(drop)),
        (Operation::Open, |d, _, n| d.open_with_info(n).map(drop)),
        (Operation::Open, |d, _, n| d.identity(n).map(drop)),
        (Operation::Open, |d, o, n| d.copy_to(n, o)),
        (Operation::Unpin, |d, _, n| d.unpin(&any_map(), n)),
    ];
    for &(operation, call) in calls {
        let assert_get_fails = |name: &str, errno: i32, cause| {
            let error = unwrap_err(call(&dir, &other, name));
            assert_fails(&error, operation, errno, cause);
        };
        assert_get_fails("gone", libc::ENOENT, missing(fs.at("gone")));
        let cause = Cause::NotAnObject {
            path: fs.at("dir"),
            what: "directory",
            found: FileSystem::BPF,
        };
        assert_get_fails("dir", libc::EACCES, cause);
        for (name, _) in links {
            // The kernel's errno depends on the target of the link.
            let error = unwrap_err(call(&dir, &other, name));
            let path = fs.at(name);
            assert_fails(
                &error,
                operation,
                error.raw_os_error(),
                Cause::SymbolicLink { path },
            );
        }
        // The kernel would have followed the link to a pin, so this error has no errno.
        assert_eq!(
            unwrap_err(call(&dir, &other, "to_pin")).raw_os_error(),
            None
        );
    }
    assert_eq!(fs.names(), names);
    Ok(())
}

#[common::test(USERS)]
fn the_mode_decides_about_access_to_pins_of_other_users() -> Outcome {
    let fs = TestFs::detached("777");
    let dir = root_of(&fs);
    for (name, mode) in [("shut", 0o600), ("readable", 0o644), ("open", 0o666)] {
        dir.pin(&any_map(), name)?;
        dir.set_mode(name, mode)?;
    }
    as_user(CapabilitySet::BPF, || -> Outcome {
        for (name, mode, read_only_would_do) in [("shut", 0o600, false), ("readable", 0o644, true)]
        {
            let cause = Cause::Blocked {
                path: fs.at(name),
                mode,
                uid: 0,
                wanted: "read and write",
                read_only_would_do,
            };
            let mut sentence = format!(
                "open {0}: {0} (mode {mode:04o}, owner 0) denies this user read and write access",
                fs.at(name).display()
            );
            if read_only_would_do {
                sentence += "; open it with Access::ReadOnly";
            }
            let error = unwrap_err(dir.get::<Map>(name));
            assert_fails(&error, Operation::Open, libc::EACCES, cause);
        }
        let error = unwrap_err(dir.get_with::<Map>("readable", Access::WriteOnly));
        assert_eq!(error.operation(), Operation::Open);
        dir.get_with::<Map>("readable", Access::ReadOnly)?;
        // `identity` needs some access to the pin; `metadata` needs none.
        assert_eq!(dir.identity("readable")?, any_identity());
        assert_eq!(dir.metadata("shut")?.mode(), 0o600);
        assert_eq!(
            unwrap_err(dir.identity("shut")).raw_os_error(),
            Some(libc::EACCES)
        );
        dir.get::<Map>("open")?;
        Ok(())
    })
}

#[common::test(PINS)]
fn unpin_removes_only_the_given_name() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let map = hash();
    dir.pin(&map, "one")?;
    dir.pin(&map, "two")?;
    dir.unpin(&map, "one")?;
    assert_eq!(fs.names(), ["two"]);
    // Another, read-only descriptor of the same object also works.
    let other = dir.get_with::<Map>("two", Access::ReadOnly)?;
    dir.unpin(&other, "two")?;
    assert!(fs.names().is_empty());
    // The object is still usable.
    map.elements::<u32, u64>()?
        .update(&1, &1, bpf_pin::map::ElemFlags::ANY)?;
    dir.pin(&map, "one")?;
    let error = unwrap_err(dir.unpin(&map, "two"));
    assert_eq!(error.operation(), Operation::Unpin, "{error:?}");
    assert_fails(
        &error,
        Operation::Unpin,
        libc::ENOENT,
        missing(fs.at("two")),
    );
    Ok(())
}

#[common::test(PINS)]
fn unpin_keeps_a_pin_that_another_object_holds() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let (ours, theirs, prog) = (hash(), hash(), prog());
    dir.pin(&theirs, "map")?;
    dir.pin(&prog, "prog")?;
    let expected = ours.identity()?;
    for (name, found) in [("map", theirs.identity()?), ("prog", prog.identity()?)] {
        let error = unwrap_err(dir.unpin(&ours, name));
        assert_cause(&error, None, Cause::Replaced { expected, found });
        // `replace_if` reports the same cause.
        let error = unwrap_err(dir.replace_if(&theirs, name, expected));
        assert_cause(&error, None, Cause::Replaced { expected, found });
        assert_eq!(dir.identity(name)?, found);
    }
    // The id alone is not enough: each kind of object has its own numbering.
    let id = prog.id()?;
    let found = prog.identity()?;
    let kind = Kind::Map;
    let error = unwrap_err(dir.replace_if(&ours, "prog", Identity { kind, id }));
    let expected = Identity { kind, id };
    assert_eq!(error.cause(), Some(&Cause::Replaced { expected, found }));
    assert_eq!(fs.names(), ["map", "prog"]);
    Ok(())
}

#[common::test(MOUNTS)]
fn unpin_keeps_a_mount_point() -> Outcome {
    let dir = tempfile::tempdir()?;
    in_mount_namespace(|| -> Outcome {
        mount_at("bpf", dir.path());
        let root = PinDir::open(dir.path())?;
        let path = dir.path().join("pin");
        root.pin(&any_map(), "pin")?;
        rustix::mount::mount_bind(&path, &path)?;
        for error in [
            unwrap_err(root.unpin(&any_map(), "pin")),
            unwrap_err(root.unlink("pin")),
        ] {
            let cause = Cause::MountPoint { path: path.clone() };
            assert_fails(&error, Operation::Unpin, libc::EBUSY, cause);
        }
        rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty())?;
        root.unpin(&any_map(), "pin")?;
        Ok(())
    })
}

#[common::test(PINS)]
fn unlink_removes_any_entry_but_a_directory() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&hash(), "map")?;
    dir.pin(&prog(), "prog")?;
    symlink("prog", fs.at("link"))?;
    drop(dir.create_dir("dir", 0o700)?);
    dir.unlink("map")?;
    dir.unlink("link")?;
    assert_eq!(
        fs.names(),
        ["dir", "prog"],
        "the link is removed, not its target"
    );
    let error = unwrap_err(dir.unlink("dir"));
    let path = fs.at("dir");
    let (what, found) = ("directory", FileSystem::BPF);
    assert_fails(
        &error,
        Operation::Unpin,
        libc::EISDIR,
        Cause::NotAnObject { path, what, found },
    );
    let error = unwrap_err(dir.unlink("map"));
    assert_fails(
        &error,
        Operation::Unpin,
        libc::ENOENT,
        missing(fs.at("map")),
    );
    assert_eq!(fs.names(), ["dir", "prog"]);
    Ok(())
}

#[common::test(USERS)]
fn a_sticky_directory_protects_pins_of_other_users() -> Outcome {
    let fs = TestFs::detached("777");
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    dir.set_mode("pin", 0o666)?;
    as_user(CapabilitySet::BPF, || -> Outcome {
        let of = |operation, error| {
            let directory = fs.root().to_owned();
            assert_fails(
                &error,
                operation,
                libc::EPERM,
                Cause::Sticky { directory, uid: 0 },
            );
        };
        of(Operation::Unpin, unwrap_err(dir.unpin(&any_map(), "pin")));
        of(Operation::Unpin, unwrap_err(dir.unlink("pin")));
        of(
            Operation::Replace,
            unwrap_err(dir.replace(&any_map(), "pin")),
        );
        of(Operation::Rename, unwrap_err(dir.rename("pin", "new")));
        dir.pin(&any_map(), "own")?;
        if kernel(5, 17).unmet().is_none() {
            of(Operation::Exchange, unwrap_err(dir.exchange("pin", "own")));
            of(Operation::Exchange, unwrap_err(dir.exchange("own", "pin")));
        }
        // The user may still remove its own pin there.
        dir.unpin(&any_map(), "own")?;
        Ok(())
    })?;
    assert_eq!(fs.names(), ["pin"]);
    Ok(())
}

#[common::test(USERS)]
fn a_directory_without_write_permission_is_named() -> Outcome {
    let fs = TestFs::detached("777");
    let dir = root_of(&fs).create_dir("dir", 0o755)?;
    dir.pin(&any_map(), "pin")?;
    dir.set_mode("pin", 0o666)?;
    as_user(CapabilitySet::BPF, || -> Outcome {
        #[rustfmt::skip]
        let errors = [
            (Operation::Pin, unwrap_err(dir.pin(&any_map(), "new"))),
            (Operation::Unpin, unwrap_err(dir.unpin(&any_map(), "pin"))),
            (Operation::Unpin, unwrap_err(dir.unlink("pin"))),
            (Operation::HardLink, unwrap_err(dir.link("pin", "new"))),
            (Operation::Rename, unwrap_err(dir.rename("pin", "new"))),
            (Operation::CreateDir, unwrap_err(dir.create_dir("new", 0o700))),
            (Operation::Replace, unwrap_err(dir.replace(&any_map(), "pin"))),
            (Operation::Stage, unwrap_err(dir.stage("new"))),
        ];
        for (operation, error) in errors {
            let path = fs.at("dir");
            let cause = Cause::Blocked {
                path,
                mode: 0o755,
                uid: 0,
                wanted: "write",
                read_only_would_do: false,
            };
            assert_fails(&error, operation, libc::EACCES, cause);
        }
        Ok(())
    })?;
    assert_eq!(names_in(&dir), ["pin"]);
    Ok(())
}
