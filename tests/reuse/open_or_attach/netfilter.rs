//! Netfilter links: the kernel reports neither whether they are attached nor in which network.

use bpf_pin::error::{Cause, Operation};
use bpf_pin::probe::Capability;
use bpf_pin::reuse::Attachment;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, PinDir, Prog, abi};
use common::*;
use rustix::thread::CapabilitySet;

use super::{attach, attach_error, check_relinking, failed, unshare_network};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 4)];
const USER: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, cap::SETUID, kernel(6, 4)];

const NFPROTO_IPV4: u32 = 2;
const NF_INET_LOCAL_IN: u32 = 1;

fn make() -> Prog {
    prog_returning(ProgType::NETFILTER, AttachType::NETFILTER, 1)
}

fn spec() -> LinkSpec<'static> {
    LinkSpec::netfilter(NFPROTO_IPV4, NF_INET_LOCAL_IN, -77)
}

/// True if the hook is free in this thread's network. A dropped link frees it after a moment.
fn is_free() -> bool {
    spec().create(&make()).is_ok()
}

#[common::test(ROOT)]
fn netfilter_links_are_relinked_to_change_the_program() -> Outcome {
    in_network_namespace(|| {
        let spec = spec();
        check_relinking(&spec, make)?;
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let prog = make();
        dir.open_or_attach("link", &spec, &prog)?;
        let other = LinkSpec::netfilter(NFPROTO_IPV4, NF_INET_LOCAL_IN, -78);
        let error = attach_error(&dir, &other, &prog);
        let target = |priority| format!("netfilter of family 2, hook 1, priority {priority}");
        let (expected, found) = (target(-78), target(-77));
        let cause = Cause::AttachedElsewhere { expected, found };
        assert_eq!(error.cause(), Some(&cause));
        Ok(())
    })
}

/// The kernel reports the program of a detached netfilter link as before.
#[common::test(ROOT)]
fn a_detached_netfilter_link_is_reattached() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (first, second) = (make(), make());
        let made = dir.open_or_attach("link", &spec(), &first)?;
        let old = made.link.info()?;
        made.link.detach()?;
        assert_eq!(made.link.info()?, old);
        assert!(is_free());
        let reattached = attach(&dir, &spec(), &first, Attachment::Reattached)?;
        assert_ne!(reattached.id()?, old.id);
        assert!(!is_free());
        // Also with another program.
        reattached.detach()?;
        let other = attach(&dir, &spec(), &second, Attachment::Reattached)?;
        assert_eq!(other.info()?.prog_id, second.id()?);
        assert!(!is_free());
        assert_eq!(fs.names(), ["link"]);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_netfilter_link_of_another_network_is_reattached_here() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let prog = make();
        let old = dir.open_or_attach("link", &spec(), &prog)?.link;
        in_network_namespace(|| {
            assert!(is_free());
            let here = attach(&dir, &spec(), &prog, Attachment::Reattached)?;
            assert_ne!(here.id()?, old.id()?);
            let again = attach(&dir, &spec(), &prog, Attachment::Unchanged)?;
            assert_eq!(again.id()?, here.id()?);
            assert!(!is_free());
            Outcome::Ok(())
        })?;
        // The first link stays attached in this network until it is dropped.
        assert!(!is_free());
        drop(old);
        wait_until("free", is_free);
        Ok(())
    })
}

