//! Directories on a mount that follows no symbolic links (`nosymfollow`).

use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bpf_pin::bpffs::MountOptions;
use bpf_pin::error::Cause;
use bpf_pin::reuse::Reuse;
use bpf_pin::{Bpffs, Error, Map, MapSpec, MapType, Object, PinDir, Prog, abi};
use common::*;
use rustix::mount::{MountFlags, mount_remount};

use crate::helpers::*;
use crate::pin_dir::MOUNTS;

const EXCHANGES: &[Need] = &[cap::BPF, cap::SYS_ADMIN, kernel(5, 17)];

/// A `nosymfollow` bpffs with a map, a program, a link to each, and a dangling link.
fn on_nosymfollow_mount(test: impl FnOnce(&Path, Bpffs) -> Outcome + Send) -> Outcome {
    let temporary = tempfile::tempdir()?;
    in_mount_namespace(|| {
        let path = temporary.path();
        let bpffs = MountOptions::new().nosymfollow(true).mount(path)?;
        let dir = bpffs.dir()?;
        dir.pin(&any_map(), "map")?;
        dir.pin(&prog(), "prog")?;
        drop(dir.create_dir("sub", 0o700)?);
        for (to, name) in [("map", "link"), ("prog", "other"), ("gone", "dangling")] {
            symlink(to, path.join(name))?;
        }
        test(path, bpffs)
    })
}

