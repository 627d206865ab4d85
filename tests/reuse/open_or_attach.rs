//! A pinned link that is opened, updated or attached in one call: what was there before, what it
//! came to, who was faster, and who was killed amid it.

mod cost;
mod faster;
mod killed;
mod netfilter;
mod races;
mod refused;

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::link::{LinkTarget, Position, XdpFlags};
use bpf_pin::reuse::Attachment;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Error, Link, LinkSpec, PinDir, PinnedLink, Prog};
use common::*;

/// Which of the cases this process is for.
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const NETFILTER: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 4)];
const NETFILTER_USER: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, cap::SETUID, kernel(6, 4)];
const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON];
const TRACEPOINT: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON, kernel(6, 10)];
const OTHERS: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, cap::SETUID];

common::cases_alone!(|| all_alone().copied().collect(), run_alone);

fn all_alone() -> impl Iterator<Item = &'static (&'static str, &'static [Need])> {
    races::CASES
        .iter()
        .chain(faster::CASES)
        .chain(killed::CASES)
        .chain(netfilter::CASES)
        .chain(cost::CASES)
}

#[common::test(ROOT)]
fn xdp() -> Outcome {
    in_network_namespace(|| life(&LinkSpec::xdp(LOOPBACK), xdp_prog))
}

#[common::test(TCX)]
fn tcx() -> Outcome {
    in_network_namespace(|| life(&LinkSpec::tcx(LOOPBACK, AttachType::TCX_EGRESS), tcx_prog))
}

#[common::test(ROOT)]
fn a_network_namespace() -> Outcome {
    in_network_namespace(|| {
        let netns = netns();
        life(
            &LinkSpec::netns(&netns, AttachType::SK_LOOKUP),
            sk_lookup_prog,
        )
    })
}

#[common::test(ROOT)]
fn a_flow_dissector() -> Outcome {
    in_network_namespace(|| {
        let netns = netns();
        let attach_type = AttachType::FLOW_DISSECTOR;
        life(&LinkSpec::netns(&netns, attach_type), || {
            prog_returning(ProgType::FLOW_DISSECTOR, attach_type, 0)
        })
    })
}

#[common::test(ROOT)]
fn a_control_group() -> Outcome {
    in_mount_namespace(control_group)
}

#[common::test(NETFILTER)]
fn netfilter_has_no_updates() -> Outcome {
    in_network_namespace(netfilter::relinks)
}

#[common::test(NETFILTER)]
fn netfilter_that_was_detached() -> Outcome {
    in_network_namespace(netfilter::detached)
}

#[common::test(NETFILTER)]
fn netfilter_of_another_network() -> Outcome {
    in_network_namespace(netfilter::elsewhere)
}

#[common::test(NETFILTER)]
fn netfilter_that_may_not_be_in_the_way() -> Outcome {
    in_network_namespace(netfilter::not_in_the_way)
}

#[common::test(NETFILTER)]
fn netfilter_detached_in_vain() -> Outcome {
    in_network_namespace(netfilter::in_vain)
}

#[common::test(NETFILTER_USER)]
fn netfilter_without_a_right_to_ids() -> Outcome {
    in_network_namespace(netfilter::unprivileged)
}

#[common::test(ROOT)]
fn options_that_are_not_told() -> Outcome {
    in_network_namespace(options)
}

#[common::test(ROOT)]
fn a_program_for_another_way() -> Outcome {
    in_mount_namespace(other_way)
}

#[common::test(ROOT)]
fn by_its_path() -> Outcome {
    in_network_namespace(by_path)
}

#[common::test(ROOT)]
fn a_control_group_that_is_gone() -> Outcome {
    in_mount_namespace(control_group_gone)
}

#[common::test(ROOT)]
fn attached_elsewhere() -> Outcome {
    in_network_namespace(refused::elsewhere)
}

#[common::test(ROOT)]
fn what_is_no_link() -> Outcome {
    in_network_namespace(refused::no_link)
}

#[common::test(ROOT)]
fn somebody_else_has_the_place() -> Outcome {
    in_network_namespace(refused::taken)
}

#[common::test(ROOT)]
fn what_cannot_be_pinned_is_not_attached() -> Outcome {
    in_network_namespace(refused::not_pinned)
}

#[common::test(OTHERS)]
fn mode_and_owner_stay() -> Outcome {
    in_network_namespace(refused::mode)
}

