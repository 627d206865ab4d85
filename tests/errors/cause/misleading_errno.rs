//! Errors that users often report by their errno alone, and the cause that they get here.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bpf_pin::bpffs::{FileSystem, Mount, ShadowedBpffs};
use bpf_pin::error::Cause;
use bpf_pin::{Bpffs, Identity, Kind, Link, Map, PinDir, PinnedMap, Prog};
use common::*;
use rustix::mount::{MountFlags, mount};
use rustix::thread::CapabilitySet;

use crate::cause::*;

/// The errno alone is "Operation not permitted".
#[common::test(&[cap::BPF, Need::Bpffs])]
fn eperm_for_a_dot_in_a_name_names_the_component() -> Outcome {
    let fs = TestFs::new();
    fs::create_dir(fs.at("xdp"))?;
    for (name, component) in [
        ("xdp/.rodata", ".rodata"),
        ("vxlan.overlay/flows", "vxlan.overlay"),
    ] {
        let path = fs.at(name);
        let cause = Cause::Dot {
            component: component.into(),
        };
        assert_fails(
            &pin_fails(&path),
            Operation::Pin,
            Some(libc::EPERM),
            Some(cause.clone()),
        );
        assert_fails(
            &open_fails(&path),
            Operation::Open,
            Some(libc::EPERM),
            Some(cause),
        );
    }
    assert_eq!(fs.names(), ["xdp"]);
    assert_eq!(fs::read_dir(fs.at("xdp"))?.count(), 0);
    Ok(())
}

/// The same errno with another cause.
#[common::test(&[cap::BPF])]
fn eperm_outside_bpffs_names_the_file_system() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("flows");
    let cause = not_bpffs(dir.path(), None);
    assert_fails(
        &pin_fails(&path),
        Operation::Pin,
        Some(libc::EPERM),
        Some(cause),
    );
    assert_eq!(fs::read_dir(dir.path())?.count(), 0);
    Ok(())
}

const SYS_FS_BPF: &str = "/sys/fs/bpf";

fn on_sysfs(path: &Path, hidden: Option<ShadowedBpffs>) -> Cause {
    let found = FileSystem::at(path).unwrap();
    assert_eq!(found.name(), Some("sysfs"));
    Cause::NotBpffs {
        path: path.to_owned(),
        found,
        missing: None,
        hidden,
    }
}

/// The topmost mount at `path`.
fn mount_at(path: &Path) -> Mount {
    let text = fs::read("/proc/thread-self/mountinfo").expect("mountinfo");
    let mounts = Mount::parse_all(&text[..]).expect("mountinfo").into_iter();
    let mut here = mounts.filter(|mount| mount.mount_point == path);
    here.next_back().expect("a mount")
}

/// Repeats what `ip netns exec` does: a new network and mount namespace, and a sysfs of the new network that lacks the
/// mounts of the old one.
fn with_sysfs_of_another_network<T>(
    before: impl FnOnce() -> T + Send,
    after: impl FnOnce(T) + Send,
) {
    in_network_namespace(|| {
        in_mount_namespace(|| {
            let result = before();
            mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).expect("a sysfs");
            after(result);
        });
    });
}

/// The errno alone is "mkdir /sys/fs/bpf/x: no such file or directory".
#[common::test(&[cap::BPF, cap::SYS_ADMIN])]
fn enoent_without_a_bpffs_explains_how_to_mount_one() -> Outcome {
    // Uses a sysfs of its own, because this machine or process 1 may have a bpffs at /sys/fs/bpf.
    let dir = tempfile::tempdir()?;
    in_mount_namespace(|| {
        let sys = dir.path().join("sys");
        fs::create_dir(&sys)?;
        mount("sysfs", &sys, "sysfs", MountFlags::empty(), None)?;
        let place = sys.join("fs/bpf");
        for name in ["flows", "app/v2/flows"] {
            let path = place.join(name);
            let error = pin_fails(&path);
            let sentence = format!(
                "pin {}: {1} is on sysfs, not on a bpffs; to mount one: mount -t bpf bpf {1}",
                path.display(),
                place.display()
            );
            assert_eq!(error.to_string(), sentence);
            assert_eq!(error.cause(), Some(&on_sysfs(&place, None)));
            assert!(matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::EPERM)
            ));
        }
        assert_eq!(fs::read_dir(&place)?.count(), 0);
        // The hint is given only at the usual mount point.
        let (path, fs) = (sys.join("fs/flows"), sys.join("fs"));
        let sentence = format!(
            "pin {}: {} is on sysfs, not on a bpffs",
            path.display(),
            fs.display()
        );
        assert_eq!(pin_fails(&path).to_string(), sentence);
        Ok(())
    })
}

