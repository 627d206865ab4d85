//! A pin that is removed or covered is listed if another mount leads to it, and reported otherwise.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use bpf_pin::bpffs::FileSystem;
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

use crate::inventory::listing::{list_below, pin, with_private_tmpfs};
use crate::inventory::{ROOT, assert_hidden, bind_mount, mount_bpffs, mount_tmpfs, pin_maps};

const CHILD: &str = "BPF_PIN_TEST_INVENTORY";

#[common::test(ROOT)]
fn the_number_of_syscalls_is_linear_in_hidden_mounts() -> Outcome {
    run_in_own_process(CHILD, "crowd")
}

/// Directories under other mounts are errors, and the mounts stay as they are.
#[common::test(ROOT)]
fn a_directory_under_a_mount_is_reported_and_not_unmounted() -> Outcome {
    with_private_tmpfs(|dir| {
        let one = dir.join("one");
        mount_bpffs(&one)?;
        pin_maps(&one, &["a", "d/hidden", "e/f/hidden", "g"])?;
        mount_tmpfs(&one.join("d"))?;
        mount_bpffs(&one.join("e/f"))?;
        pin_maps(&one.join("e/f"), &["in"])?;
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
        let now = list_below(dir)?;
        assert_eq!(fs::read_to_string("/proc/thread-self/mountinfo")?, mounts);
        assert_eq!(now.names(dir), ["one/a", "one/e/f/in", "one/g"]);
        let paths: Vec<_> = now.errors.iter().map(|error| error.path()).collect();
        assert_eq!(paths, [Some(&*one.join("d"))]);
        Ok(())
    })
}

/// Runs the child's task if the environment requests it, and returns whether it did.
pub fn run_if_requested() -> bool {
    let is_asked_for = env::var_os(CHILD).is_some();
    if is_asked_for {
        hide_many_mounts();
    }
    is_asked_for
}

