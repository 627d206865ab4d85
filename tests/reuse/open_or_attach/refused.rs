//! Failures of `open_or_attach`, which change nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::link::LinkTarget;
use bpf_pin::reuse::Attachment;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Kind, Link, LinkSpec, PinDir, Prog};
use common::*;
use rustix::thread::CapabilitySet;

use super::{ROOT, attach, attach_error, netns, one_link};

const OTHERS: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, cap::SETUID];

#[common::test(ROOT)]
fn a_link_to_another_target_is_reported_and_kept() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let netns = netns();
        let (lookup, xdp) = (sk_lookup_prog(), xdp_prog());
        let lookups = LinkSpec::netns(&netns, AttachType::SK_LOOKUP);
        let made = dir.open_or_attach("link", &lookups, &lookup)?;
        let info = made.link.info()?;
        let check = |spec: &LinkSpec<'_>, prog: &Prog, to: &str| -> Outcome {
            let error = dir.open_or_attach("link", spec, prog).expect_err(to);
            assert_eq!(error.during(), Some(Operation::Attach));
            assert_eq!(error.raw_os_error(), None);
            assert_cause_matches!(error, Cause::AttachedElsewhere { found, .. } if *found == info.target.to_string());
            assert_eq!(dir.get::<Link>("link")?.info()?, info);
            Ok(())
        };
        check(&LinkSpec::xdp(LOOPBACK), &xdp, "xdp of device 1")?;
        let attach_type = AttachType::FLOW_DISSECTOR;
        let dissector = prog_returning(ProgType::FLOW_DISSECTOR, attach_type, 0);
        let LinkTarget::Netns { netns_ino, .. } = info.target else {
            return Err("no network namespace".into());
        };
        check(
            &LinkSpec::netns(&netns, attach_type),
            &dissector,
            &format!("flow_dissector of network namespace {netns_ino}"),
        )?;
        // Also after it is detached: the kernel still reports the attach type.
        made.link.detach()?;
        let error = dir.open_or_attach("link", &LinkSpec::xdp(LOOPBACK), &xdp);
        let error = error.expect_err("a link of another type");
        assert_cause_matches!(error, Cause::AttachedElsewhere { .. });
        // Nothing was attached to the other target.
        LinkSpec::xdp(LOOPBACK).create(&xdp)?;
        assert_eq!(fs.names(), ["link"]);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_pin_that_is_not_a_link_is_reported_and_kept() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (spec, prog) = (LinkSpec::xdp(LOOPBACK), xdp_prog());
        let map = hash();
        dir.pin(&map, "link")?;
        let error = attach_error(&dir, &spec, &prog);
        assert_cause_matches!(
            error,
            Cause::WrongKind {
                expected: Kind::Link,
                found: Kind::Map
            }
        );
        dir.unlink("link")?;
        fs::create_dir(fs.at("link"))?;
        let error = attach_error(&dir, &spec, &prog);
        assert_cause_matches!(error, Cause::NotAnObject { .. });
        fs::remove_dir(fs.at("link"))?;
        // Neither call attached the program.
        spec.create(&prog)?;
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_target_taken_by_another_program_is_reported() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (spec, prog, other) = (LinkSpec::xdp(LOOPBACK), xdp_prog(), xdp_prog());
        let theirs = spec.create(&other)?;
        let error = attach_error(&dir, &spec, &prog);
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        let prog_id = other.id()?;
        assert_eq!(error.during(), Some(Operation::Attach));
        assert_eq!(error.path(), Some(&*dir.path().join("link")));
        let ifindex = LOOPBACK;
        assert_eq!(
            error.cause(),
            Some(&Cause::XdpAttached { ifindex, prog_id })
        );
        assert_eq!(theirs.info()?.prog_id, other.id()?);
        assert_eq!(fs.names(), [""; 0]);
        // Also if the target was taken while the pinned link was detached.
        drop(theirs);
        let ours = dir.open_or_attach("link", &spec, &prog)?.link;
        ours.detach()?;
        let theirs = spec.create(&other)?;
        let error = attach_error(&dir, &spec, &prog);
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        assert_eq!(dir.identity("link")?.id, ours.id()?);
        drop(theirs);
        attach(&dir, &spec, &prog, Attachment::Reattached)?;
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_program_whose_link_cannot_be_pinned_is_not_attached() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        fs::create_dir(fs.at("sub"))?;
        let dir = PinDir::open(fs.at("sub"))?;
        fs::remove_dir(fs.at("sub"))?;
        let (spec, prog) = (LinkSpec::xdp(LOOPBACK), xdp_prog());
        let error = attach_error(&dir, &spec, &prog);
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        assert_cause_matches!(error, Cause::Removed { .. });
        wait_until("free", || spec.create(&prog).is_ok());
        Ok(())
    })
}

#[common::test(OTHERS)]
fn reattaching_keeps_mode_and_owner() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (spec, prog) = (LinkSpec::xdp(LOOPBACK), xdp_prog());
        let old = dir.open_or_attach("link", &spec, &prog)?.link;
        fs::set_permissions(fs.at("link"), fs::Permissions::from_mode(0o640))?;
        std::os::unix::fs::chown(fs.at("link"), Some(1234), Some(5678))?;
        old.detach()?;
        attach(&dir, &spec, &prog, Attachment::Reattached)?;
        let found = dir.metadata("link")?;
        assert_eq!(
            (found.mode(), found.uid(), found.gid()),
            (0o640, 1234, 5678)
        );
        Ok(())
    })
}

#[common::test(OTHERS)]
fn a_user_without_permission_leaves_nothing_attached() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        fs::create_dir(fs.at("sub"))?;
        fs::set_permissions(fs.root(), fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(fs.at("sub"), fs::Permissions::from_mode(0o755))?;
        let dir = PinDir::open(fs.at("sub"))?;
        let (spec, prog) = (LinkSpec::xdp(LOOPBACK), xdp_prog());
        let able = CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
        // The user may not create the pin, so the program is detached again.
        as_user(able, || {
            let error = attach_error(&dir, &spec, &prog);
            assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
            assert_cause_matches!(error, Cause::Blocked { .. });
        });
        wait_until("free", || spec.create(&prog).is_ok());
        // A pin that the user may not open is not taken for a missing one.
        let _ours = dir.open_or_attach("link", &spec, &prog)?;
        as_user(able, || {
            let error = attach_error(&dir, &spec, &prog);
            assert_eq!(error.operation(), Operation::Open, "{error}");
            assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
        });
        one_link(&dir, &[&prog]);
        Ok(())
    })
}
