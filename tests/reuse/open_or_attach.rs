//! `open_or_attach`: opens, updates or attaches a pinned link in one call.

mod killed;
mod lost_races;
mod netfilter;
mod races;
mod refused;
mod syscalls;

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::link::{LinkTarget, Position, XdpFlags};
use bpf_pin::reuse::Attachment;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Error, Link, LinkSpec, PinDir, PinnedLink, Prog};
use common::*;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON];
const TRACEPOINT: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON, kernel(6, 10)];

#[common::test(ROOT)]
fn xdp_links_are_updated_and_reattached() -> Outcome {
    in_network_namespace(|| check_life(&LinkSpec::xdp(LOOPBACK), xdp_prog))
}

#[common::test(TCX)]
fn tcx_links_are_updated_and_reattached() -> Outcome {
    in_network_namespace(|| check_life(&LinkSpec::tcx(LOOPBACK, AttachType::TCX_EGRESS), tcx_prog))
}

#[common::test(ROOT)]
fn sk_lookup_links_are_updated_and_reattached() -> Outcome {
    in_network_namespace(|| {
        let netns = netns();
        check_life(
            &LinkSpec::netns(&netns, AttachType::SK_LOOKUP),
            sk_lookup_prog,
        )
    })
}

#[common::test(ROOT)]
fn flow_dissector_links_are_updated_and_reattached() -> Outcome {
    in_network_namespace(|| {
        let netns = netns();
        let attach_type = AttachType::FLOW_DISSECTOR;
        check_life(&LinkSpec::netns(&netns, attach_type), || {
            prog_returning(ProgType::FLOW_DISSECTOR, attach_type, 0)
        })
    })
}

/// Gives this process, which has one thread, its own network.
fn unshare_network() {
    // SAFETY: the process has one thread.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
        .expect("a network of its own");
}

fn raw_tracepoint_prog() -> Prog {
    prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0)
}

fn netns() -> File {
    File::open("/proc/thread-self/ns/net").expect("this thread's network")
}

/// Opens, updates or attaches the pin "link", and asserts what was done.
#[track_caller]
fn attach(
    dir: &PinDir,
    spec: &LinkSpec<'_>,
    prog: &Prog,
    expected: Attachment,
) -> bpf_pin::Result<Link> {
    let attached = dir.open_or_attach("link", spec, prog)?;
    assert_eq!(attached.attachment, expected);
    Ok(attached.link)
}

#[track_caller]
fn attach_error(dir: &PinDir, spec: &LinkSpec<'_>, prog: &Prog) -> Error {
    dir.open_or_attach("link", spec, prog).unwrap_err()
}

/// Asserts that the pinned link is the only one of these programs, and returns it.
fn one_link(dir: &PinDir, progs: &[&Prog]) -> Link {
    let link: Link = dir.get("link").expect("the pin");
    let id = link.id().unwrap();
    let ids: Vec<_> = progs.iter().map(|prog| prog.id().unwrap()).collect();
    wait_until("the only link", || {
        let links: Vec<_> = links_of_progs(&ids)
            .into_iter()
            .map(|info| info.id)
            .collect();
        assert!(links.contains(&id), "{id} is not among {links:?}");
        links == [id]
    });
    link
}

