//! Mistakes that loaders and libraries are known to have made, and that cannot be made here.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::types::ProgType;
use bpf_pin::{Access, Kind, Link, Map, PinnedLink, PinnedMap, Prog};
use common::*;
use rustix::fs::{Mode, chmod, mkdir};
use rustix::thread::CapabilitySet;

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if std::env::var_os(CHILD).is_some() {
        return Some(opens_relative_to_stdin());
    }
    None
}

#[common::test(PINS)]
fn a_programs_pin_is_not_taken_for_a_map() -> Outcome {
    let fs = TestFs::new();
    prog().pin(fs.at("pin"))?;
    let error = Map::open(fs.at("pin")).unwrap_err();
    let (expected, found) = (Kind::Map, Kind::Prog);
    assert_eq!(error.cause(), Some(&Cause::WrongKind { expected, found }));
    Ok(())
}

#[common::test(PINS)]
fn a_maps_pin_is_not_taken_for_a_link() -> Outcome {
    let fs = TestFs::new();
    hash().pin(fs.at("pin"))?;
    let (expected, found) = (Kind::Link, Kind::Map);
    let cause = Some(Cause::WrongKind { expected, found });
    // No value comes into being whose info could be asked for.
    assert_eq!(
        Link::open(fs.at("pin")).unwrap_err().cause().cloned(),
        cause
    );
    assert_eq!(
        PinnedLink::open(fs.at("pin")).unwrap_err().cause().cloned(),
        cause
    );
    Ok(())
}

#[common::test(PINS)]
fn a_maps_pin_is_not_taken_for_a_program() -> Outcome {
    let fs = TestFs::new();
    hash().pin(fs.at("pin"))?;
    let error = Prog::open(fs.at("pin")).unwrap_err();
    let (expected, found) = (Kind::Prog, Kind::Map);
    assert_eq!(error.cause(), Some(&Cause::WrongKind { expected, found }));
    Ok(())
}

#[common::test(PINS)]
fn a_program_of_another_type_says_so() -> Outcome {
    let fs = TestFs::new();
    prog().pin(fs.at("pin"))?;
    // There is no type of program in Rust that a pin could be mistaken for: the kernel is asked.
    assert_eq!(
        Prog::open(fs.at("pin"))?.info()?.prog_type,
        ProgType::SOCKET_FILTER
    );
    Ok(())
}

#[common::test(PINS)]
fn after_a_failed_pin_nothing_of_others_can_be_unpinned() -> Outcome {
    let fs = TestFs::new();
    let theirs = prog().pin(fs.at("pin"))?;
    let failed = common::prog().pin(fs.at("pin")).unwrap_err();
    assert_eq!(failed.error().raw_os_error(), Some(libc::EEXIST));
    // What comes back has no path, so there is nothing that it could unpin.
    let ours: Prog = failed.into_object();
    assert_ne!(ours.id()?, theirs.id()?);
    assert_eq!(Prog::open(fs.at("pin"))?.id()?, theirs.id()?);
    Ok(())
}

#[common::test]
fn a_nul_neither_panics_nor_shortens_the_path() -> Outcome {
    let long = format!("/{}\0x", "n".repeat(300));
    for (path, position) in [("\0", 0), ("/sys/fs/bpf/a\0b", 13), (long.as_str(), 301)] {
        for error in [
            Map::open(path).unwrap_err(),
            PinnedMap::open(path).unwrap_err(),
            bpf_pin::bpffs::FileSystem::at(path).unwrap_err(),
        ] {
            let problem = format!("the path contains a NUL byte at offset {position}");
            let problem = problem.into();
            assert_eq!(error.cause(), Some(&Cause::InvalidPath { problem }));
            assert_eq!(error.raw_os_error(), None);
        }
    }
    Ok(())
}

#[common::test(PINS)]
fn a_nul_in_a_pins_path_leaves_no_pin() -> Outcome {
    let fs = TestFs::new();
    let failed = hash().pin(fs.at("a\0b")).unwrap_err();
    assert!(matches!(
        failed.error().cause(),
        Some(Cause::InvalidPath { .. })
    ));
    assert!(fs.names().is_empty(), "not even a pin named a");
    failed.into_object().pin(fs.at("a"))?;
    Ok(())
}

