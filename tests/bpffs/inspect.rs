//! `Bpffs::inspect` reports as data and in a sentence what is at a path, and only what was verified.

mod hidden;
mod process_1;
mod unlisted;

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bpf_pin::Bpffs;
use bpf_pin::bpffs::{FileSystem, Inspection, Mount, MountOptions};
use bpf_pin::bpffs::{ReadOnly, Verdict};
use bpf_pin::error::{Cause, Operation};
use common::*;
use rustix::mount::{
    FsPickFlags, MountFlags, MountPropagationFlags, UnmountFlags, fsconfig_reconfigure,
    fsconfig_set_flag, fspick, mount, mount_bind, mount_change, unmount,
};
use rustix::thread::CapabilitySet;

use crate::mount::{directory, with_mount_point};

/// The environment variable with the task of a child process.
const CHILD: &str = "BPF_PIN_TEST_INSPECT";

const ROOT: &[Need] = &[cap::SYS_ADMIN];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    match env::var(CHILD).as_deref() {
        Ok("parent") => return Some(process_1::parent_of_process_1()),
        Ok("process 1") => return Some(run_and_exit(process_1::has_a_bpffs)),
        Ok("parent of one with a sysfs") => return Some(process_1::parent_of_one_with_a_sysfs()),
        Ok("a user") => return Some(run_and_exit(process_1::as_a_user)),
        Ok("with a sysfs") => return Some(run_and_exit(process_1::has_a_bpffs_in_sysfs)),
        Ok("chroot") => return Some(run_and_exit(unlisted::in_a_plain_root)),
        Ok("chroot into a bpffs") => return Some(run_and_exit(unlisted::in_a_root_in_a_bpffs)),
        _ => {}
    }
    None
}

fn run_and_exit(run: fn()) -> ExitCode {
    run();
    ExitCode::SUCCESS
}

fn run_child(name: &str) -> Command {
    let mut command = common::command(env::current_exe().expect("this program"));
    command.env(CHILD, name);
    command
}

#[track_caller]
fn inspect(path: &Path) -> Inspection {
    let seen = Bpffs::inspect(path).unwrap();
    assert_eq!(seen.path, path);
    assert_eq!(
        seen.is_on_bpffs(),
        matches!(
            seen.verdict,
            Verdict::Mounted | Verdict::Within | Verdict::Unattached
        )
    );
    seen
}

#[track_caller]
fn assert_sentence(seen: &Inspection, sentence: &str) {
    assert_eq!(seen.to_string(), sentence, "{seen:#?}");
}

fn describe_mount(mount: &Mount) -> String {
    let (major, minor) = (libc::major(mount.dev), libc::minor(mount.dev));
    format!("mount {}, device {major}:{minor}", mount.mount_id)
}

fn mount_tmpfs(path: &Path) {
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
}

#[common::test]
fn a_missing_path_is_reported() -> Outcome {
    let dir = directory();
    for (path, missing) in [("gone", "gone"), ("gone/further/still", "gone")] {
        let (path, missing) = (dir.path().join(path), dir.path().join(missing));
        let seen = inspect(&path);
        assert_sentence(&seen, &format!("{} does not exist", missing.display()));
        assert_eq!(seen.verdict, Verdict::Missing { missing });
        assert_eq!((seen.mount, seen.read_only), (None, None));
        assert!(seen.covers.is_empty() && seen.hidden.is_empty());
    }
    Ok(())
}

#[common::test]
fn a_file_is_not_a_directory() -> Outcome {
    let dir = directory();
    let file = dir.path().join("file");
    fs::write(&file, "")?;
    for path in [file.clone(), file.join("further")] {
        let seen = inspect(&path);
        assert_sentence(&seen, &format!("{} is not a directory", file.display()));
        let path = file.clone();
        assert_eq!(seen.verdict, Verdict::NotADirectory { path });
    }
    Ok(())
}

