//! `Bpffs::inspect` reports the bpffs of process 1 if this thread's mount namespace is another. The test starts
//! the process 1 of a new pid namespace.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use bpf_pin::bpffs::{FileSystem, Mount, MountOptions, ShadowedBpffs, Verdict};
use bpf_pin::error::Cause;
use bpf_pin::{Bpffs, Map, PinDir};
use common::*;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::thread::{CapabilitySet, UnshareFlags, unshare_unsafe};

use crate::inspect::*;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::SETUID, cap::BPF];

#[common::test(ROOT)]
fn a_bpffs_of_process_1_is_reported() -> Outcome {
    run_parent("parent")
}

#[common::test(ROOT)]
fn a_bpffs_of_process_1_in_another_sysfs_is_reported() -> Outcome {
    run_parent("parent of one with a sysfs")
}

/// Reproduces "no bpffs found" after a command that creates a mount namespace and mounts sysfs again: the bpffs
/// exists but is not visible in this namespace.
fn run_parent(name: &str) -> Outcome {
    let output = run_child(name).output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}\n{stderr}", output.status).into());
    }
    Ok(())
}

pub fn parent_of_process_1() -> ExitCode {
    run_as_process_1("process 1")
}

pub fn parent_of_one_with_a_sysfs() -> ExitCode {
    run_as_process_1("with a sysfs")
}

/// Runs the child as the first process of a new pid namespace.
fn run_as_process_1(name: &str) -> ExitCode {
    // SAFETY: NEWNS and NEWPID do not separate descriptors, and this is the only thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID | UnshareFlags::NEWNS) }.expect("namespaces");
    let status = run_child(name).status().expect("a first process");
    if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn become_process_1() {
    assert_eq!(std::process::id(), 1);
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).expect("private mounts");
    mount("proc", "/proc", "proc", MountFlags::empty(), None).expect("a /proc of its own");
}

pub fn has_a_bpffs() {
    become_process_1();
    let dir = directory();
    let place = dir.path();
    // A user that cannot inspect process 1 can still search this directory.
    fs::set_permissions(place, Permissions::from_mode(0o755)).expect("a mode");
    let bpffs = MountOptions::new().mount(place).expect("a bpffs");
    let expected = bpffs.mount().expect("a mount");
    let seen = inspect(place);
    assert_eq!((seen.verdict, seen.of_process_1), (Verdict::Mounted, None));
    in_mount_namespace(|| {
        // An inherited copy of the mount is not a second bpffs.
        let refusing = MountOptions::new().refuse_second_bpffs(true);
        let outcome = Bpffs::ensure(place, &refusing).expect("it is there");
        assert_eq!((outcome.is_new(), outcome.in_process_1()), (false, None));
        drop(outcome);
        // The outcome is dropped, so the copy is not busy.
        unmount(place, UnmountFlags::empty()).expect("a copy of the mount");
        let seen = inspect(place);
        let found = FileSystem::at(place).unwrap();
        assert_eq!(seen.verdict, Verdict::Elsewhere { found });
        assert_eq!(seen.of_process_1, Some(expected));
        let head = format!(
            "{} is a directory on {found}, not on a bpffs",
            place.display()
        );
        let tail = "; in the mount namespace of process 1 a bpffs is mounted there";
        assert_sentence(&seen, &format!("{head}{tail}"));
        check_as_another_user(place);
        let other = directory();
        assert_eq!(inspect(other.path()).of_process_1, None);
    });
    drop(bpffs);
    unmount(place, UnmountFlags::empty()).expect("the last mount");
}

/// A process without access to process 1 reports nothing about it. A thread of process 1 itself always has access.
fn check_as_another_user(place: &Path) {
    let mut child = run_child("a user");
    let output = child.env(PLACE, place).output().expect("a child");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stderr}", output.status);
}

const PLACE: &str = "BPF_PIN_TEST_PLACE";