/// The pinned link is in another network, and another program has the hook here. The kernel reports neither, so
/// the pinned link is detached before the error.
#[common::test(ROOT)]
fn a_hook_taken_by_another_program_in_this_network_is_reported() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (first, second, theirs) = (make(), make(), make());
        let id = dir.open_or_attach("link", &spec(), &first)?.link.id()?;
        let prog_id = first.id()?;
        in_network_namespace(|| {
            let foreign = spec().create(&theirs)?;
            let error = attach_error(&dir, &spec(), &second);
            assert_eq!(error.cause(), Some(&Cause::RestoreFailed { prog_id }));
            assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
            assert!(failed(&error, |it| it.operation() == Operation::CreateLink));
            assert_eq!(dir.identity("link")?.id, id);
            // The other program keeps the hook.
            assert!(!is_free());
            drop(foreign);
            Outcome::Ok(())
        })?;
        // The next call repairs it.
        attach(&dir, &spec(), &first, Attachment::Reattached)?;
        assert!(!is_free());
        assert_eq!(fs.names(), ["link"]);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_netfilter_link_that_cannot_be_restored_is_reported() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (first, second) = (make(), make());
        dir.open_or_attach("link", &spec(), &first)?;
        let prog_id = first.id()?;
        let restore_failed = Cause::RestoreFailed { prog_id };
        let create = Some(abi::BPF_LINK_CREATE);
        with_bpf_errno(create, libc::EBUSY as u32, || {
            let error = attach_error(&dir, &spec(), &second);
            assert_eq!(error.cause(), Some(&restore_failed));
            assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        });
        let reattached = attach(&dir, &spec(), &first, Attachment::Reattached)?;
        drop(reattached);

        // The rename fails.
        with_seccomp_errno(libc::SYS_renameat2, None, libc::EPERM as u32, || {
            let error = attach_error(&dir, &spec(), &second);
            assert_eq!(error.operation(), Operation::Replace, "{error}");
            assert_eq!(error.cause(), Some(&restore_failed));
        });
        attach(&dir, &spec(), &second, Attachment::Reattached)?;
        assert_eq!(fs.names(), ["link"]);
        Ok(())
    })
}

/// A user that could not open the old program to restore it detaches nothing.
#[common::test(USER)]
fn relinking_needs_the_right_to_open_programs_by_id() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let (first, second) = (make(), make());
        let dir = PinDir::open(fs.root())?;
        let id = dir.open_or_attach("link", &spec(), &first)?.link.id()?;
        std::os::unix::fs::chown(fs.root(), Some(1234), None)?;
        std::os::unix::fs::chown(fs.at("link"), Some(1234), None)?;
        as_user(CapabilitySet::BPF | CapabilitySet::NET_ADMIN, || {
            let dir = PinDir::open(fs.root()).unwrap();
            attach(&dir, &spec(), &first, Attachment::Unchanged).unwrap();
            let error = attach_error(&dir, &spec(), &second);
            assert!(failed(&error, |it| it.operation() == Operation::FromId));
            assert_cause_matches!(
                error,
                Cause::MissingCapability {
                    capability: Capability::SysAdmin,
                    ..
                }
            );
        });
        let same = attach(&dir, &spec(), &first, Attachment::Unchanged)?;
        assert_eq!(same.id()?, id);
        Ok(())
    })
}

/// Another program takes the hook after the old link was detached, and leaves before the old program is restored.
#[common::test_alone(ROOT)]
fn the_old_program_is_restored_if_another_program_takes_the_hook() {
    unshare_network();
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    let (first, second, theirs) = (make(), make(), make());
    let made = dir.open_or_attach("link", &spec(), &first).unwrap();
    let id = made.link.id().unwrap();
    drop(made);
    let ready = || PinDir::open(fs.root()).unwrap();
    let run = |dir: PinDir| {
        let error = attach_error(&dir, &spec(), &second);
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{error}");
        assert_eq!(error.cause(), None);
        0
    };
    let mut tracee = Tracee::fork(ready, run).unwrap();
    let mut foreign = None;
    while let Some(stop) = tracee.next().unwrap() {
        match &foreign {
            None if stop.is_success_of("LINK_DETACH") => {
                foreign = Some(spec().create(&theirs).unwrap());
            }
            Some(link) if stop.name() == "LINK_CREATE" && !stop.is_entry() => {
                link.detach().unwrap();
            }
            _ => {}
        }
    }
    assert!(foreign.is_some(), "the old link was detached");
    assert_eq!(tracee.finish().unwrap(), 0);
    assert!(!is_free(), "the old program is attached again");
    let link: Link = dir.get("link").unwrap();
    assert_ne!(link.id().unwrap(), id);
    assert_eq!(link.info().unwrap().prog_id, first.id().unwrap());
    assert_eq!(fs.names(), ["link"]);
}
