//! Pins in a directory: made, opened, identified, removed.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use bpf_pin::bpffs::FileSystem;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Access, Identity, Kind, Link, Map, Object, PinDir, Prog};
use common::*;
use rustix::thread::CapabilitySet;

use crate::dir::scene::*;
use crate::dir::{MOUNTS, PINS, USERS};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

#[common::test(ROOT)]
fn each_kind_is_pinned_and_opened_by_name() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let (map, prog, link) = (hash(), prog(), link());
    dir.pin(&map, "map")?;
    // Any descriptor of an object will do.
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
        // The same by path.
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
            let sentence = format!(
                "open {}: it is a {found}, not a {kind}",
                fs.at(name).display()
            );
            assert_says(&unwrap_err(opened), None, cause, &sentence);
        }
    }
    for access in [Access::ReadOnly, Access::WriteOnly, Access::ReadWrite] {
        assert_eq!(dir.get_with::<Map>("map", access)?.id()?, map.id()?);
        assert_eq!(dir.get_with::<Prog>("prog", access)?.id()?, prog.id()?);
        if access == Access::ReadWrite {
            continue;
        }
        let error = unwrap_err(dir.get_with::<Link>("link", access));
        let sentence = format!(
            "open {}: access must be ReadWrite for a link",
            fs.at("link").display()
        );
        let cause = Cause::InvalidArgument {
            what: "access",
            problem: "must be ReadWrite for a link".into(),
        };
        assert_says(&error, libc::EINVAL, cause, &sentence);
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
fn a_taken_name_is_told_with_its_holder() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let (first, second) = (hash(), hash());
    dir.pin(&first, "pin")?;
    drop(dir.create_dir("dir", 0o700)?);
    symlink("gone", fs.at("link"))?;
    let holder = Some(first.identity()?);
    let of_first = format!("map {} is pinned there already", first.id()?);
    let nobody = "the name is taken already".to_owned();
    for (name, holder, because) in [
        ("pin", holder, of_first),
        ("dir", None, nobody.clone()),
        ("link", None, nobody),
    ] {
        let error = unwrap_err(dir.pin(&second, name));
        assert_eq!(error.operation(), Operation::Pin, "{error:?}");
        let sentence = format!("pin {}: {because}", fs.at(name).display());
        assert_says(&error, libc::EEXIST, Cause::Exists { holder }, &sentence);
    }
    assert_eq!(fs.names(), ["dir", "link", "pin"]);
    assert_eq!(dir.identity("pin")?, first.identity()?);
    dir.pin(&second, "other")?;
    Ok(())
}

#[common::test(PINS)]
fn what_is_no_object_gets_no_name() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let file = fs::File::open("/proc/self/status")?;
    let (pipe, _writer) = rustix::pipe::pipe()?;
    let btf = btf();
    let path = fs.at("pin");
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
        let sentence = format!(
            "pin {}: it is {found}, not a map, program or link",
            path.display()
        );
        assert_eq!(error.to_string(), sentence);
        // Nor has any name been its own.
        let error = unwrap_err(dir.unpin(&fd, "pin"));
        assert!(
            matches!(error.cause(), Some(Cause::WrongDescriptor { .. })),
            "{error}"
        );
    }
    assert!(fs.names().is_empty());
    Ok(())
}

/// What a name may be that is no pin, and what is said of it by all that wants one.
#[common::test(PINS)]
fn names_that_hold_no_pin() -> Outcome {
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
    let calls: &[(&str, Call)] = &[
        ("open", |d, _, n| d.get::<Map>(n).map(drop)),
        ("open", |d, _, n| d.get_with::<Map>(n, Access::ReadOnly).map(drop)),
        ("open", |d, _, n| d.get::<Link>(n).map(drop)),
        ("open", |d, _, n| d.get::<bpf_pin::Object>(n).map(drop)),
        ("open", |d, _, n| d.open_with_info(n).map(drop)),
        ("open", |d, _, n| d.identity(n).map(drop)),
        ("open", |d, o, n| d.copy_to(n, o)),
        ("unpin", |d, _, n| d.unpin(&any_map(), n)),
    ];
    for (verb, call) in calls {
        let says = |name: &str, errno: Option<i32>, cause, because: &str| {
            let error = unwrap_err(call(&dir, &other, name));
            let sentence = format!("{verb} {0}: {0} {because}", fs.at(name).display());
            assert_says(&error, errno, cause, &sentence);
        };
        says(
            "gone",
            Some(libc::ENOENT),
            missing(fs.at("gone")),
            "does not exist",
        );
        let cause = Cause::NotAnObject {
            path: fs.at("dir"),
            what: "directory",
            found: FileSystem::BPF,
        };
        says(
            "dir",
            Some(libc::EACCES),
            cause,
            "is a directory on bpffs, not a BPF object",
        );
        for (name, _) in links {
            // Which errno the kernel has for it depends on where it leads.
            let error = unwrap_err(call(&dir, &other, name));
            let path = fs.at(name);
            let sentence = format!(
                "{verb} {0}: {0} is a symbolic link, which is not followed",
                path.display()
            );
            assert_says(
                &error,
                error.raw_os_error(),
                Cause::SymbolicLink { path },
                &sentence,
            );
        }
        // The one that leads to a pin was no failure of the kernel's.
        assert_eq!(
            unwrap_err(call(&dir, &other, "to_pin")).raw_os_error(),
            None
        );
    }
    assert_eq!(fs.names(), names);
    Ok(())
}