#[track_caller]
fn assert_symbolic_link(error: &Error, path: &Path) {
    let cause = Cause::SymbolicLink { path: path.into() };
    assert_eq!(error.cause(), Some(&cause), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{error}");
}

#[common::test(MOUNTS)]
fn a_symbolic_link_is_rejected_by_path() -> Outcome {
    on_nosymfollow_mount(|path, bpffs| {
        let dir = bpffs.dir()?;
        let spec = MapSpec::new(MapType::HASH, 4, 8, 8);
        for name in ["link", "other", "dangling"] {
            let link = path.join(name);
            for error in [
                unwrap_err(dir.get::<Map>(name)),
                unwrap_err(dir.get::<Prog>(name)),
                unwrap_err(dir.get::<bpf_pin::Object>(name)),
                unwrap_err(dir.open_with_info(name)),
                unwrap_err(dir.identity(name)),
                unwrap_err(dir.unpin(&any_map(), name)),
                unwrap_err(dir.copy_to(name, &dir)),
                unwrap_err(dir.open_or_create(name, &spec, Reuse::Exact)),
            ] {
                assert_symbolic_link(&error, &link);
            }
        }
        let names = names_in(&dir);
        assert_eq!(names, ["dangling", "link", "map", "other", "prog", "sub"]);
        assert_eq!(dir.get::<Map>("map")?.identity()?, any_identity());
        dir.unpin(&any_map(), "map")?;
        Ok(())
    })
}

/// Returns the errno with which `identity` rejects the link. On a `nosymfollow` mount the kernel
/// sets it. Elsewhere a check in user space runs before the open and sets none.
fn errno_of_link(dir: &PinDir) -> Option<i32> {
    let error = unwrap_err(dir.identity("link"));
    let is_link = matches!(error.cause(), Some(Cause::SymbolicLink { .. }));
    assert!(is_link, "{dir:?}: {error}");
    error.raw_os_error()
}

#[common::test(MOUNTS)]
fn a_symbolic_link_is_rejected_in_every_opened_directory() -> Outcome {
    on_nosymfollow_mount(|path, bpffs| {
        symlink("../map", path.join("sub/link"))?;
        let root = PinDir::open(path)?;
        let held: OwnedFd = PinDir::open(path)?.into();
        for dir in [
            bpffs.dir()?,
            root.try_clone()?,
            PinDir::create(path, 0o700)?,
            PinDir::from_fd(held).map_err(Error::from)?,
            root.open_dir("sub")?,
            root.create_dir("sub", 0o700)?,
            PinDir::create(path.join("sub"), 0o700)?,
        ] {
            assert_eq!(errno_of_link(&dir), Some(libc::ELOOP), "{dir:?}");
        }
        let stage = root.stage("set")?;
        symlink("../map", stage.path().join("link"))?;
        assert_eq!(errno_of_link(&stage), Some(libc::ELOOP));
        let published = stage.publish().map_err(Error::from)?;
        assert_eq!(errno_of_link(&published.dir), Some(libc::ELOOP));
        if kernel(5, 14).unmet().is_none() {
            let detached = MountOptions::new().nosymfollow(true).detached()?;
            symlink("map", detached.path().join("link"))?;
            assert_eq!(errno_of_link(&detached.dir()?), Some(libc::ELOOP));
        }
        // The same call on a mount that follows links.
        let fs = TestFs::new();
        symlink("map", fs.at("link"))?;
        assert_eq!(errno_of_link(&root_of(&fs)), None);
        Ok(())
    })
}

/// A directory keeps the mount flag that it found when it was opened.
#[common::test(MOUNTS)]
fn an_open_directory_keeps_the_flag_of_its_mount() -> Outcome {
    on_nosymfollow_mount(|path, bpffs| {
        let dir = bpffs.dir()?;
        mount_remount(path, MountFlags::BIND, "")?;
        assert_eq!(dir.get::<Map>("link")?.identity()?, any_identity());
        let reopened = PinDir::open(path)?;
        assert!(!bpffs.mount()?.is_nosymfollow());
        let error = unwrap_err(reopened.get::<Map>("link"));
        assert_eq!(error.raw_os_error(), None, "{error}");
        assert_cause_matches!(error, Cause::SymbolicLink { .. });
        Ok(())
    })
}

/// The flag belongs to a mount, so a mount below has its own.
#[common::test(MOUNTS)]
fn each_mount_on_a_path_has_its_own_flag() -> Outcome {
    on_nosymfollow_mount(|path, _| {
        let sub = path.join("sub");
        let over = MountOptions::new().mount(&sub)?;
        over.dir()?.pin(&any_map(), "map")?;
        symlink("map", sub.join("link"))?;
        drop(over.dir()?.create_dir("deeper", 0o700)?);
        symlink("../map", sub.join("deeper/link"))?;
        let deeper = PinDir::create(sub.join("deeper"), 0o700)?;
        for dir in [PinDir::open(&sub)?, PinDir::create(&sub, 0o700)?, deeper] {
            let other = hash();
            for error in [
                unwrap_err(dir.get::<Map>("link")),
                unwrap_err(dir.identity("link")),
                unwrap_err(dir.unpin(&any_map(), "link")),
                unwrap_err(dir.replace_if(&other, "link", any_identity())),
            ] {
                let path = dir.path().join("link");
                assert_eq!(
                    error.cause(),
                    Some(&Cause::SymbolicLink { path }),
                    "{error}"
                );
                assert_eq!(error.raw_os_error(), None, "{error}");
            }
            assert!(names_in(&dir).contains(&"link".to_owned()));
        }
        // The opposite case: `nosymfollow` below a mount that follows links.
        let below = sub.join("below");
        drop(over.dir()?.create_dir("below", 0o700)?);
        MountOptions::new().nosymfollow(true).mount(&below)?;
        symlink("map", below.join("link"))?;
        assert_eq!(
            errno_of_link(&PinDir::create(&below, 0o700)?),
            Some(libc::ELOOP)
        );
        Ok(())
    })
}

#[common::test(MOUNTS)]
fn the_symbolic_link_on_a_path_is_named() -> Outcome {
    on_nosymfollow_mount(|path, _| {
        symlink("sub", path.join("way"))?;
        PinDir::open(path.join("sub"))?.pin(&any_map(), "map")?;
        let (link, way) = (path.join("link"), path.join("way"));
        assert_symbolic_link(&unwrap_err(Map::open(&link)), &link);
        assert_symbolic_link(&unwrap_err(Object::open(&link)), &link);
        for error in [
            unwrap_err(Map::open(way.join("map"))),
            unwrap_err(hash().pin(way.join("new"))).into(),
            unwrap_err(PinDir::open(&way)),
            unwrap_err(Bpffs::at(&way)),
        ] {
            assert_symbolic_link(&error, &way);
        }
        // In a loop on another mount, no single link is at fault, so there is no cause.
        let elsewhere = tempfile::tempdir()?;
        let circle = elsewhere.path().join("circle");
        symlink(&circle, &circle)?;
        let error = unwrap_err(Map::open(&circle));
        assert_eq!(
            (error.raw_os_error(), error.cause()),
            (Some(libc::ELOOP), None)
        );
        Ok(())
    })
}

/// The kernel's ELOOP is proof enough. A later look at the name may find a pin again.
#[common::test(EXCHANGES)]
fn eloop_proves_a_symbolic_link_even_if_it_is_gone() -> Outcome {
    /// Far longer than the loop needs to see both outcomes.
    const TIME_LIMIT: Duration = Duration::from_secs(30);

    on_nosymfollow_mount(|path, bpffs| {
        let dir = bpffs.dir()?;
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    dir.exchange("map", "link").expect("an exchange");
                }
            });
            let _done = SetOnDrop(&is_done);
            let (mut opened, mut refused, begun) = (0, 0, Instant::now());
            while opened.min(refused) < 100 && begun.elapsed() < TIME_LIMIT {
                match dir.get::<Map>("map") {
                    Ok(map) => {
                        assert_eq!(map.identity().unwrap(), any_identity());
                        opened += 1;
                    }
                    Err(error) => {
                        assert_symbolic_link(&error, &path.join("map"));
                        refused += 1;
                    }
                }
            }
            assert!(
                opened.min(refused) > 0,
                "{opened} opened, {refused} refused"
            );
        });
        Ok(())
    })
}

#[common::test(MOUNTS)]
fn a_denied_unpin_names_what_has_the_name() -> Outcome {
    on_nosymfollow_mount(|path, bpffs| {
        let dir = bpffs.dir()?;
        let [gone, link] = with_bpf_errno(Some(abi::BPF_OBJ_GET), libc::EPERM as u32, || {
            ["gone", "link"].map(|name| unwrap_err(dir.unpin(&any_map(), name)))
        });
        assert_eq!(gone.cause(), Some(&missing(path.join("gone"))), "{gone}");
        let path = path.join("link");
        assert_eq!(link.cause(), Some(&Cause::SymbolicLink { path }), "{link}");
        Ok(())
    })
}
