//! What every link that knows updates and detaching goes through.

use bpf_pin::error::Cause;
use bpf_pin::link::LinkTarget;
use bpf_pin::types::{AttachType, LinkType};
use bpf_pin::{Error, Link, LinkSpec, Prog};
use common::*;

#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: bpf_pin::Result<T>, errno: i32, text: &str) -> Error {
    let error = result.expect_err(text);
    assert_eq!(error.to_string(), text);
    assert_eq!(error.raw_os_error(), Some(errno), "{error}");
    error
}

/// Made, updated, updated from what it holds and from what it does not, detached, made again.
pub fn life(
    spec: LinkSpec<'_>,
    make: impl Fn() -> Prog,
    kind: LinkType,
    target: LinkTarget,
) -> Outcome {
    let (first, second, third) = (make(), make(), make());
    let link = spec.create(&first)?;
    let info = link.info()?;
    assert_eq!((info.link_type, info.target), (kind, target));
    assert_eq!(info.prog_id, first.id()?);
    assert!(info.id > 0);
    assert_eq!(info.id, link.id()?);
    assert_eq!(Link::from_id(info.id)?.info()?, info);
    let clone = link.try_clone()?;
    assert_eq!(clone.info()?, info);

    let prog_id = || link.info().map(|info| info.prog_id);
    link.update(&second)?;
    assert_eq!(prog_id()?, second.id()?);
    let holds = second.id()?;
    let (id, other) = (link.id()?, prog());
    let text =
        format!("update link {id}: the link holds program {holds}, not the one to be replaced");
    let error = refused(link.update_from(&third, &first), libc::EPERM, &text);
    let holds = Cause::UnexpectedProgram { prog_id: holds };
    assert_eq!(error.cause(), Some(&holds));
    assert_eq!(prog_id()?, second.id()?);
    link.update_from(&third, &second)?;
    assert_eq!(prog_id()?, third.id()?);
    let attach_type = match target {
        LinkTarget::Cgroup { attach_type, .. }
        | LinkTarget::Netns { attach_type, .. }
        | LinkTarget::Tcx { attach_type, .. }
        | LinkTarget::Netkit { attach_type, .. }
        | LinkTarget::Sockmap { attach_type, .. } => attach_type,
        _ => AttachType::XDP,
    };
    let why = wrong_prog_type_message(&other, attach_type, &first.info()?.prog_type.to_string());
    let text = format!("update link {id}: {why}");
    refused(link.update(&other), libc::EINVAL, &text);
    refused(link.update_from(&other, &third), libc::EINVAL, &text);
    assert_eq!(prog_id()?, third.id()?);
    assert_eq!(link.info()?.target, target);

    // Whoever detaches it, it is detached for all.
    clone.detach()?;
    for link in [&link, &clone] {
        for update in [link.update(&first), link.update_from(&first, &third)] {
            let text = format!("update link {id}: the link is detached");
            let error = refused(update, libc::ENOLINK, &text);
            assert_eq!(error.cause(), Some(&Cause::Detached));
        }
    }
    let info = link.info()?;
    assert_eq!((info.link_type, info.id), (kind, clone.id()?));
    let nothing = match target {
        LinkTarget::Netns { attach_type, .. } => LinkTarget::Netns {
            netns_ino: 0,
            attach_type,
        },
        LinkTarget::Cgroup { attach_type, .. } => LinkTarget::Cgroup {
            cgroup_id: 0,
            attach_type,
        },
        LinkTarget::Xdp { .. } => LinkTarget::Xdp { ifindex: 0 },
        LinkTarget::Tcx { attach_type, .. } => LinkTarget::Tcx {
            ifindex: 0,
            attach_type,
        },
        LinkTarget::Netkit { attach_type, .. } => LinkTarget::Netkit {
            ifindex: 0,
            attach_type,
        },
        LinkTarget::Sockmap { attach_type, .. } => LinkTarget::Sockmap {
            map_id: 0,
            attach_type,
        },
        other => other,
    };
    assert_eq!(info.target, nothing);
    assert!(info.target.is_gone());
    link.detach()?;
    // The place is free.
    let again = spec.create(&first)?;
    assert_eq!(again.info()?.target, target);
    Ok(())
}
