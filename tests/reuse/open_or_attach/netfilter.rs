//! Links of netfilter, of which the kernel tells neither whether they are attached nor in which network.

use bpf_pin::error::{Cause, Operation};
use bpf_pin::probe::Capability;
use bpf_pin::reuse::Attachment;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, PinDir, Prog, abi};
use common::*;
use rustix::thread::CapabilitySet;

use crate::open_or_attach::{failed, relinked};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 4)];

pub const CASES: &[(&str, &[Need])] = &[("put_back_where_somebody_was_faster", ROOT)];

const NFPROTO_IPV4: u32 = 2;
const NF_INET_LOCAL_IN: u32 = 1;

fn make() -> Prog {
    prog_returning(ProgType::NETFILTER, AttachType::NETFILTER, 1)
}

fn spec() -> LinkSpec<'static> {
    LinkSpec::netfilter(NFPROTO_IPV4, NF_INET_LOCAL_IN, -77)
}

/// Whether there is room in this thread's network. What has let go needs a moment.
fn is_free() -> bool {
    spec().create(&make()).is_ok()
}

pub fn relinks() -> Outcome {
    let spec = spec();
    relinked(&spec, make)?;
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let prog = make();
    dir.open_or_attach("link", &spec, &prog)?;
    let other = LinkSpec::netfilter(NFPROTO_IPV4, NF_INET_LOCAL_IN, -78);
    let error = dir
        .open_or_attach("link", &other, &prog)
        .expect_err("another");
    assert!(matches!(
        error.cause(),
        Some(Cause::AttachedElsewhere { .. })
    ));
    let text = error.to_string();
    let end = "it is attached to netfilter of family 2, hook 1, priority -77, not to netfilter of \
               family 2, hook 1, priority -78; nothing was changed";
    assert!(text.ends_with(end), "{text}");
    Ok(())
}

/// What was detached holds its program still, by what the kernel tells of it.
pub fn detached() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (first, second) = (make(), make());
    let made = dir.open_or_attach("link", &spec(), &first)?;
    let old = made.link.info()?;
    made.link.detach()?;
    assert_eq!(made.link.info()?, old);
    assert!(is_free());
    let anew = dir.open_or_attach("link", &spec(), &first)?;
    assert_eq!(anew.attachment, Attachment::Reattached);
    assert_ne!(anew.link.id()?, old.id);
    assert!(!is_free());
    // And with another program.
    anew.link.detach()?;
    let other = dir.open_or_attach("link", &spec(), &second)?;
    assert_eq!(other.attachment, Attachment::Reattached);
    assert_eq!(other.link.info()?.prog_id, second.id()?);
    assert!(!is_free());
    assert_eq!(fs.names(), ["link"]);
    Ok(())
}

pub fn elsewhere() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let prog = make();
    let old = dir.open_or_attach("link", &spec(), &prog)?.link;
    in_network_namespace(|| {
        assert!(is_free());
        let here = dir.open_or_attach("link", &spec(), &prog)?;
        assert_eq!(here.attachment, Attachment::Reattached);
        assert_ne!(here.link.id()?, old.id()?);
        let again = dir.open_or_attach("link", &spec(), &prog)?;
        assert_eq!(again.attachment, Attachment::Unchanged);
        assert_eq!(again.link.id()?, here.link.id()?);
        assert!(!is_free());
        Outcome::Ok(())
    })?;
    // The first lives on here for as long as somebody has it.
    assert!(!is_free());
    drop(old);
    wait_until("free", is_free);
    Ok(())
}

/// The pinned one is in another network, and here it is somebody else's that is in the way: what the
/// kernel does not tell before is told in the end.
pub fn not_in_the_way() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (first, second, theirs) = (make(), make(), make());
    let id = dir.open_or_attach("link", &spec(), &first)?.link.id()?;
    let prog_id = first.id()?;
    in_network_namespace(|| {
        let foreign = spec().create(&theirs)?;
        let error = dir.open_or_attach("link", &spec(), &second).unwrap_err();
        assert_eq!(error.cause(), Some(&Cause::RestoreFailed { prog_id }));
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        assert!(failed(&error, |it| it.operation() == Operation::CreateLink));
        assert_eq!(dir.identity("link")?.id, id);
        // What is here is left alone.
        assert!(!is_free());
        drop(foreign);
        Outcome::Ok(())
    })?;
    // And is mended by the next call.
    let anew = dir.open_or_attach("link", &spec(), &first)?;
    assert_eq!(anew.attachment, Attachment::Reattached);
    assert!(!is_free());
    assert_eq!(fs.names(), ["link"]);
    Ok(())
}

