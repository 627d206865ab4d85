//! Ordinary users in a directory that all may write to: a loader's, and root's.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use bpf_pin::dir::RemovalReport;
use bpf_pin::error::Cause;
use bpf_pin::{Error, Map, PinDir};
use common::*;
use rustix::thread::CapabilitySet;

use crate::attack::{Ground, is_hidden};

const USERS: &[Need] = &[cap::BPF, cap::SYS_ADMIN, cap::SETUID];

/// Who `as_user` makes of this thread.
const USER: u32 = 1234;

/// An ordinary user who may use bpf(2) on every kernel.
fn as_bpf_user<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    as_user(CapabilitySet::BPF, test)
}

/// A directory of mode 1777 that is root's.
fn open_to_all(fs: &TestFs) -> Ground {
    let ground = Ground::new(fs.at("ground"));
    fs::set_permissions(&ground.root, fs::Permissions::from_mode(0o1777)).unwrap();
    ground
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
    let is_told = matches!(
        error.cause(),
        Some(Cause::Sticky { .. } | Cause::Blocked { .. } | Cause::NotOwner { .. })
    );
    let errno = error.raw_os_error();
    assert!(is_told, "{error}");
    assert!(matches!(errno, Some(libc::EPERM | libc::EACCES)), "{error}");
}

