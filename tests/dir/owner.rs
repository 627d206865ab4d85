//! The owner of a new file, and old owners that cannot be kept.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Error, PinDir};
use common::*;
use rustix::thread::{Gid, Uid, UnshareFlags, set_thread_groups, unshare_unsafe};

const CHILD: &str = "BPF_PIN_TEST_OWNER";

const MAPPED: &[Need] = &[cap::SYS_ADMIN, cap::BPF, cap::SETUID, kernel(5, 19)];
const USERS: &[Need] = &[cap::SYS_ADMIN, cap::BPF, cap::SETUID];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if std::env::var_os(CHILD).is_some() {
        in_a_container();
        return Some(ExitCode::SUCCESS);
    }
    // Before Linux 5.19, bpf(2) fails in a user namespace if the sysctl restricts unprivileged use at all.
    None
}

#[common::test(MAPPED)]
fn replace_keeping_mode_reports_an_owner_without_a_mapping() -> Outcome {
    run_in_own_process(CHILD, "container")
}

/// The first id of the container. Its range is large enough to contain the overflow id.
const FIRST: u32 = 100_000;
const COUNT: u32 = 65_536;
/// An id outside of that range.
const HOST: u32 = 5000;

fn ids(path: &Path) -> (u32, u32) {
    let stat = fs::symlink_metadata(path).expect("a file");
    (stat.uid(), stat.gid())
}

/// Must run in a process that has one thread.
fn in_a_container() {
    let fs = TestFs::detached("755");
    let root = PinDir::open(fs.root()).unwrap();
    let app = root.create_dir("app", 0o755).unwrap();
    root.set_owner("app", Some(FIRST), Some(FIRST)).unwrap();
    let map = hash();
    for (name, uid, gid) in [
        ("host_user", HOST, FIRST),
        ("host_group", FIRST, HOST),
        ("host", HOST, HOST),
        ("other", FIRST + 77, FIRST + 78),
        ("own", FIRST, FIRST),
    ] {
        app.pin(&map, name).unwrap();
        app.set_owner(name, Some(uid), Some(gid)).unwrap();
        app.set_mode(name, 0o640).unwrap();
    }
    let before = tree(&fs.at("app"));
    let new = hash();
    let id = new.identity().unwrap();
    as_root_of_user_namespace(|| {
        let assert_unmapped = |name, what| {
            let error = app.replace_keeping_mode(&new, name).unwrap_err();
            let cause = Cause::UnmappedOwner { what, id: 65534 };
            assert_eq!(error.operation(), Operation::Replace);
            assert_eq!(error.cause(), Some(&cause));
            assert_eq!(error.raw_os_error(), None);
        };
        assert_unmapped("host_user", "user");
        assert_unmapped("host_group", "group");
        assert_unmapped("host", "user");
        // These owners are mapped.
        app.replace_keeping_mode(&new, "other").unwrap();
        app.replace_keeping_mode(&new, "own").unwrap();
    });
    let mut after = tree(&fs.at("app"));
    for (name, uid) in [("other", FIRST + 77), ("own", FIRST)] {
        let path = Path::new(name);
        let (old, new) = (&before[path], &after[path]);
        assert_eq!((new.uid, new.mode), (uid, old.mode));
        assert_eq!(new.content, id.to_string());
        after.insert(name.into(), old.clone());
    }
    assert_eq!(after, before);
    assert_eq!(ids(&fs.at("app/other")), (FIRST + 77, FIRST + 78));
    assert_eq!(ids(&fs.at("app/host_group")), (FIRST, HOST));
    // In the initial namespace all ids are mapped, and the overflow id is an ordinary id.
    app.set_owner("own", Some(65534), Some(65534)).unwrap();
    app.replace_keeping_mode(&map, "own").unwrap();
    assert_eq!(ids(&fs.at("app/own")), (65534, 65534));
}

/// Runs `test` in a process that is root of a user namespace with many ids.
fn as_root_of_user_namespace(test: impl FnOnce()) {
    let (mut here, mut there) = UnixStream::pair().expect("sockets");
    // SAFETY: this process has one thread.
    match unsafe { common::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            drop(here);
            let done = catch_unwind(AssertUnwindSafe(|| {
                // SAFETY: the flags omit FILES, and this process has one thread.
                unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.expect("a user namespace");
                there.write_all(b"!").expect("a word");
                assert_eq!(there.read(&mut [0; 1]).expect("ids"), 1);
                common::with_same_death_signal(|| {
                    set_thread_groups(&[]).expect("no other groups");
                    let (root, group) = (Uid::ROOT, Gid::ROOT);
                    rustix::thread::set_thread_res_gid(group, group, group).expect("its group");
                    rustix::thread::set_thread_res_uid(root, root, root).expect("its root");
                });
                test();
            }));
            // SAFETY: _exit runs no destructors and flushes no buffers of the parent.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        child => {
            drop(there);
            // If the read fails, the child has ended and printed the reason.
            if here.read(&mut [0; 1]).is_ok_and(|length| length == 1) {
                for file in ["uid_map", "gid_map"] {
                    let mut file = File::create(format!("/proc/{child}/{file}")).expect("a map");
                    let line = format!("0 {FIRST} {COUNT}");
                    file.write_all(line.as_bytes()).expect("ids");
                }
                here.write_all(b"!").expect("a word");
            }
            let mut status = 0;
            // SAFETY: the child is ours, and status is writable.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!((waited, status), (child, 0));
        }
    }
}

/// Runs `test` with a directory of this user, on a thread with this user's file-system ids.
fn as_fs_user(setgid: bool, test: impl FnOnce(&TestFs, &PinDir) -> Outcome + Send) -> Outcome {
    let fs = TestFs::detached("755");
    let root = PinDir::open(fs.root())?;
    let dir = root.create_dir("dir", 0o777)?;
    root.set_owner("dir", Some(1234), Some(1234))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: both calls change only this thread, and take no addresses.
            unsafe {
                if setgid {
                    libc::setfsgid(1234);
                }
                libc::setfsuid(1234);
            }
            test(&fs, &dir)
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[common::test(USERS)]
fn setfsuid_sets_the_owner_of_new_directories() -> Outcome {
    as_fs_user(false, |fs, dir| {
        assert_new_directories_belong_to(fs, dir, (1234, 0))?;
        let report = dir.remove_leftovers()?;
        assert_eq!(report.failed.len() + report.removed.len(), 0, "{report:?}");
        Ok(())
    })
}

#[common::test(USERS)]
fn setfsgid_sets_the_group_of_new_directories() -> Outcome {
    as_fs_user(true, |fs, dir| {
        assert_new_directories_belong_to(fs, dir, (1234, 1234))
    })
}

fn assert_new_directories_belong_to(fs: &TestFs, dir: &PinDir, owner: (u32, u32)) -> Outcome {
    dir.create_dir("new", 0o750)?;
    assert_eq!(ids(&fs.at("dir/new")), owner);
    assert_eq!(dir.metadata("new")?.mode(), 0o750);
    let staged = dir.stage("set")?;
    staged.create_dir("within", 0o700)?;
    staged.publish().map_err(Error::from)?;
    assert_eq!(ids(&fs.at("dir/set/within")), owner);
    PinDir::create(fs.at("dir/some/where"), 0o700)?;
    assert_eq!(ids(&fs.at("dir/some/where")), owner);
    let names: Vec<_> = tree(&fs.at("dir")).into_keys().collect();
    assert_eq!(
        names,
        ["new", "set", "set/within", "some", "some/where"].map(PathBuf::from)
    );
    Ok(())
}