/// Attaches, opens, updates, detaches and reattaches a pinned link of a type with updates.
fn check_life(spec: &LinkSpec<'_>, make: impl Fn() -> Prog) -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (first, second) = (make(), make());
    let (first_id, second_id) = (first.id()?, second.id()?);
    let progs = [&first, &second];
    let alone = || {
        assert_eq!(fs.names(), ["link"]);
        one_link(&dir, &progs)
    };

    let made = attach(&dir, spec, &first, Attachment::Attached)?;
    let (id, target) = (made.id()?, made.info()?.target);
    drop(made);
    assert_eq!(alone().info()?.prog_id, first_id);

    let again = attach(&dir, spec, &first, Attachment::Unchanged)?;
    assert_eq!(again.id()?, id);

    for (prog, old_prog_id) in [(&second, first_id), (&first, second_id)] {
        let updated = attach(&dir, spec, prog, Attachment::Updated { old_prog_id })?;
        let info = updated.info()?;
        assert_eq!(
            (info.id, info.prog_id, info.target),
            (id, prog.id()?, target)
        );
    }
    alone();

    // Detached, then attached again with the same program, and with another.
    let mut old = id;
    for prog in [&first, &second] {
        again.detach()?;
        dir.get::<Link>("link")?.detach()?;
        let reattached = attach(&dir, spec, prog, Attachment::Reattached)?;
        let info = reattached.info()?;
        assert_ne!(info.id, old);
        assert_eq!((info.prog_id, info.target), (prog.id()?, target));
        assert_eq!(alone().id()?, info.id);
        old = info.id;
    }

    // A program of another type changes nothing.
    let filter = prog();
    let error = attach_error(&dir, spec, &filter);
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    let attach_type = match target {
        LinkTarget::Cgroup { attach_type, .. }
        | LinkTarget::Netns { attach_type, .. }
        | LinkTarget::Tcx { attach_type, .. } => attach_type,
        _ => AttachType::XDP,
    };
    let wrong_type = |error: &Error| {
        let expected = (filter.id().unwrap(), ProgType::SOCKET_FILTER, attach_type);
        matches!(
            error.cause(),
            Some(&Cause::WrongProgType { prog_id, found, attach_type, .. })
                if (prog_id, found, attach_type) == expected
        )
    };
    let pin = dir.path().join("link");
    assert!(wrong_type(&error), "{error}");
    assert_eq!(error.operation(), Operation::UpdateLink, "{error}");
    assert_eq!(error.path(), Some(&*pin));
    assert!(failed(&error, |it| it
        .object()
        .is_some_and(|link| link.id == old)));
    assert_eq!(alone().info()?.prog_id, second_id);
    dir.unlink("link")?;
    let error = attach_error(&dir, spec, &filter);
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert!(
        failed(&error, |it| it.operation() == Operation::CreateLink),
        "{error}"
    );
    assert_eq!(error.path(), Some(&*pin));
    assert_eq!(fs.names(), [""; 0]);
    Ok(())
}

/// True if the error is one of `open_or_attach` and meets the condition.
fn failed(error: &Error, condition: impl Fn(&Error) -> bool) -> bool {
    error.during() == Some(Operation::Attach) && condition(error)
}

#[common::test(ROOT)]
fn options_that_the_kernel_does_not_report_are_not_compared() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let prog = xdp_prog();
        let spec = LinkSpec::xdp(LOOPBACK);
        let made = dir.open_or_attach("link", &spec, &prog)?;
        let generic = spec.xdp_flags(XdpFlags::SKB_MODE);
        let same = attach(&dir, &generic, &prog, Attachment::Unchanged)?;
        assert_eq!(same.id()?, made.link.id()?);
        // An option that XDP does not have is rejected, whatever is pinned.
        let positioned = spec.position(Position::First);
        let error = attach_error(&dir, &positioned, &prog);
        assert_cause_matches!(error, Cause::InvalidArgument { .. });
        assert_eq!(error.raw_os_error(), None);
        // As the docs advise: after unlink and detach it is attached with the options.
        dir.unlink("link")?;
        made.link.detach()?;
        let attached = attach(&dir, &generic, &prog, Attachment::Attached)?;
        assert_ne!(attached.id()?, made.link.id()?);
        Ok(())
    })
}

