//! `Bpffs::ensure` mounts a bpffs if none is mounted, and only once.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Output};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bpf_pin::bpffs::{FileSystem, MountOptions, MountOutcome};
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Bpffs, Map};
use common::*;
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use crate::mount::*;

const RACERS: usize = 16;

fn options() -> MountOptions {
    MountOptions::new().mode(0o700)
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).expect("a root").mode() & 0o7777
}

/// "." refers to the directory below a mount on it.
#[common::test(ROOT)]
fn ensure_works_on_the_working_directory() -> Outcome {
    with_mount_point(|path| {
        // This thread has its own mount namespace, and with it its own working directory.
        rustix::process::chdir(path)?;
        let first = Bpffs::ensure(".", &options())?;
        assert!(first.is_new());
        let first = first.into_bpffs();
        assert_is_at(&first, path);
        first.still_here()?;
        for spelling in [".", "./", "../."] {
            let spelling = match spelling {
                "../." => Path::new("..").join(path.file_name().unwrap()),
                other => other.into(),
            };
            let again = existing(Bpffs::ensure(&spelling, &options())?);
            assert_eq!(again.dev(), first.dev());
        }
        first.unmount().map_err(bpf_pin::Error::from)?;
        assert!(!FileSystem::at(path)?.is_bpffs());
        let second = MountOptions::new().mount(".")?;
        second.still_here()?;
        second.unmount().map_err(bpf_pin::Error::from)?;
        assert!(!FileSystem::at(path)?.is_bpffs());
        rustix::process::chdir("/")?;
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_second_ensure_finds_the_first_mount() -> Outcome {
    with_mount_point(|path| {
        let first = new(Bpffs::ensure(path, &options())?);
        assert_is_at(&first, path);
        assert_eq!(mode_of(path), 0o1700);
        hash().pin(path.join("map"))?;
        // The options of the second call have no effect.
        let second = existing(Bpffs::ensure(path, &MountOptions::new().mode(0o755))?);
        assert_eq!(second.dev(), first.dev());
        assert_eq!(mode_of(path), 0o1700);
        assert!(Map::open(path.join("map")).is_ok());
        // Another spelling of the path.
        let found = Bpffs::ensure(path.join("../").join(path.file_name().unwrap()), &options())?;
        assert!(!found.is_new());
        assert_eq!(found.into_bpffs().dev(), first.dev());
        Ok(())
    })
}

#[common::test(ROOT)]
fn ensure_never_covers_another_mount() -> Outcome {
    with_mount_point(|path| {
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), None)?;
        fs::write(path.join("file"), "precious")?;
        let tmpfs = mount_at(path);
        let error = Bpffs::ensure(path, &options()).expect_err("a tmpfs is there");
        let (found, mount_id) = (FileSystem::at(path)?, tmpfs.mount_id);
        let cause = Cause::Occupied { found, mount_id };
        assert_fails_at(&error, Operation::MountBpffs, path, None, Some(cause));
        assert_eq!(mount_at(path), tmpfs);
        assert_eq!(fs::read_to_string(path.join("file"))?, "precious");
        // A directory on that tmpfs is accepted.
        fs::create_dir(path.join("dir"))?;
        assert!(Bpffs::ensure(path.join("dir"), &options())?.is_new());
        assert_eq!(mount_at(path), tmpfs);
        // A tmpfs covers a bpffs.
        mount(
            "tmpfs",
            path.join("dir"),
            "tmpfs",
            MountFlags::empty(),
            None,
        )?;
        let error = Bpffs::ensure(path.join("dir"), &options()).expect_err("it is covered");
        assert_cause_matches!(error, Cause::Occupied { .. });
        assert_eq!(mounts_at(&path.join("dir")).len(), 2);
        Ok(())
    })
}

#[common::test(ROOT)]
fn ensure_rejects_a_directory_in_a_bpffs() -> Outcome {
    with_mount_point(|path| {
        let bpffs = options().mount(path)?;
        let inside = path.join("inside");
        fs::create_dir(&inside)?;
        let error = Bpffs::ensure(&inside, &options()).expect_err("within a bpffs");
        let cause = Cause::NotTheRoot {
            path: Some(inside.clone()),
            mount_point: Some(path.to_owned()),
        };
        assert_fails_at(&error, Operation::MountBpffs, &inside, None, Some(cause));
        assert_nothing_is_mounted_at(&inside);
        assert_is_at(&bpffs, path);
        Ok(())
    })
}

/// A young bpffs over another may be one that a racing call is about to unmount. `ensure` waits, and accepts it if
/// it stays.
#[common::test(ROOT)]
fn ensure_accepts_a_bpffs_over_another_after_a_wait() -> Outcome {
    with_mount_point(|path| {
        let below = options().mount(path)?;
        let above = options().mount(path)?;
        let begin = Instant::now();
        let found = Bpffs::ensure(path, &options())?;
        assert!(!found.is_new());
        assert!(
            begin.elapsed() > Duration::from_millis(4900),
            "{:?}",
            begin.elapsed()
        );
        assert_eq!(found.into_bpffs().dev(), above.dev());
        let mounts = mounts_at(path);
        assert_eq!(mounts.len(), 2, "{mounts:#?}");
        assert_eq!(mounts[0].dev, below.dev());
        Ok(())
    })
}

/// Changes inside the bpffs do not affect its age.
#[common::test(ROOT)]
fn ensure_accepts_an_old_bpffs_over_another_at_once() -> Outcome {
    with_mount_point(|path| {
        let _below = options().mount(path)?;
        let above = options().mount(path)?;
        // Set the times of a bpffs that is a minute old.
        let ago = SystemTime::now() - Duration::from_secs(60);
        let times = FileTimes::new().set_accessed(ago).set_modified(ago);
        File::open(path)?.set_times(times)?;
        fs::create_dir(path.join("new"))?;
        let made = fs::metadata(path)?;
        assert!(made.ctime() > made.atime() && made.mtime() > made.atime());
        let begin = Instant::now();
        let found = Bpffs::ensure(path, &options())?;
        assert!(!found.is_new());
        assert_eq!(found.into_bpffs().dev(), above.dev());
        assert!(
            begin.elapsed() < Duration::from_millis(4900),
            "{:?}",
            begin.elapsed()
        );
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_bind_mount_counts_as_a_mount() -> Outcome {
    with_mount_point(|path| {
        for name in ["one", "other", "plain"] {
            fs::create_dir(path.join(name))?;
        }
        let bpffs = options().mount(path.join("one"))?;
        fs::create_dir(path.join("one/sub"))?;
        mount_bind(path.join("one/sub"), path.join("other"))?;
        let found = Bpffs::ensure(path.join("other"), &options())?;
        assert!(!found.is_new());
        assert_eq!(found.into_bpffs().dev(), bpffs.dev());
        // A directory that is bind-mounted on itself counts as a mount point.
        mount_bind(path.join("plain"), path.join("plain"))?;
        let error = Bpffs::ensure(path.join("plain"), &options()).expect_err("it is mounted");
        assert_cause_matches!(error, Cause::Occupied { .. });
        Ok(())
    })
}

#[common::test(ROOT)]
fn ensure_creates_no_directories() -> Outcome {
    with_mount_point(|path| {
        let before = Bpffs::mounts()?;
        let gone = path.join("gone/further");
        let error = Bpffs::ensure(&gone, &options()).expect_err("nothing is there");
        let cause = Cause::Missing {
            path: path.join("gone"),
        };
        let enoent = Some(libc::ENOENT);
        assert_fails_at(&error, Operation::MountBpffs, &gone, enoent, Some(cause));
        fs::write(path.join("file"), "")?;
        let error = Bpffs::ensure(path.join("file"), &options()).expect_err("a file");
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
        let names: Vec<_> = fs::read_dir(path)?
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["file"]);
        assert_eq!(Bpffs::mounts()?, before);
        Ok(())
    })
}

/// Calls `ensure` from many threads of this mount namespace, and returns their results.
fn race(path: &Path) -> Vec<MountOutcome> {
    let start = Barrier::new(RACERS);
    thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    Bpffs::ensure(path, &options())
                })
            })
            .collect();
        let results = racers
            .into_iter()
            .map(|racer| racer.join().unwrap().unwrap());
        results.collect()
    })
}