#[common::test(OTHERS)]
fn without_the_right_to_the_pin() -> Outcome {
    in_network_namespace(refused::not_allowed)
}

/// In a process of one thread, with a network of its own.
fn run_alone(name: &str) {
    // SAFETY: no other thread is there that would be elsewhere.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
        .expect("a network of its own");
    let runs = [
        cost::run,
        races::run,
        faster::run,
        killed::run,
        netfilter::run,
    ];
    assert!(runs.iter().any(|run| run(name)), "no case {name}");
}

fn netns() -> File {
    File::open("/proc/thread-self/ns/net").expect("this thread's network")
}

/// That one link alone holds any of these, with the pin's id.
fn one_link(dir: &PinDir, progs: &[&Prog]) -> Link {
    let link: Link = dir.get("link").expect("the pin");
    let id = link.id().unwrap();
    let ids: Vec<_> = progs.iter().map(|prog| prog.id().unwrap()).collect();
    wait_until("alone", || {
        let links: Vec<_> = links_of_progs(&ids)
            .into_iter()
            .map(|info| info.id)
            .collect();
        assert!(links.contains(&id), "{id} is not among {links:?}");
        links == [id]
    });
    link
}

/// What every link that knows updates and detaching goes through.
fn life(spec: &LinkSpec<'_>, make: impl Fn() -> Prog) -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (first, second) = (make(), make());
    let (first_id, second_id) = (first.id()?, second.id()?);
    let progs = [&first, &second];
    let alone = || {
        assert_eq!(fs.names(), ["link"]);
        one_link(&dir, &progs)
    };

    let made = dir.open_or_attach("link", spec, &first)?;
    assert_eq!(made.attachment, Attachment::Attached);
    let (id, target) = (made.link.id()?, made.link.info()?.target);
    drop(made);
    assert_eq!(alone().info()?.prog_id, first_id);

    let again = dir.open_or_attach("link", spec, &first)?;
    assert_eq!(again.attachment, Attachment::Unchanged);
    assert_eq!(again.link.id()?, id);

    for (prog, old_prog_id) in [(&second, first_id), (&first, second_id)] {
        let updated = dir.open_or_attach("link", spec, prog)?;
        assert_eq!(updated.attachment, Attachment::Updated { old_prog_id });
        let info = updated.link.info()?;
        assert_eq!(
            (info.id, info.prog_id, info.target),
            (id, prog.id()?, target)
        );
    }
    alone();

    // Defunct: with the same program, and with another.
    let mut old = id;
    for prog in [&first, &second] {
        again.link.detach()?;
        dir.get::<Link>("link")?.detach()?;
        let anew = dir.open_or_attach("link", spec, prog)?;
        assert_eq!(anew.attachment, Attachment::Reattached);
        let info = anew.link.info()?;
        assert_ne!(info.id, old);
        assert_eq!((info.prog_id, info.target), (prog.id()?, target));
        assert_eq!(alone().id()?, info.id);
        old = info.id;
    }

    // A program that does not fit changes nothing.
    let misfit = prog();
    let error = dir
        .open_or_attach("link", spec, &misfit)
        .expect_err("a filter");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    let attach_type = match target {
        LinkTarget::Cgroup { attach_type, .. }
        | LinkTarget::Netns { attach_type, .. }
        | LinkTarget::Tcx { attach_type, .. } => attach_type,
        _ => AttachType::XDP,
    };
    let takes = make().info()?.prog_type.to_string();
    let why = wrong_prog_type_message(&misfit, attach_type, &takes);
    let pin = dir.path().join("link");
    assert_eq!(
        error.to_string(),
        format!("open or attach {}: update link {old}: {why}", pin.display())
    );
    assert_eq!(error.path(), Some(&*pin));
    assert!(failed(&error, |it| it
        .object()
        .is_some_and(|link| link.id == old)));
    assert_eq!(alone().info()?.prog_id, second_id);
    dir.unlink("link")?;
    let error = dir
        .open_or_attach("link", spec, &misfit)
        .expect_err("a filter");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert!(
        failed(&error, |it| it.operation() == Operation::CreateLink),
        "{error}"
    );
    assert_eq!(error.path(), Some(&*pin));
    assert_eq!(fs.names(), [""; 0]);
    Ok(())
}

/// What failed at the pin.
fn failed(error: &Error, is_it: impl Fn(&Error) -> bool) -> bool {
    error.during() == Some(Operation::Attach) && is_it(error)
}

