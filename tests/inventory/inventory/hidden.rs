//! What is removed or covered is found where a mount leads to it, and told where none does.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::inventory::Inventory;
use bpf_pin::{Bpffs, Error};
use common::*;
use rustix::fs::CWD;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::process::chroot;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::inventory::seen::{in_a_directory, pin, seen};
use crate::inventory::{ROOT, bind, bpffs, filled, tmpfs};

const CHILD: &str = "BPF_PIN_TEST_INVENTORY";

#[common::test(ROOT)]
fn inventory_of_a_crowd_of_hidden_mounts() -> Outcome {
    run_in_own_process(CHILD, "crowd")
}

/// Directories under other mounts are errors, and the mounts stay as they are.
#[common::test(ROOT)]
fn inventory_under_mounts_in_a_bpffs() -> Outcome {
    in_a_directory(|dir| {
        let one = dir.join("one");
        bpffs(&one)?;
        filled(&one, &["a", "d/hidden", "e/f/hidden", "g"])?;
        tmpfs(&one.join("d"))?;
        bpffs(&one.join("e/f"))?;
        filled(&one.join("e/f"), &["in"])?;
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
        let now = seen(dir)?;
        assert_eq!(fs::read_to_string("/proc/thread-self/mountinfo")?, mounts);
        assert_eq!(now.names(dir), ["one/a", "one/e/f/in", "one/g"]);
        let paths: Vec<_> = now.errors.iter().map(|error| error.path()).collect();
        assert_eq!(paths, [Some(&*one.join("d"))]);
        Ok(())
    })
}

/// Runs the child that the environment asks for, if any.
pub fn was_asked_for() -> bool {
    let is_asked_for = env::var_os(CHILD).is_some();
    if is_asked_for {
        crowd();
    }
    is_asked_for
}

/// To mountinfo it is "/sub//deleted", which has nothing to do with "/sub".
#[common::test(ROOT)]
fn inventory_of_a_removed_directory() -> Outcome {
    in_a_directory(|dir| {
        let one = dir.join("one");
        bpffs(&one)?;
        fs::create_dir(one.join("sub"))?;
        for place in ["gone", "gone too"] {
            bind(&one.join("sub"), &dir.join(place))?;
        }
        fs::remove_dir(one.join("sub"))?;
        let ids = filled(&one, &["sub/deleted/x", "sub/y"])?;
        bind(&one.join("sub/deleted"), &dir.join("deleted"))?;
        bind(&one.join("sub"), &dir.join("sub"))?;
        let root = |name: &str| -> Result<PathBuf, Error> {
            let mounts = Bpffs::mounts()?;
            let at = dir.join(name);
            let mount = mounts.into_iter().find(|mount| mount.mount_point == at);
            Ok(mount.expect(name).root)
        };
        assert_eq!(root("gone")?.as_os_str(), "/sub//deleted");
        assert_eq!(root("deleted")?.as_os_str(), "/sub/deleted");
        let expect = |names: &[&str], ids: &[u32]| -> Outcome {
            let now = seen(dir)?;
            assert!(now.errors.is_empty(), "{:?}", now.errors);
            assert_eq!(
                (now.names(dir), now.ids()),
                (
                    names.iter().map(|&name| name.to_owned()).collect(),
                    ids.to_vec()
                )
            );
            Ok(())
        };
        expect(&["one/sub/deleted/x", "one/sub/y"], &ids)?;
        unmount(&one, UnmountFlags::empty())?;
        expect(&["sub/deleted/x", "sub/y"], &ids)?;
        unmount(dir.join("sub"), UnmountFlags::empty())?;
        expect(&["deleted/x"], &ids[..1])
    })
}

/// What has no name in its bpffs any more, and yet is a file.
#[common::test(ROOT)]
fn inventory_of_removed_pins() -> Outcome {
    in_a_directory(|dir| {
        let one = dir.join("one");
        let dev = bpffs(&one)?.dev();
        let mut ids = vec![];
        // Two that had the same name, one of them bound twice.
        fs::create_dir(dir.join("c"))?;
        for places in [&["a", "b"][..], &["c/d"]] {
            ids.push(pin(hash(), &one.join("pin"))?);
            for place in places {
                let file = dir.join(place);
                fs::write(&file, "")?;
                mount_bind(one.join("pin"), &file)?;
            }
            fs::remove_file(one.join("pin"))?;
        }
        ids.push(pin(hash(), &one.join("pin"))?);
        for is_mounted in [true, false] {
            let now = seen(dir)?;
            assert!(now.errors.is_empty(), "{:?}", now.errors);
            let expected = if is_mounted { &ids[..] } else { &ids[..2] };
            assert_eq!(now.ids(), expected);
            let names = ["a", "c/d", "one/pin"];
            let expected = if is_mounted { &names[..] } else { &names[..2] };
            assert_eq!(now.names(dir), expected);
            for pin in &now.pins {
                let file = fs::metadata(&pin.path)?;
                assert_eq!((pin.dev, pin.inode), (dev, file.ino()));
            }
            if is_mounted {
                unmount(&one, UnmountFlags::empty())?;
            }
        }
        // Of what is covered it cannot be told what it is.
        tmpfs(&dir.join("c"))?;
        let now = seen(dir)?;
        assert_eq!(now.names(dir), ["a"]);
        let [error] = &now.errors[..] else {
            panic!("{:?}", now.errors);
        };
        assert_eq!(error.path(), Some(&*dir.join("c/d")));
        Ok(())
    })
}