/// mountinfo calls a removed directory "/sub//deleted", which is not a directory below "/sub".
#[common::test(ROOT)]
fn a_bind_mount_of_a_removed_directory_is_empty() -> Outcome {
    with_private_tmpfs(|dir| {
        let one = dir.join("one");
        mount_bpffs(&one)?;
        fs::create_dir(one.join("sub"))?;
        for place in ["gone", "gone too"] {
            bind_mount(&one.join("sub"), &dir.join(place))?;
        }
        fs::remove_dir(one.join("sub"))?;
        let ids = pin_maps(&one, &["sub/deleted/x", "sub/y"])?;
        bind_mount(&one.join("sub/deleted"), &dir.join("deleted"))?;
        bind_mount(&one.join("sub"), &dir.join("sub"))?;
        let root = |name: &str| -> Result<PathBuf, Error> {
            let mounts = Bpffs::mounts()?;
            let at = dir.join(name);
            let mount = mounts.into_iter().find(|mount| mount.mount_point == at);
            Ok(mount.expect(name).root)
        };
        assert_eq!(root("gone")?.as_os_str(), "/sub//deleted");
        assert_eq!(root("deleted")?.as_os_str(), "/sub/deleted");
        let expect = |names: &[&str], ids: &[u32]| -> Outcome {
            let now = list_below(dir)?;
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

/// A bind mount keeps a pin alive that has no name in its bpffs any more.
#[common::test(ROOT)]
fn a_bind_mount_of_a_removed_pin_is_listed() -> Outcome {
    with_private_tmpfs(|dir| {
        let one = dir.join("one");
        let dev = mount_bpffs(&one)?.dev();
        let mut ids = vec![];
        // Two pins that had the same name. One of them is bound twice.
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
            let now = list_below(dir)?;
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
        // The kind of a covered file cannot be determined.
        mount_tmpfs(&dir.join("c"))?;
        let now = list_below(dir)?;
        assert_eq!(now.names(dir), ["a"]);
        let [error] = &now.errors[..] else {
            panic!("{:?}", now.errors);
        };
        assert_eq!(error.path(), Some(&*dir.join("c/d")));
        Ok(())
    })
}

/// Pins are covered by a regular file, a pin of the same instance, and one of another instance.
#[common::test(ROOT)]
fn a_covered_pin_is_reported_or_listed_through_another_mount() -> Outcome {
    with_private_tmpfs(|dir| {
        let (one, other, file) = (dir.join("one"), dir.join("other"), dir.join("file"));
        mount_bpffs(&one)?;
        let ids = pin_maps(&one, &["a", "b", "c", "d/d"])?;
        mount_bpffs(&other)?;
        let other_ids = pin_maps(&other, &["x"])?;
        fs::write(&file, "")?;
        mount_bind(&file, one.join("a"))?;
        mount_bind(one.join("d/d"), one.join("b"))?;
        mount_bind(other.join("x"), one.join("c"))?;
        let now = list_below(dir)?;
        assert_eq!(now.names(dir), ["one/d/d", "other/x"]);
        assert_eq!(now.ids(), [ids[3], other_ids[0]]);
        let reported: HashSet<_> = now.errors.iter().map(|error| error.path()).collect();
        let expected = ["a", "b", "c"].map(|name| one.join(name));
        assert_eq!(
            reported,
            expected.iter().map(|path| Some(&**path)).collect()
        );
        for error in &now.errors {
            assert_eq!(error.operation(), Operation::Open, "{error:?}");
            let path = error.path().expect("a path").to_owned();
            assert_eq!(error.operation(), Operation::Open);
            assert_eq!(error.cause(), Some(&Cause::MountPoint { path }));
            assert_eq!(error.raw_os_error(), None);
        }
        // All pins are listed once if another mount leads to them.
        bind_mount(&one, &dir.join("whole"))?;
        let now = list_below(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        let expected = ["one/d/d", "other/x", "whole/a", "whole/b", "whole/c"];
        assert_eq!(now.names(dir), expected);
        let all: Vec<_> = ids.iter().chain(&other_ids).copied().collect();
        assert_eq!(now.ids(), all);
        Ok(())
    })
}

/// The mount was covered before the inventory began, so the error does not mention a change.
#[common::test(ROOT)]
fn the_error_of_a_covered_bpffs_names_the_covering_mount() -> Outcome {
    with_private_tmpfs(|dir| {
        let one = dir.join("one");
        let below = mount_bpffs(&one)?;
        pin_maps(&one, &["a"])?;
        let above = mount_bpffs(&one)?;
        let now = list_below(dir)?;
        let [error] = &now.errors[..] else {
            panic!("{:?}", now.errors);
        };
        let cause = Cause::Covered {
            mount_id: below.mount()?.mount_id,
            found: FileSystem::BPF,
            by: above.mount()?.mount_id,
        };
        assert_hidden(error, &one, |found| *found == cause);
        Ok(())
    })
}

/// Mounts at and below covered directories, in every order.
#[common::test(ROOT)]
fn mounts_on_parent_directories_hide_a_bpffs() -> Outcome {
    with_private_tmpfs(|dir| {
        let at = |name: &str| dir.join(name);
        let one = at("a/b/one");
        mount_bpffs(&one)?;
        let ids = pin_maps(&one, &["x", "y/z"])?;
        bind_mount(&one, &at("c"))?;
        let names = |dir: &Path| -> Result<(Vec<String>, usize), Error> {
            let now = list_below(dir)?;
            if now.errors.is_empty() {
                assert_eq!(now.ids(), ids);
            }
            Ok((now.names(dir), now.errors.len()))
        };
        let by_a = ["a/b/one/x", "a/b/one/y/z"].map(str::to_owned).to_vec();
        let by_c = ["c/x", "c/y/z"].map(str::to_owned).to_vec();
        assert_eq!(names(dir)?, (by_a.clone(), 0));
        // On a parent directory, on the mount itself, and on the mount that covers it.
        for place in ["a", "a/b", "a/b/one"] {
            mount_tmpfs(&at(place))?;
            assert_eq!(names(dir)?, (by_c.clone(), 0), "{place}");
            fs::create_dir_all(&one)?;
            assert_eq!(names(dir)?, (by_c.clone(), 0), "{place}");
            bind_mount(&at("c"), &one)?;
            assert_eq!(names(dir)?.1, 0, "{place}");
            unmount(&one, UnmountFlags::empty())?;
            unmount(at(place), UnmountFlags::empty())?;
        }
        // A bpffs that is covered by itself is reachable.
        mount_bind(&one, &one)?;
        mount_tmpfs(&at("c"))?;
        assert_eq!(names(dir)?, (by_a, 0));
        mount_tmpfs(&at("a"))?;
        assert_eq!(names(dir)?, (vec![], 1));
        Ok(())
    })
}

/// Counts the syscalls of an inventory with this many covered directories and as many hidden mounts that would lead
/// to them.
fn count_syscalls(dir: &Path, directories: usize) -> usize {
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
    assert_eq!(tracee.finish().expect("an end"), 0, "each is reported once");
    count
}

fn hide_many_mounts() {
    const FEW: usize = 10;
    const MANY: usize = 80;

    // SAFETY: NEWNS does not separate descriptors, and this is the only thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("a new mount namespace");
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).expect("private mounts");
    let place = tempfile::tempdir().expect("a directory");
    let dir = &fs::canonicalize(place.path()).expect("its path");
    mount_tmpfs(dir).expect("a tmpfs");
    let (one, up) = (dir.join("one"), dir.join("up"));
    mount_bpffs(&one).expect("a bpffs");
    let mut counts = vec![];
    for (from, to) in [(0, FEW), (FEW, MANY)] {
        for number in from..to {
            bind_mount(&one, &up.join(number.to_string())).expect("a bind mount");
        }
        mount_tmpfs(&up).expect("a tmpfs that hides them");
        for number in from..to {
            let directory = one.join(format!("d{number}"));
            fs::create_dir(&directory).expect("a directory");
            mount_tmpfs(&directory).expect("a tmpfs that covers it");
        }
        counts.push(count_syscalls(dir, to));
        if to == FEW {
            unmount(&up, UnmountFlags::empty()).expect("visible again");
        }
    }
    unmount(dir, UnmountFlags::DETACH).expect("the end of all mounts");
    let [few, many] = counts[..] else {
        unreachable!()
    };
    println!("{FEW}: {few} calls, {MANY}: {many} calls");
    // Linear: about 8 times as many, not 64 times.
    assert!(many < few * 12, "{few} calls, {many} calls");
}

/// A path from the root directory does not pass a mount on that directory.
#[common::test(ROOT)]
fn a_mount_on_the_root_directory_hides_nothing() -> Outcome {
    with_private_tmpfs(|dir| {
        let root = dir.join("root");
        fs::create_dir_all(root.join("proc"))?;
        mount_bind("/proc", root.join("proc"))?;
        mount_bpffs(&root.join("a"))?;
        let ids = pin_maps(&root.join("a"), &["pin"])?;
        bind_mount(&root.join("a"), &root.join("b"))?;
        mount_tmpfs(&root.join("a"))?;
        chroot(&root)?;
        // The root and working directories of this thread only, because it has its own mount namespace.
        rustix::process::chdir("/")?;
        for _ in 0..2 {
            let now = list_below(Path::new("/"))?;
            assert!(now.errors.is_empty(), "{:?}", now.errors);
            assert_eq!(now.names(Path::new("/")), ["b/pin"]);
            assert_eq!(now.ids(), ids);
            assert!(fs::exists("/b/pin")?);
            mount_tmpfs(Path::new("/"))?;
        }
        Ok(())
    })
}

/// A symbolic link that is mounted over a pin is not a pin. Its target is listed at its own path.
#[common::test(ROOT)]
fn a_symbolic_link_that_covers_a_pin_is_reported() -> Outcome {
    with_private_tmpfs(|dir| {
        let one = dir.join("one");
        mount_bpffs(&one)?;
        pin_maps(&one, &["other", "over"])?;
        symlink("other", one.join("link"))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        let link = open_tree(CWD, one.join("link"), flags)?;
        let moved = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&link, c"", CWD, one.join("over"), moved)?;
        let now = list_below(dir)?;
        assert_eq!(now.names(dir), ["one/other"]);
        let [error] = &now.errors[..] else {
            panic!("{:?}", now.errors);
        };
        assert_eq!(error.path(), Some(&*one.join("over")));
        Ok(())
    })
}
