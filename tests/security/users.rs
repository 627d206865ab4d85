//! Ordinary users and root in a directory that everyone may write to.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use bpf_pin::dir::RemovalReport;
use bpf_pin::error::Cause;
use bpf_pin::{Error, Map, PinDir};
use common::*;
use rustix::thread::CapabilitySet;

use crate::attack::{Fixture, is_hidden};

const USERS: &[Need] = &[cap::BPF, cap::SYS_ADMIN, cap::SETUID];

/// The user id that `as_user` sets.
const USER: u32 = 1234;

/// Runs `test` as an ordinary user that may call bpf(2) on every kernel.
fn as_bpf_user<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    as_user(CapabilitySet::BPF, test)
}

/// A directory of mode 1777 that root owns.
fn open_to_all(fs: &TestFs) -> Fixture {
    let fixture = Fixture::new(fs.at("fixture"));
    fs::set_permissions(&fixture.root, fs::Permissions::from_mode(0o1777)).unwrap();
    fixture
}

fn test_fs() -> TestFs {
    TestFs::detached("1777")
}

#[track_caller]
fn assert_denied<T>(result: Result<T, impl Into<Error>>) {
    let Err(error) = result else {
        panic!("a user may do so");
    };
    let error = error.into();
    let is_explained = matches!(
        error.cause(),
        Some(Cause::Sticky { .. } | Cause::Blocked { .. } | Cause::NotOwner { .. })
    );
    let errno = error.raw_os_error();
    assert!(is_explained, "{error}");
    assert!(matches!(errno, Some(libc::EPERM | libc::EACCES)), "{error}");
}

#[common::test(USERS)]
fn a_user_cannot_change_pins_of_root() -> Outcome {
    let fs = test_fs();
    let fixture = open_to_all(&fs);
    let root = fixture.dir();
    for name in ["name", "other"] {
        root.pin(&fixture.ours, name)?;
    }
    root.set_mode("other", 0o666)?;
    let seen = fixture.ours.identity()?;
    fs::create_dir(fixture.at("dir"))?;
    fixture.pin(&fixture.ours, "dir/name");
    let before = tree(&fixture.root);
    as_bpf_user(|| {
        let (dir, theirs) = (fixture.dir(), hash());
        dir.pin(&theirs, "theirs")?;
        for name in ["name", "other"] {
            assert_denied(dir.replace(&theirs, name));
            assert_denied(dir.replace_keeping_mode(&theirs, name).map_err(|error| {
                match error.cause() {
                    // The new pin could not be given to root, which fails first.
                    None => dir.replace(&theirs, name).unwrap_err(),
                    Some(_) => error,
                }
            }));
            assert_denied(dir.replace_if(&theirs, name, seen));
            assert_denied(dir.unlink(name));
            assert_denied(dir.unpin(&fixture.ours, name));
            assert_denied(dir.rename(name, "new"));
            assert_denied(
                dir.exchange(name, "theirs")
                    .map_err(|error| match error.cause() {
                        Some(Cause::Unsupported { .. }) => dir.unlink(name).unwrap_err(),
                        _ => error,
                    }),
            );
            assert_denied(dir.set_mode(name, 0o666));
            let error = dir.set_owner(name, Some(USER), None).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
            dir.stage(name)?.publish().map(drop).unwrap_err();
        }
        assert_denied(dir.get::<Map>("name"));
        assert_eq!(dir.get::<Map>("other")?.identity()?, seen);
        assert_denied(dir.remove_dir("dir"));
        assert_denied(dir.remove_dir_all("dir"));
        assert_denied(dir.stage("dir")?.publish());
        assert_denied(dir.chmod(0o777));
        assert_denied(dir.create_dir("dir", 0o700)?.pin(&theirs, "theirs"));
        let RemovalReport {
            removed, failed, ..
        } = dir.remove_where(|_| true)?;
        assert_eq!(removed, ["theirs"]);
        assert_eq!(failed.len(), 3, "{failed:?}");
        failed
            .into_iter()
            .for_each(|error| assert_denied(Err::<(), _>(error)));
        Outcome::Ok(())
    })?;
    assert_eq!(tree(&fixture.root), before);
    Ok(())
}

