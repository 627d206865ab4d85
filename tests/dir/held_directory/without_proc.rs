//! Without /proc, or with a forged one: `BPF_F_PATH_FD` does not need it, and calls that do need it
//! say so.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Map, PinDir, Result};
use common::*;
use rustix::fs::Mode;
use rustix::process::umask;
use rustix::thread::CapabilitySet;

use crate::held_directory::{MOUNTS, USERS};
use crate::helpers::*;

/// Checks the calls that need /proc only before Linux 6.5, the calls that never need it, and
/// `set_mode`, which always does.
fn assert_which_calls_need_proc(dir: &PinDir, other: &PinDir) {
    type Call<'a> = &'a dyn Fn() -> Result<()>;
    let identity = any_identity();
    #[rustfmt::skip]
    let calls: [(Operation, Call<'_>); 9] = [
        (Operation::Pin, &|| dir.pin(&any_map(), "new")),
        (Operation::Open, &|| dir.get::<Map>("pin").map(drop)),
        (Operation::Open, &|| dir.get::<bpf_pin::Object>("pin").map(drop)),
        (Operation::Open, &|| dir.identity("pin").map(drop)),
        (Operation::Open, &|| dir.copy_to("pin", other)),
        (Operation::Replace, &|| dir.replace(&any_map(), "pin")),
        (Operation::Replace, &|| dir.replace_keeping_mode(&any_map(), "pin")),
        (Operation::Replace, &|| dir.replace_if(&any_map(), "pin", identity)),
        (Operation::Unpin, &|| dir.unpin(&any_map(), "pin")),
    ];
    let inode = dir.metadata("pin").unwrap().inode();
    for (operation, call) in calls {
        if has_path_fd() {
            call().unwrap_or_else(|error| panic!("{error}"));
            continue;
        }
        let error = unwrap_err(call());
        assert_eq!(error.operation(), operation);
        assert_no_proc(&error);
    }
    if has_path_fd() {
        assert_eq!(names_in(dir), ["new"]);
        assert_eq!(other.identity("pin").unwrap(), identity);
        dir.rename("new", "pin").expect("another name");
    } else {
        // The failed calls changed nothing.
        assert_eq!(names_in(dir), ["pin"]);
        assert!(names_in(other).is_empty());
        assert_eq!(dir.metadata("pin").unwrap().inode(), inode);
    }
    calls_without_proc(dir).expect("what needs no /proc at all");
    assert_eq!(names_in(dir), ["pin"]);
    let mode = dir.metadata("pin").unwrap().mode();
    let error = unwrap_err(dir.set_mode("pin", 0o666));
    assert_no_proc(&error);
    assert_eq!(dir.metadata("pin").unwrap().mode(), mode);
}

fn calls_without_proc(dir: &PinDir) -> Result<()> {
    dir.link("pin", "second")?;
    dir.rename("second", "third")?;
    if kernel(5, 17).unmet().is_none() {
        dir.exchange("third", "pin")?;
    }
    dir.unlink("third")?;
    dir.set_owner("pin", None, None)?;
    let sub = dir.create_dir("sub", 0o750)?;
    sub.chmod(0o711)?;
    assert_eq!(dir.metadata("sub")?.mode(), 0o711);
    assert_eq!(names_in(&dir.open_dir("sub")?), [""; 0]);
    drop(dir.stage("set")?.publish()?);
    dir.remove_dir_all("set")?;
    dir.remove_dir("sub")?;
    dir.remove_leftovers()?;
    dir.remove_where_dry_run(|_| true).map(drop)
}

/// Two directories; the first has a pin.
fn two_directories(fs: &TestFs) -> Result<(PinDir, PinDir)> {
    let root = root_of(fs);
    let dir = root.create_dir("dir", 0o700)?;
    dir.pin(&any_map(), "pin")?;
    Ok((dir, root.create_dir("other", 0o700)?))
}

#[common::test(MOUNTS)]
fn calls_work_without_proc_or_report_that_they_need_it() -> Outcome {
    let fs = TestFs::detached("700");
    let (dir, other) = two_directories(&fs)?;
    in_mount_namespace(|| {
        mount_at("tmpfs", "/proc");
        assert!(!fs::exists("/proc/self").unwrap());
        assert_which_calls_need_proc(&dir, &other);
        // The path of the directory goes through /proc, so it no longer resolves.
        let path = fs.at("dir");
        assert_fails(
            &unwrap_err(dir.lock(LockMode::Exclusive, Wait::Forever)),
            Operation::Lock,
            None,
            Cause::Moved { path },
        );
    });
    // This thread still has /proc, so everything works here.
    assert_eq!(dir.identity("pin")?, any_identity());
    dir.set_mode("pin", 0o640)?;
    Ok(())
}

/// An attacker that may mount, but not read the pins of others, mounts a forged /proc. In it, the
/// number of a descriptor leads to another directory.
#[common::test(MOUNTS)]
fn a_forged_proc_misleads_no_call() -> Outcome {
    let decoys = TestFs::detached("700");
    let lure = root_of(&decoys).create_dir("lure", 0o700)?;
    let decoy_map = hash();
    lure.pin(&decoy_map, "pin")?;
    for is_link in [false, true] {
        let fs = TestFs::detached("700");
        let (dir, other) = two_directories(&fs)?;
        let numbers = [&dir, &other].map(|dir| dir.as_fd().as_raw_fd().to_string());
        in_mount_namespace(|| -> Outcome {
            let aside = tempfile::tempdir()?;
            mount_at("bpf", aside.path());
            let fake = PinDir::create(aside.path().join("fake"), 0o700)?;
            fake.pin(&decoy_map, "pin")?;
            mount_at("bpf", "/proc");
            for way in ["self", "thread-self"] {
                let descriptors = PinDir::create(format!("/proc/{way}/fd"), 0o700)?;
                for number in &numbers {
                    let at = Path::new("/proc").join(way).join("fd").join(number);
                    if is_link {
                        symlink(aside.path().join("fake"), at)?;
                    } else {
                        rustix::fs::mkdir(at, Mode::RWXU)?;
                    }
                }
                assert_eq!(names_in(&descriptors).len(), numbers.len());
            }
            assert_which_calls_need_proc(&dir, &other);
            for way in ["self", "thread-self"] {
                for number in &numbers {
                    let at: PathBuf = ["/proc", way, "fd", number].iter().collect();
                    let expected: &[&str] = if is_link { &["pin"] } else { &[] };
                    assert_eq!(names_in(&PinDir::open(at)?), expected);
                }
            }
            assert_eq!(
                Map::open(aside.path().join("fake/pin"))?.id()?,
                decoy_map.id()?
            );
            assert_eq!(fake.metadata("pin")?.mode(), 0o600);
            Ok(())
        })?;
    }
    assert_eq!(names_in(&lure), ["pin"]);
    Ok(())
}

/// If the umask removes the owner's read permission, the mode can only be changed through /proc.
#[common::test(USERS)]
fn create_dir_without_proc_reports_a_umask_that_needs_it() -> Outcome {
    let fs = TestFs::detached("777");
    let root = root_of(&fs);
    in_mount_namespace(|| {
        mount_at("tmpfs", "/proc");
        as_user(CapabilitySet::empty(), || {
            umask(Mode::from_raw_mode(0o077));
            let dir = root.create_dir("fine", 0o755).expect("a directory");
            assert_eq!(dir.own_metadata().unwrap().mode(), 0o755);
            umask(Mode::from_raw_mode(0o777));
            let error = unwrap_err(root.create_dir("shut", 0o755));
            assert_no_proc(&error);
        });
    });
    assert_eq!(fs.names(), ["fine"]);
    Ok(())
}

#[track_caller]
fn assert_no_proc(error: &bpf_pin::Error) {
    assert_cause_matches!(error, Cause::NoProc { .. });
    assert_eq!(error.raw_os_error(), None, "{error}");
}
