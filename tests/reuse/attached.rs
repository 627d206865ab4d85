//! Where a reused link is attached, what of its spec it does not have, and links that live without their pins.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown};

use bpf_pin::error::{Cause, ErrorKind, Operation};
use bpf_pin::link::{Anchor, LinkTarget, Position, XdpFlags};
use bpf_pin::reuse::{Attachment, LinkMismatch, Verified};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, PinDir, PinnedLink, Prog, abi};
use common::*;
use rustix::thread::CapabilitySet;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const VETH: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, Need::Feature(Feature::Veth)];
const USER: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, cap::SETUID];
const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON];

const EGRESS: AttachType = AttachType::CGROUP_INET_EGRESS;

fn ingress() -> LinkSpec<'static> {
    LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS)
}

type ByIndex = (LinkSpec<'static>, fn() -> Prog, Verified);

/// A spec of this network namespace's loopback device and a maker of its programs, for each type of link that
/// has an index instead of an identity.
fn by_index() -> Vec<ByIndex> {
    let mut all: Vec<ByIndex> = vec![(LinkSpec::xdp(LOOPBACK), xdp_prog, Verified::Prog)];
    if kernel(6, 6).unmet().is_none() {
        all.push((ingress(), tcx_prog, Verified::Link));
    }
    all
}

#[common::test(ROOT)]
fn a_link_of_another_network_namespace_is_not_taken_for_one_here() -> Outcome {
    for (spec, make, verified) in by_index() {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (prog, other) = (make(), make());
        in_network_namespace(|| -> Outcome {
            let made = dir.open_or_attach("pod", &spec, &prog)?;
            let info = made.link.info()?;
            in_network_namespace(|| -> Outcome {
                // Neither with the program that the link holds nor with another one.
                for prog in [&prog, &other] {
                    let error = dir
                        .open_or_attach("pod", &spec, prog)
                        .expect_err("elsewhere");
                    let target = info.target.to_string();
                    assert_eq!(error.cause(), Some(&Cause::OtherNetns { target }));
                    assert_eq!(error.kind(), ErrorKind::Mismatch);
                    assert_eq!(error.during(), Some(Operation::Attach));
                    assert_eq!(error.operation(), Operation::UpdateLink);
                    assert_eq!(dir.get::<Link>("pod")?.info()?, info);
                    assert_eq!(spec.query()?.entries(), []);
                }
                // A pin for each network namespace.
                let here = dir.open_or_attach("here", &spec, &prog)?;
                assert_eq!(here.attachment, Attachment::Attached);
                assert_eq!(here.verified, Verified::Link);
                let again = dir.open_or_attach("here", &spec, &prog)?;
                assert_eq!(again.attachment, Attachment::Unchanged);
                assert_eq!(again.verified, verified);
                assert_eq!(again.link.id()?, here.link.id()?);
                dir.unlink("here")?;
                Ok(())
            })?;
            for (prog, attachment) in [
                (&prog, Attachment::Unchanged),
                (
                    &other,
                    Attachment::Updated {
                        old_prog_id: info.prog_id,
                    },
                ),
            ] {
                let again = dir.open_or_attach("pod", &spec, prog)?;
                assert_eq!(again.attachment, attachment);
                assert_eq!(again.verified, verified);
                assert_eq!(again.link.id()?, info.id);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The kernel does not list XDP links, so the result says that only the program was seen.
#[common::test(ROOT)]
fn xdp_with_the_same_program_in_both_namespaces_verifies_the_program_only() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (spec, prog) = (LinkSpec::xdp(LOOPBACK), xdp_prog());
    in_network_namespace(|| {
        dir.open_or_attach("pod", &spec, &prog)?;
        in_network_namespace(|| {
            let _here = spec.create(&prog)?;
            let found = dir.open_or_attach("pod", &spec, &prog)?;
            assert_eq!(found.attachment, Attachment::Unchanged);
            assert_eq!(found.verified, Verified::Prog);
            Ok(())
        })
    })
}

#[common::test(VETH)]
fn a_link_of_a_device_that_this_namespace_lacks_is_elsewhere() -> Outcome {
    const DEVICE: u32 = 79;
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    in_network_namespace(|| {
        add_device(DEVICE, "veth")?;
        let specs = [
            (LinkSpec::xdp(DEVICE), xdp_prog as fn() -> Prog),
            (LinkSpec::tcx(DEVICE, AttachType::TCX_EGRESS), tcx_prog),
        ];
        let has_tcx = kernel(6, 6).unmet().is_none();
        for (spec, make) in &specs[..1 + usize::from(has_tcx)] {
            let prog = make();
            dir.open_or_attach("pod", spec, &prog)?;
            let error = in_network_namespace(|| dir.open_or_attach("pod", spec, &prog));
            let error = error.expect_err("elsewhere");
            assert_cause_matches!(error, Cause::OtherNetns { .. });
            dir.unlink("pod")?;
        }
        Ok(())
    })
}

#[common::test(TCX)]
fn a_link_is_not_verified_if_the_query_is_refused() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (spec, prog, other) = (ingress(), tcx_prog(), tcx_prog());
        dir.open_or_attach("link", &spec, &prog)?;
        let refused = |spec: &LinkSpec<'_>, prog: &Prog| {
            let query = Some(abi::BPF_PROG_QUERY);
            with_bpf_errno(query, libc::EPERM as u32, || {
                dir.open_or_attach("link", spec, prog)
            })
        };
        let old_prog_id = prog.id()?;
        for (prog, attachment) in [
            (&prog, Attachment::Unchanged),
            (&other, Attachment::Updated { old_prog_id }),
        ] {
            let found = refused(&spec, prog)?;
            assert_eq!(found.attachment, attachment);
            assert_eq!(found.verified, Verified::No);
            assert_eq!(found.mismatches, []);
        }
        // Neither is its position.
        let found = refused(&spec.position(Position::First), &other)?;
        assert!(matches!(
            found.mismatches[..],
            [LinkMismatch::Position { found: None, .. }]
        ));
        Ok(())
    })
}

#[common::test(USER)]
fn without_cap_net_admin_only_xdp_is_verified() -> Outcome {
    in_network_namespace(|| {
        for (spec, make, _) in by_index() {
            let files = TestFs::new();
            let dir = PinDir::open(files.root())?;
            let prog = make();
            dir.open_or_attach("link", &spec, &prog)?;
            fs::set_permissions(files.root(), fs::Permissions::from_mode(0o755))?;
            chown(files.at("link"), Some(1234), None)?;
            let found = as_user(CapabilitySet::BPF, || {
                dir.open_or_attach("link", &spec, &prog)
            })?;
            assert_eq!(found.attachment, Attachment::Unchanged);
            let verified = match spec.attach_type() {
                AttachType::XDP => Verified::Prog,
                _ => Verified::No,
            };
            assert_eq!(found.verified, verified);
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn links_that_report_their_target_are_verified() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let netns = File::open("/proc/thread-self/ns/net")?;
        let spec = LinkSpec::netns(&netns, AttachType::SK_LOOKUP);
        let prog = sk_lookup_prog();
        dir.open_or_attach("link", &spec, &prog)?;
        let found = dir.open_or_attach("link", &spec, &prog)?;
        assert_eq!(
            (found.attachment, found.verified),
            (Attachment::Unchanged, Verified::Link)
        );
        Ok(())
    })
}

#[common::test(VETH)]
fn an_xdp_mode_that_the_pinned_link_lacks_is_in_the_result() -> Outcome {
    const DEVICE: u32 = 80;
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (prog, other) = (xdp_prog(), xdp_prog());
        add_device(DEVICE, "veth")?;
        let spec = LinkSpec::xdp(DEVICE);
        let generic = spec.xdp_flags(XdpFlags::SKB_MODE);
        let driver = spec.xdp_flags(XdpFlags::DRV_MODE);
        let made = dir.open_or_attach("link", &generic, &prog)?;
        assert_eq!(made.mismatches, []);
        for spec in [&spec, &generic] {
            let same = dir.open_or_attach("link", spec, &prog)?.exact()?;
            assert_eq!(same.attachment, Attachment::Unchanged);
        }
        let (expected, found) = ("driver", Some("generic"));
        let mismatch = LinkMismatch::XdpMode { expected, found };
        let old_prog_id = prog.id()?;
        for (prog, attachment) in [
            (&prog, Attachment::Unchanged),
            (&other, Attachment::Updated { old_prog_id }),
        ] {
            let attached = dir.open_or_attach("link", &driver, prog)?;
            assert_eq!(attached.attachment, attachment);
            assert_eq!(attached.mismatches, std::slice::from_ref(&mismatch));
            let error = attached.exact().expect_err("another mode");
            assert_eq!(error.operation(), Operation::Attach);
            assert_eq!(error.object().map(|link| link.id), Some(made.link.id()?));
            let mismatches = vec![mismatch.clone()];
            assert_eq!(error.cause(), Some(&Cause::LinkMismatch { mismatches }));
            assert_eq!(error.kind(), ErrorKind::Mismatch);
        }
        // As the docs say: unlinked and detached, it is attached in the other mode.
        dir.unlink("link")?;
        made.link.detach()?;
        dir.open_or_attach("link", &driver, &other)?.exact()?;
        assert_eq!(spec.query()?.entries()[0].mode, Some(XdpFlags::DRV_MODE));
        dir.open_or_attach("link", &driver, &other)?.exact()?;
        Ok(())
    })
}