pub fn as_a_user() {
    let place = std::env::var(PLACE).expect("a place");
    let place = Path::new(&place);
    become_user(1234, CapabilitySet::empty());
    let found = FileSystem::at(place).unwrap();
    let hint = match place == Path::new("/sys/fs/bpf") {
        true => "; to mount one: mount -t bpf bpf /sys/fs/bpf",
        false => "",
    };
    let seen = inspect(place);
    assert_eq!(seen.verdict, Verdict::Elsewhere { found });
    assert_eq!(seen.of_process_1, None);
    let path = place.display();
    assert_sentence(
        &seen,
        &format!("{path} is a directory on {found}, not on a bpffs{hint}"),
    );
    let error = Bpffs::at(place).expect_err("no bpffs");
    assert_cause_matches!(error, Cause::NotBpffs { found: at, hidden: None, .. } if *at == found);
}

/// Creates a bpffs that only this mount namespace sees, while process 1 has another at the same path.
fn ensure_reports_a_second_bpffs(path: &Path, expected: &Mount) {
    let refusing = MountOptions::new().refuse_second_bpffs(true);
    let assert_refused = || {
        let error = Bpffs::ensure(path, &refusing).expect_err("process 1 has one");
        let bpffs = Box::new(expected.clone());
        let cause = Cause::Shadowed(ShadowedBpffs::InProcess1 { bpffs });
        assert_eq!(error.cause(), Some(&cause));
    };
    assert_refused();
    assert!(!FileSystem::at(path).unwrap().is_bpffs());
    for is_new in [true, false] {
        let outcome = Bpffs::ensure(path, &MountOptions::new()).expect("a bpffs");
        assert_eq!(outcome.is_new(), is_new);
        assert_eq!(outcome.in_process_1(), Some(expected));
        assert_ne!(outcome.bpffs().dev(), expected.dev);
    }
    assert_refused();
}

/// Repeats what `ip netns exec` does: it detaches /sys with all mounts below it, and mounts a sysfs of the other
/// network namespace in its place.
pub fn has_a_bpffs_in_sysfs() {
    become_process_1();
    let usual = Path::new("/sys/fs/bpf");
    let bpffs = MountOptions::new().mount(usual).expect("a bpffs");
    let expected = bpffs.mount().expect("a mount");
    let pinned = hash().pin(usual.join("flows")).expect("a pin");
    let after = || {
        unmount("/sys", UnmountFlags::DETACH).expect("no /sys");
        mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).expect("a sysfs");
        let hidden = ShadowedBpffs::InProcess1 {
            bpffs: Box::new(expected.clone()),
        };
        let cause = Cause::NotBpffs {
            path: usual.to_owned(),
            found: FileSystem::at("/sys").unwrap(),
            missing: None,
            hidden: Some(hidden),
        };
        // The sentence of a hidden bpffs, which the table of sentences cannot hold without a mount.
        let sentence = "/sys/fs/bpf is on sysfs, not on a bpffs; in the mount namespace of process 1 a bpffs is \
                        mounted at /sys/fs/bpf";
        assert_eq!(cause.to_string(), sentence);
        let assert_names_process_1 = |error: bpf_pin::Error, operation| {
            assert_eq!(error.operation(), operation);
            assert_eq!(error.cause(), Some(&cause));
        };
        let flows = usual.join("flows");
        assert_names_process_1(Bpffs::system().expect_err("none"), Operation::FindBpffs);
        assert_names_process_1(Bpffs::at(usual).expect_err("none"), Operation::FindBpffs);
        let failed = hash().pin(&flows).expect_err("no bpffs");
        assert_names_process_1(failed.into(), Operation::Pin);
        assert_names_process_1(Map::open(&flows).expect_err("none"), Operation::Open);
        let opened = PinDir::open(usual.join("app")).expect_err("none");
        assert_names_process_1(opened, Operation::OpenDir);
        let made = PinDir::create(usual.join("app/v1"), 0o700).expect_err("none");
        assert_names_process_1(made, Operation::CreateDir);
        let failed = pinned.unpin().expect_err("no pin");
        assert_names_process_1(failed.into(), Operation::Unpin);
        assert_sentence(
            &inspect(usual),
            "/sys/fs/bpf is a directory on sysfs, not on a bpffs; in the mount namespace of process \
             1 a bpffs is mounted there",
        );
        check_as_another_user(usual);
        ensure_reports_a_second_bpffs(usual, &expected);
    };
    in_network_namespace(|| in_mount_namespace(after));
    assert!(usual.join("flows").exists());
}
