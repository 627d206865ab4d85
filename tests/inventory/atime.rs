//! Which times of last access an inventory leaves as they are.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bpf_pin::{Error, Map};
use common::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_change, mount_remount,
    unmount,
};
use rustix::thread::CapabilitySet;

use crate::seen::{Seen, in_a_directory, seen};
use crate::{ROOT, bind, bpffs, filled, tmpfs};

pub fn tests(suite: Suite) -> Suite {
    const SINCE_5_12: &[Need] = &[cap::SYS_ADMIN, kernel(5, 12)];
    const USERS: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
    suite
        .test("inventory_keeps_times_of_access", SINCE_5_12, kept)
        .test("inventory_keeps_what_is_covered_apart", SINCE_5_12, covered)
        .test("inventory_sets_times_where_it_must", ROOT, set)
        .test("inventory_of_a_user_sets_times", USERS, of_a_user)
        .test("inventory_behind_a_filter_sets_times", ROOT, filtered)
}

const LONG_AGO: i64 = 1_000_000_000;

/// Last accessed long ago, and before the last change: the next access shows.
fn age(path: &Path) {
    let time = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
    let times = Timestamps {
        last_access: time(LONG_AGO),
        last_modification: time(LONG_AGO + 1),
    };
    utimensat(CWD, path, &times, AtFlags::empty()).expect("times that are set");
}

fn is_aged(path: &Path) -> bool {
    fs::metadata(path).expect("a pin").atime() == LONG_AGO
}

/// The inventory below `dir`, after all `paths` were aged.
fn after_aging(dir: &Path, paths: &[&Path]) -> Result<Seen, Error> {
    for path in paths {
        age(path);
    }
    let now = seen(dir)?;
    assert!(now.errors.is_empty(), "{:?}", now.errors);
    Ok(now)
}

fn kept() -> Outcome {
    in_a_directory(|dir| {
        let one = dir.join("one");
        bpffs(&one)?;
        let ids = filled(&one, &["a", "d/b", "d/e/c"])?;
        bind(&one.join("d"), &dir.join("part"))?;
        let paths = ["a", "d/b", "d/e/c", "d", "d/e"].map(|name| one.join(name));
        let paths = paths.each_ref().map(|path| &**path);
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
        let now = after_aging(dir, &paths)?;
        assert_eq!(now.ids(), ids);
        for path in paths {
            assert!(is_aged(path), "{path:?}");
        }
        // Through the mount itself nothing has changed.
        assert_eq!(fs::read_to_string("/proc/thread-self/mountinfo")?, mounts);
        drop(Map::open(paths[0])?);
        assert!(!is_aged(paths[0]));
        Ok(())
    })
}

/// What a copy of a mount would show is told as hidden all the same.
fn covered() -> Outcome {
    in_a_directory(|dir| {
        let one = dir.join("one");
        bpffs(&one)?;
        filled(&one, &["a", "d/hidden", "e/f/hidden", "g"])?;
        tmpfs(&one.join("d"))?;
        bpffs(&one.join("e/f"))?;
        filled(&one.join("e/f"), &["in"])?;
        let now = seen(dir)?;
        assert_eq!(now.names(dir), ["one/a", "one/e/f/in", "one/g"]);
        let told: Vec<_> = now.errors.iter().map(|error| error.path()).collect();
        assert_eq!(told, [Some(&*one.join("d"))]);
        Ok(())
    })
}

/// Of an unbindable mount there is no copy, and a pin that is mounted is opened where it is.
fn set() -> Outcome {
    in_a_directory(|dir| {
        let (one, file) = (dir.join("one"), dir.join("file"));
        bpffs(&one)?;
        let ids = filled(&one, &["a"])?;
        let pin = one.join("a");
        mount_change(&one, MountPropagationFlags::UNBINDABLE)?;
        assert_eq!(after_aging(dir, &[&pin])?.ids(), ids);
        assert!(!is_aged(&pin));
        // But where the mount itself sets none.
        mount_remount(&one, MountFlags::BIND | MountFlags::NOATIME, "")?;
        assert_eq!(after_aging(dir, &[&pin])?.ids(), ids);
        assert!(is_aged(&pin));

        mount_change(&one, MountPropagationFlags::PRIVATE)?;
        mount_remount(&one, MountFlags::BIND | MountFlags::RELATIME, "")?;
        fs::write(&file, "")?;
        mount_bind(&pin, &file)?;
        unmount(&one, UnmountFlags::empty())?;
        assert_eq!(after_aging(dir, &[&file])?.ids(), ids);
        assert!(!is_aged(&file));
        Ok(())
    })
}

/// With CAP_BPF, since before Linux 5.19 a sysctl may close bpf(2) to others.
fn of_a_user() -> Outcome {
    in_a_directory(|dir| {
        let one = dir.join("one");
        bpffs(&one)?;
        let ids = filled(&one, &["a"])?;
        let pin = one.join("a");
        std::os::unix::fs::chown(&pin, Some(1234), None)?;
        age(&pin);
        as_user(CapabilitySet::BPF, || {
            assert_eq!(seen(dir)?.ids(), ids);
            assert!(!is_aged(&pin));
            Ok(())
        })
    })
}

/// It may end whoever makes a mount, so none is made.
fn filtered() -> Outcome {
    in_a_directory(|dir| {
        let one = dir.join("one");
        bpffs(&one)?;
        let ids = filled(&one, &["a"])?;
        let pin = one.join("a");
        answered(libc::SYS_reboot, None, libc::EPERM as u32, || {
            assert_eq!(after_aging(dir, &[&pin])?.ids(), ids);
            assert!(!is_aged(&pin));
            Ok(())
        })
    })
}