fn place(
    position: Position<'_>,
    spec: &LinkSpec<'_>,
    dir: &PinDir,
    prog: &Prog,
) -> Outcome<Option<(usize, usize)>> {
    let found = dir.open_or_attach("link", &spec.position(position), prog)?;
    assert_eq!(found.attachment, Attachment::Unchanged);
    Ok(match &found.mismatches[..] {
        [] => None,
        [LinkMismatch::Position { found, .. }] => Some(found.expect("a place")),
        other => panic!("{other:?}"),
    })
}

#[common::test(TCX)]
fn a_position_that_a_tcx_link_does_not_have_is_in_the_result() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (spec, prog) = (ingress(), tcx_prog());
        let first = spec.position(Position::First);
        let made = dir.open_or_attach("link", &first, &prog)?;
        assert_eq!(made.mismatches, []);
        let at = |position| place(position, &spec, &dir, &prog);
        assert_eq!(at(Position::First)?, None);
        assert_eq!(at(Position::Last)?, None);
        let (second, third) = (tcx_prog(), tcx_prog());
        let before = first.create(&second)?;
        let after = spec.create(&third)?;
        assert_eq!(at(Position::First)?, Some((2, 3)));
        assert_eq!(at(Position::Last)?, Some((2, 3)));
        let (before_id, after_id) = (before.id()?, after.id()?);
        for anchor in [
            Anchor::Link(&after),
            Anchor::LinkId(after_id),
            Anchor::Prog(&third),
            Anchor::ProgId(third.id()?),
        ] {
            assert_eq!(at(Position::Before(anchor))?, None);
            assert_eq!(at(Position::After(anchor))?, Some((2, 3)));
        }
        assert_eq!(at(Position::After(Anchor::LinkId(before_id)))?, None);
        let expected = format!("directly before link {before_id}");
        let position = Position::Before(Anchor::Link(&before));
        let found = dir.open_or_attach("link", &spec.position(position), &prog)?;
        let mismatch = LinkMismatch::Position {
            expected,
            found: Some((2, 3)),
        };
        assert_eq!(found.mismatches, [mismatch]);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_position_in_a_control_group_is_compared() -> Outcome {
    in_a_control_group(|dir, spec, prog| {
        dir.open_or_attach("link", spec, prog)?;
        let at = |position| place(position, spec, dir, prog);
        assert_eq!(at(Position::First)?, None);
        let other = spec.create(&cgroup_prog())?;
        assert_eq!(at(Position::First)?, None);
        assert_eq!(at(Position::Last)?, Some((1, 2)));
        assert_eq!(at(Position::Before(Anchor::Link(&other)))?, None);
        assert_eq!(
            at(Position::After(Anchor::LinkId(other.id()?)))?,
            Some((1, 2))
        );
        Ok(())
    })
}