/// The message of other tools is "no bpffs found", although one is mounted.
#[common::test(&[cap::BPF, cap::SYS_ADMIN])]
fn a_bpffs_hidden_by_a_sysfs_is_named() -> Outcome {
    let path = Path::new(SYS_FS_BPF).join("flows");
    let map = hash();
    let id = map.id()?;
    let visible = || {
        mount_bpffs(SYS_FS_BPF);
        assert!(FileSystem::at(SYS_FS_BPF).unwrap().is_bpffs());
        let bpffs = mount_at(Path::new(SYS_FS_BPF));
        (map.pin(&path).expect("a pin"), bpffs)
    };
    let hidden = |(pinned, bpffs): (PinnedMap, Mount)| {
        assert_eq!(FileSystem::at(SYS_FS_BPF).unwrap().name(), Some("sysfs"));
        let by = mount_at(Path::new("/sys"));
        // No hint to mount one, because that would create a second, empty bpffs.
        let because = format!(
            "/sys/fs/bpf is on sysfs, not on a bpffs; the bpffs mounted at /sys/fs/bpf (mount {}) \
             is hidden by sysfs, mounted at /sys (mount {})",
            bpffs.mount_id, by.mount_id
        );
        let enoent = Some(libc::ENOENT);
        let (bpffs, by) = (Box::new(bpffs), Box::new(by));
        let cause = ShadowedBpffs::ByMount { bpffs, by };
        let cause = Some(on_sysfs(Path::new(SYS_FS_BPF), Some(cause)));
        assert_fails(&open_fails(&path), Operation::Open, enoent, cause.clone());
        let error = pin_fails(&path);
        assert_eq!(
            error.to_string(),
            format!("pin {}: {because}", path.display())
        );
        assert_eq!(error.cause(), cause.as_ref());
        let (pinned, error) = unwrap_err(pinned.unpin(), &path).into_parts();
        assert_fails(&error, Operation::Unpin, enoent, cause.clone());
        assert_is_usable(&pinned, id);

        let error = Bpffs::system().expect_err("it is hidden");
        assert_fails(&error, Operation::FindBpffs, None, cause.clone());
        for error in [
            unwrap_err(PinDir::open(SYS_FS_BPF), &path),
            unwrap_err(PinDir::create("/sys/fs/bpf/app", 0o700), &path),
        ] {
            assert_eq!(error.cause(), cause.as_ref(), "{error}");
        }
        let sentence = Bpffs::inspect(SYS_FS_BPF).unwrap().to_string();
        let end = "is mounted there and hidden by a mount on the way";
        assert!(
            sentence.contains(end) && !sentence.contains("to mount one"),
            "{sentence}"
        );
    };
    with_sysfs_of_another_network(visible, hidden);
    Ok(())
}

/// The named mount is the one that must be unmounted, not a mount on top of it.
#[common::test(&[cap::BPF, cap::SYS_ADMIN])]
fn the_mount_that_hides_a_bpffs_is_named() -> Outcome {
    let dir = tempfile::tempdir()?;
    let root = fs::canonicalize(dir.path())?;
    in_mount_namespace(|| {
        let run = root.join("run");
        let (place, below) = (run.join("bpffs"), run.join("bpffs/app"));
        fs::create_dir_all(&place)?;
        mount_bpffs(&place);
        pin_a_map(place.join("flows"));
        let bpffs = mount_at(&place);
        let assert_hidden_by = |path: &Path, at: &Path, missing: Option<&Path>, by: &Mount| {
            let found = FileSystem::at(at).unwrap();
            let (bpffs, by) = (Box::new(bpffs.clone()), Box::new(by.clone()));
            let cause = Cause::NotBpffs {
                path: at.to_owned(),
                found,
                missing: missing.map(Path::to_owned),
                hidden: Some(ShadowedBpffs::ByMount { bpffs, by }),
            };
            let enoent = Some(libc::ENOENT);
            assert_cause(&open_fails(path), enoent, Some(cause));
        };
        let tmpfs = |at: &Path| {
            mount("tmpfs", at, "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
            mount_at(at)
        };
        let by = tmpfs(&run);
        assert_hidden_by(&place.join("flows"), &run, Some(&place), &by);
        fs::create_dir(&place)?;
        tmpfs(&place);
        assert_hidden_by(&place.join("app/flows"), &place, Some(&below), &by);

        // A neighbouring directory is unrelated to the hidden bpffs.
        let beside = run.join("bpffs-2");
        let error = open_fails(beside.join("flows"));
        assert_cause_matches!(error, Cause::NotBpffs { hidden: None, .. });
        rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty())?;
        rustix::mount::unmount(&run, rustix::mount::UnmountFlags::empty())?;
        // A mount inside a bpffs does not hide it, because the path leads through the bpffs.
        fs::create_dir(&below)?;
        tmpfs(&below);
        let error = open_fails(below.join("flows"));
        assert_cause_matches!(error, Cause::NotBpffs { hidden: None, .. });
        Ok(())
    })
}

