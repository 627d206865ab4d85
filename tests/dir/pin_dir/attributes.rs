//! Modes, owners and times of pins and directories.

use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use bpf_pin::PinDir;
use bpf_pin::dir::EntryType;
use bpf_pin::error::{Cause, Operation};
use common::*;
use rustix::thread::CapabilitySet;

use crate::helpers::*;
use crate::pin_dir::{PINS, USERS};

const CHOWN: &[Need] = &[cap::BPF, cap::SYS_ADMIN, cap::SETUID];

#[common::test(PINS)]
fn metadata_does_not_follow_symbolic_links() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    // File times are only as precise as the kernel's tick.
    let slack = Duration::from_secs(2);
    let before = SystemTime::now() - slack;
    dir.pin(&any_map(), "pin")?;
    drop(dir.create_dir("dir", 0o750)?);
    symlink("pin", fs.at("link"))?;
    let after = SystemTime::now() + slack;
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let expected = [
        ("pin", EntryType::Pin, 0o600, 1),
        ("dir", EntryType::Directory, 0o750, 2),
        ("link", EntryType::SymbolicLink, 0o777, 1),
    ];
    for (name, entry_type, mode, links) in expected {
        let found = dir.metadata(name)?;
        assert_eq!(found.entry_type(), entry_type, "{name}");
        assert_eq!((found.mode(), found.links()), (mode, links), "{name}");
        assert_eq!((found.uid(), found.gid()), (uid, gid), "{name}");
        for time in [found.accessed(), found.modified(), found.changed()] {
            assert!(before <= time && time <= after, "{name}: {time:?}");
        }
        let stat = std::fs::symlink_metadata(fs.at(name))?;
        assert_eq!(stat.modified()?, found.modified());
        let text = format!("{found:?}");
        assert!(text.contains(&format!("mode: {mode:#o}")), "{text}");
    }
    let own = dir.open_dir("dir")?.own_metadata()?;
    assert_eq!(own.inode(), dir.metadata("dir")?.inode());
    assert_eq!(
        (own.entry_type(), own.mode()),
        (EntryType::Directory, 0o750)
    );
    Ok(())
}

#[common::test(PINS)]
fn modes_are_set_exactly() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    drop(dir.create_dir("dir", 0o700)?);
    for name in ["pin", "dir"] {
        for mode in [0, 0o400, 0o222, 0o644, 0o777, 0o1777, 0o4711, 0o600] {
            dir.set_mode(name, mode)?;
            assert_eq!(dir.metadata(name)?.mode(), mode, "{name}");
        }
    }
    // The pin still holds the same object.
    assert_eq!(dir.identity("pin")?, any_identity());
    Ok(())
}

#[common::test(PINS)]
fn an_invalid_mode_is_rejected() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    for (mode, words) in [
        (0o10000, "0o10000"),
        (0o100644, "0o100644"),
        (u32::MAX, "0o37777777777"),
    ] {
        let (new, root) = (fs.at("new"), fs.root());
        let cases = [
            (unwrap_err(dir.set_mode("pin", mode)), Operation::Chmod),
            (unwrap_err(dir.chmod(mode)), Operation::Chmod),
            (
                unwrap_err(dir.create_dir("new", mode)),
                Operation::CreateDir,
            ),
            (unwrap_err(PinDir::create(&new, mode)), Operation::CreateDir),
            (unwrap_err(PinDir::create(root, mode)), Operation::CreateDir),
        ];
        for (error, operation) in cases {
            let problem = format!("is {words}, and the limit is 0o7777");
            let cause = Cause::InvalidArgument {
                what: "mode",
                problem: problem.into(),
            };
            assert_fails(&error, operation, None, cause);
        }
    }
    assert_eq!(fs.names(), ["pin"]);
    assert_eq!(dir.metadata("pin")?.mode(), 0o600);
    Ok(())
}

#[common::test(PINS)]
fn the_mode_of_a_symbolic_link_cannot_be_set() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    for (name, target) in [("link", "pin"), ("dangling", "gone")] {
        symlink(target, fs.at(name))?;
        let error = unwrap_err(dir.set_mode(name, 0o777));
        let path = fs.at(name);
        assert_fails(&error, Operation::Chmod, None, Cause::SymbolicLink { path });
    }
    assert_eq!(dir.metadata("pin")?.mode(), 0o600);
    Ok(())
}

#[common::test(PINS)]
fn chmod_sets_the_mode_of_the_directory() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs).create_dir("dir", 0o700)?;
    for mode in [0o755, 0o1777, 0o500, 0, 0o300, 0o700] {
        dir.chmod(mode)?;
        assert_eq!(dir.own_metadata()?.mode(), mode);
    }
    Ok(())
}