#[track_caller]
fn assert_one_is_mounted(path: &Path, results: &[MountOutcome]) {
    let mount = mount_at(path);
    assert_eq!(results.iter().filter(|result| result.is_new()).count(), 1);
    for outcome in results {
        assert_eq!(outcome.bpffs().dev(), mount.dev);
        outcome.bpffs().still_here().unwrap();
    }
}

#[common::test(ROOT)]
fn sixteen_threads_mount_once() -> Outcome {
    with_mount_point(|path| {
        for _ in 0..50 {
            let results = race(path);
            assert_one_is_mounted(path, &results);
            let first = results.into_iter().next().ok_or("no result")?;
            unmount_with_retries(first.into_bpffs());
            assert_nothing_is_mounted_at(path);
        }
        Ok(())
    })
}

/// The child of `sixteen_processes_mount_once`: prints "mounted" or "found", and the device number.
pub fn ensure_in_child() {
    let path = crate::mount::child::argument();
    // All children are started before the first one continues.
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .expect("a line that starts the race");
    let outcome = Bpffs::ensure(&path, &options()).expect("a bpffs");
    let word = if outcome.is_new() { "mounted" } else { "found" };
    println!("{word} {}", outcome.bpffs().dev());
}

#[common::test(ROOT)]
fn sixteen_processes_mount_once() -> Outcome {
    with_mount_point(|path| {
        for _ in 0..5 {
            let argument = path.to_str().ok_or("a path that is text")?;
            let children: Vec<Child> = (0..RACERS)
                .map(|_| {
                    let mut command = crate::mount::child::command("ensure", argument);
                    command.stdin(std::process::Stdio::piped()).spawn()
                })
                .collect::<Result<_, _>>()?;
            let mut children = children;
            for child in &mut children {
                drop(child.stdin.take());
            }
            let outputs: Vec<Output> = children
                .into_iter()
                .map(Child::wait_with_output)
                .collect::<Result<_, _>>()?;
            let mut words = Vec::new();
            for output in &outputs {
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{errors}");
                words.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
            }
            let mount = mount_at(path);
            let is_new = |word: &&String| **word == format!("mounted {}", mount.dev);
            assert_eq!(words.iter().filter(is_new).count(), 1, "{words:?}");
            let others: HashSet<_> = words.iter().filter(|word| !is_new(word)).collect();
            assert_eq!(
                others,
                HashSet::from([&format!("found {}", mount.dev)]),
                "{words:?}"
            );
            unmount_with_retries(Bpffs::at(path)?);
        }
        Ok(())
    })
}

