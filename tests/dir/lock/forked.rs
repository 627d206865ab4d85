//! A forked process inherits copies of values, and dropping the copies has no effect on the parent.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bpf_pin::bpffs::MountOptions;
use bpf_pin::reuse::{MapOutcome as Done, Migrate, Reuse};
use bpf_pin::{Bpffs, MapSpec, MapType, PinDir};
use common::*;
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{UnmountFlags, unmount};

use super::{DIRS, MOUNT, PINS};

type Case = (&'static str, &'static [Need], fn());

/// Each runs in a separate process, so that its children inherit no descriptors of other tests.
const CASES: &[Case] = &[
    (
        "a_fork_during_replace_if_keeps_no_lock",
        PINS,
        fork_during_replace_if,
    ),
    (
        "a_fork_during_create_dir_keeps_no_lock",
        DIRS,
        fork_during_create_dir,
    ),
    (
        "a_fork_during_ensure_keeps_no_lock",
        MOUNT,
        fork_during_ensure,
    ),
    (
        "a_child_that_drops_a_stage_does_not_affect_its_parent",
        PINS,
        drop_stage_in_child,
    ),
    (
        "a_child_that_drops_a_migration_does_not_affect_its_parent",
        PINS,
        drop_migration_in_child,
    ),
    (
        "a_child_forked_by_a_conversion_does_not_affect_its_parent",
        PINS,
        fork_in_conversion,
    ),
];

common::cases_alone!(
    || CASES
        .iter()
        .map(|&(name, needs, _)| (name, needs))
        .collect(),
    |name| {
        let (.., run) = CASES
            .iter()
            .find(|(known, ..)| *known == name)
            .expect("a case");
        run();
    }
);

/// Processes that inherit every descriptor and use none.
#[derive(Default)]
struct Children(Vec<libc::pid_t>);

impl Children {
    fn fork(&mut self) {
        // SAFETY: the child calls nothing but pause and _exit.
        match unsafe { common::fork() } {
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            // SAFETY: the calls take no addresses.
            0 => unsafe {
                libc::pause();
                libc::_exit(0)
            },
            child => self.0.push(child),
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for &child in &self.0 {
            // SAFETY: the child is ours, and no status is asked for.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// Forks repeatedly while another thread repeats `act`.
fn fork_during(mut act: impl FnMut() + Send) -> Children {
    const TIMES: usize = 30;

    let is_done = AtomicBool::new(false);
    let mut children = Children::default();
    thread::scope(|scope| {
        let acting = scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                act();
            }
        });
        for _ in 0..TIMES {
            thread::sleep(Duration::from_millis(2));
            children.fork();
        }
        is_done.store(true, Ordering::Relaxed);
        acting.join().expect("copies in children do not block it");
    });
    children
}

/// Runs `act` in a forked child, and waits until the child has ended.
fn in_a_child(act: impl FnOnce()) {
    // SAFETY: this process has one thread.
    let child = unsafe { common::fork() };
    if child == 0 {
        let done = catch_unwind(AssertUnwindSafe(act));
        // SAFETY: _exit runs no destructors and flushes no buffers of the parent.
        unsafe { libc::_exit(i32::from(done.is_err())) }
    }
    let mut status = 0;
    // SAFETY: status is writable; the child is ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
}

fn spec(value_size: u32) -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, value_size, 8)
}

fn fork_during_replace_if() {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    dir.pin(&hash(), "flows").unwrap();
    let swap = |dir: &PinDir| {
        let seen = dir.identity("flows").unwrap();
        dir.replace_if(&hash(), "flows", seen).unwrap();
    };
    let _children = fork_during(|| swap(&dir));
    swap(&PinDir::open(fs.root()).unwrap());
}

fn fork_during_create_dir() {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    let mut count = 0;
    let mut name = || {
        count += 1;
        format!("d{count}")
    };
    let _children = fork_during(|| drop(dir.create_dir(name(), 0o700).unwrap()));
    for made in 1..count {
        let made = dir.open_dir(format!("d{made}")).unwrap();
        assert!(
            made.lock(LockMode::Exclusive, Wait::No).unwrap().is_some(),
            "{:?}",
            made.path()
        );
    }
}

fn fork_during_ensure() {
    let at = tempfile::tempdir().unwrap();
    let path = fs::canonicalize(at.path()).unwrap();
    in_mount_namespace(|| {
        let options = MountOptions::new();
        let _children = fork_during(|| {
            let ensured = Bpffs::ensure(&path, &options).unwrap();
            assert!(ensured.is_new());
            // The children's copies of the descriptor keep the mount busy.
            unmount(&path, UnmountFlags::DETACH).unwrap();
        });
        let directory = fs::File::open(&path).unwrap();
        flock(&directory, FlockOperation::NonBlockingLockExclusive).expect("a free lock");
    });
}

fn drop_stage_in_child() {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    let stage = dir.stage("current").unwrap();
    stage.pin(&hash(), "flows").unwrap();
    let mut stage = Some(stage);
    in_a_child(|| drop(stage.take()));
    let stage = stage.unwrap();
    // The stage's lock is still held.
    assert!(dir.remove_leftovers().unwrap().removed.is_empty());
    stage.publish().unwrap();
    assert_eq!(fs.names(), ["current"]);
    assert!(fs.at("current/flows").exists());
}

fn grow<'f>() -> Migrate<'f> {
    Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 0]))).patience(Duration::ZERO)
}

fn drop_migration_in_child() {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    dir.pin(&spec(8).create().unwrap(), "flows").unwrap();
    let ask = || {
        let dir = PinDir::open(fs.root()).unwrap();
        let mut how = grow();
        dir.open_or_create("flows", &spec(16), Reuse::Migrate(&mut how))
            .unwrap()
            .outcome
    };
    let Done::Migrated(migration) = ask() else {
        panic!("expected a migration");
    };
    let mut migration = Some(migration);
    in_a_child(|| drop(migration.take()));
    // The migration still belongs to this process.
    assert!(matches!(ask(), Done::Found));
    drop(migration.unwrap());
    assert!(matches!(ask(), Done::Resumed(_)));
}

/// A conversion forks while it copies the elements.
fn fork_in_conversion() {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    let old = spec(8).create().unwrap();
    let any = bpf_pin::map::ElemFlags::ANY;
    old.elements::<u32, u64>()
        .unwrap()
        .update(&1, &7, any)
        .unwrap();
    dir.pin(&old, "flows").unwrap();
    let parent = std::process::id();
    let mut seen = 0;
    let mut how = Migrate::new(|key: &u32, value: &u64| {
        seen += 1;
        if seen == 2 {
            // In the second pass, after the old map got its backup name.
            // SAFETY: this process has one thread.
            match unsafe { common::fork() } {
                0 => std::panic::resume_unwind(Box::new("the end of a copy")),
                child => {
                    // SAFETY: the child is ours, and no status is asked for.
                    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
                }
            }
        }
        Some((*key, [*value, 0]))
    });
    let made = catch_unwind(AssertUnwindSafe(|| {
        dir.open_or_create("flows", &spec(16), Reuse::Migrate(&mut how))
    }));
    if std::process::id() != parent {
        // SAFETY: _exit runs no destructors and flushes no buffers of the parent.
        unsafe { libc::_exit(0) }
    }
    let made = made.expect("no panic in the parent").unwrap();
    drop(how);
    assert_eq!(seen, 2);
    let Done::Migrated(migration) = made.outcome else {
        panic!("expected a migration");
    };
    assert!(fs.at(migration.kept_as().to_str().unwrap()).exists());
    assert_eq!(migration.commit().unwrap().id().unwrap(), old.id().unwrap());
}