#[common::test(CHOWN)]
fn set_owner_does_not_follow_symbolic_links() -> Outcome {
    let fs = TestFs::detached("700");
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    drop(dir.create_dir("dir", 0o700)?);
    symlink("pin", fs.at("link"))?;
    for name in ["dir", "link"] {
        dir.set_owner(name, Some(1234), Some(5678))?;
        assert_eq!(
            (dir.metadata(name)?.uid(), dir.metadata(name)?.gid()),
            (1234, 5678)
        );
    }
    // Only the link changed owner, not its target.
    assert_eq!(
        (dir.metadata("pin")?.uid(), dir.metadata("pin")?.gid()),
        (0, 0)
    );
    dir.set_owner("pin", Some(1234), None)?;
    assert_eq!(
        (dir.metadata("pin")?.uid(), dir.metadata("pin")?.gid()),
        (1234, 0)
    );
    dir.set_owner("pin", None, Some(5678))?;
    assert_eq!(
        (dir.metadata("pin")?.uid(), dir.metadata("pin")?.gid()),
        (1234, 5678)
    );
    dir.set_owner("pin", None, None)?;
    assert_eq!(
        (dir.metadata("pin")?.uid(), dir.metadata("pin")?.gid()),
        (1234, 5678)
    );
    dir.set_owner("pin", Some(u32::MAX - 1), Some(0))?;
    assert_eq!(
        (dir.metadata("pin")?.uid(), dir.metadata("pin")?.gid()),
        (u32::MAX - 1, 0)
    );
    Ok(())
}

#[common::test(PINS)]
fn the_id_that_means_no_change_is_rejected() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    let before = dir.metadata("pin")?;
    let id = u32::MAX;
    for (uid, gid) in [
        (Some(id), None),
        (None, Some(id)),
        (Some(id), Some(id)),
        (Some(before.uid()), Some(id)),
    ] {
        let error = unwrap_err(dir.set_owner("pin", uid, gid));
        assert_cause_matches!(error, Cause::InvalidArgument { .. });
        assert_eq!(error.operation(), Operation::Chown);
        assert_eq!(error.path(), Some(&*fs.at("pin")));
        assert_eq!(error.raw_os_error(), None);
    }
    let after = dir.metadata("pin")?;
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    Ok(())
}

#[common::test(USERS)]
fn attributes_of_another_user_cannot_be_changed() -> Outcome {
    let fs = TestFs::detached("777");
    let root = root_of(&fs);
    root.pin(&any_map(), "pin")?;
    let dir = root.create_dir("dir", 0o755)?;
    let shut = root.create_dir("shut", 0o711)?;
    root.pin(&any_map(), "own")?;
    root.set_owner("own", Some(1234), Some(1234))?;
    as_user(CapabilitySet::empty(), || -> Outcome {
        let cases = [
            (unwrap_err(root.set_mode("pin", 0o666)), fs.at("pin")),
            (unwrap_err(root.set_mode("dir", 0o777)), fs.at("dir")),
            (unwrap_err(dir.chmod(0o777)), fs.at("dir")),
            // This user may not read the directory, so `chmod` uses its fallback.
            (unwrap_err(shut.chmod(0o777)), fs.at("shut")),
            (unwrap_err(root.chmod(0o777)), fs.root().to_owned()),
        ];
        for (error, path) in cases {
            assert_fails(
                &error,
                Operation::Chmod,
                libc::EPERM,
                Cause::NotOwner { path, uid: 0 },
            );
        }
        for name in ["pin", "own"] {
            let error = unwrap_err(root.set_owner(name, Some(4321), None));
            assert_fails(&error, Operation::Chown, libc::EPERM, None);
        }
        root.set_mode("own", 0o640)?;
        assert_eq!(root.metadata("own")?.mode(), 0o640);
        Ok(())
    })?;
    assert_eq!(root.metadata("pin")?.mode(), 0o600);
    assert_eq!(
        (dir.own_metadata()?.mode(), shut.own_metadata()?.mode()),
        (0o755, 0o711)
    );
    Ok(())
}

#[common::test(PINS)]
fn a_missing_name_is_reported() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let path = fs.at("gone");
    let cases = [
        (unwrap_err(dir.metadata("gone")), Operation::Stat),
        (unwrap_err(dir.set_mode("gone", 0o600)), Operation::Chmod),
        (
            unwrap_err(dir.set_owner("gone", None, Some(0))),
            Operation::Chown,
        ),
    ];
    for (error, operation) in cases {
        assert_fails(&error, operation, libc::ENOENT, missing(&path));
    }
    Ok(())
}