/// What is not told of a link is not compared; and what is, is.
fn options() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let prog = xdp_prog();
    let spec = LinkSpec::xdp(LOOPBACK);
    let made = dir.open_or_attach("link", &spec, &prog)?;
    let generic = spec.xdp_flags(XdpFlags::SKB_MODE);
    let same = dir.open_or_attach("link", &generic, &prog)?;
    assert_eq!(same.attachment, Attachment::Unchanged);
    assert_eq!(same.link.id()?, made.link.id()?);
    // What the point does not have is refused, whatever is there.
    let misfit = spec.position(Position::First);
    let error = dir
        .open_or_attach("link", &misfit, &prog)
        .expect_err("a position");
    assert!(
        matches!(error.cause(), Some(Cause::InvalidArgument { .. })),
        "{error}"
    );
    assert_eq!(error.raw_os_error(), None);
    // As the docs say: the pin goes, the link lets go, and it is attached anew.
    dir.unlink("link")?;
    made.link.detach()?;
    let anew = dir.open_or_attach("link", &generic, &prog)?;
    assert_eq!(anew.attachment, Attachment::Attached);
    assert_ne!(anew.link.id()?, made.link.id()?);
    Ok(())
}

#[common::test(TRACEPOINT)]
fn cookies() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let prog = prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0);
    let spec = LinkSpec::raw_tracepoint(c"sched_process_exec");
    let made = dir.open_or_attach("link", &spec.cookie(5), &prog)?;
    let same = dir.open_or_attach("link", &spec.cookie(5), &prog)?;
    assert_eq!(same.attachment, Attachment::Unchanged);
    let told = matches!(
        made.link.info()?.target,
        LinkTarget::RawTracepoint { cookie: 5, .. }
    );
    for (other, end) in [
        (
            spec.cookie(6),
            "not to a raw tracepoint with cookie 6; nothing was changed",
        ),
        (spec, "not to a raw tracepoint; nothing was changed"),
    ] {
        let found = dir.open_or_attach("link", &other, &prog);
        if !told {
            assert!(kernel(6, 17).unmet().is_some());
            assert_eq!(found?.attachment, Attachment::Unchanged);
            continue;
        }
        let error = found.expect_err("another cookie");
        let end = format!("it is attached to a raw tracepoint with cookie 5, {end}");
        assert!(error.to_string().ends_with(&end), "{error}");
    }
    assert_eq!(fs.names(), ["link"]);
    Ok(())
}

fn other_way() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let cgroup = Cgroup::new();
    let file = cgroup.open();
    let attach_type = AttachType::CGROUP_INET4_CONNECT;
    let spec = LinkSpec::cgroup(&file, attach_type);
    let make = |way| prog_returning(ProgType::CGROUP_SOCK_ADDR, way, 1);
    let connect = make(attach_type);
    let made = dir.open_or_attach("link", &spec, &connect)?;
    let bind = make(AttachType::CGROUP_INET4_BIND);
    let error = dir
        .open_or_attach("link", &spec, &bind)
        .expect_err("another way");
    assert_eq!(error.cause(), Some(&Cause::NotLoadedFor { attach_type }));
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert_eq!(made.link.info()?.prog_id, connect.id()?);
    // Defunct it is attached anew, and that was refused before.
    made.link.detach()?;
    let error = dir
        .open_or_attach("link", &spec, &bind)
        .expect_err("another way");
    assert!(
        failed(&error, |it| it.operation() == Operation::CreateLink),
        "{error}"
    );
    assert_eq!(dir.identity("link")?.id, made.link.id()?);
    Ok(())
}

fn control_group() -> Outcome {
    let cgroup = Cgroup::new();
    let file = cgroup.open();
    let spec = LinkSpec::cgroup(&file, AttachType::CGROUP_INET_EGRESS);
    life(&spec, cgroup_prog)
}

#[common::test(TRACER)]
fn a_raw_tracepoint_has_no_updates() -> Outcome {
    let make = || prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0);
    let spec = LinkSpec::raw_tracepoint(c"sched_process_exec");
    relinked(&spec, make)?;
    // Of the same name alone.
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let prog = make();
    dir.open_or_attach("link", &spec, &prog)?;
    let other = LinkSpec::raw_tracepoint(c"sched_process_exit");
    let error = dir
        .open_or_attach("link", &other, &prog)
        .expect_err("another");
    assert_eq!(error.during(), Some(Operation::Attach));
    assert!(matches!(
        error.cause(),
        Some(Cause::AttachedElsewhere { .. })
    ));
    Ok(())
}