/// Without flock(2), a racer that covers another mount unmounts its own, and no caller gets a mount that is about to
/// be unmounted.
#[common::test(ROOT)]
fn sixteen_threads_without_flock_mount_once() -> Outcome {
    with_mount_point(|path| {
        with_seccomp_errno(libc::SYS_flock, None, libc::ENOSYS as u32, || {
            for _ in 0..50 {
                let results = race(path);
                assert_one_is_mounted(path, &results);
                let first = results.into_iter().next().ok_or("no result")?;
                unmount_with_retries(first.into_bpffs());
                assert_nothing_is_mounted_at(path);
            }
            Ok(())
        })
    })
}

/// Read permission on the directory suffices to hold its lock. A held lock only delays the call.
#[common::test(ROOT)]
fn a_held_lock_only_delays_ensure() -> Outcome {
    with_mount_point(|path| {
        let directory = File::open(path)?;
        flock(&directory, FlockOperation::LockExclusive)?;
        let begin = Instant::now();
        let results = race(path);
        assert!(
            begin.elapsed() > Duration::from_millis(9900),
            "{:?}",
            begin.elapsed()
        );
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "{:?}",
            begin.elapsed()
        );
        // The losers of the race have unmounted what they mounted.
        let mount = mount_at(path);
        let new: Vec<_> = results.iter().filter(|result| result.is_new()).collect();
        let [outcome] = new[..] else {
            return Err(format!("{new:?}").into());
        };
        assert_eq!(outcome.bpffs().dev(), mount.dev);
        outcome.bpffs().still_here()?;
        Ok(())
    })
}

/// Another thread mounts and unmounts at the same path without the lock. Its mounts are never covered permanently.
#[common::test(ROOT)]
fn a_mount_that_appears_during_ensure_stays_uncovered() -> Outcome {
    with_mount_point(|path| {
        let done = AtomicBool::new(false);
        let (mut mounted, mut occupied) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // ENOENT if the mount below was unmounted meanwhile.
                    let _ = mount("tmpfs", path, "tmpfs", MountFlags::empty(), None);
                    // Unmount all, because the topmost mount may be one of `ensure`.
                    while unmount(path, UnmountFlags::DETACH).is_ok() {}
                    thread::sleep(Duration::from_micros(200));
                }
            });
            let _done = SetOnDrop(&done);
            let mut rounds = 0;
            // Continue until at least one call has mounted, for a machine with one processor.
            while rounds < 200 || (mounted == 0 && rounds < 20_000) {
                rounds += 1;
                match Bpffs::ensure(path, &options()) {
                    Ok(ensured) => {
                        mounted += 1;
                        drop(ensured);
                        while mounts_at(path).iter().any(|mount| mount.is_bpffs()) {
                            let _ = unmount(path, UnmountFlags::DETACH);
                        }
                    }
                    Err(error) => {
                        let cause = error.cause();
                        let is_expected = matches!(
                            cause,
                            Some(
                                Cause::Occupied { .. } | Cause::LostRace | Cause::NotListed { .. }
                            )
                        );
                        assert!(is_expected, "{error}");
                        occupied += 1;
                    }
                }
            }
        });
        while unmount(path, UnmountFlags::DETACH).is_ok() {}
        assert_nothing_is_mounted_at(path);
        assert!(
            mounted > 0,
            "mounted {mounted} times, occupied {occupied} times"
        );
        assert!(Bpffs::ensure(path, &options())?.is_new());
        Ok(())
    })
}