#[common::test(ROOT)]
fn refused_is_not_absent() -> Outcome {
    let fs = TestFs::detached("755");
    hash().pin(fs.at("pin"))?;
    let error = as_user(CapabilitySet::BPF, || Map::open(fs.at("pin")).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    assert!(
        matches!(error.cause(), Some(Cause::Blocked { .. })),
        "{error}"
    );
    mkdir(fs.at("closed"), Mode::RWXU)?;
    let inside = fs.at("closed/pin");
    let error = as_user(CapabilitySet::BPF, || Map::open(&inside).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    assert!(
        !matches!(error.cause(), Some(Cause::Missing { .. })),
        "{error}"
    );
    // The same path, with the door open, is absent indeed.
    chmod(fs.at("closed"), Mode::from_raw_mode(0o755))?;
    let error = as_user(CapabilitySet::BPF, || Map::open(&inside).unwrap_err());
    assert_eq!(error.cause(), Some(&Cause::Missing { path: inside }));
    Ok(())
}

#[common::test(ROOT)]
fn a_link_whose_pin_fails_stays_attached() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let NetnsLink { link, prog } = NetnsLink::new();
        let id = link.id()?;
        let failed = link.pin(fs.at("missing/pin")).unwrap_err();
        // Attached: an attempt to update succeeds only where it is.
        let link = failed.into_object();
        assert_eq!(link.id()?, id);
        link.update(&sk_lookup_prog())?;
        assert_ne!(link.info()?.prog_id, prog.id()?);
        Ok(())
    })
}

#[common::test(PINS)]
fn what_was_pinned_anew_by_others_stays() -> Outcome {
    let fs = TestFs::new();
    let ours = hash().pin(fs.at("pin"))?;
    fs::remove_file(fs.at("pin"))?;
    let theirs = hash().pin(fs.at("pin"))?;
    let failed = ours.unpin().unwrap_err();
    assert!(matches!(
        failed.error().cause(),
        Some(Cause::Replaced { .. })
    ));
    assert_eq!(Map::open(fs.at("pin"))?.id()?, theirs.id()?);
    Ok(())
}

const CHILD: &str = "BPF_PIN_TEST_STDIN";

/// In a process whose stdin is a directory of pins and whose working directory is another.
fn opens_relative_to_stdin() -> std::process::ExitCode {
    for access in [Access::ReadWrite, Access::ReadOnly, Access::WriteOnly] {
        let error = Map::open_with("pin", access).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
    }
    std::process::ExitCode::SUCCESS
}

#[common::test(PINS)]
fn no_directory_is_searched_but_the_paths_own() -> Outcome {
    let fs = TestFs::new();
    hash().pin(fs.at("pin"))?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let directory = rustix::fs::open(fs.root(), flags, Mode::empty())?;
    let elsewhere = tempfile::tempdir()?;
    let status = Command::new(std::env::current_exe()?)
        .env(CHILD, "1")
        .current_dir(elsewhere.path())
        .stdin(Stdio::from(directory))
        .status()?;
    assert!(status.success());
    Ok(())
}

#[common::test(&[cap::BPF])]
fn a_pin_outside_bpffs_leaves_nothing_behind() -> Outcome {
    let directory = tempfile::tempdir()?;
    let failed = hash().pin(directory.path().join("pins/map")).unwrap_err();
    assert!(
        matches!(failed.error().cause(), Some(Cause::NotBpffs { .. })),
        "{failed}"
    );
    let failed = failed
        .into_object()
        .pin(directory.path().join("map"))
        .unwrap_err();
    assert!(
        matches!(failed.error().cause(), Some(Cause::NotBpffs { .. })),
        "{failed}"
    );
    assert_eq!(fs::read_dir(directory.path())?.count(), 0);
    Ok(())
}

#[common::test(PINS)]
fn a_dot_is_named_and_not_rewritten() -> Outcome {
    let fs = TestFs::new();
    mkdir(fs.at("dir"), Mode::RWXU)?;
    for (path, culprit) in [
        (".rodata", ".rodata"),
        ("vxlan.calico", "vxlan.calico"),
        ("vxlan.calico/map", "vxlan.calico"),
        ("dir/a.b", "a.b"),
    ] {
        let failed = hash().pin(fs.at(path)).unwrap_err();
        let component = culprit.into();
        assert_eq!(failed.error().cause(), Some(&Cause::Dot { component }));
        assert_eq!(failed.error().raw_os_error(), Some(libc::EPERM));
    }
    assert_eq!(fs.names(), ["dir"]);
    assert_eq!(fs::read_dir(fs.at("dir"))?.count(), 0);
    Ok(())
}

#[common::test(PINS)]
fn a_failure_mounts_nothing_and_names_the_right_path() -> Outcome {
    // Mounts of other tests come and go, so only those under this directory count.
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("app/map");
    let failed = hash().pin(&path).unwrap_err();
    assert_eq!(failed.error().operation(), Operation::Pin);
    assert_eq!(failed.error().path(), Some(&*path));
    let mounted = fs::read_to_string("/proc/self/mountinfo")?;
    let ours = directory.path().to_str().ok_or("a path in UTF-8")?;
    assert!(!mounted.contains(ours));
    // The map that came back is as good as new.
    let map = failed.into_object();
    map.elements::<u32, u64>()?.update(&1, &2, ElemFlags::ANY)?;
    assert!(Path::new(ours).read_dir()?.next().is_none());
    map.as_fd();
    Ok(())
}
