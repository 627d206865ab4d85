//! A held directory stays the same one, even if its path, /proc or the descriptor numbers change.

use crate::methods;
mod without_proc;

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::symlink;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Map, PinDir, Result};
use common::*;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::mount::{UnmountFlags, unmount};

use crate::helpers::*;
use methods::METHODS;

pub const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
pub const MOUNTS: &[Need] = &[cap::BPF, cap::SYS_ADMIN];
pub const USERS: &[Need] = &[cap::BPF, cap::SYS_ADMIN, cap::SETUID];

/// Runs every operation in the directory; one pin is left at the end.
#[track_caller]
fn assert_usable(dir: &PinDir) {
    run_all_operations(dir).expect("a usable directory");
    assert_eq!(names_in(dir), ["mark"]);
}

fn run_all_operations(dir: &PinDir) -> Result<()> {
    let (one, two) = (hash(), hash());
    dir.pin(&one, "pin")?;
    assert_eq!(dir.get::<Map>("pin")?.id()?, one.id()?);
    assert_eq!(
        dir.get::<bpf_pin::Object>("pin")?.identity()?,
        one.identity()?
    );
    dir.replace(&two, "pin")?;
    assert_eq!(dir.identity("pin")?, two.identity()?);
    dir.replace_if(&one, "pin", two.identity()?)?;
    dir.set_mode("pin", 0o640)?;
    dir.set_owner("pin", None, None)?;
    dir.replace_keeping_mode(&two, "pin")?;
    assert_eq!(dir.metadata("pin")?.mode(), 0o640);
    let sub = dir.create_dir("sub", 0o710)?;
    assert_eq!(
        dir.open_dir("sub")?.own_metadata()?.inode(),
        sub.own_metadata()?.inode()
    );
    dir.copy_to("pin", &sub)?;
    dir.link("pin", "second")?;
    dir.rename("second", "third")?;
    if kernel(5, 17).unmet().is_none() {
        dir.exchange("third", "pin")?;
    }
    dir.unlink("third")?;
    let stage = dir.stage("set")?;
    stage.pin(&one, "a")?;
    drop(stage.publish()?);
    assert_eq!(dir.open_dir("set")?.identity("a")?, one.identity()?);
    dir.remove_dir_all("set")?;
    sub.unpin(&two, "pin")?;
    dir.remove_dir("sub")?;
    dir.unpin(&two, "pin")?;
    dir.remove_leftovers()?;
    dir.pin(&one, "mark")
}

#[common::test(PINS)]
fn a_removed_directory_is_reported() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    let dead = root.create_dir("dead", 0o700)?;
    let path = fs.at("dead");
    root.remove_dir("dead")?;
    let cause = || Cause::Removed { path: path.clone() };
    let check = || {
        for (_, call) in METHODS {
            let error = unwrap_err(call(&dead, OsStr::new("name")));
            assert_cause(&error, libc::ENOENT, cause());
        }
    };
    check();
    // A new directory with the old name makes no difference.
    let new = root.create_dir("dead", 0o700)?;
    new.pin(&any_map(), "name")?;
    new.pin(&any_map(), "pin")?;
    check();
    assert_eq!(names_in(&new), ["name", "pin"]);
    let listed = dead.entries()?.next();
    let error = unwrap_err(listed.expect("an error"));
    assert_fails(&error, Operation::ListDir, libc::ENOENT, cause());
    let error = unwrap_err(dead.lock(LockMode::Exclusive, Wait::Forever));
    assert_fails(
        &error,
        Operation::Lock,
        None,
        Cause::Moved { path: path.clone() },
    );
    assert_eq!(dead.own_metadata()?.links(), 0);
    dead.chmod(0o755)?;
    Ok(())
}

#[common::test(PINS)]
fn a_renamed_directory_stays_usable() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    let dir = PinDir::create(fs.at("a/b/dir"), 0o700)?;
    root.rename("a", "elsewhere")?;
    root.open_dir("elsewhere")?
        .open_dir("b")?
        .rename("dir", "moved")?;
    assert_usable(&dir);
    assert_eq!(dir.path(), fs.at("a/b/dir"), "as it was opened");
    assert_eq!(
        names_in(&PinDir::open(fs.at("elsewhere/b/moved"))?),
        ["mark"]
    );
    assert_eq!(fs.names(), ["elsewhere"]);
    Ok(())
}