#[common::test(USERS)]
fn a_user_against_roots_pins() -> Outcome {
    let fs = test_fs();
    let ground = open_to_all(&fs);
    let root = ground.dir();
    for name in ["name", "other"] {
        root.pin(&ground.ours, name)?;
    }
    root.set_mode("other", 0o666)?;
    let seen = ground.ours.identity()?;
    fs::create_dir(ground.at("dir"))?;
    ground.pin(&ground.ours, "dir/name");
    let before = tree(&ground.root);
    as_bpf_user(|| {
        let (dir, theirs) = (ground.dir(), hash());
        dir.pin(&theirs, "theirs")?;
        for name in ["name", "other"] {
            assert_denied(dir.replace(&theirs, name));
            assert_denied(dir.replace_keeping_mode(&theirs, name).map_err(|error| {
                match error.cause() {
                    // First of all it cannot be given to root.
                    None => dir.replace(&theirs, name).unwrap_err(),
                    Some(_) => error,
                }
            }));
            assert_denied(dir.replace_if(&theirs, name, seen));
            assert_denied(dir.unlink(name));
            assert_denied(dir.unpin(&ground.ours, name));
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
    assert_eq!(tree(&ground.root), before);
    Ok(())
}

/// Amid root's publication and replacement.
#[common::test(USERS)]
fn a_user_against_roots_stage() -> Outcome {
    let fs = test_fs();
    let ground = open_to_all(&fs);
    let root = ground.dir();
    root.replace(&ground.ours, "name")?;
    let set = root.stage("set")?;
    set.pin(&ground.ours, "in")?;
    let hidden = ground.strays().remove(0);
    as_bpf_user(|| {
        let (dir, theirs) = (ground.dir(), hash());
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
        let swept = dir.remove_leftovers()?;
        assert!(
            swept.removed.is_empty() && swept.restored.is_empty(),
            "{swept:?}"
        );
        // What a living process works on is not even opened.
        assert!(swept.failed.is_empty(), "{swept:?}");
        Outcome::Ok(())
    })?;
    drop(set.publish().map_err(Error::from)?);
    assert!(ground.has("set/in", &ground.ours));
    assert_eq!(ground.strays(), [""; 0]);
    Ok(())
}

/// Whatever it is, it is the user's alone that root takes for stale.
#[common::test(USERS)]
fn what_a_user_plants_for_root() -> Outcome {
    const HELD: &str = "_bpf-pin-0123456789abcdef-f-dir";
    let fs = test_fs();
    let ground = open_to_all(&fs);
    let root = ground.dir();
    ground.pin(&ground.ours, "ours");
    fs::create_dir(ground.at("secret"))?;
    ground.pin(&ground.ours, "secret/ours");
    let before = tree(&ground.root);
    let held = as_bpf_user(|| {
        let (dir, theirs) = (ground.dir(), hash());
        dir.pin(&theirs, "_bpf-pin-0123456789abcdef-0")?;
        dir.pin(&theirs, "name")?;
        for name in [
            "_bpf-pin-0123456789abcdef-1-dir",
            "_bpf-pin-0123456789abcdef-2-aside",
        ] {
            let below = dir.create_dir(name, 0o777)?;
            below.pin(&theirs, "theirs")?;
            below.pin(&theirs, "ours")?;
            symlink("../secret", ground.at(name).join("secret"))?;
        }
        symlink("secret", ground.at("_bpf-pin-0123456789abcdef-3"))?;
        let held = dir.create_dir(HELD, 0o700)?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
            held.lock(LockMode::Shared, Wait::Forever)?,
        )
    })?;
    // Somebody else has the name.
    let error = root.unpin(&ground.ours, "name").unwrap_err();
    assert!(
        matches!(error.cause(), Some(Cause::Replaced { .. })),
        "{error}"
    );
    let error = root
        .replace_if(&ground.new, "name", ground.ours.identity()?)
        .unwrap_err();
    assert!(
        matches!(error.cause(), Some(Cause::Replaced { .. })),
        "{error}"
    );
    // Root may.
    root.replace(&ground.ours, "name")?;
    assert_eq!(root.metadata("name")?.uid(), 0);
    drop(root.stage("set")?.publish().map_err(Error::from)?);
    let swept = root.remove_leftovers()?;
    assert!(swept.failed.is_empty(), "{swept:?}");
    assert_eq!(swept.removed.len(), 3, "{swept:?}");
    assert!(ground.at(HELD).is_dir(), "somebody lives there");
    drop(held);
    assert_eq!(root.remove_leftovers()?.removed, [HELD]);
    // The user could have given itself that name.
    assert_eq!(swept.restored, ["theirs"]);
    assert_eq!(root.metadata("theirs")?.uid(), USER);
    let mut after = tree(&ground.root);
    after.retain(|path, _| {
        let is_new = ["name", "set", "theirs"]
            .iter()
            .any(|name| path.starts_with(name));
        !is_new && !is_hidden(path)
    });
    assert_eq!(after, before);
    Ok(())
}

/// The other way round: root's are not a user's to sweep, and in nobody's way.
#[common::test(USERS)]
fn a_user_beside_what_root_has_left() -> Outcome {
    let fs = test_fs();
    let ground = open_to_all(&fs);
    ground.pin(&ground.ours, "_bpf-pin-0123456789abcdef-0");
    for name in [
        "_bpf-pin-0123456789abcdef-1-dir",
        "_bpf-pin-0123456789abcdef-2-aside",
    ] {
        fs::create_dir(ground.at(name))?;
        ground.pin(&ground.ours, &format!("{name}/ours"));
    }
    let before = tree(&ground.root);
    as_bpf_user(|| {
        let (dir, theirs) = (ground.dir(), hash());
        for _ in 0..3 {
            dir.replace(&theirs, "name")?;
            dir.replace_if(&theirs, "name", theirs.identity()?)?;
            dir.replace_keeping_mode(&theirs, "name")?;
            let set = dir.stage("set")?;
            set.pin(&theirs, "in")?;
            drop(set.publish().map_err(Error::from)?);
            drop(PinDir::create(ground.at("x/y"), 0o700)?);
            dir.remove_dir_all("x")?;
            let swept = dir.remove_leftovers()?;
            assert!(
                swept.removed.is_empty() && swept.restored.is_empty(),
                "{swept:?}"
            );
            assert_eq!(swept.failed.len(), 3, "{swept:?}");
            swept
                .failed
                .into_iter()
                .for_each(|error| assert_denied(Err::<(), _>(error)));
        }
        dir.unpin(&theirs, "name")?;
        dir.remove_dir_all("set")?;
        Outcome::Ok(())
    })?;
    assert_eq!(tree(&ground.root), before);
    // Nor does root take from a user that lives.
    let (user, root) = (as_bpf_user(|| ground.dir()), ground.dir());
    let set = as_bpf_user(|| {
        user.stage("set")
            .and_then(|set| set.pin(&ground.ours, "in").map(|()| set))
    })?;
    let swept = root.remove_leftovers()?;
    assert!(swept.failed.is_empty(), "{swept:?}");
    assert_eq!(swept.removed.len(), 3, "{swept:?}");
    as_bpf_user(|| set.publish().map(drop).map_err(Error::from))?;
    assert!(ground.has("set/in", &ground.ours));
    assert_eq!(root.metadata("set")?.uid(), USER);
    Ok(())
}

#[common::test(USERS)]
fn the_owner_of_a_link_is_changed_alone() -> Outcome {
    let fs = test_fs();
    let ground = open_to_all(&fs);
    let dir = ground.dir();
    ground.pin(&ground.ours, "ours");
    fs::create_dir(ground.at("sub"))?;
    for (goal, name) in [
        ("ours", "to-pin"),
        ("sub", "to-dir"),
        ("nothing", "to-nothing"),
    ] {
        symlink(goal, ground.at(name))?;
        dir.set_owner(name, Some(USER), Some(USER))?;
        let stat = fs::symlink_metadata(ground.at(name))?;
        assert_eq!((stat.uid(), stat.gid()), (USER, USER));
    }
    for name in ["ours", "sub"] {
        let stat = fs::symlink_metadata(ground.at(name))?;
        assert_eq!((stat.uid(), stat.gid()), (0, 0), "{name}");
    }
    fs::remove_dir_all(&ground.root)?;
    Ok(())
}

/// Its mode is 0777 and its owner is whoever made it: nothing for another's pin to keep.
#[common::test(USERS)]
fn no_pin_is_given_to_who_made_a_link() -> Outcome {
    let fs = test_fs();
    let ground = open_to_all(&fs);
    ground.pin(&ground.ours, "ours");
    as_bpf_user(|| symlink("ours", ground.at("name")))?;
    let before = tree(&ground.root);
    let kept = ground.dir().replace_keeping_mode(&ground.ours, "name");
    let stat = fs::symlink_metadata(ground.at("name"))?;
    let is_link = stat.file_type().is_symlink();
    assert!(
        is_link || stat.uid() == 0,
        "root's pin is the user's: {stat:?}"
    );
    let error = kept.unwrap_err();
    assert!(
        matches!(error.cause(), Some(Cause::SymbolicLink { .. })),
        "{error}"
    );
    assert_eq!(tree(&ground.root), before);
    Ok(())
}

/// The directory's lock is for those who ask for it.
#[common::test(USERS)]
fn a_lock_keeps_nobody_from_work() -> Outcome {
    let fs = test_fs();
    let ground = open_to_all(&fs);
    let held = as_bpf_user(|| ground.dir().lock(LockMode::Exclusive, Wait::Forever))?;
    let dir = ground.dir();
    assert!(dir.lock(LockMode::Exclusive, Wait::No)?.is_none());
    dir.replace(&ground.ours, "name")?;
    for _ in 0..2 {
        let set = dir.stage("set")?;
        set.pin(&ground.ours, "in")?;
        drop(set.publish().map_err(Error::from)?);
    }
    drop(dir.create_dir("made", 0o700)?);
    dir.remove_dir_all("made")?;
    assert!(dir.remove_leftovers()?.failed.is_empty());
    let names: Vec<_> = tree(&ground.root).into_keys().collect();
    assert_eq!(
        names,
        ["name", "set", "set/in"].map(|name| Path::new(name).to_owned())
    );
    drop(held);
    assert!(dir.lock(LockMode::Exclusive, Wait::No)?.is_some());
    Ok(())
}
