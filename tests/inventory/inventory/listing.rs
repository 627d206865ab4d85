//! The entries of the inventory, permissions, and the absence of side effects.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bpf_pin::bpffs::MountOptions;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::inventory::{Inventory, PinEntry};
use bpf_pin::object::ObjectInfo;
use bpf_pin::types::{LinkType, ProgType};
use bpf_pin::{Error, Identity, Kind, MapType, Object};
use common::*;
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::CapabilitySet;

use crate::inventory::{ROOT, mount_bpffs, mount_tmpfs, pin_maps};

const LINKS: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const USERS: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

/// The entries of an inventory below one directory.
pub struct Listing {
    pub pins: Vec<PinEntry>,
    pub errors: Vec<Error>,
}

impl Listing {
    /// The paths relative to `dir`, sorted.
    pub fn names(&self, dir: &Path) -> Vec<String> {
        let name = |pin: &PinEntry| {
            let name = pin.path.strip_prefix(dir).expect("below it");
            name.to_str().expect("UTF-8").to_owned()
        };
        let mut names: Vec<_> = self.pins.iter().map(name).collect();
        names.sort();
        names
    }

    /// The ids of the objects, sorted.
    pub fn ids(&self) -> Vec<u32> {
        let mut ids: Vec<_> = self.pins.iter().map(|pin| pin.info.identity().id).collect();
        ids.sort_unstable();
        ids
    }
}

/// Runs `test` in its own mount namespace with a directory on a tmpfs.
pub fn with_private_tmpfs(test: impl FnOnce(&Path) -> Outcome + Send) -> Outcome {
    let place = fs::canonicalize(std::env::temp_dir())?;
    let dir = tempfile::tempdir_in(place)?;
    in_mount_namespace(|| {
        // Everything is created on a tmpfs, so that the directory itself stays empty.
        mount_tmpfs(dir.path())?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        test(dir.path())
    })
}

/// The inventory below `dir`, without the kernel's own two files.
pub fn list_below(dir: &Path) -> Result<Listing, Error> {
    let (mut pins, mut errors) = (vec![], vec![]);
    for found in Inventory::take()? {
        match found {
            Ok(pin) if pin.path.starts_with(dir) && !is_debug(&pin.path) => pins.push(pin),
            Err(error)
                if error
                    .path()
                    .is_some_and(|path| path.starts_with(dir) && !is_debug(path)) =>
            {
                errors.push(error);
            }
            _ => {}
        }
    }
    Ok(Listing { pins, errors })
}

fn is_debug(path: &Path) -> bool {
    path.ends_with("maps.debug") || path.ends_with("progs.debug")
}

/// Pins the object and returns its id.
pub fn pin(object: impl Into<Object>, path: &Path) -> Result<u32, Error> {
    let object = object.into();
    let id = object.id()?;
    drop(object.pin(path)?);
    Ok(id)
}