/// A regular file, a pin of the same instance, or one of another, on a pin.
#[common::test(ROOT)]
fn inventory_of_covered_pins() -> Outcome {
    in_a_directory(|dir| {
        let (one, other, file) = (dir.join("one"), dir.join("other"), dir.join("file"));
        bpffs(&one)?;
        let ids = filled(&one, &["a", "b", "c", "d/d"])?;
        bpffs(&other)?;
        let other_ids = filled(&other, &["x"])?;
        fs::write(&file, "")?;
        mount_bind(&file, one.join("a"))?;
        mount_bind(one.join("d/d"), one.join("b"))?;
        mount_bind(other.join("x"), one.join("c"))?;
        let now = seen(dir)?;
        assert_eq!(now.names(dir), ["one/d/d", "other/x"]);
        assert_eq!(now.ids(), [ids[3], other_ids[0]]);
        let told: HashSet<_> = now.errors.iter().map(|error| error.path()).collect();
        let expected = ["a", "b", "c"].map(|name| one.join(name));
        assert_eq!(told, expected.iter().map(|path| Some(&**path)).collect());
        for error in &now.errors {
            assert_eq!(error.operation(), Operation::Open, "{error:?}");
            let path = error.path().expect("a path").to_owned();
            assert_eq!(error.operation(), Operation::Open);
            assert_eq!(error.cause(), Some(&Cause::MountPoint { path }));
            assert_eq!(error.raw_os_error(), None);
        }
        // Where another mount leads to them they are found, each once.
        bind(&one, &dir.join("whole"))?;
        let now = seen(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        let expected = ["one/d/d", "other/x", "whole/a", "whole/b", "whole/c"];
        assert_eq!(now.names(dir), expected);
        let all: Vec<_> = ids.iter().chain(&other_ids).copied().collect();
        assert_eq!(now.ids(), all);
        Ok(())
    })
}

/// Covered from the start, and not "by now".
#[common::test(ROOT)]
fn inventory_says_what_covers() -> Outcome {
    in_a_directory(|dir| {
        let one = dir.join("one");
        let below = bpffs(&one)?;
        filled(&one, &["a"])?;
        let above = bpffs(&one)?;
        let now = seen(dir)?;
        let [error] = &now.errors[..] else {
            panic!("{:?}", now.errors);
        };
        assert_eq!(
            error.to_string(),
            format!(
                "list the bpffs mounted at {}: mount {} is covered by bpffs (mount {})",
                one.display(),
                below.mount()?.mount_id,
                above.mount()?.mount_id
            )
        );
        Ok(())
    })
}

/// Mounts at and below places that are covered themselves, in every order.
#[common::test(ROOT)]
fn inventory_below_mounts_on_the_way() -> Outcome {
    in_a_directory(|dir| {
        let at = |name: &str| dir.join(name);
        let one = at("a/b/one");
        bpffs(&one)?;
        let ids = filled(&one, &["x", "y/z"])?;
        bind(&one, &at("c"))?;
        let names = |dir: &Path| -> Result<(Vec<String>, usize), Error> {
            let now = seen(dir)?;
            if now.errors.is_empty() {
                assert_eq!(now.ids(), ids);
            }
            Ok((now.names(dir), now.errors.len()))
        };
        let by_a = ["a/b/one/x", "a/b/one/y/z"].map(str::to_owned).to_vec();
        let by_c = ["c/x", "c/y/z"].map(str::to_owned).to_vec();
        assert_eq!(names(dir)?, (by_a.clone(), 0));
        // On the way, on the mount itself, and on what covers it.
        for place in ["a", "a/b", "a/b/one"] {
            tmpfs(&at(place))?;
            assert_eq!(names(dir)?, (by_c.clone(), 0), "{place}");
            fs::create_dir_all(&one)?;
            assert_eq!(names(dir)?, (by_c.clone(), 0), "{place}");
            bind(&at("c"), &one)?;
            assert_eq!(names(dir)?.1, 0, "{place}");
            unmount(&one, UnmountFlags::empty())?;
            unmount(at(place), UnmountFlags::empty())?;
        }
        // What is covered by itself is there.
        mount_bind(&one, &one)?;
        tmpfs(&at("c"))?;
        assert_eq!(names(dir)?, (by_a, 0));
        tmpfs(&at("a"))?;
        assert_eq!(names(dir)?, (vec![], 1));
        Ok(())
    })
}

/// The syscalls of an inventory where as many directories are covered, while as many mounts that would
/// lead to them are hidden themselves.
fn calls(dir: &Path, directories: usize) -> usize {
    let mut tracee = Tracee::fork(
        || (),
        |()| {
            let pins = Inventory::take().expect("mountinfo");
            let covered = pins.filter(|found| {
                let error = found.as_ref().err();
                error.is_some_and(|error| {
                    error.path().is_some_and(|path| path.starts_with(dir))
                        && matches!(error.cause(), Some(Cause::MountPoint { .. }))
                })
            });
            u8::from(covered.count() != directories)
        },
    )
    .expect("a child");
    let mut count = 0;
    while let Some(stop) = tracee.next().expect("a stop") {
        count += usize::from(stop.is_entry());
    }
    assert_eq!(tracee.finish().expect("an end"), 0, "each is told once");
    count
}

fn crowd() {
    const FEW: usize = 10;
    const MANY: usize = 80;

    // SAFETY: no NEWUSER or FILES, and there is no other thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("mounts of its own");
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).expect("private mounts");
    let place = tempfile::tempdir().expect("a directory");
    let dir = &fs::canonicalize(place.path()).expect("its path");
    tmpfs(dir).expect("a tmpfs");
    let (one, up) = (dir.join("one"), dir.join("up"));
    bpffs(&one).expect("a bpffs");
    let mut counts = vec![];
    for (from, to) in [(0, FEW), (FEW, MANY)] {
        for number in from..to {
            bind(&one, &up.join(number.to_string())).expect("a bind mount");
        }
        tmpfs(&up).expect("what hides them");
        for number in from..to {
            let directory = one.join(format!("d{number}"));
            fs::create_dir(&directory).expect("a directory");
            tmpfs(&directory).expect("what covers it");
        }
        counts.push(calls(dir, to));
        if to == FEW {
            unmount(&up, UnmountFlags::empty()).expect("hidden no more");
        }
    }
    unmount(dir, UnmountFlags::DETACH).expect("nothing is left");
    let [few, many] = counts[..] else {
        unreachable!()
    };
    println!("{FEW}: {few} calls, {MANY}: {many} calls");
    // Eight times as much, and not sixty-four.
    assert!(many < few * 12, "{few} calls, {many} calls");
}