#[common::test(TRACEPOINT)]
fn a_link_with_another_cookie_is_reported() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let prog = raw_tracepoint_prog();
    let spec = LinkSpec::raw_tracepoint(c"sched_process_exec");
    let made = dir.open_or_attach("link", &spec.cookie(5), &prog)?;
    attach(&dir, &spec.cookie(5), &prog, Attachment::Unchanged)?;
    let is_reported = matches!(
        made.link.info()?.target,
        LinkTarget::RawTracepoint { cookie: 5, .. }
    );
    for (other, target) in [
        (spec.cookie(6), "a raw tracepoint with cookie 6"),
        (spec, "a raw tracepoint"),
    ] {
        let found = dir.open_or_attach("link", &other, &prog);
        if !is_reported {
            assert!(kernel(6, 17).unmet().is_some());
            assert_eq!(found?.attachment, Attachment::Unchanged);
            continue;
        }
        let error = found.expect_err("another cookie");
        let elsewhere = Cause::AttachedElsewhere {
            expected: target.to_owned(),
            found: "a raw tracepoint with cookie 5".to_owned(),
        };
        assert_eq!(error.cause(), Some(&elsewhere));
    }
    assert_eq!(fs.names(), ["link"]);
    Ok(())
}

#[common::test(ROOT)]
fn a_program_for_another_attach_type_is_rejected() -> Outcome {
    in_mount_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let attach_type = AttachType::CGROUP_INET4_CONNECT;
        let spec = LinkSpec::cgroup(&file, attach_type);
        let make = |attach_type| prog_returning(ProgType::CGROUP_SOCK_ADDR, attach_type, 1);
        let connect = make(attach_type);
        let made = dir.open_or_attach("link", &spec, &connect)?;
        let bind = make(AttachType::CGROUP_INET4_BIND);
        let error = attach_error(&dir, &spec, &bind);
        assert_eq!(error.cause(), Some(&Cause::NotLoadedFor { attach_type }));
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        assert_eq!(made.link.info()?.prog_id, connect.id()?);
        // A detached link is attached again, and that is rejected too.
        made.link.detach()?;
        let error = attach_error(&dir, &spec, &bind);
        assert!(
            failed(&error, |it| it.operation() == Operation::CreateLink),
            "{error}"
        );
        assert_eq!(dir.identity("link")?.id, made.link.id()?);
        Ok(())
    })
}

#[common::test(ROOT)]
fn cgroup_links_are_updated_and_reattached() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let spec = LinkSpec::cgroup(&file, AttachType::CGROUP_INET_EGRESS);
        check_life(&spec, cgroup_prog)
    })
}

#[common::test(TRACER)]
fn raw_tracepoint_links_are_relinked_to_change_the_program() -> Outcome {
    let spec = LinkSpec::raw_tracepoint(c"sched_process_exec");
    check_relinking(&spec, raw_tracepoint_prog)?;
    // A link to a tracepoint of another name is kept.
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let prog = raw_tracepoint_prog();
    dir.open_or_attach("link", &spec, &prog)?;
    let other = LinkSpec::raw_tracepoint(c"sched_process_exit");
    let error = attach_error(&dir, &other, &prog);
    assert_eq!(error.during(), Some(Operation::Attach));
    assert_cause_matches!(error, Cause::AttachedElsewhere { .. });
    Ok(())
}

/// Changes the program of a link of a type without updates.
fn check_relinking(spec: &LinkSpec<'_>, make: impl Fn() -> Prog) -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (first, second) = (make(), make());
    let old_prog_id = first.id()?;
    let made = attach(&dir, spec, &first, Attachment::Attached)?;
    let old = made.id()?;
    drop(made);
    let again = attach(&dir, spec, &first, Attachment::Unchanged)?;
    assert_eq!(again.id()?, old);
    drop(again);

    let other = attach(&dir, spec, &second, Attachment::Relinked { old_prog_id })?;
    assert_eq!(other.info()?.prog_id, second.id()?);
    assert_ne!(other.id()?, old);
    assert_eq!(fs.names(), ["link"]);
    one_link(&dir, &[&first, &second]);
    Ok(())
}