#[common::test(LINKS)]
fn every_kind_of_object_is_described() -> Outcome {
    with_private_tmpfs(|dir| {
        let dev = mount_bpffs(dir.join("b").as_path())?.dev();
        let at = |name: &str| dir.join("b").join(name);
        let map = pin(hash(), &at("map"))?;
        let prog = pin(prog(), &at("prog"))?;
        let of_link = NetnsLink::new();
        let link_prog = of_link.prog.id()?;
        let link = pin(of_link.link, &at("link"))?;
        fs::hard_link(at("map"), at("same"))?;
        symlink("map", at("symlink"))?;
        let now = list_below(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        assert_eq!(now.names(dir), ["b/link", "b/map", "b/prog", "b/same"]);
        let get = |name: &str| {
            now.pins
                .iter()
                .find(|pin| pin.path == at(name))
                .expect(name)
        };
        for name in ["link", "map", "prog", "same"] {
            let file = fs::symlink_metadata(at(name))?;
            assert_eq!((get(name).inode, get(name).dev), (file.ino(), dev));
        }
        assert_eq!(get("map").inode, get("same").inode);
        assert_eq!(get("map").info, get("same").info);

        let ObjectInfo::Map(info) = &get("map").info else {
            panic!("{:?}", get("map"));
        };
        assert_eq!(
            (info.id, info.map_type, info.name.as_str()),
            (map, MapType::HASH, "test_hash")
        );
        assert_eq!(
            (info.key_size, info.value_size, info.max_entries),
            (4, 8, 8)
        );
        assert_eq!(
            get("map").info.to_string(),
            "hash map, 4 to 8 bytes, room for 8"
        );
        assert_eq!(
            get("map").info.identity(),
            Identity {
                kind: Kind::Map,
                id: map
            }
        );
        assert_eq!(
            get("map").info.name().map(|name| name.as_str()),
            Some("test_hash")
        );

        let ObjectInfo::Prog(info) = &get("prog").info else {
            panic!("{:?}", get("prog"));
        };
        assert_eq!((info.id, info.prog_type), (prog, ProgType::SOCKET_FILTER));
        assert_eq!(
            (info.name.as_str(), info.xlated_prog_len),
            ("test_filter", 16)
        );
        assert_eq!(
            get("prog").info.to_string(),
            "socket_filter program, 16 bytes"
        );
        assert_eq!(
            get("prog").info.identity(),
            Identity {
                kind: Kind::Prog,
                id: prog
            }
        );

        let ObjectInfo::Link(info) = &get("link").info else {
            panic!("{:?}", get("link"));
        };
        assert_eq!((info.id, info.prog_id), (link, link_prog));
        assert_eq!(info.link_type, LinkType::NETNS);
        assert_eq!(
            get("link").info.to_string(),
            format!("netns link of program {link_prog}")
        );
        assert_eq!(
            get("link").info.identity(),
            Identity {
                kind: Kind::Link,
                id: link
            }
        );
        assert_eq!(get("link").info.name(), None);
        Ok(())
    })
}

#[common::test(ROOT)]
fn all_pins_of_an_object_are_found() -> Outcome {
    with_private_tmpfs(|dir| {
        let (one, other) = (dir.join("one"), dir.join("other"));
        mount_bpffs(&one)?;
        mount_bpffs(&other)?;
        pin_maps(&one, &["x", "y"])?;
        let map = hash();
        let id = map.id()?;
        for path in [one.join("here"), one.join("twice"), other.join("there")] {
            pin(map.try_clone()?, &path)?;
        }
        fs::hard_link(other.join("there"), other.join("linked"))?;
        let paths = |identity| -> Result<Vec<_>, Error> {
            let mut paths = vec![];
            for found in Inventory::take()?.of(identity) {
                paths.extend(found.ok().map(|found| found.path));
            }
            paths.sort();
            Ok(paths)
        };
        let expected = ["one/here", "one/twice", "other/linked", "other/there"];
        let here = paths(Identity {
            kind: Kind::Map,
            id,
        })?;
        assert_eq!(here, expected.map(|name| dir.join(name)));
        // Ids are unique only within a kind.
        let elsewhere = paths(Identity {
            kind: Kind::Prog,
            id,
        })?;
        assert!(!elsewhere.iter().any(|path| path.starts_with(dir)));
        Ok(())
    })
}

/// With CAP_BPF, because before Linux 5.19 a sysctl may deny bpf(2) to other users.
#[common::test(USERS)]
fn a_user_gets_readable_pins_and_errors_for_the_others() -> Outcome {
    with_private_tmpfs(|dir| {
        let (one, locked) = (dir.join("one"), dir.join("locked"));
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        mount_bpffs(&one)?;
        let ids = pin_maps(&one, &["a/ours", "readable", "theirs", "shut/x", "z/last"])?;
        mount_bpffs(&locked.join("in"))?;
        mode(&one, 0o755)?;
        for open in ["a", "z"] {
            mode(&one.join(open), 0o755)?;
        }
        mode(&one.join("a/ours"), 0o666)?;
        mode(&one.join("z/last"), 0o666)?;
        mode(&one.join("readable"), 0o444)?;
        mode(&one.join("theirs"), 0o600)?;
        mode(&one.join("shut"), 0o711)?;
        mode(&locked, 0o700)?;
        let map = Identity {
            kind: Kind::Map,
            id: ids[0],
        };
        as_user(CapabilitySet::BPF, || {
            let now = list_below(dir)?;
            assert_eq!(now.names(dir), ["one/a/ours", "one/readable", "one/z/last"]);
            let mut errors: Vec<_> = now.errors.iter().collect();
            errors.sort_by_key(|error| error.path().map(Path::to_owned));
            let [in_locked, shut, theirs] = errors[..] else {
                panic!("{errors:?}");
            };
            let blocked = |error: &Error, at: &Path, wants: &str| {
                assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
                assert_cause_matches!(error, Cause::Blocked { path, wanted, uid: 0, .. } if path == at && *wanted == wants);
            };
            assert_eq!(in_locked.operation(), Operation::FindBpffs);
            blocked(in_locked, &locked, "search");
            assert_eq!(shut.operation(), Operation::ListDir);
            blocked(shut, &one.join("shut"), "read");
            assert_eq!(theirs.operation(), Operation::Open, "{theirs:?}");
            blocked(theirs, &one.join("theirs"), "read and write");
            // An error is kept by `of`, because the pin may be the object.
            let of_it: Vec<_> = Inventory::take()?.of(map).collect();
            assert_eq!(of_it.iter().flatten().count(), 1);
            assert!(of_it.iter().filter(|found| found.is_err()).count() >= 3);
            Ok(())
        })
    })
}

#[common::test(ROOT)]
fn pins_that_stay_are_listed_once_during_changes() -> Outcome {
    const ROUNDS: usize = 100;

    with_private_tmpfs(|dir| {
        let (one, going) = (dir.join("one"), dir.join("going"));
        mount_bpffs(&one)?;
        let stay: Vec<_> = (0..50).map(|n| format!("d{}/stay{n}", n % 5)).collect();
        let stay: Vec<_> = stay.iter().map(String::as_str).collect();
        let ids = pin_maps(&one, &stay)?;
        fs::create_dir(&going)?;
        let is_done = AtomicBool::new(false);
        let until_done = |mut each: Box<dyn FnMut() + Send>| {
            while !is_done.load(Ordering::Relaxed) {
                each();
            }
        };
        thread::scope(|scope| {
            // These threads share this thread's mount namespace.
            let pin_thread = scope.spawn(|| {
                let map = hash();
                let at = one.clone();
                until_done(Box::new(move || {
                    let dir = at.join("d1/more");
                    fs::create_dir(&dir).unwrap();
                    for path in [dir.join("in"), at.join("d2/comes")] {
                        drop(map.try_clone().unwrap().pin(&path).unwrap());
                        fs::remove_file(&path).unwrap();
                    }
                    fs::remove_dir(&dir).unwrap();
                }));
            });
            let mount_thread = scope.spawn(|| {
                let at = going.clone();
                until_done(Box::new(move || {
                    drop(MountOptions::new().mount(&at).unwrap());
                    drop(hash().pin(at.join("p")).unwrap());
                    unmount(&at, UnmountFlags::DETACH).unwrap();
                }));
            });
            for _ in 0..ROUNDS {
                let mut now = list_below(dir).unwrap();
                // The instance may be unmounted after the mount table was read.
                for error in &now.errors {
                    let is_gone =
                        [Operation::FindBpffs, Operation::ListBpffs].contains(&error.operation());
                    assert!(is_gone, "{error}");
                    assert_eq!(error.path(), Some(&*going), "{error:?}");
                }
                now.pins
                    .retain(|pin| pin.path.to_str().unwrap().contains("/stay"));
                assert_eq!(now.ids(), ids, "each pin is listed once");
            }
            is_done.store(true, Ordering::Relaxed);
            pin_thread.join().unwrap();
            mount_thread.join().unwrap();
        });
        Ok(())
    })
}

#[common::test(ROOT)]
fn an_inventory_changes_no_timestamps() -> Outcome {
    with_private_tmpfs(|dir| {
        let one = dir.join("one");
        mount_bpffs(&one)?;
        pin_maps(&one, &["a", "d/b", "d/e/c"])?;
        let directories = ["", "d", "d/e"].map(|name| one.join(name));
        let files = ["a", "d/b", "d/e/c"].map(|name| one.join(name));
        let state = |path: &Path| {
            let file = fs::symlink_metadata(path).unwrap();
            let times = [
                file.mtime(),
                file.mtime_nsec(),
                file.ctime(),
                file.ctime_nsec(),
            ];
            (
                file.ino(),
                file.mode(),
                file.nlink(),
                file.uid(),
                file.gid(),
                times,
            )
        };
        let accessed = |path: &Path| {
            let file = fs::symlink_metadata(path).unwrap();
            (file.atime(), file.atime_nsec())
        };
        let states = || {
            directories
                .iter()
                .chain(&files)
                .map(|path| state(path))
                .collect::<Vec<_>>()
        };
        let times = || {
            directories
                .iter()
                .map(|path| accessed(path))
                .collect::<Vec<_>>()
        };
        let (before, accessed_before) = (states(), times());
        // The clock of file timestamps ticks at least every 10 ms.
        thread::sleep(std::time::Duration::from_millis(30));
        assert_eq!(list_below(dir)?.pins.len(), 3);
        assert_eq!(states(), before);
        assert_eq!(times(), accessed_before);
        // The access times do change if the directories are listed in the usual way.
        for directory in &directories {
            assert!(fs::read_dir(directory)?.count() >= 1);
        }
        for (now, before) in times().iter().zip(&accessed_before) {
            assert!(now > before, "{now:?} {before:?}");
        }
        Ok(())
    })
}

/// A fresh mount may contain the kernel's own two files.
#[common::test(ROOT)]
fn the_files_of_a_fresh_mount_are_listed() -> Outcome {
    with_private_tmpfs(|dir| {
        let one = dir.join("one");
        mount_bpffs(&one)?;
        pin_maps(&one, &["map"])?;
        let (mut found, mut failed) = (vec![], vec![]);
        for item in Inventory::take()? {
            match item {
                Ok(pin) if pin.path.starts_with(dir) => found.push(pin),
                Err(error) if error.path().is_some_and(|path| path.starts_with(dir)) => {
                    failed.push(error);
                }
                _ => {}
            }
        }
        assert!(failed.is_empty(), "{failed:?}");
        for entry in fs::read_dir(&one)? {
            let path = entry?.path();
            if found.iter().any(|pin| pin.path == path) {
                continue;
            }
            // Some kernels leave the files of links that were freed.
            assert!(is_debug(&path), "{path:?}");
            let error = Object::open(&path).expect_err("nothing");
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        }
        assert!(found.iter().any(|pin| pin.path == one.join("map")));
        for pin in &found {
            let expected = if is_debug(&pin.path) {
                Kind::Link
            } else {
                Kind::Map
            };
            assert_eq!(pin.info.identity().kind, expected, "{pin:?}");
        }
        Ok(())
    })
}