/// What is mounted on the root itself is passed by nobody who begins there.
#[common::test(ROOT)]
fn inventory_below_a_mount_on_the_root() -> Outcome {
    in_a_directory(|dir| {
        let root = dir.join("root");
        fs::create_dir_all(root.join("proc"))?;
        mount_bind("/proc", root.join("proc"))?;
        bpffs(&root.join("a"))?;
        let ids = filled(&root.join("a"), &["pin"])?;
        bind(&root.join("a"), &root.join("b"))?;
        tmpfs(&root.join("a"))?;
        chroot(&root)?;
        // This thread's alone, with its mounts.
        rustix::process::chdir("/")?;
        for _ in 0..2 {
            let now = seen(Path::new("/"))?;
            assert!(now.errors.is_empty(), "{:?}", now.errors);
            assert_eq!(now.names(Path::new("/")), ["b/pin"]);
            assert_eq!(now.ids(), ids);
            assert!(fs::exists("/b/pin")?);
            tmpfs(Path::new("/"))?;
        }
        Ok(())
    })
}

/// It is no pin, and where it leads to is found where it is.
#[common::test(ROOT)]
fn inventory_of_a_link_over_a_pin() -> Outcome {
    in_a_directory(|dir| {
        let one = dir.join("one");
        bpffs(&one)?;
        filled(&one, &["other", "over"])?;
        symlink("other", one.join("link"))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        let link = open_tree(CWD, one.join("link"), flags)?;
        let moved = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&link, c"", CWD, one.join("over"), moved)?;
        let now = seen(dir)?;
        assert_eq!(now.names(dir), ["one/other"]);
        let [error] = &now.errors[..] else {
            panic!("{:?}", now.errors);
        };
        assert_eq!(error.path(), Some(&*one.join("over")));
        Ok(())
    })
}