/// The pins of the first bpffs disappear while a second one covers it.
#[common::test(&[cap::BPF, cap::SYS_ADMIN])]
fn a_pin_of_a_covered_bpffs_is_missing_until_it_is_uncovered() -> Outcome {
    let dir = tempfile::tempdir()?;
    in_mount_namespace(|| {
        mount_bpffs(dir.path());
        let path = dir.path().join("flows");
        let pinned = hash().pin(&path).expect("a pin");
        let id = pinned.id().unwrap();

        mount_bpffs(dir.path());
        let cause = Cause::Missing { path: path.clone() };
        assert_fails(
            &open_fails(&path),
            Operation::Open,
            Some(libc::ENOENT),
            Some(cause.clone()),
        );
        let (pinned, error) = unwrap_err(pinned.unpin(), &path).into_parts();
        assert_fails(&error, Operation::Unpin, Some(libc::ENOENT), Some(cause));
        assert_is_usable(&pinned, id);

        // It is visible again after the second one is unmounted.
        rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::empty()).unwrap();
        let map = pinned.unpin().expect("the pin of the first");
        assert_is_usable(&map, id);
    });
    Ok(())
}

/// The errno alone is "Permission denied".
#[common::test]
fn eacces_for_an_ordinary_file_names_its_type() -> Outcome {
    let file = tempfile::NamedTempFile::new()?;
    let path = file.path();
    let error = open_fails(path);
    let shut = sysctl_closes_all() && cap::BPF.unmet().is_some();
    if shut {
        assert_cause_matches!(error, Cause::MissingCapability { .. });
        return Ok(());
    }
    let found = FileSystem::at(path)?;
    let cause = Cause::NotAnObject {
        path: path.into(),
        what: "file",
        found,
    };
    assert_fails(&error, Operation::Open, Some(libc::EACCES), Some(cause));
    Ok(())
}

/// The errno alone is "Permission denied", although the mode is 0644.
#[common::test(&[cap::BPF, cap::SYS_ADMIN, cap::SETUID])]
fn eacces_for_a_readable_pin_explains_the_mode() -> Outcome {
    let fs = TestFs::detached("755");
    let path = fs.at("flows");
    pin_a_map(&path);
    fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    fs::create_dir(fs.at("closed"))?;
    fs::set_permissions(fs.at("closed"), Permissions::from_mode(0o700))?;
    let behind = fs.at("closed/flows");
    pin_a_map(&behind);
    fs::set_permissions(&behind, Permissions::from_mode(0o644))?;

    as_user(CapabilitySet::BPF, || {
        let cause = Cause::Blocked {
            path: path.clone(),
            mode: 0o644,
            uid: 0,
            wanted: "read and write",
            read_only_would_do: true,
        };
        assert_cause(&open_fails(&path), Some(libc::EACCES), Some(cause));

        let cause = Cause::Blocked {
            path: fs.at("closed"),
            mode: 0o700,
            uid: 0,
            wanted: "search",
            read_only_would_do: false,
        };
        assert_fails(
            &open_fails(&behind),
            Operation::Open,
            Some(libc::EACCES),
            Some(cause),
        );
    });
    Ok(())
}

/// The errno alone is "no such file", without a path.
#[common::test(&[cap::BPF, Need::Bpffs])]
fn enoent_names_the_missing_directory() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("app/flows");
    let cause = Cause::Missing { path: fs.at("app") };
    assert_fails(
        &pin_fails(&path),
        Operation::Pin,
        Some(libc::ENOENT),
        Some(cause.clone()),
    );
    assert_fails(
        &open_fails(&path),
        Operation::Open,
        Some(libc::ENOENT),
        Some(cause),
    );
    assert!(fs.names().is_empty(), "nothing was created");
    Ok(())
}

/// The errno alone is "File exists".
#[common::test(&[cap::BPF, Need::Bpffs])]
fn eexist_names_the_object_that_has_the_name() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("flows");
    let id = pin_a_map(&path);
    let cause = Cause::Exists {
        holder: Some(Identity {
            kind: Kind::Map,
            id,
        }),
    };
    assert_fails(
        &pin_fails(&path),
        Operation::Pin,
        Some(libc::EEXIST),
        Some(cause),
    );
    assert_eq!(Map::open(&path)?.id()?, id);

    let path = fs.at("filter");
    let pinned = prog().pin(&path)?;
    let id = pinned.id()?;
    let sentence = format!(
        "pin {}: program {id} is pinned there already",
        path.display()
    );
    assert_eq!(pin_fails(&path).to_string(), sentence);
    assert_eq!(Prog::open(&path)?.id()?, id);
    Ok(())
}

/// The errno alone is "Link info: invalid argument".
#[common::test(&[cap::BPF, Need::Bpffs])]
fn einval_for_another_kind_names_both_kinds() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("flows");
    let id = pin_a_map(&path);
    let error = unwrap_err(Link::open(&path), &path);
    let cause = Cause::WrongKind {
        expected: Kind::Link,
        found: Kind::Map,
    };
    assert_fails(&error, Operation::Open, None, Some(cause));
    assert_eq!(Map::open(&path)?.id()?, id);
    Ok(())
}