/// Nobody else is there, and there is no room for all that.
pub fn in_vain() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (first, second) = (make(), make());
    dir.open_or_attach("link", &spec(), &first)?;
    let prog_id = first.id()?;
    let not_put_back = Cause::RestoreFailed { prog_id };
    let create = Some(abi::BPF_LINK_CREATE);
    with_bpf_errno(create, libc::EBUSY as u32, || {
        let error = dir.open_or_attach("link", &spec(), &second).unwrap_err();
        assert_eq!(error.cause(), Some(&not_put_back));
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    });
    let anew = dir.open_or_attach("link", &spec(), &first)?;
    assert_eq!(anew.attachment, Attachment::Reattached);
    drop(anew);

    // The name is not given away.
    with_seccomp_errno(libc::SYS_renameat2, None, libc::EPERM as u32, || {
        let error = dir.open_or_attach("link", &spec(), &second).unwrap_err();
        assert_eq!(error.operation(), Operation::Replace, "{error}");
        assert_eq!(error.cause(), Some(&not_put_back));
    });
    let anew = dir.open_or_attach("link", &spec(), &second)?;
    assert_eq!(anew.attachment, Attachment::Reattached);
    assert_eq!(fs.names(), ["link"]);
    Ok(())
}

/// Who may attach and not open a program by its id detaches nothing.
pub fn unprivileged() -> Outcome {
    let fs = TestFs::new();
    let (first, second) = (make(), make());
    let dir = PinDir::open(fs.root())?;
    let id = dir.open_or_attach("link", &spec(), &first)?.link.id()?;
    std::os::unix::fs::chown(fs.root(), Some(1234), None)?;
    std::os::unix::fs::chown(fs.at("link"), Some(1234), None)?;
    as_user(CapabilitySet::BPF | CapabilitySet::NET_ADMIN, || {
        let dir = PinDir::open(fs.root()).unwrap();
        let same = dir.open_or_attach("link", &spec(), &first).unwrap();
        assert_eq!(same.attachment, Attachment::Unchanged);
        let error = dir.open_or_attach("link", &spec(), &second).unwrap_err();
        assert!(failed(&error, |it| it.operation() == Operation::FromId));
        assert!(
            matches!(
                error.cause(),
                Some(Cause::MissingCapability {
                    capability: Capability::SysAdmin,
                    ..
                })
            ),
            "{error}"
        );
    });
    let same = dir.open_or_attach("link", &spec(), &first)?;
    assert_eq!(same.attachment, Attachment::Unchanged);
    assert_eq!(same.link.id()?, id);
    Ok(())
}

/// Right after the old one was detached somebody else is there, and is gone when it is put back.
pub fn run(name: &str) -> bool {
    if name != CASES[0].0 {
        return false;
    }
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    let (first, second, theirs) = (make(), make(), make());
    let made = dir.open_or_attach("link", &spec(), &first).unwrap();
    let id = made.link.id().unwrap();
    drop(made);
    let ready = || PinDir::open(fs.root()).unwrap();
    let run = |dir: PinDir| {
        let error = dir.open_or_attach("link", &spec(), &second).unwrap_err();
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
    assert!(foreign.is_some(), "it was detached");
    assert_eq!(tracee.finish().unwrap(), 0);
    assert!(!is_free(), "the program is there as before");
    let link: Link = dir.get("link").unwrap();
    assert_ne!(link.id().unwrap(), id);
    assert_eq!(link.info().unwrap().prog_id, first.id().unwrap());
    assert_eq!(fs.names(), ["link"]);
    true
}