#[common::test(USERS)]
fn access_to_pins_of_others() -> Outcome {
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
            assert_says(&error, libc::EACCES, cause, &sentence);
        }
        let error = unwrap_err(dir.get_with::<Map>("readable", Access::WriteOnly));
        let sentence = format!(
            "open {0}: {0} (mode 0644, owner 0) denies this user write access",
            fs.at("readable").display()
        );
        assert_eq!(error.to_string(), sentence);
        dir.get_with::<Map>("readable", Access::ReadOnly)?;
        // To be told which it is takes any access, to be told of it takes none.
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
fn remove_takes_only_its_own_name() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let map = hash();
    dir.pin(&map, "one")?;
    dir.pin(&map, "two")?;
    dir.unpin(&map, "one")?;
    assert_eq!(fs.names(), ["two"]);
    // By another descriptor of the object, and read-only.
    let other = dir.get_with::<Map>("two", Access::ReadOnly)?;
    dir.unpin(&other, "two")?;
    assert!(fs.names().is_empty());
    // The object lives.
    map.elements::<u32, u64>()?
        .update(&1, &1, bpf_pin::map::ElemFlags::ANY)?;
    dir.pin(&map, "one")?;
    let error = unwrap_err(dir.unpin(&map, "two"));
    assert_eq!(error.operation(), Operation::Unpin, "{error:?}");
    let sentence = format!("unpin {0}: {0} does not exist", fs.at("two").display());
    assert_says(&error, libc::ENOENT, missing(fs.at("two")), &sentence);
    Ok(())
}

#[common::test(PINS)]
fn remove_knows_what_took_the_name() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let (ours, theirs, prog) = (hash(), hash(), prog());
    dir.pin(&theirs, "map")?;
    dir.pin(&prog, "prog")?;
    let expected = ours.identity()?;
    for (name, found) in [("map", theirs.identity()?), ("prog", prog.identity()?)] {
        let error = unwrap_err(dir.unpin(&ours, name));
        let sentence = format!(
            "unpin {}: the pin holds {found}, expected {expected}; nothing was changed",
            fs.at(name).display()
        );
        assert_says(&error, None, Cause::Replaced { expected, found }, &sentence);
        // And so of the one that replaces what it has seen.
        let error = unwrap_err(dir.replace_if(&theirs, name, expected));
        let sentence = sentence.replacen("unpin", "replace", 1);
        assert_says(&error, None, Cause::Replaced { expected, found }, &sentence);
        assert_eq!(dir.identity(name)?, found);
    }
    // A number alone tells nothing: kinds count each for itself.
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
fn a_mounted_on_pin_is_not_removed() -> Outcome {
    let dir = tempfile::tempdir()?;
    own_mounts(|| -> Outcome {
        mount_a("bpf", dir.path());
        let root = PinDir::open(dir.path())?;
        let path = dir.path().join("pin");
        root.pin(&any_map(), "pin")?;
        rustix::mount::mount_bind(&path, &path)?;
        for error in [
            unwrap_err(root.unpin(&any_map(), "pin")),
            unwrap_err(root.unlink("pin")),
        ] {
            let cause = Cause::MountPoint { path: path.clone() };
            let sentence = format!("unpin {0}: {0} is a mount point", path.display());
            assert_says(&error, libc::EBUSY, cause, &sentence);
        }
        rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty())?;
        root.unpin(&any_map(), "pin")?;
        Ok(())
    })
}