/// Runs `test` with an empty directory of a bpffs, and a spec and a program for a new control group.
fn in_a_control_group(
    test: impl FnOnce(&PinDir, &LinkSpec<'_>, &Prog) -> Outcome + Send,
) -> Outcome {
    in_mount_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        test(&dir, &LinkSpec::cgroup(&file, EGRESS), &cgroup_prog())
    })
}

/// The group that this process is in, in the tree of control groups at `root`.
fn own_group(cgroup: &Cgroup) -> Outcome<std::path::PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let root = cgroup.path.parent().ok_or("no root")?;
    Ok(root.join(own.ok_or("no group")?))
}

fn join(group: &std::path::Path) -> Outcome {
    Ok(fs::write(group.join("cgroup.procs"), "0")?)
}

/// The socket that was opened in the group keeps its links attached after it was removed.
#[common::test_alone(ROOT)]
fn a_control_group_that_was_removed_and_created_again_is_attached_to() {
    let run = || -> Outcome {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (cgroup, prog) = (Cgroup::new(), cgroup_prog());
        let old = {
            let file = cgroup.open();
            dir.open_or_attach("link", &LinkSpec::cgroup(&file, EGRESS), &prog)?
                .link
        };
        let home = own_group(&cgroup)?;
        join(&cgroup.path)?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        join(&home)?;
        fs::remove_dir(&cgroup.path)?;
        fs::create_dir(&cgroup.path)?;
        let file = cgroup.open();
        let spec = LinkSpec::cgroup(&file, EGRESS);
        assert!(!old.info()?.target.is_gone(), "the socket keeps it");

        // Without the right to look for the old group nothing is claimed, and nothing changed.
        let open_by_handle = libc::SYS_open_by_handle_at;
        let error = with_seccomp_errno(open_by_handle, None, libc::EPERM as u32, || {
            dir.open_or_attach("link", &spec, &prog)
        });
        let error = error.expect_err("not verified");
        assert_cause_matches!(error, Cause::AttachedElsewhere { .. });
        assert_eq!(dir.identity("link")?.id, old.id()?);

        let new = dir.open_or_attach("link", &spec, &prog)?;
        assert_eq!(new.attachment, Attachment::Reattached);
        assert_ne!(new.link.id()?, old.id()?);
        let LinkTarget::Cgroup { cgroup_id, .. } = new.link.info()?.target else {
            panic!("a link of a control group");
        };
        assert_eq!(cgroup_id, common::cgroup_id(&file));
        let again = dir.open_or_attach("link", &spec, &prog)?;
        assert_eq!(
            (again.attachment, again.verified),
            (Attachment::Unchanged, Verified::Link)
        );
        drop(socket);
        Ok(())
    };
    in_mount_namespace(run).unwrap();
}