/// Of a type without updates.
fn relinked(spec: &LinkSpec<'_>, make: impl Fn() -> Prog) -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (first, second) = (make(), make());
    let old_prog_id = first.id()?;
    let made = dir.open_or_attach("link", spec, &first)?;
    assert_eq!(made.attachment, Attachment::Attached);
    let old = made.link.id()?;
    drop(made);
    let again = dir.open_or_attach("link", spec, &first)?;
    assert_eq!(again.attachment, Attachment::Unchanged);
    assert_eq!(again.link.id()?, old);
    drop(again);

    let other = dir.open_or_attach("link", spec, &second)?;
    assert_eq!(other.attachment, Attachment::Relinked { old_prog_id });
    assert_eq!(other.link.info()?.prog_id, second.id()?);
    assert_ne!(other.link.id()?, old);
    assert_eq!(fs.names(), ["link"]);
    one_link(&dir, &[&first, &second]);
    Ok(())
}

fn by_path() -> Outcome {
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

    for (name, text) in [
        (
            "link/",
            "the path ends in '/', which leaves no name for the pin",
        ),
        (
            "a.b",
            "\"a.b\" contains '.', which bpffs does not allow in names",
        ),
        ("..", "\"..\" is not a name in a directory"),
    ] {
        let error = attach(name).expect_err(text);
        assert!(error.to_string().ends_with(text), "{error}");
        assert_eq!(error.raw_os_error(), None);
    }
    let error = attach("missing/link").expect_err("no directory");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert!(
        matches!(error.cause(), Some(Cause::Missing { .. })),
        "{error}"
    );
    for path in ["", "/", "link\0"] {
        let error = PinnedLink::open_or_attach(path, &spec, &prog).expect_err("no name");
        assert_eq!(error.raw_os_error(), None, "{error}");
    }
    let tmp = tempfile::tempdir()?;
    let error = PinnedLink::open_or_attach(tmp.path().join("link"), &spec, &prog);
    let error = error.expect_err("another file system");
    assert!(
        matches!(error.cause(), Some(Cause::NotBpffs { .. })),
        "{error}"
    );

    symlink("link", fs.at("symbolic"))?;
    let error = attach("symbolic").expect_err("a symbolic link");
    assert!(
        matches!(error.cause(), Some(Cause::SymbolicLink { .. })),
        "{error}"
    );
    fs::remove_file(fs.at("symbolic"))?;
    // One that leads nowhere is no name that is free: nothing is attached.
    symlink("nowhere", fs.at("symbolic"))?;
    let create = bpf_pin::abi::BPF_LINK_CREATE;
    let error = with_bpf_errno(Some(create), libc::EIO as u32, || attach("symbolic"));
    let error = error.expect_err("a symbolic link");
    assert!(
        matches!(error.cause(), Some(Cause::SymbolicLink { .. })),
        "{error}"
    );
    fs::remove_file(fs.at("symbolic"))?;
    let link = made.link.unpin()?;
    assert_eq!(link.info()?.prog_id, prog.id()?);
    assert_eq!(fs.names(), [""; 0]);
    Ok(())
}

/// Another network's device, with which it went.
#[common::test(ROOT)]
fn a_device_that_is_gone() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (spec, prog) = (LinkSpec::xdp(LOOPBACK), xdp_prog());
    let old = in_network_namespace(|| dir.open_or_attach("link", &spec, &prog))?.link;
    wait_until("gone", || {
        old.info().is_ok_and(|info| info.target.is_gone())
    });
    in_network_namespace(|| {
        let anew = dir.open_or_attach("link", &spec, &prog)?;
        assert_eq!(anew.attachment, Attachment::Reattached);
        assert_eq!(
            anew.link.info()?.target,
            LinkTarget::Xdp { ifindex: LOOPBACK }
        );
        assert_ne!(anew.link.id()?, old.id()?);
        one_link(&dir, &[&prog]);
        Ok(())
    })
}

fn control_group_gone() -> Outcome {
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
    let anew = dir.open_or_attach("link", &spec, &prog)?;
    assert_eq!(anew.attachment, Attachment::Reattached);
    assert_eq!(fs.names(), ["link"]);
    one_link(&dir, &[&prog]);
    Ok(())
}