#[common::test(PINS)]
fn a_parent_replaced_by_a_symbolic_link_has_no_effect() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    let dir = PinDir::create(fs.at("parent/dir"), 0o700)?;
    let decoy = PinDir::create(fs.at("decoy/dir"), 0o700)?;
    decoy.pin(&prog(), "pin")?;
    root.rename("parent", "hidden")?;
    symlink("decoy", fs.at("parent"))?;
    assert_usable(&dir);
    assert_eq!(names_in(&decoy), ["pin"]);
    assert_eq!(
        names_in(&PinDir::open(fs.at("parent/dir"))?),
        ["pin"],
        "the path leads to the decoy"
    );
    assert_eq!(names_in(&PinDir::open(fs.at("hidden/dir"))?), ["mark"]);
    Ok(())
}

#[common::test(PINS)]
fn a_directory_that_took_the_path_has_no_effect() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    let dir = root.create_dir("dir", 0o700)?;
    root.rename("dir", "old")?;
    let decoy = root.create_dir("dir", 0o700)?;
    assert_usable(&dir);
    assert!(names_in(&decoy).is_empty());
    assert_eq!(names_in(&root.open_dir("old")?), ["mark"]);
    Ok(())
}

#[common::test(MOUNTS)]
fn a_mount_over_the_path_has_no_effect() -> Outcome {
    let temporary = tempfile::tempdir()?;
    in_mount_namespace(|| -> Outcome {
        let path = temporary.path();
        mount_at("bpf", path);
        // Mounts over the directory and over its parents, with a tmpfs and with another bpffs.
        for (kind, over) in [
            ("tmpfs", "a/dir"),
            ("bpf", "a/dir"),
            ("tmpfs", "a"),
            ("bpf", ""),
        ] {
            let dir = PinDir::create(path.join("a/dir"), 0o700)?;
            let over = path.join(over);
            mount_at(kind, &over);
            assert_usable(&dir);
            let seen = fs::read_dir(&over)?.filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                !name.to_string_lossy().ends_with(".debug")
            });
            assert_eq!(seen.count(), 0, "the mounted file system is empty");
            unmount(&over, UnmountFlags::empty())?;
            assert_eq!(names_in(&PinDir::open(path.join("a/dir"))?), ["mark"]);
            dir.unlink("mark")?;
        }
        Ok(())
    })
}

#[common::test(MOUNTS)]
fn a_lazily_unmounted_directory_stays_usable() -> Outcome {
    let temporary = tempfile::tempdir()?;
    in_mount_namespace(|| -> Outcome {
        mount_at("bpf", temporary.path());
        let dir = PinDir::create(temporary.path().join("dir"), 0o700)?;
        // A held directory keeps the file system busy.
        let busy = unmount(temporary.path(), UnmountFlags::empty());
        assert_eq!(busy, Err(rustix::io::Errno::BUSY));
        unmount(temporary.path(), UnmountFlags::DETACH)?;
        assert_usable(&dir);
        assert_eq!(fs::read_dir(temporary.path())?.count(), 0);
        Ok(())
    })
}

#[common::test(PINS)]
fn lock_requires_that_the_path_leads_to_the_directory() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    let dir = root.create_dir("dir", 0o700)?;
    drop(dir.lock(LockMode::Exclusive, Wait::Forever)?);
    root.rename("dir", "old")?;
    let path = fs.at("dir");
    for step in 0..2 {
        for error in [
            unwrap_err(dir.lock(LockMode::Exclusive, Wait::Forever)),
            unwrap_err(dir.lock(LockMode::Shared, Wait::Forever)),
            unwrap_err(dir.lock(LockMode::Exclusive, Wait::No)),
            unwrap_err(dir.lock(LockMode::Shared, Wait::No)),
            unwrap_err(dir.lock(
                LockMode::Exclusive,
                Wait::UpTo(std::time::Duration::from_secs(1)),
            )),
        ] {
            assert_fails(
                &error,
                Operation::Lock,
                None,
                Cause::Moved { path: path.clone() },
            );
        }
        if step == 0 {
            drop(root.create_dir("dir", 0o700)?);
        }
    }
    // The failed calls hold no lock.
    assert!(
        root.open_dir("old")?
            .lock(LockMode::Exclusive, Wait::No)?
            .is_some()
    );
    root.remove_dir("dir")?;
    root.rename("old", "dir")?;
    assert!(dir.lock(LockMode::Exclusive, Wait::No)?.is_some());
    Ok(())
}