#[common::test(ROOT)]
fn pinned_link_opens_or_attaches_by_path() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let (spec, prog) = (LinkSpec::xdp(LOOPBACK), xdp_prog());
        let attach = |name: &str| PinnedLink::open_or_attach(fs.at(name), &spec, &prog);
        let made = attach("link")?;
        assert_eq!(made.attachment, Attachment::Attached);
        assert_eq!(made.link.path(), fs.at("link"));
        let again = attach("link")?;
        assert_eq!(again.attachment, Attachment::Unchanged);
        assert_eq!(again.link.id()?, made.link.id()?);
        drop(again);

        let dot = |component: &str| Cause::Dot {
            component: component.into(),
        };
        let no_name = Cause::InvalidPath {
            problem: "the path ends in '/', which leaves no name for the pin".into(),
        };
        for (name, cause) in [("link/", no_name), ("a.b", dot("a.b")), ("..", dot(".."))] {
            assert_cause(&attach(name).expect_err(name), None, cause);
        }
        let error = attach("missing/link").expect_err("no directory");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert_cause_matches!(error, Cause::Missing { .. });
        for path in ["", "/", "link\0"] {
            let error = PinnedLink::open_or_attach(path, &spec, &prog).expect_err("no name");
            assert_eq!(error.raw_os_error(), None, "{error}");
        }
        let tmp = tempfile::tempdir()?;
        let error = PinnedLink::open_or_attach(tmp.path().join("link"), &spec, &prog);
        let error = error.expect_err("another file system");
        assert_cause_matches!(error, Cause::NotBpffs { .. });

        symlink("link", fs.at("symbolic"))?;
        let error = attach("symbolic").expect_err("a symbolic link");
        assert_cause_matches!(error, Cause::SymbolicLink { .. });
        fs::remove_file(fs.at("symbolic"))?;
        // A dangling link is not a free name, so nothing is attached.
        symlink("nowhere", fs.at("symbolic"))?;
        let create = bpf_pin::abi::BPF_LINK_CREATE;
        let error = with_bpf_errno(Some(create), libc::EIO as u32, || attach("symbolic"));
        let error = error.expect_err("a symbolic link");
        assert_cause_matches!(error, Cause::SymbolicLink { .. });
        fs::remove_file(fs.at("symbolic"))?;
        let link = made.link.unpin()?;
        assert_eq!(link.info()?.prog_id, prog.id()?);
        assert_eq!(fs.names(), [""; 0]);
        Ok(())
    })
}

/// The device is removed with its network.
#[common::test(ROOT)]
fn a_link_to_a_removed_device_is_reattached() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (spec, prog) = (LinkSpec::xdp(LOOPBACK), xdp_prog());
    let old = in_network_namespace(|| dir.open_or_attach("link", &spec, &prog))?.link;
    wait_until("gone", || {
        old.info().is_ok_and(|info| info.target.is_gone())
    });
    in_network_namespace(|| {
        let reattached = attach(&dir, &spec, &prog, Attachment::Reattached)?;
        assert_eq!(
            reattached.info()?.target,
            LinkTarget::Xdp { ifindex: LOOPBACK }
        );
        assert_ne!(reattached.id()?, old.id()?);
        one_link(&dir, &[&prog]);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_link_to_a_removed_cgroup_is_reattached() -> Outcome {
    in_mount_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let attach_type = AttachType::CGROUP_INET_EGRESS;
        let prog = cgroup_prog();
        let old = {
            let cgroup = Cgroup::new();
            let file = cgroup.open();
            dir.open_or_attach("link", &LinkSpec::cgroup(&file, attach_type), &prog)?
        };
        wait_until("gone", || {
            old.link.info().is_ok_and(|info| info.target.is_gone())
        });
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let spec = LinkSpec::cgroup(&file, attach_type);
        attach(&dir, &spec, &prog, Attachment::Reattached)?;
        assert_eq!(fs.names(), ["link"]);
        one_link(&dir, &[&prog]);
        Ok(())
    })
}
