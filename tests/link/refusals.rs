//! Why a target refuses another program.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use bpf_pin::abi::Version;
use bpf_pin::error::{Cause, ErrorKind, Operation};
use bpf_pin::link::{Position, XdpFlags};
use bpf_pin::types::AttachType;
use bpf_pin::{Link, LinkSpec, Prog, abi};
use common::*;

use crate::lifecycle::assert_refused;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];

const EGRESS: AttachType = AttachType::CGROUP_INET_EGRESS;

/// `BPF_PROG_ATTACH`, which this library does not have: without a link.
fn attach(cgroup: &File, prog: &Prog, attach_flags: u32) -> io::Result<()> {
    let mut attr = abi::bpf_attr_prog_attach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: prog.as_fd().as_raw_fd() as u32,
        attach_type: EGRESS.0,
        attach_flags,
        ..abi::bpf_attr_prog_attach::zeroed()
    };
    let size = size_of_val(&attr) as u32;
    // SAFETY: the argument has that many bytes and no addresses.
    match unsafe { abi::bpf(abi::BPF_PROG_ATTACH, (&raw mut attr).cast(), size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[common::test(ROOT)]
fn the_65th_program_of_a_control_group_is_one_too_many() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let (spec, prog) = (LinkSpec::cgroup(&file, EGRESS), cgroup_prog());
        let links = (0..64).map(|_| spec.create(&prog));
        let _links: Vec<Link> = links.collect::<Result<_, _>>()?;
        let full = Cause::TargetFull { count: 64 };
        let error = spec.create(&prog).expect_err("full");
        assert_fails(&error, Operation::CreateLink, libc::E2BIG, full);
        assert_eq!(error.kind(), ErrorKind::Full);
        Ok(())
    })
}

#[common::test(TCX)]
fn the_64th_tcx_program_of_a_device_is_one_too_many() -> Outcome {
    in_network_namespace(|| {
        let spec = LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS);
        let links = (0..63).map(|_| spec.create(&tcx_prog()));
        let _links: Vec<Link> = links.collect::<Result<_, _>>()?;
        let full = Cause::TargetFull { count: 63 };
        assert_refused(
            spec.create(&tcx_prog()),
            Operation::CreateLink,
            libc::ERANGE,
            full,
        );
        Ok(())
    })
}

#[common::test(ROOT)]
fn the_65th_socket_lookup_of_a_network_namespace_is_one_too_many() -> Outcome {
    in_network_namespace(|| {
        let netns = File::open("/proc/thread-self/ns/net")?;
        let spec = LinkSpec::netns(&netns, AttachType::SK_LOOKUP);
        let prog = sk_lookup_prog();
        let links = (0..64).map(|_| spec.create(&prog));
        let _links: Vec<Link> = links.collect::<Result<_, _>>()?;
        let full = Cause::TargetFull { count: 64 };
        assert_refused(spec.create(&prog), Operation::CreateLink, libc::E2BIG, full);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_program_that_excludes_others_is_named_with_its_control_group() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let child = cgroup.path.join("child");
        fs::create_dir_all(child.join("deep"))?;
        let (parent, deep) = (cgroup.open(), File::open(child.join("deep"))?);
        let prog = cgroup_prog();
        let (here, below) = (
            LinkSpec::cgroup(&parent, EGRESS),
            LinkSpec::cgroup(&deep, EGRESS),
        );
        attach(&parent, &prog, 0)?;
        let cgroup_id = cgroup_id(&parent);
        let prog_id = prog.id()?;
        let exclusive = || Cause::AttachedExclusively { cgroup_id, prog_id };
        for spec in [&here, &below] {
            let made = spec.create(&cgroup_prog());
            assert_refused(made, Operation::CreateLink, libc::EPERM, exclusive());
        }
        fs::remove_dir(child.join("deep"))?;
        fs::remove_dir(child)?;
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_program_that_may_be_overridden_excludes_others_in_its_own_group_only() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let child = cgroup.path.join("child");
        fs::create_dir(&child)?;
        let (parent, below, prog) = (cgroup.open(), File::open(&child)?, cgroup_prog());
        attach(&parent, &prog, abi::BPF_F_ALLOW_OVERRIDE)?;
        let cgroup_id = cgroup_id(&parent);
        let prog_id = prog.id()?;
        let exclusive = Cause::AttachedExclusively { cgroup_id, prog_id };
        let made = LinkSpec::cgroup(&parent, EGRESS).create(&cgroup_prog());
        assert_refused(made, Operation::CreateLink, libc::EPERM, exclusive);
        drop(LinkSpec::cgroup(&below, EGRESS).create(&cgroup_prog())?);
        fs::remove_dir(child)?;
        Ok(())
    })
}

#[common::test(ROOT)]
fn flags_that_links_do_not_take_are_named() -> Outcome {
    let refused = |spec: &LinkSpec<'_>, prog: &Prog, option: &str| {
        let error = spec.create(prog).expect_err("flags");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert!(
            matches!(error.cause(), Some(Cause::InvalidArgument { what, .. }) if *what == option),
            "{error}"
        );
    };
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let spec = LinkSpec::cgroup(&file, EGRESS);
        for flags in [abi::BPF_F_ALLOW_MULTI, abi::BPF_F_ALLOW_OVERRIDE, 1 << 20] {
            refused(&spec.flags(flags), &cgroup_prog(), "flags");
        }
        Outcome::Ok(())
    })?;
    in_network_namespace(|| {
        let netns = File::open("/proc/thread-self/ns/net")?;
        let spec = LinkSpec::netns(&netns, AttachType::SK_LOOKUP);
        refused(&spec.flags(1), &sk_lookup_prog(), "flags");
        let spec = LinkSpec::xdp(LOOPBACK);
        refused(&spec.flags(1 << 20), &xdp_prog(), "xdp_flags");
        let modes = XdpFlags::SKB_MODE | XdpFlags::DRV_MODE;
        refused(&spec.xdp_flags(modes), &xdp_prog(), "xdp_flags");
        if kernel(6, 6).unmet().is_none() {
            let spec = LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS);
            refused(&spec.flags(1 << 20), &tcx_prog(), "flags");
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_position_that_an_old_kernel_lacks_in_control_groups_is_named() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let first = LinkSpec::cgroup(&file, EGRESS).position(Position::First);
        let made = first.create(&cgroup_prog());
        // Older releases may have a backport.
        if kernel(6, 17).unmet().is_none() || made.is_ok() {
            made?;
            return Ok(());
        }
        let unsupported = Cause::Unsupported {
            what: "positions in control groups",
            since: Version::new(6, 17),
        };
        assert_refused(made, Operation::CreateLink, libc::EINVAL, unsupported);
        Ok(())
    })
}

#[common::test(ROOT)]
fn what_is_no_control_group_any_more_is_named() -> Outcome {
    in_mount_namespace(|| {
        let (cgroup, prog) = (Cgroup::new(), cgroup_prog());
        let procs = File::open(cgroup.path.join("cgroup.procs"))?;
        let error = LinkSpec::cgroup(&procs, EGRESS)
            .create(&prog)
            .expect_err("a file");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        assert!(matches!(error.cause(), Some(Cause::WrongDescriptor { .. })));
        let file = cgroup.open();
        fs::remove_dir(&cgroup.path)?;
        let error = LinkSpec::cgroup(&file, EGRESS)
            .create(&prog)
            .expect_err("gone");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert!(
            matches!(error.cause(), Some(Cause::NoTarget { .. })),
            "{error}"
        );
        Ok(())
    })
}
