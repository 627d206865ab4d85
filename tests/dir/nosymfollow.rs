//! Directories on a mount that follows no symbolic links.

use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use bpf_pin::{Bpffs, Cause, Error, Map, MapSpec, MapType, MountOptions, PinDir, Prog, Reuse};
use common::*;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};

use crate::MOUNTS;
use crate::scene::*;

pub fn tests(suite: Suite) -> Suite {
    suite
        .test("the_kernel_follows_no_link", MOUNTS, refused)
        .test("however_a_directory_was_opened", MOUNTS, every_way)
        .test("a_mount_that_follows_links_later", MOUNTS, remounted)
}

/// A bpffs that follows no links, with a map and a program, links to them, and one to nothing.
fn on_such_a_mount(test: impl FnOnce(&Path, Bpffs) -> Outcome + Send) -> Outcome {
    let temporary = tempfile::tempdir()?;
    own_mounts(|| {
        let path = temporary.path();
        let bpffs = MountOptions::new().nosymfollow(true).mount(path)?;
        let dir = bpffs.dir()?;
        dir.pin(any_map(), "map")?;
        dir.pin(prog(), "prog")?;
        drop(dir.create_dir("sub", 0o700)?);
        for (to, name) in [("map", "link"), ("prog", "other"), ("gone", "dangling")] {
            symlink(to, path.join(name))?;
        }
        test(path, bpffs)?;
        unmount(path, UnmountFlags::DETACH)?;
        Ok(())
    })
}

#[track_caller]
fn assert_is_refused(error: &Error, path: &Path) {
    let cause = Cause::SymbolicLink { path: path.into() };
    assert_eq!(error.cause(), Some(&cause), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{error}");
}

fn refused() -> Outcome {
    on_such_a_mount(|path, bpffs| {
        let dir = bpffs.dir()?;
        let spec = MapSpec::new(MapType::HASH, 4, 8, 8);
        for name in ["link", "other", "dangling"] {
            let link = path.join(name);
            for error in [
                unwrap_err(dir.open_as::<Map>(name)),
                unwrap_err(dir.open_as::<Prog>(name)),
                unwrap_err(dir.open_any(name)),
                unwrap_err(dir.open_with_info(name)),
                unwrap_err(dir.identity(name)),
                unwrap_err(dir.remove(any_map(), name)),
                unwrap_err(dir.copy_to(name, &dir)),
                unwrap_err(dir.open_or_create(name, &spec, Reuse::Exact)),
            ] {
                assert_is_refused(&error, &link);
            }
            // By a path, too, where the kernel alone decides.
            let error = unwrap_err(Map::open(&link));
            assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{error}");
        }
        let names = names_in(&dir);
        assert_eq!(names, ["dangling", "link", "map", "other", "prog", "sub"]);
        assert_eq!(dir.open_as::<Map>("map")?.identity()?, any_identity());
        dir.remove(any_map(), "map")?;
        Ok(())
    })
}

/// A link that is looked for, and not refused by the kernel, has no errno.
fn every_way() -> Outcome {
    on_such_a_mount(|path, bpffs| {
        let seen_in = |dir: &PinDir, name: &str| {
            let error = unwrap_err(dir.open_as::<Map>(name));
            assert!(matches!(error.cause(), Some(Cause::SymbolicLink { .. })));
            error.raw_os_error()
        };
        symlink("../map", path.join("sub/link"))?;
        let root = PinDir::open(path)?;
        let held: OwnedFd = PinDir::open(path)?.into();
        for dir in [
            bpffs.dir()?,
            root.try_clone()?,
            PinDir::create(path, 0o700)?,
            PinDir::from_fd(held).map_err(Error::from)?,
        ] {
            assert_eq!(seen_in(&dir, "link"), Some(libc::ELOOP), "{dir:?}");
        }
        for dir in [
            root.open_dir("sub")?,
            root.create_dir("sub", 0o700)?,
            PinDir::create(path.join("sub"), 0o700)?,
        ] {
            assert_eq!(seen_in(&dir, "link"), Some(libc::ELOOP), "{dir:?}");
        }
        // The same, on a mount that does.
        let fs = TestFs::new();
        let other = root_of(&fs);
        other.pin(any_map(), "map")?;
        symlink("map", fs.at("link"))?;
        assert_eq!(seen_in(&other, "link"), None);
        Ok(())
    })
}

/// What it was when it was opened is what counts.
fn remounted() -> Outcome {
    on_such_a_mount(|path, bpffs| {
        let dir = bpffs.dir()?;
        mount_remount(path, MountFlags::BIND, "")?;
        assert_eq!(dir.open_as::<Map>("link")?.identity()?, any_identity());
        let anew = PinDir::open(path)?;
        assert!(!bpffs.mount()?.is_nosymfollow());
        let error = unwrap_err(anew.open_as::<Map>("link"));
        assert_eq!(error.raw_os_error(), None, "{error}");
        assert!(matches!(error.cause(), Some(Cause::SymbolicLink { .. })));
        Ok(())
    })
}