#[common::test(PINS)]
fn unlink_takes_whatever_has_the_name() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&hash(), "map")?;
    dir.pin(&prog(), "prog")?;
    symlink("prog", fs.at("link"))?;
    drop(dir.create_dir("dir", 0o700)?);
    dir.unlink("map")?;
    dir.unlink("link")?;
    assert_eq!(fs.names(), ["dir", "prog"], "the link, not where it leads");
    let error = unwrap_err(dir.unlink("dir"));
    let path = fs.at("dir");
    let sentence = format!(
        "unpin {0}: {0} is a directory on bpffs, not a BPF object",
        path.display()
    );
    let (what, found) = ("directory", FileSystem::BPF);
    assert_says(
        &error,
        libc::EISDIR,
        Cause::NotAnObject { path, what, found },
        &sentence,
    );
    let error = unwrap_err(dir.unlink("map"));
    let sentence = format!("unpin {0}: {0} does not exist", fs.at("map").display());
    assert_says(&error, libc::ENOENT, missing(fs.at("map")), &sentence);
    assert_eq!(fs.names(), ["dir", "prog"]);
    Ok(())
}

#[common::test(USERS)]
fn a_sticky_directory_keeps_foreign_pins() -> Outcome {
    let fs = TestFs::detached("777");
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    dir.set_mode("pin", 0o666)?;
    as_user(CapabilitySet::BPF, || -> Outcome {
        let path = fs.at("pin").display().to_string();
        let of = |verb: &str, error| {
            let sentence = format!(
                "{verb}: {} is a sticky directory, and the pin belongs to user 0",
                fs.root().display()
            );
            let directory = fs.root().to_owned();
            assert_says(
                &error,
                libc::EPERM,
                Cause::Sticky { directory, uid: 0 },
                &sentence,
            );
        };
        of(
            &format!("unpin {path}"),
            unwrap_err(dir.unpin(&any_map(), "pin")),
        );
        of(&format!("unpin {path}"), unwrap_err(dir.unlink("pin")));
        of(
            &format!("replace {path}"),
            unwrap_err(dir.replace(&any_map(), "pin")),
        );
        let to = fs.at("new").display().to_string();
        of(
            &format!("rename {path} to {to}"),
            unwrap_err(dir.rename("pin", "new")),
        );
        dir.pin(&any_map(), "own")?;
        if kernel(5, 17).unmet().is_none() {
            let own = fs.at("own").display().to_string();
            of(
                &format!("exchange {path} and {own}"),
                unwrap_err(dir.exchange("pin", "own")),
            );
            of(
                &format!("exchange {own} and {path}"),
                unwrap_err(dir.exchange("own", "pin")),
            );
        }
        // What is one's own can be removed, beside.
        dir.unpin(&any_map(), "own")?;
        Ok(())
    })?;
    assert_eq!(fs.names(), ["pin"]);
    Ok(())
}

#[common::test(USERS)]
fn a_directory_that_may_not_be_written() -> Outcome {
    let fs = TestFs::detached("777");
    let dir = root_of(&fs).create_dir("dir", 0o755)?;
    dir.pin(&any_map(), "pin")?;
    dir.set_mode("pin", 0o666)?;
    as_user(CapabilitySet::BPF, || -> Outcome {
        let at = |name: &str| fs.at("dir").join(name).display().to_string();
        let (pin, new) = (at("pin"), at("new"));
        #[rustfmt::skip]
        let errors = [
            (format!("pin {new}"), unwrap_err(dir.pin(&any_map(), "new"))),
            (format!("unpin {pin}"), unwrap_err(dir.unpin(&any_map(), "pin"))),
            (format!("unpin {pin}"), unwrap_err(dir.unlink("pin"))),
            (format!("link {pin} as {new}"), unwrap_err(dir.link("pin", "new"))),
            (format!("rename {pin} to {new}"), unwrap_err(dir.rename("pin", "new"))),
            (format!("create directory {new}"), unwrap_err(dir.create_dir("new", 0o700))),
            (format!("replace {pin}"), unwrap_err(dir.replace(&any_map(), "pin"))),
            (format!("stage {new}"), unwrap_err(dir.stage("new"))),
        ];
        for (verb, error) in errors {
            let path = fs.at("dir");
            let sentence = format!(
                "{verb}: {} (mode 0755, owner 0) denies this user write access",
                path.display()
            );
            let cause = Cause::Blocked {
                path,
                mode: 0o755,
                uid: 0,
                wanted: "write",
                read_only_would_do: false,
            };
            assert_says(&error, libc::EACCES, cause, &sentence);
        }
        Ok(())
    })?;
    assert_eq!(names_in(&dir), ["pin"]);
    Ok(())
}
