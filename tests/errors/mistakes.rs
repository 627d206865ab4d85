//! Known mistakes of other loaders and libraries, which this library prevents.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::types::ProgType;
use bpf_pin::{Access, Map, PinnedMap, Prog};
use common::*;
use rustix::fs::{Mode, chmod, mkdir};
use rustix::thread::CapabilitySet;

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if std::env::var_os(CHILD).is_some() {
        return Some(open_relative_pin());
    }
    None
}

#[common::test(PINS)]
fn a_program_reports_its_type() -> Outcome {
    let fs = TestFs::new();
    prog().pin(fs.at("pin"))?;
    // All program types share one Rust type, so the kernel reports the program type.
    assert_eq!(
        Prog::open(fs.at("pin"))?.info()?.prog_type,
        ProgType::SOCKET_FILTER
    );
    Ok(())
}

#[common::test]
fn a_nul_byte_neither_panics_nor_truncates_the_path() -> Outcome {
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
fn a_nul_byte_in_the_path_of_a_pin_leaves_no_pin() -> Outcome {
    let fs = TestFs::new();
    let failed = hash().pin(fs.at("a\0b")).unwrap_err();
    assert_cause_matches!(failed.error(), Cause::InvalidPath { .. });
    assert!(fs.names().is_empty(), "not even a pin named a");
    failed.into_object().pin(fs.at("a"))?;
    Ok(())
}

#[common::test(ROOT)]
fn a_denied_pin_is_not_reported_as_missing() -> Outcome {
    let fs = TestFs::detached("755");
    hash().pin(fs.at("pin"))?;
    let error = as_user(CapabilitySet::BPF, || Map::open(fs.at("pin")).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    assert_cause_matches!(error, Cause::Blocked { .. });
    mkdir(fs.at("closed"), Mode::RWXU)?;
    let inside = fs.at("closed/pin");
    let error = as_user(CapabilitySet::BPF, || Map::open(&inside).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    assert!(
        !matches!(error.cause(), Some(Cause::Missing { .. })),
        "{error}"
    );
    // The same path is missing once the directory can be searched.
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
        // An update succeeds only if the link is attached.
        let link = failed.into_object();
        assert_eq!(link.id()?, id);
        link.update(&sk_lookup_prog())?;
        assert_ne!(link.info()?.prog_id, prog.id()?);
        Ok(())
    })
}

const CHILD: &str = "BPF_PIN_TEST_STDIN";

/// The task of a child. Its stdin is a directory of pins, and its working directory is another directory.
fn open_relative_pin() -> std::process::ExitCode {
    for access in [Access::ReadWrite, Access::ReadOnly, Access::WriteOnly] {
        let error = Map::open_with("pin", access).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
    }
    std::process::ExitCode::SUCCESS
}

#[common::test(PINS)]
fn a_relative_path_is_not_resolved_against_descriptor_0() -> Outcome {
    let fs = TestFs::new();
    hash().pin(fs.at("pin"))?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let directory = rustix::fs::open(fs.root(), flags, Mode::empty())?;
    let elsewhere = tempfile::tempdir()?;
    let status = common::command(std::env::current_exe()?)
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
    assert_cause_matches!(failed.error(), Cause::NotBpffs { .. });
    let failed = failed
        .into_object()
        .pin(directory.path().join("map"))
        .unwrap_err();
    assert_cause_matches!(failed.error(), Cause::NotBpffs { .. });
    assert_eq!(fs::read_dir(directory.path())?.count(), 0);
    Ok(())
}

#[common::test(PINS)]
fn a_dot_in_a_name_is_rejected_and_not_replaced() -> Outcome {
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
    // Only mounts under this directory count, because other tests mount too.
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("app/map");
    let failed = hash().pin(&path).unwrap_err();
    assert_eq!(failed.error().operation(), Operation::Pin);
    assert_eq!(failed.error().path(), Some(&*path));
    let mounted = fs::read_to_string("/proc/self/mountinfo")?;
    let ours = directory.path().to_str().ok_or("a path in UTF-8")?;
    assert!(!mounted.contains(ours));
    // The returned map still works.
    let map = failed.into_object();
    map.elements::<u32, u64>()?.update(&1, &2, ElemFlags::ANY)?;
    assert!(Path::new(ours).read_dir()?.next().is_none());
    map.as_fd();
    Ok(())
}