/// A group that exists under another name is not taken for a removed one.
#[common::test(ROOT)]
fn a_link_of_another_control_group_stays_there() -> Outcome {
    in_mount_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (cgroup, other, prog) = (Cgroup::new(), Cgroup::new(), cgroup_prog());
        let (file, elsewhere) = (cgroup.open(), other.open());
        let made = dir.open_or_attach("link", &LinkSpec::cgroup(&file, EGRESS), &prog)?;
        let error = dir.open_or_attach("link", &LinkSpec::cgroup(&elsewhere, EGRESS), &prog);
        let error = error.expect_err("another group");
        assert_cause_matches!(error, Cause::AttachedElsewhere { .. });
        assert_eq!(dir.identity("link")?.id, made.link.id()?);
        Ok(())
    })
}

/// The pin is removed while the link is held: the call names the link, and a pin of it takes it over.
fn adopt(spec: &LinkSpec<'_>, prog: &Prog) -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let held = dir.open_or_attach("link", spec, prog)?.link;
    dir.unlink("link")?;
    let error = dir
        .open_or_attach("link", spec, prog)
        .expect_err("attached");
    let (prog_id, id) = (prog.id()?, held.id()?);
    let link_id = Some(id);
    assert_eq!(
        error.cause(),
        Some(&Cause::AlreadyAttached { prog_id, link_id }),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(error.operation(), Operation::CreateLink);
    assert_eq!(error.during(), Some(Operation::Attach));
    assert_eq!(fs.names(), [""; 0]);
    let pinned: PinnedLink = Link::from_id(id)?.pin(fs.at("link"))?;
    let found = dir.open_or_attach("link", spec, prog)?;
    assert_eq!(found.attachment, Attachment::Unchanged);
    assert_eq!(found.link.id()?, pinned.id()?);
    Ok(())
}

#[common::test(ROOT)]
fn a_link_of_a_device_that_lost_its_pin_is_named() -> Outcome {
    in_network_namespace(|| {
        for (spec, make, _) in by_index() {
            adopt(&spec, &make())?;
        }
        Ok(())
    })
}

/// Links of XDP do not report their network namespaces, so none is named that could be the other one.
#[common::test(ROOT)]
fn an_xdp_link_of_another_network_namespace_is_not_named() -> Outcome {
    let (spec, prog) = (LinkSpec::xdp(LOOPBACK), xdp_prog());
    let elsewhere = in_network_namespace(|| -> Outcome<(File, Link)> {
        let netns = File::open("/proc/thread-self/ns/net")?;
        Ok((netns, spec.create(&prog)?))
    })?;
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let _held = spec.create(&prog)?;
        let error = dir.open_or_attach("link", &spec, &prog);
        let error = error.expect_err("attached");
        let (ifindex, prog_id) = (LOOPBACK, prog.id()?);
        let expected = Cause::XdpAttached { ifindex, prog_id };
        assert_eq!(error.cause(), Some(&expected), "{error}");
        Outcome::Ok(())
    })?;
    drop(elsewhere);
    Ok(())
}