#[common::test]
fn a_directory_on_another_file_system_is_reported() -> Outcome {
    let seen = inspect(Path::new("/proc"));
    assert_sentence(&seen, "/proc is a directory on proc, not on a bpffs");
    let found = FileSystem::at("/proc")?;
    assert_eq!(seen.verdict, Verdict::Elsewhere { found });
    let mount = seen.mount.ok_or("a mount")?;
    assert_eq!(
        (&mount.mount_point, mount.fs_type),
        (&PathBuf::from("/proc"), "proc".into())
    );
    assert_eq!(seen.read_only, None);

    let dir = directory();
    let found = FileSystem::at(dir.path())?;
    let seen = inspect(dir.path());
    let path = dir.path().display();
    assert_sentence(
        &seen,
        &format!("{path} is a directory on {found}, not on a bpffs"),
    );
    Ok(())
}

/// Uses a sysfs of its own, because this machine or process 1 may have a bpffs at /sys/fs/bpf.
#[common::test(ROOT)]
fn the_usual_mount_point_gets_a_hint_to_mount_one() -> Outcome {
    with_mount_point(|root| {
        let sys = root.join("sys");
        fs::create_dir(&sys)?;
        mount("sysfs", &sys, "sysfs", MountFlags::empty(), None)?;
        let path = &sys.join("fs/bpf");
        let sentence = format!(
            "{0} is a directory on sysfs, not on a bpffs; to mount one: mount -t bpf bpf {0}",
            path.display()
        );
        assert_sentence(&inspect(path), &sentence);
        // No hint for a path that cannot be created in sysfs.
        let gone = path.join("x");
        assert_sentence(
            &inspect(&gone),
            &format!("{} does not exist", gone.display()),
        );
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_mounted_bpffs_is_reported_with_its_mount() -> Outcome {
    with_mount_point(|path| {
        let bpffs = MountOptions::new().mount(path)?;
        let seen = inspect(path);
        let mount = bpffs.mount()?;
        assert_eq!(
            (&seen.verdict, seen.mount.as_ref()),
            (&Verdict::Mounted, Some(&mount))
        );
        assert_eq!(mount.dev, bpffs.dev());
        assert_sentence(
            &seen,
            &format!(
                "{} is a bpffs ({}, private)",
                path.display(),
                describe_mount(&mount)
            ),
        );
        assert!(seen.covers.is_empty() && seen.hidden.is_empty() && seen.read_only.is_none());
        assert_eq!(seen.of_process_1, None);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_directory_in_a_bpffs_is_reported() -> Outcome {
    with_mount_point(|path| {
        let bpffs = MountOptions::new().mount(path)?;
        let inside = path.join("one/two");
        fs::create_dir_all(&inside)?;
        let seen = inspect(&inside);
        assert_eq!(seen.verdict, Verdict::Within);
        let sentence = format!(
            "{} is a directory in the bpffs mounted at {} ({}, private)",
            inside.display(),
            path.display(),
            describe_mount(&bpffs.mount()?)
        );
        assert_sentence(&seen, &sentence);
        assert_eq!(seen.mount, Some(bpffs.mount()?));
        assert!(seen.covers.is_empty());
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_bind_mount_of_a_directory_is_reported() -> Outcome {
    with_mount_point(|path| {
        let (one, other) = (path.join("one"), path.join("other"));
        fs::create_dir(&one)?;
        fs::create_dir(&other)?;
        let bpffs = MountOptions::new().mount(&one)?;
        fs::create_dir(one.join("sub"))?;
        mount_bind(one.join("sub"), &other)?;
        let seen = inspect(&other);
        assert_eq!(seen.verdict, Verdict::Mounted);
        let mount = seen.mount.clone().ok_or("a mount")?;
        assert_eq!(
            (&mount.root, mount.dev),
            (&PathBuf::from("/sub"), bpffs.dev())
        );
        let sentence = format!(
            "{} is a bind mount of /sub of a bpffs ({}, private)",
            other.display(),
            describe_mount(&mount)
        );
        assert_sentence(&seen, &sentence);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_read_only_mount_differs_from_a_read_only_file_system() -> Outcome {
    with_mount_point(|path| {
        let (one, other) = (path.join("one"), path.join("other"));
        fs::create_dir(&one)?;
        fs::create_dir(&other)?;
        let bpffs = MountOptions::new().read_only(true).mount(&one)?;
        let seen = inspect(&one);
        assert_eq!(seen.read_only, Some(ReadOnly::Mount));
        let mount = bpffs.mount()?;
        let head = format!(
            "{} is a bpffs ({}, private)",
            one.display(),
            describe_mount(&mount)
        );
        assert_sentence(&seen, &format!("{head}; the mount is read-only"));

        let bpffs = MountOptions::new().mount(&other)?;
        let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
        let context = fspick(&bpffs, c"", flags)?;
        fsconfig_set_flag(&context, c"ro")?;
        fsconfig_reconfigure(&context)?;
        let seen = inspect(&other);
        assert_eq!(seen.read_only, Some(ReadOnly::FileSystem));
        let mount = bpffs.mount()?;
        let head = format!(
            "{} is a bpffs ({}, private)",
            other.display(),
            describe_mount(&mount)
        );
        assert_sentence(&seen, &format!("{head}; it is read-only"));
        Ok(())
    })
}

#[common::test(ROOT)]
fn propagation_is_reported() -> Outcome {
    let other = directory();
    with_mount_point(|path| {
        MountOptions::new().mount(path)?;
        let assert_sentence_ends = |end: &str| {
            let seen = inspect(path);
            let mount = seen.mount.clone().unwrap();
            assert_sentence(
                &seen,
                &format!(
                    "{} is a bpffs ({}, {end})",
                    path.display(),
                    describe_mount(&mount)
                ),
            );
        };
        mount_change(path, MountPropagationFlags::SHARED)?;
        let group = inspect(path)
            .mount
            .and_then(|mount| mount.propagation.shared);
        let group = group.ok_or("a group")?;
        assert_sentence_ends(&format!("shared in group {group}"));
        mount_bind(path, other.path())?;
        mount_change(path, MountPropagationFlags::DOWNSTREAM)?;
        assert_sentence_ends(&format!("slave of group {group}"));
        mount_change(path, MountPropagationFlags::SHARED)?;
        let own = inspect(path)
            .mount
            .and_then(|mount| mount.propagation.shared);
        let own = own.ok_or("a group of its own")?;
        assert_sentence_ends(&format!("shared in group {own}, slave of group {group}"));
        mount_change(path, MountPropagationFlags::UNBINDABLE)?;
        assert_sentence_ends("unbindable");
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_bpffs_covers_another() -> Outcome {
    with_mount_point(|path| {
        let first = MountOptions::new().mount(path)?;
        mount_tmpfs(path);
        let tmpfs = inspect(path).mount.ok_or("a mount")?;
        let second = MountOptions::new().mount(path)?;
        let third = MountOptions::new().mount(path)?;
        let seen = inspect(path);
        assert_eq!(seen.verdict, Verdict::Mounted);
        let (one, two, three) = (first.mount()?, second.mount()?, third.mount()?);
        assert_eq!(seen.mount.as_ref(), Some(&three));
        assert_eq!(seen.covers, [two.clone(), tmpfs.clone(), one.clone()]);
        assert_eq!(seen.hidden, [one.clone(), two.clone()]);
        let sentence = format!(
            "{} is a bpffs ({}, private); it covers tmpfs (mount {}); the bpffs ({}, private) is \
             covered, 3 mounts deep; the bpffs ({}, private) is covered by it",
            path.display(),
            describe_mount(&three),
            tmpfs.mount_id,
            describe_mount(&one),
            describe_mount(&two)
        );
        assert_sentence(&seen, &sentence);
        Ok(())
    })
}

/// A mount over a bpffs makes its pins disappear without an error.
#[common::test(ROOT)]
fn a_bpffs_covered_by_another_file_system_is_reported() -> Outcome {
    with_mount_point(|path| {
        let bpffs = MountOptions::new().mount(path)?;
        let mount = bpffs.mount()?;
        let found = {
            mount_tmpfs(path);
            FileSystem::at(path)?
        };
        let seen = inspect(path);
        assert_eq!(seen.verdict, Verdict::Elsewhere { found });
        assert_eq!(
            (&seen.covers[..], &seen.hidden[..]),
            (&[mount.clone()][..], &[mount.clone()][..])
        );
        // The sentence names the mount that covers it.
        let head = |seen: &Inspection| {
            let id = seen.mount.as_ref().map(|mount| mount.mount_id).unwrap();
            let path = path.display();
            format!("{path} is a directory on tmpfs (mount {id}), not on a bpffs")
        };
        let tail = format!(
            "; the bpffs ({}, private) is covered",
            describe_mount(&mount)
        );
        assert_sentence(&seen, &format!("{}{tail} by it", head(&seen)));
        mount_tmpfs(path);
        let seen = inspect(path);
        assert_eq!(seen.covers.len(), 2);
        assert_sentence(&seen, &format!("{}{tail}, 2 mounts deep", head(&seen)));
        // Nothing is reported for a directory inside the covering mount.
        fs::create_dir(path.join("dir"))?;
        let seen = inspect(&path.join("dir"));
        assert!(seen.covers.is_empty() && seen.hidden.is_empty());
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_bpffs_hidden_by_a_mount_of_a_parent_directory_is_reported() -> Outcome {
    with_mount_point(|path| {
        let place = path.join("run/bpffs");
        fs::create_dir_all(&place)?;
        let bpffs = MountOptions::new().mount(&place)?;
        let mount = bpffs.mount()?;
        mount_tmpfs(&path.join("run"));
        let tail = format!(
            "; the bpffs ({}, private) is mounted there and hidden by a mount on the way",
            describe_mount(&mount)
        );
        let seen = inspect(&place);
        assert_sentence(&seen, &format!("{} does not exist{tail}", place.display()));
        assert_eq!(seen.hidden, [mount]);
        fs::create_dir(&place)?;
        let seen = inspect(&place);
        let id = seen.mount.as_ref().ok_or("a mount")?.mount_id;
        assert_sentence(
            &seen,
            &format!(
                "{} is a directory on tmpfs (mount {id}), not on a bpffs{tail}",
                place.display()
            ),
        );
        assert!(seen.covers.is_empty());
        unmount(path.join("run"), UnmountFlags::empty())?;
        assert_eq!(inspect(&place).verdict, Verdict::Mounted);
        Ok(())
    })
}

#[common::test(ROOT)]
fn symbolic_links_and_dots_in_a_path_are_resolved() -> Outcome {
    with_mount_point(|path| {
        let (place, link) = (path.join("place"), path.join("link"));
        fs::create_dir(&place)?;
        symlink(&place, &link)?;
        let bpffs = MountOptions::new().mount(&place)?;
        mount_tmpfs(&place);
        for path in [link, place.join("."), place.join("../place/")] {
            let seen = inspect(&path);
            assert_eq!(seen.hidden, [bpffs.mount()?], "{}", path.display());
        }
        Ok(())
    })
}

#[common::test]
fn an_invalid_path_fails() -> Outcome {
    let fails = |path: &Path, errno, cause| {
        let error = Bpffs::inspect(path).expect_err("an invalid path");
        assert_fails(&error, Operation::InspectBpffs, errno, cause);
    };
    let problem = "the path contains a NUL byte at offset 5".into();
    fails(Path::new("/proc\0"), None, Cause::InvalidPath { problem });
    let error = Bpffs::inspect("").expect_err("no path");
    assert_cause_matches!(error, Cause::InvalidPath { .. });
    let dir = directory();
    let cause = Cause::TooLong {
        what: "name",
        length: 256,
        limit: 255,
    };
    let long = dir.path().join("n".repeat(256));
    fails(&long, Some(libc::ENAMETOOLONG), cause);
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN, cap::SETUID])]
fn an_unsearchable_directory_fails_with_its_mode() -> Outcome {
    with_mount_point(|path| {
        let bpffs = MountOptions::new().mode(0o700).mount(path)?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        fs::create_dir(path.join("inside"))?;
        as_user(CapabilitySet::empty(), || {
            let error = Bpffs::inspect(path.join("inside")).expect_err("not allowed");
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
            assert_cause_matches!(error, Cause::Blocked { .. });
        });
        drop(bpffs);
        Ok(())
    })
}