/// The user acts while root's stage is open.
#[common::test(USERS)]
fn a_user_cannot_disturb_a_stage_of_root() -> Outcome {
    let fs = test_fs();
    let fixture = open_to_all(&fs);
    let root = fixture.dir();
    root.replace(&fixture.ours, "name")?;
    let set = root.stage("set")?;
    set.pin(&fixture.ours, "in")?;
    let hidden = fixture.hidden_names().remove(0);
    as_bpf_user(|| {
        let (dir, theirs) = (fixture.dir(), hash());
        let held = dir.open_dir(&hidden)?;
        assert_denied(held.pin(&theirs, "theirs"));
        assert_denied(held.get::<Map>("in"));
        assert_denied(held.replace(&theirs, "in"));
        assert_denied(held.entries());
        assert_denied(held.unlink("in"));
        assert_denied(held.lock(LockMode::Exclusive, Wait::Forever));
        assert_denied(held.lock(LockMode::Shared, Wait::Forever));
        assert_denied(dir.remove_dir_all(&hidden));
        assert_denied(dir.rename(&hidden, "renamed"));
        let report = dir.remove_leftovers()?;
        assert!(
            report.removed.is_empty() && report.restored.is_empty(),
            "{report:?}"
        );
        // Names of a living process are not even opened.
        assert!(report.failed.is_empty(), "{report:?}");
        Outcome::Ok(())
    })?;
    drop(set.publish().map_err(Error::from)?);
    assert!(fixture.has("set/in", &fixture.ours));
    assert_eq!(fixture.hidden_names(), [""; 0]);
    Ok(())
}

/// Root removes only the leftovers that the user planted.
#[common::test(USERS)]
fn names_planted_by_a_user_do_not_affect_root() -> Outcome {
    const HELD: &str = "_bpf-pin-0123456789abcdef-f-dir";
    let fs = test_fs();
    let fixture = open_to_all(&fs);
    let root = fixture.dir();
    fixture.pin(&fixture.ours, "ours");
    fs::create_dir(fixture.at("secret"))?;
    fixture.pin(&fixture.ours, "secret/ours");
    let before = tree(&fixture.root);
    let held = as_bpf_user(|| {
        let (dir, theirs) = (fixture.dir(), hash());
        dir.pin(&theirs, "_bpf-pin-0123456789abcdef-0")?;
        dir.pin(&theirs, "name")?;
        for name in [
            "_bpf-pin-0123456789abcdef-1-dir",
            "_bpf-pin-0123456789abcdef-2-aside",
        ] {
            let below = dir.create_dir(name, 0o777)?;
            below.pin(&theirs, "theirs")?;
            below.pin(&theirs, "ours")?;
            symlink("../secret", fixture.at(name).join("secret"))?;
        }
        symlink("secret", fixture.at("_bpf-pin-0123456789abcdef-3"))?;
        let held = dir.create_dir(HELD, 0o700)?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
            held.lock(LockMode::Shared, Wait::Forever)?,
        )
    })?;
    // The name holds the user's pin.
    let error = root.unpin(&fixture.ours, "name").unwrap_err();
    assert_cause_matches!(error, Cause::Replaced { .. });
    let error = root
        .replace_if(&fixture.new, "name", fixture.ours.identity()?)
        .unwrap_err();
    assert_cause_matches!(error, Cause::Replaced { .. });
    // Root may replace it.
    root.replace(&fixture.ours, "name")?;
    assert_eq!(root.metadata("name")?.uid(), 0);
    drop(root.stage("set")?.publish().map_err(Error::from)?);
    let report = root.remove_leftovers()?;
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(report.removed.len(), 3, "{report:?}");
    assert!(fixture.at(HELD).is_dir(), "it is in use");
    drop(held);
    assert_eq!(root.remove_leftovers()?.removed, [HELD]);
    // The user could have created a file of that name itself.
    assert_eq!(report.restored, ["theirs"]);
    assert_eq!(root.metadata("theirs")?.uid(), USER);
    let mut after = tree(&fixture.root);
    after.retain(|path, _| {
        let is_new = ["name", "set", "theirs"]
            .iter()
            .any(|name| path.starts_with(name));
        !is_new && !is_hidden(path)
    });
    assert_eq!(after, before);
    Ok(())
}