/// An old set can be published again while it is locked.
#[common::test(PINS)]
fn a_locked_old_set_can_be_published_again() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    let stage = root.stage("set")?;
    stage.pin(&any_map(), "first")?;
    let first = stage.publish().map_err(bpf_pin::Error::from)?;
    let lock = first.dir.lock(LockMode::Exclusive, Wait::Forever)?;
    let second = root.stage("set")?.publish().map_err(bpf_pin::Error::from)?;
    let old = second.old.expect("the old entry");
    let third = old.publish().map_err(bpf_pin::Error::from)?;
    assert!(third.dir.lock(LockMode::Shared, Wait::No)?.is_none());
    drop((lock, third));
    assert_eq!(names_in(&root.open_dir("set")?), ["first"]);
    assert_eq!(fs.names(), ["set"]);
    Ok(())
}

/// The same descriptor number refers to one directory in this thread and to another in the other
/// threads.
#[common::test(MOUNTS)]
fn a_thread_with_its_own_descriptor_table_uses_its_own_directory() -> Outcome {
    let number = |fs: &TestFs| fs.mount().expect("a detached mount").as_raw_fd();
    let mut two = [TestFs::detached("700"), TestFs::detached("700")];
    // The thread's own table opens the lower number.
    two.sort_by_key(number);
    let [fs, decoys] = two;
    let number = number(&decoys);
    root_of(&decoys).pin(&prog(), "pin")?;
    with_own_descriptors(|| -> Outcome {
        // Opens through the table of the process, because /proc/self/fd refers to that one.
        let held = fcntl_dupfd_cloexec(root_of(&fs), number + 1)?;
        // SAFETY: nothing else in this thread's table uses the number.
        let done = unsafe { libc::dup3(held.as_raw_fd(), number, libc::O_CLOEXEC) };
        assert_eq!(done, number);
        // SAFETY: the call above created the descriptor, in this thread's own table.
        let mine = PinDir::from_fd(unsafe { OwnedFd::from_raw_fd(number) })?;
        assert_usable(&mine);
        Ok(())
    })?;
    assert_eq!(fs.names(), ["mark"]);
    assert_eq!(decoys.names(), ["pin"]);
    Ok(())
}

/// In BPF attributes, descriptor 0 means "none" unless a flag says otherwise.
#[common::test(MOUNTS)]
fn descriptor_0_can_be_a_directory() -> Outcome {
    let fs = TestFs::detached("700");
    with_own_descriptors(|| -> Outcome {
        // SAFETY: nothing else in this thread's table uses descriptor 0.
        unsafe { libc::close(0) };
        let dir = PinDir::open(fs.root())?;
        assert_eq!(dir.as_fd().as_raw_fd(), 0);
        assert_usable(&dir);
        Ok(())
    })?;
    assert_eq!(fs.names(), ["mark"]);
    Ok(())
}

/// Counts descriptors in a separate table, so that other tests do not disturb the count.
#[common::test(PINS)]
fn no_descriptor_is_left_open() -> Outcome {
    let fs = TestFs::new();
    let open = || fs::read_dir("/proc/thread-self/fd").map(Iterator::count);
    with_own_descriptors(|| -> Outcome {
        let before = open()?;
        for _ in 0..3 {
            let dir = PinDir::create(fs.at("dir"), 0o700)?;
            assert_usable(&dir);
            dir.pin(&any_map(), "pin")?;
            drop(dir.create_dir("directory", 0o700)?);
            for (_, call) in METHODS {
                for name in ["gone", "a.b", "directory", "pin"] {
                    // The result does not matter here, only the descriptors.
                    let _ = call(&dir, OsStr::new(name));
                }
            }
            for name in ["gone", "gone/a.b", "mark", "mark/a"] {
                let _ = PinDir::open(fs.at("dir").join(name));
                let _ = PinDir::create(fs.at("dir").join(name), 0o700);
            }
            let _ = PinDir::from_fd(any_map().into());
            root_of(&fs).remove_dir_all("dir")?;
            let _ = dir.pin(&any_map(), "dead");
            let _ = dir.create_dir("dead", 0o700);
            let _ = dir.lock(LockMode::Exclusive, Wait::Forever);
        }
        assert_eq!(open()?, before);
        Ok(())
    })?;
    assert!(fs.names().is_empty());
    Ok(())
}