#[common::test(ROOT)]
fn a_link_of_a_network_namespace_that_lost_its_pin_is_named() -> Outcome {
    in_network_namespace(|| {
        let netns = File::open("/proc/thread-self/ns/net")?;
        adopt(
            &LinkSpec::netns(&netns, AttachType::SK_LOOKUP),
            &sk_lookup_prog(),
        )
    })
}

#[common::test(ROOT)]
fn a_link_of_a_control_group_that_lost_its_pin_is_named() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        adopt(&LinkSpec::cgroup(&file, EGRESS), &cgroup_prog())
    })
}

#[common::test(TRACER)]
fn a_link_of_a_raw_tracepoint_that_lost_its_pin_is_named() -> Outcome {
    let prog = prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0);
    adopt(&LinkSpec::raw_tracepoint(c"sched_process_exec"), &prog)
}

/// Attached without a link, or by one that this thread may not look for.
#[common::test(ROOT)]
fn a_program_that_is_attached_is_not_attached_twice() -> Outcome {
    in_a_control_group(|dir, spec, prog| {
        let _held = spec.create(prog)?;
        let next_id = Some(abi::BPF_LINK_GET_NEXT_ID);
        let error = with_bpf_errno(next_id, libc::EPERM as u32, || {
            dir.open_or_attach("link", spec, prog)
        });
        let error = error.expect_err("attached");
        let (prog_id, link_id) = (prog.id()?, None);
        assert_eq!(
            error.cause(),
            Some(&Cause::AlreadyAttached { prog_id, link_id })
        );
        assert_eq!(spec.query()?.entries().len(), 1);
        // Another program is attached beside it.
        let other = dir.open_or_attach("link", spec, &cgroup_prog())?;
        assert_eq!(other.attachment, Attachment::Attached);
        Ok(())
    })
}