/// They do not affect the user's other calls either.
#[common::test(USERS)]
fn a_user_cannot_remove_leftovers_of_root() -> Outcome {
    let fs = test_fs();
    let fixture = open_to_all(&fs);
    fixture.pin(&fixture.ours, "_bpf-pin-0123456789abcdef-0");
    for name in [
        "_bpf-pin-0123456789abcdef-1-dir",
        "_bpf-pin-0123456789abcdef-2-aside",
    ] {
        fs::create_dir(fixture.at(name))?;
        fixture.pin(&fixture.ours, &format!("{name}/ours"));
    }
    let before = tree(&fixture.root);
    as_bpf_user(|| {
        let (dir, theirs) = (fixture.dir(), hash());
        for _ in 0..3 {
            dir.replace(&theirs, "name")?;
            dir.replace_if(&theirs, "name", theirs.identity()?)?;
            dir.replace_keeping_mode(&theirs, "name")?;
            let set = dir.stage("set")?;
            set.pin(&theirs, "in")?;
            drop(set.publish().map_err(Error::from)?);
            drop(PinDir::create(fixture.at("x/y"), 0o700)?);
            dir.remove_dir_all("x")?;
            let report = dir.remove_leftovers()?;
            assert!(
                report.removed.is_empty() && report.restored.is_empty(),
                "{report:?}"
            );
            assert_eq!(report.failed.len(), 3, "{report:?}");
            report
                .failed
                .into_iter()
                .for_each(|error| assert_denied(Err::<(), _>(error)));
        }
        dir.unpin(&theirs, "name")?;
        dir.remove_dir_all("set")?;
        Outcome::Ok(())
    })?;
    assert_eq!(tree(&fixture.root), before);
    // Root removes no names of a living process of the user.
    let (user, root) = (as_bpf_user(|| fixture.dir()), fixture.dir());
    let set = as_bpf_user(|| {
        user.stage("set")
            .and_then(|set| set.pin(&fixture.ours, "in").map(|()| set))
    })?;
    let report = root.remove_leftovers()?;
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(report.removed.len(), 3, "{report:?}");
    as_bpf_user(|| set.publish().map(drop).map_err(Error::from))?;
    assert!(fixture.has("set/in", &fixture.ours));
    assert_eq!(root.metadata("set")?.uid(), USER);
    Ok(())
}

#[common::test(USERS)]
fn set_owner_does_not_follow_a_symbolic_link() -> Outcome {
    let fs = test_fs();
    let fixture = open_to_all(&fs);
    let dir = fixture.dir();
    fixture.pin(&fixture.ours, "ours");
    fs::create_dir(fixture.at("sub"))?;
    for (goal, name) in [
        ("ours", "to-pin"),
        ("sub", "to-dir"),
        ("nothing", "to-nothing"),
    ] {
        symlink(goal, fixture.at(name))?;
        dir.set_owner(name, Some(USER), Some(USER))?;
        let stat = fs::symlink_metadata(fixture.at(name))?;
        assert_eq!((stat.uid(), stat.gid()), (USER, USER));
    }
    for name in ["ours", "sub"] {
        let stat = fs::symlink_metadata(fixture.at(name))?;
        assert_eq!((stat.uid(), stat.gid()), (0, 0), "{name}");
    }
    fs::remove_dir_all(&fixture.root)?;
    Ok(())
}

/// A symbolic link has mode 0777 and the owner that created it, which a pin must not inherit.
#[common::test(USERS)]
fn a_replaced_symbolic_link_does_not_pass_on_its_owner() -> Outcome {
    let fs = test_fs();
    let fixture = open_to_all(&fs);
    fixture.pin(&fixture.ours, "ours");
    as_bpf_user(|| symlink("ours", fixture.at("name")))?;
    let before = tree(&fixture.root);
    let kept = fixture.dir().replace_keeping_mode(&fixture.ours, "name");
    let stat = fs::symlink_metadata(fixture.at("name"))?;
    let is_link = stat.file_type().is_symlink();
    assert!(
        is_link || stat.uid() == 0,
        "root's pin is the user's: {stat:?}"
    );
    let error = kept.unwrap_err();
    assert_cause_matches!(error, Cause::SymbolicLink { .. });
    assert_eq!(tree(&fixture.root), before);
    Ok(())
}

/// The lock is advisory.
#[common::test(USERS)]
fn the_directory_lock_does_not_block_other_calls() -> Outcome {
    let fs = test_fs();
    let fixture = open_to_all(&fs);
    let held = as_bpf_user(|| fixture.dir().lock(LockMode::Exclusive, Wait::Forever))?;
    let dir = fixture.dir();
    assert!(dir.lock(LockMode::Exclusive, Wait::No)?.is_none());
    dir.replace(&fixture.ours, "name")?;
    for _ in 0..2 {
        let set = dir.stage("set")?;
        set.pin(&fixture.ours, "in")?;
        drop(set.publish().map_err(Error::from)?);
    }
    drop(dir.create_dir("made", 0o700)?);
    dir.remove_dir_all("made")?;
    assert!(dir.remove_leftovers()?.failed.is_empty());
    let names: Vec<_> = tree(&fixture.root).into_keys().collect();
    assert_eq!(
        names,
        ["name", "set", "set/in"].map(|name| Path::new(name).to_owned())
    );
    drop(held);
    assert!(dir.lock(LockMode::Exclusive, Wait::No)?.is_some());
    Ok(())
}
